"""What alert rules look like on the wire, and how what is sent becomes a decision about one."""

from collections.abc import Collection
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from app.access.api import Body, Name
from app.alerts.limit_shapes import (
    MAX_THRESHOLDS,
    Amount,
    Threshold,
    Window,
    amount_of,
    distinct,
    shown_amount,
)
from app.alerts.messages import scope_out
from app.alerts.rules import AlertRuleRow
from app.core.clock import EPOCH
from app.core.errors import InvalidInput
from app.core.money import NANOS_PER_USD

Type = Literal["threshold", "forecast", "anomaly", "recovered"]
Metric = Literal["calls", "tokens", "cost_usd"]

SENSITIVITY = 6
LEAST = {"cost_usd": NANOS_PER_USD, "calls": 100, "tokens": 100_000}
"""What a use must exceed the usual one by, if a rule does not say."""


class _Kind(NamedTuple):
    """Which fields rules of a type have besides name, scope and enabled, and which they need."""

    takes: Collection[str]
    needs: Collection[str]
    windows: Collection[str]
    scopes: Collection[str]


_RUNNING = ("day", "week", "month", "billing_period")
_ANY = ("minute", "hour", *_RUNNING, "lifetime")
_ALL_SCOPES = ("user", "team", "plan", "all")
_KINDS = {
    "threshold": _Kind(
        ("metric", "window", "amount", "thresholds"),
        ("metric", "window", "amount"),
        _ANY,
        _ALL_SCOPES,
    ),
    "forecast": _Kind(("limit_id", "metric", "window"), (), _RUNNING, _ALL_SCOPES),
    "recovered": _Kind(("limit_id", "metric", "window"), (), _ANY, _ALL_SCOPES),
    "anomaly": _Kind(
        ("metric", "window", "sensitivity", "min_amount"), (), ("hour", "day"), _ALL_SCOPES
    ),
}
_SPECIAL = ("limit_id", "metric", "window", "amount", "thresholds", "sensitivity", "min_amount")


class RuleScope(Body):
    """Whose use: exactly one of these."""

    user_id: Name | None = None
    team_id: Name | None = None
    plan_id: Name | None = None
    all: Literal[True] | None = None

    @model_validator(mode="after")
    def one(self) -> "RuleScope":
        """Exactly one is given."""
        if sum(value is not None for value in dict(self).values()) != 1:
            raise PydanticCustomError(
                "scope", "exactly one of user_id, team_id, plan_id and all: true"
            )
        return self

    @property
    def key(self) -> str:
        """The scope as rules are stored under."""
        for kind in ("user", "team", "plan"):
            if (value := getattr(self, f"{kind}_id")) is not None:
                return f"{kind}:{value}"
        return "all"


class RulePatch(Body):
    """What shall change of a rule; its type stays. Null takes a choice back, where one may."""

    name: Name = Field(default="")
    scope: RuleScope = Field(default_factory=RuleScope.model_construct)
    limit_id: Annotated[
        Name | None, Field(description="forecast and recovered: of this limit only.")
    ] = None
    metric: Annotated[Metric | None, Field(description="Default of an anomaly: cost_usd.")] = None
    window: Annotated[
        Window | None, Field(description="Of an anomaly hour or day (default); else a limit's.")
    ] = None
    amount: Amount = Field(default=None, description="threshold: a count or US dollars.")
    thresholds: (
        Annotated[
            list[Threshold],
            Field(max_length=MAX_THRESHOLDS, min_length=1),
            AfterValidator(distinct),
        ]
        | None
    ) = Field(default=None, description="threshold: percent of the amount; default 80, 90, 100.")
    sensitivity: Annotated[
        int | None,
        Field(ge=1, le=100, description="anomaly: so many median deviations above usual."),
    ] = None
    min_amount: Amount = Field(
        default=None, description="anomaly: what the use must exceed the usual one by."
    )
    enabled: bool = True

    model_config = ConfigDict(json_schema_extra={"examples": [{"enabled": False}]})


class RuleIn(RulePatch):
    """An alert rule. Which fields it takes depends on its type."""

    name: Name
    type: Type
    scope: RuleScope

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "team budget",
                    "type": "threshold",
                    "scope": {"team_id": "research"},
                    "metric": "cost_usd",
                    "window": "month",
                    "amount": "500.00",
                    "thresholds": [50, 80, 100],
                },
                {
                    "name": "odd spend",
                    "type": "anomaly",
                    "scope": {"all": True},
                    "window": "day",
                    "sensitivity": 6,
                    "min_amount": "25.00",
                },
                {
                    "name": "no forecasts",
                    "type": "forecast",
                    "scope": {"all": True},
                    "enabled": False,
                },
            ]
        }
    )


class RuleOut(BaseModel):
    """An alert rule; what its type does not have is null. Money is a decimal string.

    The `limit_id` of a threshold is the limit that it is.
    """

    id: str
    name: str
    type: Type
    scope: dict[str, str | bool]
    limit_id: str | None
    metric: str | None
    window: str | None
    amount: int | str | None
    thresholds: list[int] | None
    sensitivity: int | None
    min_amount: int | str | None
    enabled: bool
    created_at: datetime

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "rule_4f0c9a1b2c3d4e5f",
                    "name": "team budget",
                    "type": "threshold",
                    "scope": {"team_id": "research"},
                    "limit_id": "lim_9a1b2c3d4e5f4f0c",
                    "metric": "cost_usd",
                    "window": "month",
                    "amount": "500",
                    "thresholds": [50, 80, 100],
                    "sensitivity": None,
                    "min_amount": None,
                    "enabled": True,
                    "created_at": "2026-11-20T12:30:00Z",
                }
            ]
        }
    )


def new_rule(body: RuleIn) -> AlertRuleRow:
    """The rule that a body asks for, with what its type has by default.

    Raises:
        InvalidInput: a field does not belong to the type, is missing, or does not suit it.
    """
    nothing = AlertRuleRow("", "", body.type, "all", *(None,) * 4, (), None, None, True, EPOCH)
    return decided(body, nothing)


def decided(body: RulePatch, known: AlertRuleRow) -> AlertRuleRow:
    """What the body decides, on top of what is known.

    Raises:
        InvalidInput: as `new_rule`, or an amount is not said in a new metric.
    """
    sent, kind = body.model_fields_set, _KINDS[known.type]
    for field in _SPECIAL:
        if field in sent and field not in kind.takes and getattr(body, field) is not None:
            raise InvalidInput.at(f"/{field}", f"a rule of type {known.type} has no `{field}`")
    given: dict[str, Any] = {
        field: getattr(body, field)
        for field in ("name", "limit_id", "metric", "window", "sensitivity", "enabled")
        if field in sent and field not in set(_SPECIAL) - set(kind.takes)
    }
    if "scope" in sent:
        given["scope_key"] = body.scope.key
    if known.type == "anomaly":
        given |= _of_anomaly(known._replace(**given))
    rule = known._replace(**given)
    money = (rule.metric == "cost_usd") != (known.metric == "cost_usd")
    for field in {"amount", "min_amount"} & set(kind.takes):
        if field in sent:
            changed: dict[str, Any] = {field: _amount(getattr(body, field), rule.metric, field)}
            rule = rule._replace(**changed)
        elif money and getattr(known, field) is not None:
            raise InvalidInput.at(f"/{field}", f"say the {field} in the new metric too")
    if known.type == "anomaly" and rule.min_amount is None:
        rule = rule._replace(min_amount=LEAST[rule.metric or "cost_usd"])
    if known.type == "threshold":
        asked = tuple(body.thresholds or ()) if "thresholds" in sent else known.thresholds
        rule = rule._replace(thresholds=asked or (80, 90, 100))
    for field in kind.needs:
        if getattr(rule, field) is None:
            raise InvalidInput.at(f"/{field}", f"a rule of type {rule.type} needs `{field}`")
    if rule.window is not None and rule.window not in kind.windows:
        raise InvalidInput.at("/window", f"one of {', '.join(kind.windows)}")
    return rule


def _of_anomaly(rule: AlertRuleRow) -> dict[str, Any]:
    return {
        "metric": rule.metric or "cost_usd",
        "window": rule.window or "day",
        "sensitivity": rule.sensitivity or SENSITIVITY,
    }


def _amount(value: int | str | None, metric: str | None, field: str) -> int | None:
    try:
        return amount_of(value, metric or "cost_usd")
    except InvalidInput as error:
        raise InvalidInput.at(f"/{field}", error.extra["errors"][0]["detail"]) from None


def rule_out(rule: AlertRuleRow) -> RuleOut:
    """A rule for the wire."""
    metric = rule.metric or ""
    facts = rule._asdict() | {
        "scope": scope_out(rule.scope_key),
        "amount": shown_amount(rule.amount, metric),
        "min_amount": shown_amount(rule.min_amount, metric),
        "thresholds": list(rule.thresholds) if rule.type == "threshold" else None,
    }
    del facts["scope_key"]
    return RuleOut(**facts)
