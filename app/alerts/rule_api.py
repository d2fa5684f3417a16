"""Endpoints for alert rules, and for where a user's limits are heading."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from app.access.api import (
    Cursor,
    Id,
    JsonRoute,
    Name,
    Page,
    PageSize,
    Place,
    UserId,
    page_of,
    place_of,
)
from app.access.deps import Db, Manager, Note, Now, Reader
from app.access.guard import require_user
from app.access.keys import Key
from app.alerts.limit_api import SEEDING_S
from app.alerts.messages import scope_out
from app.alerts.notices import shown
from app.alerts.outlook import Outlook
from app.alerts.prospects import prospects
from app.alerts.rule_shapes import RuleIn, RuleOut, RulePatch, Type, decided, new_rule, rule_out
from app.alerts.rules import change_rule, create_rule, delete_rule, get_rule, list_rules
from app.core.errors import Forbidden, InvalidInput
from app.core.money import to_usd
from app.db.engine import Tx

router = APIRouter(route_class=JsonRoute, tags=["alert rules"])
KIND = "alert_rule"


def _require_scope(key: Key, scope_key: str) -> None:
    if key.user_id is not None and scope_key != f"user:{key.user_id}":
        raise Forbidden("this key is bound to one user, and may set that user's alert rules only")


@router.post("/v1/alert-rules", status_code=201)
async def create(body: RuleIn, key: Manager, db: Db, clock: Now, note: Note) -> RuleOut:
    """Make a rule: of what to tell, or with `enabled: false` of what not to.

    A `threshold` is a limit that only warns, made with it; what it has reached already is told at
    once. `forecast` and `recovered` extend or switch off what is told of blocking limits anyway.
    """
    rule = new_rule(body)
    _require_scope(key, rule.scope_key)

    async def work(tx: Tx) -> RuleOut:
        made = rule_out(await create_rule(tx, rule, clock.now()))
        await note(tx, "create", KIND, made.id, None, made)
        return made

    return await db.write(work, alone=True, within_s=SEEDING_S)


@router.get("/v1/alert-rules")
async def list_all(
    key: Reader,
    db: Db,
    user_id: Annotated[Name | None, Query()] = None,
    team_id: Annotated[Name | None, Query()] = None,
    plan_id: Annotated[Name | None, Query()] = None,
    kind: Annotated[Type | None, Query(alias="type")] = None,
    cursor: Cursor = None,
    limit: PageSize = 100,
) -> Page[RuleOut]:
    """Rules in the order they were made; of one scope or type, if one is named."""
    scopes = {"user": user_id, "team": team_id, "plan": plan_id}
    named = [f"{scope}:{of}" for scope, of in scopes.items() if of is not None]
    if len(named) > 1:
        raise InvalidInput.at(f"/{named[1].partition(':')[0]}_id", "name one scope at most")
    scope_key = named[0] if named else None
    if key.user_id is not None:
        scope_key = scope_key or f"user:{key.user_id}"
        _require_scope(key, scope_key)
    after = place_of(cursor)
    rows = await db.read(
        lambda tx: list_rules(tx, scope_key=scope_key, kind=kind, after=after, limit=limit + 1)
    )
    page, more = page_of(rows, limit, lambda rule: Place(rule.created_at, rule.id))
    return Page(items=[rule_out(rule) for rule in page], next_cursor=more)


@router.get("/v1/alert-rules/{rule_id}")
async def get(rule_id: Id, key: Reader, db: Db) -> RuleOut:
    """One rule."""
    return rule_out(await db.read(lambda tx: get_rule(tx, rule_id, key.user_id)))


@router.patch("/v1/alert-rules/{rule_id}")
async def patch(
    rule_id: Id, body: RulePatch, key: Manager, db: Db, clock: Now, note: Note
) -> RuleOut:
    """Change what is named of a rule; a threshold's limit changes as limits do."""

    async def work(tx: Tx) -> RuleOut:
        before = await get_rule(tx, rule_id, key.user_id)
        rule = decided(body, before)
        _require_scope(key, rule.scope_key)
        after = rule_out(await change_rule(tx, before, rule, clock.now()))
        await note(tx, "change", KIND, rule_id, rule_out(before), after)
        return after

    return await db.write(work, alone=True, within_s=SEEDING_S)


@router.delete("/v1/alert-rules/{rule_id}", status_code=204)
async def delete(rule_id: Id, key: Manager, db: Db, clock: Now, note: Note) -> None:
    """Remove a rule, and the limit that a threshold is; the alerts that it raised stay readable."""

    async def work(tx: Tx) -> None:
        known = await get_rule(tx, rule_id, key.user_id)
        await delete_rule(tx, known, clock.now())
        await note(tx, "delete", KIND, rule_id, rule_out(known), None)

    await db.write(work, alone=True)


# ---- where a user's limits are heading --------------------------------------------------------

_LIMIT: dict[str, Any] = {
    "id": "lim_4f0c9a1b2c3d4e5f",
    "name": "monthly budget",
    "metric": "cost_usd",
    "window": "month",
    "scope": {"user_id": "alice"},
    "limit": "100",
    "used": "61.2",
    "projected": "142.8",
    "passes_at": "2026-11-21T14:10:00Z",
    "resets_at": "2026-12-01T00:00:00Z",
    "basis": "weekday_hours",
}


class LimitForecastOut(BaseModel):
    """A limit in its running window: what will be used at its end, and when the limit is passed.

    `basis` is `weekday_hours` (the mean of each hour of the week over up to four weeks),
    `window_mean` (the pace of the window so far), `recent_mean` (the pace before it) or
    `too_little`: then `projected` is null. `passes_at` is null where the window ends before.
    """

    id: str
    name: str
    metric: str
    window: str
    scope: dict[str, str | bool]
    limit: int | str | None
    used: int | str
    projected: int | str | None
    passes_at: datetime | None
    resets_at: datetime
    basis: str


class ForecastOut(BaseModel):
    """Where a user is heading: the cost of the billing period, and every limit of a day or more."""

    billing_period: str
    period_ends_at: datetime
    cost_usd: str
    projected_cost_usd: str | None
    basis: str
    limits: list[LimitForecastOut]
    as_of: datetime

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "billing_period": "2026-11",
                    "period_ends_at": "2026-12-01T00:00:00Z",
                    "cost_usd": "61.2",
                    "projected_cost_usd": "142.8",
                    "basis": "weekday_hours",
                    "limits": [_LIMIT],
                    "as_of": "2026-11-20T12:30:00Z",
                }
            ]
        }
    )


def _limit_out(one: Outlook) -> LimitForecastOut:
    rule, found = one.rule, one.projection
    total = found.total_at_end
    return LimitForecastOut(
        id=rule.id,
        name=rule.name,
        metric=rule.metric,
        window=rule.window,
        scope=scope_out(rule.scope_key),
        limit=None if rule.amount is None else shown(rule.metric, rule.amount),
        used=shown(rule.metric, one.used),
        projected=None if total is None else shown(rule.metric, total),
        passes_at=found.passes_at,
        resets_at=one.window.end,
        basis=found.basis,
    )


@router.get("/v1/users/{user_id:path}/forecast")
async def forecast_of_user(user_id: UserId, key: Reader, db: Db, clock: Now) -> ForecastOut:
    """What a user will have used when the period and the windows of their limits end, as it looks.

    Only what is recorded is extrapolated; a user never seen has used nothing.
    """
    require_user(key, user_id)
    now = clock.now()
    found = await db.read(lambda tx: prospects(tx, user_id, now))
    total = found.projection.total_at_end
    return ForecastOut(
        billing_period=found.period.key,
        period_ends_at=found.period.end,
        cost_usd=to_usd(found.cost_nanos),
        projected_cost_usd=None if total is None else to_usd(total),
        basis=found.projection.basis,
        limits=[_limit_out(one) for one in found.limits],
        as_of=now,
    )
