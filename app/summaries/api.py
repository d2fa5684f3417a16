"""The endpoint for a user's billing periods, each with what was used in it."""

from datetime import datetime
from typing import Any, NamedTuple

from fastapi import APIRouter
from pydantic import BaseModel

from app.access.api import Cursor, PageSize, Place, cursor_of, place_of
from app.access.deps import Db, Now, Reader
from app.access.guard import require_user
from app.core.clock import MICROSECOND
from app.core.money import to_usd
from app.db.engine import Tx
from app.plans.known import Agreement, agreement_of, load
from app.plans.periods import Period, calendar_months
from app.plans.subscriptions import default_plan
from app.summaries.trends import NONE_USED, Used, first_used, periods_until, used_in
from app.usage.api import UserId, UserRoute, legible

router = APIRouter(route_class=UserRoute)

_USED: dict[str, Any] = {
    "key": "2026-11",
    "start": "2026-11-01T00:00:00Z",
    "end": "2026-12-01T00:00:00Z",
    "plan_id": "plan_default",
    "current": True,
    "total_calls": 12,
    "total_tokens": 18000,
    "input_tokens": 14400,
    "output_tokens": 3600,
    "total_cost_usd": "0.00432",
    "avg_latency_ms": 812.5,
    "error_rate": 8.33,
    "unpriced_calls": 0,
}


class PeriodUsedOut(BaseModel):
    """A billing period, `start <= t < end`, with what was used in it; `current` runs now."""

    key: str
    start: datetime
    end: datetime
    plan_id: str
    current: bool
    total_calls: int
    total_tokens: int
    input_tokens: int
    output_tokens: int
    total_cost_usd: str
    avg_latency_ms: float | None
    error_rate: float
    unpriced_calls: int

    model_config = {"json_schema_extra": {"example": _USED}}


class PeriodsOut(BaseModel):
    """A page of periods; `next_cursor` is null on the last one."""

    items: list[PeriodUsedOut]
    next_cursor: str | None

    model_config = {"json_schema_extra": {"example": {"items": [_USED], "next_cursor": None}}}


class Listed(NamedTuple):
    """Some periods of a user, newest first, and whether there are older ones."""

    agreement: Agreement
    periods: list[tuple[Period, Used]]
    more: bool


@router.get("/v1/users/{user_id:path}/periods", tags=["subscriptions"])
async def list_periods(
    db: Db,
    clock: Now,
    key: Reader,
    user_id: UserId,
    cursor: Cursor = None,
    limit: PageSize = 100,
) -> PeriodsOut:
    """A user's billing periods, newest first: from the running one to the first one used.

    None is left out, also where nothing was used. A user never seen has the calendar month that
    runs, and nothing is written.
    """
    require_user(key, user_id)
    legible(user_id, "user_id")
    now, before = clock.now(), place_of(cursor)
    listed = await db.read(lambda tx: _listed(tx, user_id, now, before, limit))
    more = None
    if listed.more:
        last = listed.periods[-1][0]
        more = cursor_of(last.start, last.key)
    return PeriodsOut(
        items=[_out(listed.agreement, *one, now) for one in listed.periods], next_cursor=more
    )


async def _listed(tx: Tx, user_id: str, now: datetime, before: Place | None, limit: int) -> Listed:
    agreement = (await load(tx, [user_id])).get(user_id)
    if agreement is None:
        agreement = agreement_of([calendar_months((await default_plan(tx)).id)])
    first = await first_used(tx, user_id) or now
    if before is not None and before.at <= first:
        return Listed(agreement, [], False)
    moment = now if before is None else min(now, before.at - MICROSECOND)
    found = periods_until(agreement, moment, first, limit + 1)
    shown = found[:limit]
    models = await used_in(tx, user_id, shown[::-1])
    used = [sum(by_model.values(), NONE_USED) for by_model in models[::-1]]
    return Listed(agreement, list(zip(shown, used, strict=True)), len(found) > limit)


def _out(agreement: Agreement, period: Period, used: Used, now: datetime) -> PeriodUsedOut:
    return PeriodUsedOut(
        **period._asdict(),
        plan_id=agreement.terms_at(period.start).plan_id,
        current=period.start <= now < period.end,
        total_calls=used.calls,
        total_tokens=used.tokens,
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        total_cost_usd=to_usd(used.cost_nanos),
        avg_latency_ms=used.avg_latency_ms,
        error_rate=used.error_rate,
        unpriced_calls=used.unpriced_calls,
    )
