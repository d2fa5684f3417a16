"""Prove that archives hold what was wrapped: file, manifest, row, sums and ids agree."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, func, select

from app.core.errors import Conflict
from app.db.engine import Database, Tx
from app.db.types import table_of
from app.retention.archives import ArchiveRow, get_archive
from app.retention.facts import Facts, Seen
from app.retention.fold import SUMMED
from app.retention.store import ArchiveStore
from app.retention.tables import Archive
from app.summaries.reconcile import MAX_DIFFERENCES, Difference, Verdict, amount
from app.summaries.sources import WRAPPED, exact_sums, joined
from app.summaries.tables import MEASURES, WrappedUsage
from app.usage.tables import WrappedEvent
from app.usage.wrapped import WrappedIds

IDENTITY = "archives_equal_wrapped"
_archive = table_of(Archive).c
_group, _event = table_of(WrappedUsage).c, table_of(WrappedEvent).c
_STATED = ("users", "events", "first_at", "last_at", "last_recorded_at")


class Verified(NamedTuple):
    """What came of looking at one archive; it is whole where there are no `problems`."""

    archive: ArchiveRow
    problems: list[str]
    events: int
    sums: Mapping[str, int]

    @property
    def ok(self) -> bool:
        return not self.problems


async def verify(db: Database, store: ArchiveStore, archive_id: str) -> Verified:
    """Compare an archive's file with its manifest, its row, and what was kept of its rows.

    Raises:
        NotFound: there is no such archive.
        Conflict: its file is being written.
        Unavailable: the file cannot be read now.
    """
    row = await db.read(lambda tx: get_archive(tx, archive_id))
    if row.state not in ("sealed", "restored"):
        raise Conflict("this archive is not finished", state=row.state)
    seen = await store.look(row.path)
    return await db.read(lambda tx: _judged(tx, archive_id, seen))


async def _judged(tx: Tx, archive_id: str, seen: Seen) -> Verified:
    row = await get_archive(tx, archive_id)
    problems = list(seen.problems)
    if seen.bytes and (seen.bytes, seen.sha256) != (row.bytes, row.sha256):
        problems.append("the file is not the one that was written")
    if seen.facts is not None:
        problems += disagreements(row, seen.facts)
    sums = await _kept_sums(tx, archive_id, seen.user_ids)
    ids = await _kept_ids(tx, archive_id, seen.user_ids)
    if row.state == "restored":
        problems += [f"it was restored, but {name} are left" for name in _left(sums, ids)]
        return Verified(row, problems, row.events, row.sums)
    stated = row.sums if seen.facts is None else seen.facts.sums
    problems += [
        f"{name}: wrapped usage sums to {sums[name]}, not {stated[name]}"
        for name in SUMMED
        if name in stated and sums[name] != stated[name]
    ]
    if ids > row.events or (ids < row.events and not await _may_forget(tx, row.last_at)):
        problems.append(f"{ids} ids are known, not {row.events}")
    return Verified(row, problems, row.events, stated)


def disagreements(row: ArchiveRow, facts: Facts) -> list[str]:
    """Where what a file holds is not what its row says. Pure."""
    said = [(name, getattr(row, name), getattr(facts, name)) for name in _STATED]
    said += [(name, stated, facts.sums.get(name)) for name, stated in sorted(row.sums.items())]
    found = [f"{name}: the file has another value" for name, ours, its in said if ours != its]
    for at in (facts.first_at, facts.last_at):
        if at is not None and (at.year, at.month) != (row.month.year, row.month.month):
            found.append("the file has rows of another month")
            break
    return found


def _left(sums: Mapping[str, int], ids: int) -> Iterable[str]:
    if any(sums.values()):
        yield "sums"
    if ids:
        yield "ids"


def _of(columns: Any, archive_id: str, user_ids: Collection[str]) -> Sequence[ColumnElement[bool]]:
    """The rows of an archive: found by whose they are, or by reading them all where none say."""
    its = columns.archive_id == archive_id
    return [its, columns.user_id.in_(user_ids)] if user_ids else [its]


async def _kept_sums(tx: Tx, archive_id: str, user_ids: Collection[str]) -> dict[str, int]:
    query = select(*(_group[name] for name in SUMMED))
    sums = [0] * len(SUMMED)
    for row in await tx.fetch(query.where(*_of(_group, archive_id, user_ids))):
        sums = [held + more for held, more in zip(sums, row, strict=True)]
    return dict(zip(SUMMED, sums, strict=True))


async def _kept_ids(tx: Tx, archive_id: str, user_ids: Collection[str]) -> int:
    query = select(func.count()).where(*_of(_event, archive_id, user_ids))
    return int((await tx.fetch(query))[0][0])


async def _may_forget(tx: Tx, last_at: datetime | None) -> bool:
    """Whether ids of events until then may have been forgotten."""
    ids = WrappedIds()
    await ids.reload(tx, set())
    return ids.known_from is not None and last_at is not None and last_at < ids.known_from


# ---- all of them, without their files -----------------------------------------------------------


async def archives_equal_wrapped(tx: Tx) -> Verdict:
    """What each sealed archive says it holds is what its wrapped usage sums to, and its ids.

    Nothing is left of one that was restored, nor of one that never was.
    """
    ids = WrappedIds()
    await ids.reload(tx, set())
    query = select(_archive.id, _archive.events, _archive.sums, _archive.last_at)
    sealed = {row.id: row for row in await tx.fetch(query.where(_archive.state == "sealed"))}
    grouped = select(_group.archive_id, *exact_sums(WRAPPED.amount_of))
    summed = {
        row[0]: dict(zip(MEASURES, joined(row[1:]), strict=True))
        for row in await tx.fetch(grouped.group_by(_group.archive_id))
    }
    counted_of = select(_event.archive_id, func.count()).group_by(_event.archive_id)
    known = {row[0]: int(row[1]) for row in await tx.fetch(counted_of)}
    differences = []
    every = sorted(sealed.keys() | summed.keys() | known.keys())
    for archive_id in every:
        row, sums = sealed.get(archive_id), summed.get(archive_id, {})
        stated = {} if row is None else row.sums
        pairs = [(name, stated.get(name, 0), sums.get(name, 0)) for name in MEASURES]
        events, found = 0 if row is None else row.events, known.get(archive_id, 0)
        forgotten = row is not None and ids.known_from is not None and row.last_at < ids.known_from
        if found > events or not forgotten:
            pairs.append(("ids", events, found))
        differences += [
            _difference(archive_id, name, ours, its) for name, ours, its in pairs if ours != its
        ]
    return Verdict(IDENTITY, len(every), len(differences), differences[:MAX_DIFFERENCES])


def _difference(archive_id: str, name: str, expected: int, found: int) -> Difference:
    shown = "cost_usd" if name == "cost_nanos" else name
    where = {"archive_id": archive_id, "measure": shown}
    return Difference(IDENTITY, where, amount(name, expected), amount(name, found))
