"""Endpoints for alerts, and for limits: making or changing one may raise some."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
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

from app.access.api import (
    Body,
    Cursor,
    Id,
    JsonRoute,
    Name,
    Page,
    PageSize,
    Place,
    Provider,
    UserId,
    page_of,
    place_of,
    printable,
)
from app.access.deps import Db, Manager, Now, Reader
from app.access.guard import require_user
from app.access.keys import Key
from app.alerts.crossings import crossings
from app.alerts.outbox import raise_alerts
from app.alerts.read import AlertRow, forget_alerts, list_alerts, mark_read
from app.core.errors import Forbidden, InvalidInput
from app.core.money import CEILING, NANOS_PER_USD, from_usd, to_usd
from app.db.engine import Tx
from app.limits.known import Rule
from app.limits.manage import (
    Draft,
    change_limit,
    create_limit,
    delete_limit,
    draft_of,
    get_limit,
    list_limits,
)

router = APIRouter(route_class=JsonRoute)
SEEDING_S = 120.0
"""Reading the log for a wide limit may take longer than an ordinary change; ingest waits."""
MAX_THRESHOLDS = 20


# ---- limits: shapes ---------------------------------------------------------------------------

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


def _distinct(values: list[int]) -> list[int]:
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
        for kind, field in _FIELDS.items():
            if (value := getattr(self, field)) is not None:
                return f"{kind}:{value}"
        return "all"


_FIELDS = {"plan": "plan_id", "user": "user_id", "team": "team_id", "key": "api_key_id"}


class MatchIn(Body):
    """Which of these calls; what is left out matches every call."""

    provider: Provider | None = None
    model: Name | None = None
    endpoint: Endpoint | None = None


class LimitPatch(Body):
    """What shall change of a limit. Another scope, match, metric or window counts anew."""

    name: Name = Field(default="")
    scope: ScopeIn = Field(default_factory=ScopeIn.model_construct)
    match: MatchIn = Field(default_factory=MatchIn)
    metric: Metric = Field(default="calls")
    window: Window = Field(default="month")
    amount: Amount = Field(default=None)
    action: Action = "block"
    thresholds: Annotated[
        list[Threshold], Field(max_length=MAX_THRESHOLDS), AfterValidator(_distinct)
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
                    "window": "billing_period",
                    "amount": "100.00",
                    "action": "block",
                    "thresholds": [80, 90, 100],
                }
            ]
        }
    )


class LimitOut(BaseModel):
    """One limit; money is a decimal string."""

    id: str
    name: str
    scope: dict[str, str | bool]
    match: dict[str, str]
    metric: str
    window: str
    amount: int | str | None
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
                    "window": "billing_period",
                    "amount": "100",
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
    for field in {"name", "window", "action"} & sent:
        given[field] = getattr(body, field)
    if "scope" in sent:
        given["scope_key"] = body.scope.key
    if "match" in sent:
        given |= body.match.model_dump()
    if "thresholds" in sent:
        given["thresholds"] = tuple(body.thresholds)
    return Draft(**given) if known is None else known._replace(**given)


def limit_out(rule: Rule) -> LimitOut:
    """A limit for the wire."""
    kind, _, of = rule.scope_key.partition(":")
    match = {"provider": rule.provider, "model": rule.model, "endpoint": rule.endpoint}
    amount: int | str | None = rule.amount
    if amount is not None and rule.metric == "cost_usd":
        amount = to_usd(rule.amount or 0)
    return LimitOut(
        id=rule.id,
        name=rule.name,
        scope={"all": True} if kind == "all" else {_FIELDS[kind]: of},
        match={name: value for name, value in match.items() if value is not None},
        metric=rule.metric,
        window=rule.window,
        amount=amount,
        action=rule.action,
        thresholds=list(rule.thresholds),
        created_at=rule.created_at,
    )


# ---- limits: endpoints ------------------------------------------------------------------------


def _require_scope(key: Key, scope_key: str) -> None:
    """A key bound to a user may only decide about that user's own limits."""
    if key.user_id is not None and scope_key != f"user:{key.user_id}":
        raise Forbidden("this key is bound to one user, and may set that user's limits only")


@router.post("/v1/limits", status_code=201, tags=["limits"])
async def create(body: LimitIn, key: Manager, db: Db, clock: Now) -> LimitOut:
    """Make a limit. It counts from the start of the windows that run now, at once and exactly.

    Thresholds that are reached already raise their alerts.
    """
    draft = drafted(body, None)
    _require_scope(key, draft.scope_key)
    now = clock.now()

    async def work(tx: Tx) -> Rule:
        rule, steps = await create_limit(tx, draft, now)
        await raise_alerts(tx, crossings(steps), now)
        return rule

    return limit_out(await db.write(work, alone=True, within_s=SEEDING_S))


@router.get("/v1/limits", tags=["limits"])
async def list_all(
    key: Reader,
    db: Db,
    user_id: Annotated[Name | None, Query()] = None,
    plan_id: Annotated[Name | None, Query()] = None,
    team_id: Annotated[Name | None, Query()] = None,
    api_key_id: Annotated[Name | None, Query()] = None,
    cursor: Cursor = None,
    limit: PageSize = 100,
) -> Page[LimitOut]:
    """Limits in the order they were made; of one scope, if one is named."""
    scopes = {"user": user_id, "plan": plan_id, "team": team_id, "key": api_key_id}
    named = [f"{kind}:{of}" for kind, of in scopes.items() if of is not None]
    if len(named) > 1:
        raise InvalidInput.at(f"/{_FIELDS[named[1].partition(':')[0]]}", "name one scope at most")
    scope_key = named[0] if named else None
    if key.user_id is not None:
        scope_key = scope_key or f"user:{key.user_id}"
        _require_scope(key, scope_key)
    after = place_of(cursor)
    rows = await db.read(lambda tx: list_limits(tx, scope_key, after, limit + 1))
    shown, more = page_of(rows, limit, lambda rule: Place(rule.created_at, rule.id))
    return Page(items=[limit_out(rule) for rule in shown], next_cursor=more)


@router.get("/v1/limits/{limit_id}", tags=["limits"])
async def get(limit_id: Id, key: Reader, db: Db) -> LimitOut:
    """One limit."""
    return limit_out(await db.read(lambda tx: get_limit(tx, limit_id, key.user_id)))


@router.patch("/v1/limits/{limit_id}", tags=["limits"])
async def patch(limit_id: Id, body: LimitPatch, key: Manager, db: Db, clock: Now) -> LimitOut:
    """Change what is named of a limit.

    Another scope, match, metric or window makes it count anew from the start of the windows that
    run now, and its alerts in them go. Another amount or other thresholds leave the counters as
    they are, and raise the alerts that are newly reached.
    """
    return await _change(limit_id, body, set(body.model_fields_set), key, db, clock)


@router.put("/v1/limits/{limit_id}", tags=["limits"])
async def put(limit_id: Id, body: LimitIn, key: Manager, db: Db, clock: Now) -> LimitOut:
    """Decide everything about a limit anew; what is left out gets its default."""
    return await _change(limit_id, body, None, key, db, clock)


async def _change(
    limit_id: str, body: LimitPatch, sent: set[str] | None, key: Key, db: Db, clock: Now
) -> LimitOut:
    now = clock.now()

    async def work(tx: Tx) -> Rule:
        known = await get_limit(tx, limit_id, key.user_id)
        draft = drafted(body, None if sent is None else draft_of(known))
        _require_scope(key, draft.scope_key)
        changed = await change_limit(tx, known, draft, now)
        if changed.anew:
            await forget_alerts(tx, known, changed.rule, now)
        await raise_alerts(tx, crossings(changed.steps), now)
        return changed.rule

    return limit_out(await db.write(work, alone=True, within_s=SEEDING_S))


@router.delete("/v1/limits/{limit_id}", status_code=204, tags=["limits"])
async def delete(limit_id: Id, key: Manager, db: Db, clock: Now) -> None:
    """Remove a limit and its counters; the alerts that it raised stay readable."""
    now = clock.now()

    async def work(tx: Tx) -> None:
        await delete_limit(tx, await get_limit(tx, limit_id, key.user_id), now)

    await db.write(work, alone=True)


# ---- alerts -----------------------------------------------------------------------------------


class AlertOut(BaseModel):
    """One threshold that was reached. Severity is info below 90, warning below 100, then error."""

    id: str
    limit_id: str
    type: str
    severity: str
    threshold: int
    title: str
    message: str
    billing_period: str
    created_at: datetime
    read: bool

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "019a9f5e-0000-7000-8000-000000000000",
                    "limit_id": "lim_4f0c9a1b2c3d4e5f",
                    "type": "usage_warning",
                    "severity": "info",
                    "threshold": 80,
                    "title": "80% used: monthly budget",
                    "message": "You have used $81.2 of $100 openai spend this billing period, "
                    "which is 80% or more of the limit.",
                    "billing_period": "2026-11",
                    "created_at": "2026-11-20T12:30:00Z",
                    "read": False,
                }
            ]
        }
    )


def alert_out(alert: AlertRow) -> AlertOut:
    """An alert for the wire."""
    facts = alert._asdict()
    del facts["scope_key"], facts["read_at"]
    return AlertOut(**facts, read=alert.read_at is not None)


@router.get("/v1/users/{user_id:path}/alerts", tags=["alerts"])
async def list_of_user(
    user_id: UserId,
    key: Reader,
    db: Db,
    unread: bool = False,
    cursor: Cursor = None,
    limit: PageSize = 100,
) -> Page[AlertOut]:
    """A user's alerts, newest first; `unread=true` leaves out those that were read."""
    require_user(key, user_id)
    before = place_of(cursor)
    scope_key = f"user:{user_id}"
    rows = await db.read(
        lambda tx: list_alerts(tx, scope_key, unread=unread, before=before, limit=limit + 1)
    )
    shown, more = page_of(rows, limit, lambda alert: Place(alert.created_at, alert.id))
    return Page(items=[alert_out(alert) for alert in shown], next_cursor=more)


@router.post("/v1/alerts/{alert_id}/read", tags=["alerts"])
async def read(alert_id: Id, key: Reader, db: Db, clock: Now) -> AlertOut:
    """Mark an alert as read; again changes nothing."""
    now = clock.now()
    return alert_out(await db.write(lambda tx: mark_read(tx, alert_id, key.user_id, now)))
