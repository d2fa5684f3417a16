"""Endpoints for limits: making, changing or raising one may raise alerts."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.access.api import Cursor, Id, JsonRoute, Name, Page, PageSize, Place, page_of, place_of
from app.access.deps import Db, Manager, Note, Now, Reader
from app.access.keys import Key
from app.alerts.crossings import crossings
from app.alerts.limit_shapes import (
    FIELDS,
    LimitIn,
    LimitOut,
    LimitPatch,
    RaiseIn,
    RaiseOut,
    amount_of,
    drafted,
    limit_out,
    number_of,
    raise_out,
)
from app.alerts.outbox import raise_alerts
from app.alerts.read import forget_alerts
from app.core.errors import Forbidden, InvalidInput
from app.db.engine import Tx
from app.limits.manage import (
    change_limit,
    create_limit,
    delete_limit,
    draft_of,
    end_raise,
    get_limit,
    list_limits,
    list_raises,
    raise_limit,
)

router = APIRouter(route_class=JsonRoute)
KIND = "limit"
SEEDING_S = 120.0
"""Reading the log for a wide limit may take longer than an ordinary change; ingest waits."""


def _require_scope(key: Key, scope_key: str) -> None:
    """A key bound to a user may only decide about that user's own limits."""
    if key.user_id is not None and scope_key != f"user:{key.user_id}":
        raise Forbidden("this key is bound to one user, and may set that user's limits only")


@router.post("/v1/limits", status_code=201, tags=["limits"])
async def create(body: LimitIn, key: Manager, db: Db, clock: Now, note: Note) -> LimitOut:
    """Make a limit. It counts from the start of the windows that run now, at once and exactly.

    Thresholds that are reached already raise their alerts.
    """
    draft = drafted(body, None)
    _require_scope(key, draft.scope_key)

    async def work(tx: Tx) -> LimitOut:
        now = clock.now()
        rule, steps = await create_limit(tx, draft, now)
        await raise_alerts(tx, crossings(steps, now), now)
        made = limit_out(rule, now)
        await note(tx, "create", KIND, rule.id, None, made)
        return made

    return await db.write(work, alone=True, within_s=SEEDING_S)


@router.get("/v1/limits", tags=["limits"])
async def list_all(
    key: Reader,
    db: Db,
    clock: Now,
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
        raise InvalidInput.at(f"/{FIELDS[named[1].partition(':')[0]]}", "name one scope at most")
    scope_key = named[0] if named else None
    if key.user_id is not None:
        scope_key = scope_key or f"user:{key.user_id}"
        _require_scope(key, scope_key)
    after = place_of(cursor)
    rows = await db.read(lambda tx: list_limits(tx, scope_key, after, limit + 1))
    shown, more = page_of(rows, limit, lambda rule: Place(rule.created_at, rule.id))
    now = clock.now()
    return Page(items=[limit_out(rule, now) for rule in shown], next_cursor=more)


@router.get("/v1/limits/{limit_id}", tags=["limits"])
async def get(limit_id: Id, key: Reader, db: Db, clock: Now) -> LimitOut:
    """One limit."""
    rule = await db.read(lambda tx: get_limit(tx, limit_id, key.user_id))
    return limit_out(rule, clock.now())


@router.patch("/v1/limits/{limit_id}", tags=["limits"])
async def patch(
    limit_id: Id, body: LimitPatch, key: Manager, db: Db, clock: Now, note: Note
) -> LimitOut:
    """Change what is named of a limit.

    Another scope, match, metric, window or time zone makes it count anew from the start of the
    windows that run now, and its alerts in them go. Another amount or other thresholds leave the
    counters as they are, and raise the alerts that are newly reached.
    """
    return await _change(limit_id, body, set(body.model_fields_set), key, db, clock, note)


@router.put("/v1/limits/{limit_id}", tags=["limits"])
async def put(
    limit_id: Id, body: LimitIn, key: Manager, db: Db, clock: Now, note: Note
) -> LimitOut:
    """Decide everything about a limit anew; what is left out gets its default."""
    return await _change(limit_id, body, None, key, db, clock, note)


async def _change(
    limit_id: str,
    body: LimitPatch,
    sent: set[str] | None,
    key: Key,
    db: Db,
    clock: Now,
    note: Note,
) -> LimitOut:
    async def work(tx: Tx) -> LimitOut:
        now = clock.now()
        known = await get_limit(tx, limit_id, key.user_id)
        draft = drafted(body, None if sent is None else draft_of(known))
        _require_scope(key, draft.scope_key)
        changed = await change_limit(tx, known, draft, now)
        if changed.anew:
            await forget_alerts(tx, known, changed.rule, now)
        await raise_alerts(tx, crossings(changed.steps, now), now)
        after = limit_out(changed.rule, now)
        await note(tx, "change", KIND, limit_id, limit_out(known, now), after)
        return after

    return await db.write(work, alone=True, within_s=SEEDING_S)


@router.delete("/v1/limits/{limit_id}", status_code=204, tags=["limits"])
async def delete(limit_id: Id, key: Manager, db: Db, clock: Now, note: Note) -> None:
    """Remove a limit and its counters; the alerts that it raised stay readable."""
    now = clock.now()

    async def work(tx: Tx) -> None:
        known = await get_limit(tx, limit_id, key.user_id)
        await delete_limit(tx, known, now)
        await note(tx, "delete", KIND, limit_id, limit_out(known, now), None)

    await db.write(work, alone=True)


@router.post("/v1/limits/{limit_id}/raise", tags=["limits"])
async def post_raise(
    limit_id: Id, body: RaiseIn, key: Manager, db: Db, clock: Now, note: Note
) -> LimitOut:
    """Put another amount in force until an instant; a raise before is replaced.

    It holds at once and everywhere, and ends by itself. Null is unlimited; a lower amount than the
    standing one is allowed, and tightens the limit for that while.
    """

    async def work(tx: Tx) -> LimitOut:
        now = clock.now()
        known = await get_limit(tx, limit_id, key.user_id)
        if body.until <= now:
            raise InvalidInput.at("/until", "must lie ahead")
        amount = amount_of(body.amount, known.metric)
        rule, steps = await raise_limit(tx, known, amount, body.until, body.reason, now)
        await raise_alerts(tx, crossings(steps, now), now)
        after = limit_out(rule, now)
        await note(tx, "raise", KIND, limit_id, limit_out(known, now), after)
        return after

    return await db.write(work, alone=True)


@router.delete("/v1/limits/{limit_id}/raise", tags=["limits"])
async def delete_raise(limit_id: Id, key: Manager, db: Db, clock: Now, note: Note) -> LimitOut:
    """End a raise before its time; without one in force nothing changes."""

    async def work(tx: Tx) -> LimitOut:
        now = clock.now()
        known = await get_limit(tx, limit_id, key.user_id)
        rule, steps = await end_raise(tx, known, now)
        await raise_alerts(tx, crossings(steps, now), now)
        after = limit_out(rule, now)
        await note(tx, "end_raise", KIND, limit_id, limit_out(known, now), after)
        return after

    return await db.write(work, alone=True)


@router.get("/v1/limits/{limit_id}/raises", tags=["limits"])
async def list_of_limit(
    limit_id: Id, key: Reader, db: Db, cursor: Cursor = None, limit: PageSize = 100
) -> Page[RaiseOut]:
    """Every raise of a limit and every early end of one, newest first."""
    place = place_of(cursor)
    below = None if place is None else number_of(place.id)

    async def work(tx: Tx) -> Page[RaiseOut]:
        await get_limit(tx, limit_id, key.user_id)
        rows = await list_raises(tx, limit_id, below, limit + 1)
        shown, more = page_of(rows, limit, lambda row: Place(row.created_at, str(row.number)))
        return Page(items=[raise_out(row) for row in shown], next_cursor=more)

    return await db.read(work)
