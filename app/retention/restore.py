"""Put an archive's rows back into the log, as if they had never left it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import update

from app.core.errors import Conflict, Damaged
from app.db.due import Remove
from app.db.engine import Database, Tx
from app.db.types import instant, table_of
from app.db.upsert import Append, Find
from app.retention.archives import ArchiveRow, get_archive
from app.retention.facts import facts_of
from app.retention.fold import SUMMED
from app.retention.store import ArchiveStore
from app.retention.tables import Archive
from app.retention.verify import disagreements
from app.summaries.tables import WrappedUsage
from app.usage.ledger import Entry
from app.usage.tables import UsageAdjustment, UsageEvent, WrappedEvent
from app.usage.wrapped import WrappedIds, event_hash

RESTORING_S = 30.0
"""How long the transaction may take."""
AT_ONCE = 500
"""After so many rows everybody else has a turn; the transaction goes on."""

_LEFT = ("body_hash", "timestamp", "recorded_at", "cost_nanos", "cost_status")
_CHARGE = ("cost_nanos", "cost_status", "price_ref")
_KEY = ("user_id", "event_id")
_remove_groups = Remove(table_of(WrappedUsage), ("user_id", "archive_id"), SUMMED)
_remove_ids = Remove(
    table_of(WrappedEvent),
    ("user_id", "event_hash"),
    ("user_id", "event_hash", "archive_id", *_LEFT),
)
_append = Append(table_of(UsageEvent), Entry._fields, _KEY)
_charges = Find(
    table_of(UsageAdjustment), _KEY, (*_KEY, "revision", *(f"new_{name}" for name in _CHARGE))
)
_archive = table_of(Archive).c


Also = Callable[[Tx, ArchiveRow, ArchiveRow], Awaitable[None]]
"""What else is done in the transaction that puts rows back: told the archive before and after."""


async def restore(
    db: Database,
    store: ArchiveStore,
    archive_id: str,
    now: datetime,
    also: Also | None = None,
) -> ArchiveRow:
    """Move the rows of an archive back into the log; one that was restored stays as it is.

    Totals, limits and alerts stay as they are: they count the rows in either place. The file stays.

    Raises:
        NotFound: there is no such archive.
        Conflict: it is not finished.
        Damaged: its file is missing, another one, or not what was wrapped; `problems` says which.
        Unavailable: its file cannot be read now.
    """
    row = await db.read(lambda tx: get_archive(tx, archive_id))
    if _is_back(row):
        return row
    try:
        entries = await store.read(row.path, row.sha256)
    except Damaged as error:
        raise _damaged(archive_id, [error.detail]) from None
    problems = disagreements(row, facts_of(entries))
    if problems:
        raise _damaged(archive_id, problems)

    async def work(tx: Tx) -> ArchiveRow:
        done = await _put_back(tx, archive_id, entries, now)
        if also is not None:
            await also(tx, row, done)
        return done

    return await db.write(work, within_s=RESTORING_S)


def _is_back(row: ArchiveRow) -> bool:
    if row.state not in ("sealed", "restored"):
        raise Conflict("this archive is not finished", state=row.state)
    return row.state == "restored"


def _damaged(archive_id: str, problems: list[str]) -> Damaged:
    return Damaged("the file is not what was archived", id=archive_id, problems=problems)


async def _put_back(
    tx: Tx, archive_id: str, archived: Sequence[Entry], now: datetime
) -> ArchiveRow:
    sealed = (_archive.id == archive_id, _archive.state == "sealed")
    done = update(Archive).where(*sealed).values(state="restored", changed_at=now)
    if await tx.run(done) != 1:
        row = await get_archive(tx, archive_id)
        if _is_back(row):
            return row
    ids = WrappedIds()
    await ids.reload(tx, set())
    entries = await _as_charged(tx, sorted(archived, key=_key_of))
    for start in range(0, len(entries), AT_ONCE):
        part = entries[start : start + AT_ONCE]
        if await _append(tx, part) is not None:
            raise _damaged(archive_id, ["an event of it stands in the log already"])
        await _forget(tx, archive_id, part, ids.known_from)
        await asyncio.sleep(0)
    sums = [0] * len(SUMMED)
    users = sorted({entry.user_id for entry in entries})
    for row_sums in await _remove_groups(tx, [(user_id, archive_id) for user_id in users]):
        sums = [held + more for held, more in zip(sums, row_sums, strict=True)]
    expected = facts_of(entries).sums
    differing = [
        name for name, summed in zip(SUMMED, sums, strict=True) if summed != expected[name]
    ]
    if differing:
        raise _damaged(archive_id, [f"{name}: wrapped usage sums to another" for name in differing])
    return await get_archive(tx, archive_id)


def _key_of(entry: Entry) -> tuple[str, str]:
    return entry[:2]


async def _as_charged(tx: Tx, entries: Sequence[Entry]) -> list[Entry]:
    """The entries with what they are charged at present: what the newest adjustment says."""
    newest: dict[tuple[str, str], tuple[Any, ...]] = {}
    for user_id, event_id, revision, *charge in await _charges(tx, [one[:2] for one in entries]):
        key = (user_id, event_id)
        newest[key] = max(newest.get(key, (0,)), (revision, *charge), key=lambda one: one[0])
    return [
        entry._replace(**dict(zip(_CHARGE, newest[entry[:2]][1:], strict=True)))
        if entry[:2] in newest
        else entry
        for entry in entries
    ]


async def _forget(
    tx: Tx, archive_id: str, entries: Sequence[Entry], known_from: datetime | None
) -> None:
    """Remove what was left of these entries, once it is seen to be theirs."""
    by_hash = {(entry.user_id, event_hash(entry.event_id)): entry for entry in entries}
    found = {}
    for user_id, digest, of, body_hash, at, recorded_at, *charge in await _remove_ids(
        tx, sorted(by_hash)
    ):
        left = (of, body_hash, instant(at), instant(recorded_at), *charge)
        found[user_id, bytes(digest)] = left
    for key, entry in by_hash.items():
        expected = (archive_id, *(getattr(entry, name) for name in _LEFT))
        forgotten = known_from is not None and entry.timestamp < known_from
        if found.get(key) != expected and not (key not in found and forgotten):
            raise _damaged(archive_id, ["an event of it is not the one that was wrapped"])
