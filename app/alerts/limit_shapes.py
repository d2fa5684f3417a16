"""What limits look like on the wire, and how what is sent becomes a decision about one."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.access.api import Body, Instant, Name, Provider, printable
from app.core.errors import InvalidInput
from app.core.money import CEILING, NANOS_PER_USD, from_usd, to_usd
from app.limits.known import Rule
from app.limits.manage import Draft, RaiseRow
from app.plans.periods import zone

MAX_THRESHOLDS = 20

Metric = Literal["calls", "tokens", "input_tokens", "output_tokens", "cost_usd"]
Window = Literal["minute", "hour", "day", "week", "month", "billing_period", "lifetime"]
Action = Literal["block", "warn", "shadow"]
Threshold = Annotated[int, Field(ge=1, le=1000)]


def _amount(value: object) -> int | str | None:
    if value is None or (isinstance(value, str) and len(value) <= 40):
        return value
    if type(value) is int and 0 <= value <= CEILING:
        return value
    raise PydanticCustomError(
        "amount", "a whole number from 0 to 2^63-1, a decimal string of USD, or null"
    )


def distinct(values: list[int]) -> list[int]:
    """The thresholds in order of height, each there once."""
    if len(set(values)) != len(values):
        raise PydanticCustomError("thresholds", "each threshold once")
    return sorted(values)


Amount = Annotated[
    int | str | None,
    PlainValidator(_amount),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": CEILING},
                {"type": "string", "description": "US dollars, for cost_usd"},
                {"type": "null", "description": "unlimited"},
            ]
        }
    ),
]
Endpoint = Annotated[
    str, StringConstraints(min_length=1, max_length=512), AfterValidator(printable)
]


def _known_zone(value: str) -> str:
    try:
        zone(value)
    except KeyError:
        raise PydanticCustomError("timezone", "no such IANA time zone") from None
    return value


TimeZone = Annotated[
    str, StringConstraints(min_length=1, max_length=64), AfterValidator(_known_zone)
]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=512), AfterValidator(printable)]


class ScopeIn(Body):
    """Whose calls: exactly one of these."""

    plan_id: Name | None = None
    user_id: Name | None = None
    team_id: Name | None = None
    api_key_id: Name | None = None
    all: Literal[True] | None = None

    @model_validator(mode="after")
    def one(self) -> "ScopeIn":
        """Exactly one is given."""
        if sum(value is not None for value in dict(self).values()) != 1:
            raise PydanticCustomError(
                "scope", "exactly one of plan_id, user_id, team_id, api_key_id and all: true"
            )
        return self

    @property
    def key(self) -> str:
        """The scope as limits are stored under."""
        for kind, field in FIELDS.items():
            if (value := getattr(self, field)) is not None:
                return f"{kind}:{value}"
        return "all"


FIELDS = {"plan": "plan_id", "user": "user_id", "team": "team_id", "key": "api_key_id"}


class MatchIn(Body):
    """Which of these calls; what is left out matches every call."""

    provider: Provider | None = None
    model: Name | None = None
    endpoint: Endpoint | None = None


class LimitPatch(Body):
    """What shall change of a limit. Another scope, match, metric, window or zone counts anew."""

    name: Name = Field(default="")
    scope: ScopeIn = Field(default_factory=ScopeIn.model_construct)
    match: MatchIn = Field(default_factory=MatchIn)
    metric: Metric = Field(default="calls")
    window: Window = Field(default="month")
    timezone: TimeZone = Field(
        default="UTC",
        description="IANA name; of minutes to months. A billing period has the subscription's.",
    )
    amount: Amount = Field(default=None)
    action: Action = "block"
    thresholds: Annotated[
        list[Threshold], Field(max_length=MAX_THRESHOLDS), AfterValidator(distinct)
    ] = Field(default_factory=lambda: [80, 90, 100])

    model_config = ConfigDict(json_schema_extra={"examples": [{"amount": "150.00"}]})


class LimitIn(LimitPatch):
    """A limit. `amount` is a count, or US dollars for `cost_usd`; null is unlimited, 0 is none."""

    name: Name
    scope: ScopeIn
    metric: Metric
    window: Window
    amount: Amount

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "monthly budget",
                    "scope": {"user_id": "alice"},
                    "match": {"provider": "openai"},
                    "metric": "cost_usd",
                    "window": "month",
                    "timezone": "Europe/Berlin",
                    "amount": "100.00",
                    "action": "block",
                    "thresholds": [80, 90, 100],
                }
            ]
        }
    )


class LimitOut(BaseModel):
    """One limit; money is a decimal string.

    `amount` is in force now; while the limit is raised, `standing_amount` is what it goes back to
    at `raised_until`.
    """

    id: str
    name: str
    scope: dict[str, str | bool]
    match: dict[str, str]
    metric: str
    window: str
    timezone: str
    amount: int | str | None
    standing_amount: int | str | None
    raised_until: datetime | None
    action: str
    thresholds: list[int]
    created_at: datetime

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "lim_4f0c9a1b2c3d4e5f",
                    "name": "monthly budget",
                    "scope": {"user_id": "alice"},
                    "match": {"provider": "openai"},
                    "metric": "cost_usd",
                    "window": "month",
                    "timezone": "Europe/Berlin",
                    "amount": "250",
                    "standing_amount": "100",
                    "raised_until": "2026-11-24T00:00:00Z",
                    "action": "block",
                    "thresholds": [80, 90, 100],
                    "created_at": "2026-11-20T12:30:00Z",
                }
            ]
        }
    )


def amount_of(value: int | str | None, metric: str) -> int | None:
    """An amount as it is stored: a count, or nano-dollars.

    Raises:
        InvalidInput: it does not suit the metric.
    """
    if value is None:
        return None
    if metric != "cost_usd":
        if isinstance(value, str):
            raise InvalidInput.at("/amount", "a whole number is expected for this metric")
        return value
    if isinstance(value, int):
        if value * NANOS_PER_USD > CEILING:
            raise InvalidInput.at("/amount", "money beyond $9.2 billion cannot be counted")
        return value * NANOS_PER_USD
    try:
        nanos = from_usd(value)
    except ValueError as error:
        raise InvalidInput.at("/amount", str(error)) from None
    if nanos < 0:
        raise InvalidInput.at("/amount", "an amount is not negative")
    return nanos


def drafted(body: LimitPatch, known: Draft | None) -> Draft:
    """What the body decides, on top of what is known; everything if nothing is.

    Raises:
        InvalidInput: the amount does not suit the metric, or is missing for a new kind of metric.
    """
    sent = body.model_fields_set if known else set(LimitPatch.model_fields)
    metric = body.metric if known is None or "metric" in sent else known.metric
    if known is not None and "amount" not in sent:
        if (metric == "cost_usd") != (known.metric == "cost_usd") and known.amount is not None:
            raise InvalidInput.at("/amount", "say the amount in the new metric too")
        amount = known.amount
    else:
        amount = amount_of(body.amount, metric)
    given: dict[str, Any] = {"metric": metric, "amount": amount}
    for field in {"name", "window", "timezone", "action"} & sent:
        given[field] = getattr(body, field)
    if "scope" in sent:
        given["scope_key"] = body.scope.key
    if "match" in sent:
        given |= body.match.model_dump()
    if "thresholds" in sent:
        given["thresholds"] = tuple(body.thresholds)
    return Draft(**given) if known is None else known._replace(**given)


def shown_amount(amount: int | None, metric: str) -> int | str | None:
    """An amount for the wire: a count, or a decimal string of US dollars."""
    return to_usd(amount) if amount is not None and metric == "cost_usd" else amount


def limit_out(rule: Rule, now: datetime) -> LimitOut:
    """A limit for the wire, as it is in force now."""
    kind, _, of = rule.scope_key.partition(":")
    match = {"provider": rule.provider, "model": rule.model, "endpoint": rule.endpoint}
    in_force = rule.in_force(now)
    return LimitOut(
        id=rule.id,
        name=rule.name,
        scope={"all": True} if kind == "all" else {FIELDS[kind]: of},
        match={name: value for name, value in match.items() if value is not None},
        metric=rule.metric,
        window=rule.window,
        timezone=rule.timezone,
        amount=shown_amount(in_force.amount, rule.metric),
        standing_amount=shown_amount(rule.amount, rule.metric),
        raised_until=in_force.raised_until,
        action=rule.action,
        thresholds=list(rule.thresholds),
        created_at=rule.created_at,
    )


class RaiseIn(Body):
    """Another amount for a while: higher, lower, or null for unlimited."""

    amount: Amount
    until: Instant
    reason: Reason | None = None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"amount": "250.00", "until": "2026-11-24T00:00:00Z", "reason": "launch week"}
            ]
        }
    )


class RaiseOut(BaseModel):
    """One raise of a limit, or the `end` of one before its time."""

    kind: str
    amount: int | str | None
    until: datetime
    reason: str | None
    created_at: datetime

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "kind": "raise",
                    "amount": "250",
                    "until": "2026-11-24T00:00:00Z",
                    "reason": "launch week",
                    "created_at": "2026-11-20T12:30:00Z",
                }
            ]
        }
    )


def raise_out(row: RaiseRow) -> RaiseOut:
    """A raise for the wire, its amount in the unit of the metric that the limit then had."""
    facts = row._asdict() | {"amount": shown_amount(row.amount, row.metric)}
    del facts["number"], facts["metric"]
    return RaiseOut(**facts)


def number_of(cursor_id: str) -> int:
    """The number in a cursor of raises.

    Raises:
        InvalidInput: not a cursor of that list.
    """
    if not cursor_id.isdecimal() or len(cursor_id) > 9:
        raise InvalidInput.at("/cursor", "not a cursor of this list")
    return int(cursor_id)
