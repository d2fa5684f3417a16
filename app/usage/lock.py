"""Hold a user's events still: who changes what is charged of one waits for the others."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Select, Text, cast, select

from app.db.engine import Tx
from app.db.types import table_of
from app.usage.ledger import Entry, entry_of
from app.usage.tables import UsageEvent, WrappedEvent
from app.usage.wrapped import WrappedRow, event_hash, find_wrapped

_log, _wrapped = table_of(UsageEvent).c, table_of(WrappedEvent).c
_columns = tuple(
    cast(_log[name], Text).label(name) if name in ("tags", "context") else _log[name]
    for name in Entry._fields
)


class Kept(NamedTuple):
    """What is kept of an event: its row of the log, or what is left where that was wrapped."""

    row: Entry | None
    left: WrappedRow | None

    @property
    def body_hash(self) -> int:
        found = self.row or self.left
        if found is None:
            raise RuntimeError("an event is kept in one way or the other")
        return found.body_hash


async def lock_events(tx: Tx, user_id: str, event_ids: Sequence[str]) -> dict[str, Kept]:
    """What is kept of those of these events that exist, by id; it stays so until `tx` ends."""
    found = {one.event_id: Kept(one, None) for one in await _rows(tx, user_id, event_ids)}
    missing = sorted(set(event_ids) - found.keys())
    if not missing:
        return found
    await _lock_wrapped(tx, user_id, missing)
    keys = [(user_id, event_id) for event_id in missing]
    left = await find_wrapped(tx, keys)
    found |= {event_id: Kept(None, row) for (_, event_id), row in left.items()}
    gone = [event_id for event_id in missing if (user_id, event_id) not in left]
    # what was put back into the log between the two looks
    found |= {one.event_id: Kept(one, None) for one in await _rows(tx, user_id, gone)}
    return found


async def look_at_events(tx: Tx, user_id: str, event_ids: Sequence[str]) -> dict[str, Kept]:
    """As `lock_events`, of a snapshot: nothing is held still."""
    rows = await tx.fetch(_query(user_id, event_ids))
    found = {one.event_id: Kept(one, None) for one in map(entry_of, rows)}
    keys = [(user_id, event_id) for event_id in event_ids if event_id not in found]
    for (_, event_id), row in (await find_wrapped(tx, keys)).items():
        found[event_id] = Kept(None, row)
    return found


def _query(user_id: str, event_ids: Sequence[str]) -> Select[*tuple[Any, ...]]:
    query = select(*_columns).where(_log.user_id == user_id, _log.event_id.in_(sorted(event_ids)))
    return query.order_by(_log.event_id)


async def _rows(tx: Tx, user_id: str, event_ids: Sequence[str]) -> list[Entry]:
    if not event_ids:
        return []
    rows = await tx.fetch(_query(user_id, event_ids).with_for_update())
    return [entry_of(row) for row in rows]


async def _lock_wrapped(tx: Tx, user_id: str, event_ids: Sequence[str]) -> None:
    if tx.dialect == "sqlite":  # has one writer at a time
        return
    hashes = sorted(map(event_hash, event_ids))
    query = select(_wrapped.event_hash).where(
        _wrapped.user_id == user_id, _wrapped.event_hash.in_(hashes)
    )
    await tx.fetch(query.order_by(_wrapped.event_hash).with_for_update())
