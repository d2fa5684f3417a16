"""What becomes of a hold without an event: released, extended, or expired and tidied away."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import literal, or_, select, tuple_

from app.core.clock import Clock
from app.core.errors import HoldClosed, InvalidInput, NotFound
from app.db.clock import database_now
from app.db.due import Remove
from app.db.engine import Tx
from app.db.types import table_of
from app.db.upsert import Exchange
from app.limits.counters import count_and_lock
from app.limits.hold_judge import HoldKey
from app.limits.holds import (
    Ending,
    HoldRow,
    add_parts,
    counter_of,
    end,
    find_holds,
    find_parts,
    free,
    hold_of,
    parts_of,
    remove_parts,
)
from app.limits.tables import Hold
from app.metrics.names import HOLDS

NAME = "tidy-holds"
EVERY_S = 60.0
AT_ONCE = 500
KEPT = timedelta(days=35)
"""How long one can still read of a hold that has ended, after it would have expired."""
_ENDED = ("settled", "released", "expired")
_COLUMNS = tuple(getattr(Hold, name) for name in HoldRow._fields)

_extend = Exchange(table_of(Hold), ("user_id", "id"), ("state", "expires_at"))
_expire = Exchange(
    table_of(Hold), ("user_id", "id"), ("state", "closed_at", "expires_at"), ("shares",)
)
_forget = Remove(table_of(Hold), ("user_id", "id"), ("id",))


async def get_hold(tx: Tx, hold_id: str, user_id: str | None) -> HoldRow:
    """The hold of that id; without a user, the only one.

    Raises:
        NotFound: there is none.
        InvalidInput: several users have one.
    """
    query = select(*_COLUMNS).where(Hold.id == hold_id)
    if user_id is not None:
        query = query.where(Hold.user_id == user_id)
    rows = await tx.fetch(query.limit(2))
    if not rows:
        raise NotFound("no such hold", id=hold_id)
    if len(rows) > 1:
        raise InvalidInput.at("/user_id", "several users have a hold of this id: say whose")
    return hold_of(rows[0])


async def list_open(
    tx: Tx, user_id: str, now: datetime, after: tuple[datetime, str] | None, limit: int
) -> list[HoldRow]:
    """At most `limit` open holds of a user, newest first."""
    query = select(*_COLUMNS).where(Hold.user_id == user_id, Hold.state == "open")
    query = query.where(Hold.expires_at > now)
    if after is not None:
        last = tuple_(literal(after[0], Hold.created_at.type), literal(after[1]))
        query = query.where(tuple_(Hold.created_at, Hold.id) < last)
    query = query.order_by(Hold.created_at.desc(), Hold.id.desc()).limit(limit)
    return [hold_of(row) for row in await tx.fetch(query)]


async def release(tx: Tx, key: HoldKey, clock: Clock) -> HoldRow:
    """End a hold whose call did not happen. One that ended without an event stays as it is.

    Raises:
        NotFound: there is none.
        HoldClosed: it was settled.
    """
    now = await database_now(tx, clock)
    state = "expired" if (await _standing(tx, key)).state_at(now) == "expired" else "released"
    await free(tx, await end(tx, {key: Ending(state)}, now))
    row = await _standing(tx, key)
    if row.state == "settled":
        raise HoldClosed("this hold was settled", state=row.state)
    return row


async def extend(tx: Tx, key: HoldKey, ttl_s: int, clock: Clock) -> HoldRow:
    """Keep an open hold for so long from now.

    Raises:
        NotFound: there is none.
        HoldClosed: it has ended, or expired.
    """
    while True:
        row, now = await _standing(tx, key), await database_now(tx, clock)
        if row.state_at(now) != "open":
            raise HoldClosed("this hold has ended", state=row.state_at(now))
        until = now + timedelta(seconds=ttl_s)
        if await _extend(tx, [(*key, "open", row.expires_at, "open", until)]):
            break
    parts = await find_parts(tx, parts_of(*key, row.shares, row.expires_at))
    await count_and_lock(tx, {}, {counter_of(part) for part in parts})
    now = await database_now(tx, clock)  # whoever had the counters may have swept it meanwhile
    if row.expires_at <= now:
        raise HoldClosed("this hold has ended", state="expired")
    held = await remove_parts(tx, parts)
    await add_parts(tx, [(*counter_of(row), until, *key, row[3]) for row in held])
    return row._replace(expires_at=until)


async def _standing(tx: Tx, key: HoldKey) -> HoldRow:
    row = (await find_holds(tx, [key])).get(key)
    if row is None:
        raise NotFound("no such hold", id=key[1])
    return row


# ---- the job ------------------------------------------------------------------------------------


async def is_untidy(tx: Tx, clock: Clock) -> bool:
    """Whether a hold has expired that nobody noted, or ended so long ago that it is forgotten."""
    now = await database_now(tx, clock)
    found = or_(
        (Hold.state == "open") & (Hold.expires_at <= now),
        Hold.state.in_(_ENDED) & (Hold.expires_at <= now - KEPT),
    )
    return await tx.first(select(Hold.id).where(found).limit(1)) is not None


async def tidy(tx: Tx, clock: Clock) -> int:
    """Note some holds that have expired and forget some that are old; how many there were.

    Nothing waits for it: what has expired holds nothing at once, wherever it is read.
    """
    now = await database_now(tx, clock)
    rows = await _some(tx, ("open",), now)
    expired = await _expire(
        tx,
        [
            (*(row.user_id, row.id, "open", None, row.expires_at), "expired", now, row.expires_at)
            for row in rows
        ],
    )
    if expired:
        tx.note(HOLDS, "expired", by=len(expired))
    until = {(row.user_id, row.id): row.expires_at for row in rows}
    await free(
        tx,
        {
            (user_id, hold_id): parts_of(user_id, hold_id, shares, until[user_id, hold_id])
            for user_id, hold_id, shares in expired
        },
    )
    old = await _some(tx, _ENDED, now - KEPT)
    await _forget(tx, sorted((row.user_id, row.id) for row in old))
    return len(rows) + len(old)


async def _some(tx: Tx, states: Sequence[str], until: datetime) -> list[HoldRow]:
    query = select(*_COLUMNS).where(Hold.state.in_(states), Hold.expires_at <= until)
    return [hold_of(row) for row in await tx.fetch(query.limit(AT_ONCE))]
