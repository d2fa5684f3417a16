"""The pages of one user: usage, alerts, subscription and periods, holds."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from app.access.api import Cursor, Place, page_of, place_of
from app.access.api import cursor_of as access_cursor
from app.access.deps import Db, Now
from app.alerts.read import AlertRow, list_alerts
from app.dashboard import shown
from app.dashboard.deps import Seen
from app.dashboard.frame import csv_answer, page
from app.dashboard.span import span_from
from app.dashboard.user_around import USER, allowed, around, home_of
from app.dashboard.user_event_tables import PERIODS, hold_facts, period_rows
from app.dashboard.user_page import (
    Agreed,
    UserUsage,
    count_unread,
    read_agreed,
    read_holds,
    read_user_usage,
)
from app.dashboard.user_tables import MEASURES, MODELS, Measure, gauges, model_rows, trend
from app.db.engine import Tx
from app.limits.holds import HoldRow
from app.summaries.sums import percent
from app.usage.api import UserId, UserRoute
from app.usage.read import MAX_CURSOR, cursor_of
from app.usage.read import Place as LogPlace
from app.usage.read import place_of as log_place_of

router = APIRouter(route_class=UserRoute)
ALERTS, MOST_PERIODS, CSV_PERIODS, HOLDS = 50, 12, 120, 50
LogCursor = Annotated[str | None, Query(max_length=MAX_CURSOR)]


@router.get(USER + "/alerts")
async def alerts(viewer: Seen, db: Db, user_id: UserId, cursor: Cursor = None) -> Response:
    """A user's alerts, newest first."""
    allowed(viewer, user_id)
    before, scope = place_of(cursor), f"user:{user_id}"

    async def work(tx: Tx) -> tuple[list[AlertRow], int]:
        rows = await list_alerts(tx, scope, unread=False, before=before, limit=ALERTS + 1)
        return rows, await count_unread(tx, user_id)

    rows, unread = await db.read(work)
    found, more = page_of(rows, ALERTS, lambda one: Place(one.created_at, one.id))
    here = f"{home_of(user_id)}/alerts"
    return page(
        viewer,
        "user_alerts.html",
        **around(viewer, user_id, "alerts", unread),
        alerts=found,
        unread_alerts=unread,
        first=here if cursor else None,
        next=f"{here}?{urlencode({'cursor': more})}" if more else None,
    )


@router.get(USER + "/periods")
async def periods(
    viewer: Seen,
    db: Db,
    clock: Now,
    user_id: UserId,
    cursor: Cursor = None,
    done: str = "",
    format: str = "",
) -> Response:
    """What a user agreed to, and their billing periods, newest first."""
    allowed(viewer, user_id)
    before, now = place_of(cursor), clock.now()
    size = CSV_PERIODS if format == "csv" else MOST_PERIODS

    async def work(tx: Tx) -> tuple[Agreed, int]:
        start = None if before is None else before.at
        found = await read_agreed(tx, user_id, now, start, size)
        return found, await count_unread(tx, user_id)

    found, unread = await db.read(work)
    if format == "csv":
        return csv_answer(f"periods-{user_id}", PERIODS, period_rows(found, raw=True))
    here = f"{home_of(user_id)}/periods"
    more = None if found.next is None else access_cursor(found.next, "-")
    return page(
        viewer,
        "user_periods.html",
        **around(viewer, user_id, "periods", unread),
        agreed=found,
        columns=PERIODS,
        rows=period_rows(found),
        csv=f"{here}?format=csv",
        first=here if cursor else None,
        next=f"{here}?{urlencode({'cursor': more})}" if more else None,
        done=done,
    )


@router.get(USER + "/holds")
async def holds(
    viewer: Seen, db: Db, clock: Now, user_id: UserId, cursor: LogCursor = None, done: str = ""
) -> Response:
    """A user's open holds, newest first: what each holds, and when it gives that back."""
    allowed(viewer, user_id)
    after = None if cursor is None else log_place_of(cursor)

    async def work(tx: Tx) -> tuple[list[HoldRow], bool, int]:
        found = await read_holds(tx, user_id, after, HOLDS, clock)
        return *found, await count_unread(tx, user_id)

    rows, more, unread = await db.read(work)
    here = f"{home_of(user_id)}/holds"
    last = cursor_of(LogPlace(rows[-1].created_at, rows[-1].id)) if more else None
    return page(
        viewer,
        "user_holds.html",
        **around(viewer, user_id, "holds", unread),
        holds=[hold_facts(row) for row in rows],
        first=here if cursor else None,
        next=f"{here}?cursor={last}" if last else None,
        done=done,
    )


# ---- usage --------------------------------------------------------------------------------------


@router.get(USER)
async def usage(
    request: Request,
    viewer: Seen,
    db: Db,
    clock: Now,
    user_id: UserId,
    show: str = "spend",
    format: str = "",
) -> Response:
    """How a user's limits stand, and what they used in the range, by model."""
    allowed(viewer, user_id)
    span = span_from(request.query_params, clock.now())
    measure: Measure = next((one for one in MEASURES if one == show), "spend")

    async def work(tx: Tx) -> tuple[UserUsage, int]:
        return await read_user_usage(tx, user_id, span, clock), await count_unread(tx, user_id)

    found, unread = await db.read(work)
    if format == "csv":
        rows = model_rows(found.models, measure, raw=True)
        return csv_answer(f"models-{user_id}", MODELS, rows)
    used, before = found.used, found.before
    return page(
        viewer,
        "user.html",
        **around(viewer, user_id, "usage", unread, span.query),
        span=span,
        keep={"show": measure} if measure != "spend" else {},
        found=found,
        used=used,
        before=before,
        changes={
            "spend": shown.change_of(used.cost_nanos, before.cost_nanos),
            "calls": shown.change_of(used.calls, before.calls),
            "tokens": shown.change_of(used.tokens, before.tokens),
        },
        cached=percent(used.cache_read_tokens, used.input_tokens),
        gauges=gauges(found.states),
        measure=measure,
        measures=MEASURES,
        trend=trend(found, measure, span.grain),
        columns=MODELS,
        rows=model_rows(found.models, measure),
        csv=f"{home_of(user_id)}?{span.query}&format=csv",
    )
