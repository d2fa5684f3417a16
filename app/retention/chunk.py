"""Take rows out of the log in one transaction with all that is left in their place.

Before it their file is written and synced; an `archives` row in the state `writing` stands from
before that. So wherever a process dies, the rows are in the log or sealed in an archive, and a file
that belongs to no sealed archive is known by its row.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import insert, select, update

from app.core.errors import Conflict
from app.db.due import Remove
from app.db.engine import Tx
from app.db.lease import keep
from app.db.types import table_of
from app.db.upsert import Insert
from app.metrics.names import ARCHIVED, WRAPPED
from app.retention.fold import COLUMNS, Folded
from app.retention.tables import Archive
from app.summaries.tables import WrappedUsage
from app.usage.ledger import Entry
from app.usage.tables import UsageEvent, WrappedEvent
from app.usage.wrapped import WrappedRow, event_hash

LEASE_NAME = "wrapping"
LEASE = timedelta(seconds=180)
AT_ONCE = 500
"""After so many rows everybody else has a turn; the transaction goes on."""

_KEY = ("user_id", "event_id")
_RATED = ("body_hash", "cost_nanos", "cost_status", "price_ref")
_remove = Remove(table_of(UsageEvent), _KEY, (*_KEY, *_RATED))
_insert_groups = Insert(table_of(WrappedUsage), COLUMNS)
_insert_ids = Insert(table_of(WrappedEvent), ("user_id", "event_hash", *WrappedRow._fields))
_archive = table_of(Archive).c


class Moved(Exception):
    """Rows are no longer in the log as they were archived: nothing of this may be committed."""


class Chunk(NamedTuple):
    """Rows of one month, the archive that they go to, and what they add up to."""

    archive_id: str
    month: datetime
    trigger: str
    entries: Sequence[Entry]
    folded: Folded

    @property
    def path(self) -> str:
        return f"month={self.month:%Y-%m}/{self.archive_id}.parquet"


async def begin_writing(tx: Tx, chunk: Chunk, now: datetime) -> None:
    """Note that the file is about to be written."""
    entries = chunk.entries
    row: dict[str, Any] = {
        "id": chunk.archive_id,
        "state": "writing",
        "created_at": now,
        "changed_at": now,
        "month": chunk.month,
        "path": chunk.path,
        "trigger": chunk.trigger,
        "users": len({entry.user_id for entry in entries}),
        "events": len(entries),
        "bytes": 0,
        "sha256": "",
        "first_at": min(entry.timestamp for entry in entries),
        "last_at": max(entry.timestamp for entry in entries),
        "last_recorded_at": max(entry.recorded_at for entry in entries),
        "sums": chunk.folded.sums,
    }
    await tx.run(insert(Archive), [row])


async def seal(
    tx: Tx, chunk: Chunk, *, path: str, size: int, sha256: str, holder: str, now: datetime
) -> None:
    """Take the chunk's rows out of the log and keep what is left of them; done twice it is once.

    Raises:
        Moved: rows have gone, or are charged differently by now; roll back.
        Conflict: another process wraps instead of this one; roll back.
    """
    if await _is_sealed(tx, chunk.archive_id):
        return  # the answer of an earlier attempt was lost
    if not await keep(tx, LEASE_NAME, holder, now, LEASE):
        raise Conflict("another process wraps by now")
    ours = (_archive.id == chunk.archive_id, _archive.state == "writing")
    values = {"state": "sealed", "changed_at": now, "path": path, "bytes": size, "sha256": sha256}
    if await tx.run(update(Archive).where(*ours).values(**values)) != 1:
        if await _is_sealed(tx, chunk.archive_id):  # that attempt had not yet ended before
            return
        raise Conflict("this archive was given up by another process")
    await _insert_groups(tx, chunk.folded.rows)
    entries = sorted(chunk.entries, key=lambda entry: entry[:2])
    for start in range(0, len(entries), AT_ONCE):
        part = entries[start : start + AT_ONCE]
        await _insert_ids(tx, sorted(_left_of(entry, chunk.archive_id) for entry in part))
        gone = await _remove(tx, [entry[:2] for entry in part])
        if {tuple(row) for row in gone} != {_as_archived(entry) for entry in part}:
            raise Moved
        await asyncio.sleep(0)
    tx.note(WRAPPED, by=len(entries))
    tx.note(ARCHIVED)


async def _is_sealed(tx: Tx, archive_id: str) -> bool:
    row = await tx.first(select(_archive.state).where(_archive.id == archive_id))
    return row is not None and row[0] == "sealed"


def _left_of(entry: Entry, archive_id: str) -> tuple[Any, ...]:
    return (
        *(entry.user_id, event_hash(entry.event_id), entry.body_hash, entry.timestamp),
        *(entry.recorded_at, entry.cost_nanos, entry.cost_status, archive_id),
    )


def _as_archived(entry: Entry) -> tuple[Any, ...]:
    rated = (entry.body_hash, entry.cost_nanos, entry.cost_status, entry.price_ref)
    return (*entry[:2], *rated)


# ---- what was begun and never sealed ----------------------------------------------------------


class Unsealed(NamedTuple):
    """An archive that was begun and cannot be sealed any more."""

    id: str
    path: str


async def give_up(tx: Tx, archive_id: str | None, now: datetime) -> list[Unsealed]:
    """Have nobody seal this archive, or with None any that is not sealed; those to be removed.

    Only then may their files go: until here somebody might have sealed them.
    """
    doomed = [_archive.state == "writing"]
    if archive_id is not None:
        doomed.append(_archive.id == archive_id)
    await tx.run(update(Archive).where(*doomed).values(state="dropping", changed_at=now))
    query = select(_archive.id, _archive.path).where(_archive.state == "dropping")
    return [Unsealed(*row) for row in await tx.fetch(query.order_by(_archive.id))]
