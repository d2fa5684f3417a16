"""Wrap logs: one at a time over all processes, some rows a transaction, oldest first.

Nothing that was counted moves: totals, counters and alerts stay as they are, and ingest goes on.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any, NamedTuple

from loguru import logger
from sqlalchemy import delete

from app.core.clock import Clock
from app.core.errors import Conflict
from app.core.ids import short_id, uuid7
from app.db.engine import Database, Tx
from app.db.lease import release, take
from app.plans.known import Agreement, agreement_of, load
from app.plans.periods import calendar_months
from app.retention.chunk import LEASE, LEASE_NAME, Chunk, Moved, begin_writing, give_up, seal
from app.retention.fold import Folding
from app.retention.pick import Cut, Mark, cut_of, rows_within
from app.retention.policy import Policy, policies
from app.retention.store import ArchiveStore
from app.retention.summary import Result, Tally
from app.retention.tables import Archive
from app.usage.ledger import Entry, find_many
from app.usage.wrapped import announce_wrapping, is_begun

CHUNK = 5_000
"""So many rows leave the log in one transaction, and lie in one archive."""
HELD = 2 * CHUNK
"""So many rows are in memory at most, waiting for others of their month."""
ATTEMPTS = 5
"""How often rows that change while they are archived are tried again; then they stay for now."""
LOOKING_S = 60.0
"""How long counting one user's rows may take."""
POLL_S = 0.1
Tell = Callable[[str, int, int], None]
"""Told a user, how many of their rows are done, and out of how many."""


class Parts(NamedTuple):
    """What wrapping needs of the service."""

    db: Database
    store: ArchiveStore
    clock: Clock
    by_default: Policy


class _Waiting(NamedTuple):
    """A row on its way to an archive, and why it goes."""

    entry: Entry
    trigger: str


async def look(parts: Parts, user_id: str) -> Cut:
    """Which rows of the user would be wrapped now."""
    now = parts.clock.now()

    async def work(tx: Tx) -> Cut:
        known = await policies(tx, parts.by_default, [user_id])
        return await cut_of(tx, user_id, known.of(user_id), now)

    return await parts.db.read(work, within_s=LOOKING_S)


async def foresee(parts: Parts, user_id: str) -> Result:
    """What wrapping the user's log would do; nothing is written."""
    cut, tally = await look(parts, user_id), Tally()
    agreement = (await _agreed(parts.db, [user_id]))[user_id]
    after: Mark | None = None
    while rows := await _next_rows(parts.db, cut, after):
        tally.add(rows, agreement)
        after = Mark(rows[-1].timestamp, rows[-1].event_id)
        await asyncio.sleep(0)
    return Result(cut, tally.rows, cut.total - tally.rows, tally.groups(), dry_run=True)


async def wrap(
    parts: Parts, user_ids: Collection[str], *, wait_s: float = 0.0, tell: Tell | None = None
) -> list[Result]:
    """Wrap the logs of these users, as far as their retention asks for it.

    Raises:
        Conflict: another process wraps, and went on for `wait_s`.
        Unavailable: archives cannot be kept now, or the database did not answer; what was wrapped
            until then stays, and everything else is in the log.
    """
    async with _alone(parts, wait_s) as holder:
        await tidy(parts)
        run = _Run(parts, holder, tell)
        for user_id in user_ids:
            await run.gather(await look(parts, user_id))
        await run.flush()
        return [await run.result(cut) for cut in run.cuts]


@asynccontextmanager
async def _alone(parts: Parts, wait_s: float) -> Any:
    """Hold the lease while the body runs; what it commits it commits only while holding it."""
    db, clock, holder = parts.db, parts.clock, uuid7()
    until_s = clock.monotonic_s() + wait_s
    while not await db.write(lambda tx: take(tx, LEASE_NAME, holder, clock.now(), LEASE)):
        if clock.monotonic_s() >= until_s:
            raise Conflict("a wrap is running already; try again when it is done")
        await asyncio.sleep(POLL_S)
    try:
        yield holder
    finally:
        with suppress(Exception):  # else the lease runs out by itself
            await db.write(lambda tx: release(tx, LEASE_NAME, holder, clock.now()))


async def tidy(parts: Parts, archive_id: str | None = None) -> None:
    """Remove what was begun and never sealed: this archive, or with None any; under the lease."""
    db, now = parts.db, parts.clock.now()
    for one in await db.write(lambda tx: give_up(tx, archive_id, now)):
        await parts.store.remove(one.path)
        gone = delete(Archive).where(Archive.id == one.id, Archive.state == "dropping")
        await db.write(lambda tx: tx.run(gone))  # noqa: B023


async def _agreed(db: Database, user_ids: Sequence[str]) -> dict[str, Agreement]:
    found = await db.read(lambda tx: load(tx, user_ids))
    months = agreement_of([calendar_months("")])
    return {user_id: found.get(user_id) or months for user_id in user_ids}


async def _next_rows(db: Database, cut: Cut, after: Mark | None) -> list[Entry]:
    return await db.read(lambda tx: rows_within(tx, cut, after), within_s=LOOKING_S)


class _Run:
    """One wrap of some users' logs: rows wait by month until there are enough for an archive."""

    def __init__(self, parts: Parts, holder: str, tell: Tell | None) -> None:
        self._parts, self._holder, self._tell = parts, holder, tell
        self._begun = False
        self._waiting: dict[datetime, list[_Waiting]] = {}
        self._tallies: dict[str, Tally] = {}
        self._agreements: dict[str, Agreement] = {}
        self.cuts: list[Cut] = []

    async def gather(self, cut: Cut) -> None:
        """Take the rows of a cut, and wrap as many as make whole archives."""
        self.cuts.append(cut)
        self._tallies[cut.user_id] = Tally()
        self._say(cut.user_id)
        if not cut.rows:
            return
        self._agreements |= await _agreed(self._parts.db, [cut.user_id])
        after: Mark | None = None
        while rows := await _next_rows(self._parts.db, cut, after):
            after = Mark(rows[-1].timestamp, rows[-1].event_id)
            for entry in rows:
                month = entry.timestamp.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
                aged = cut.aged_before is not None and entry.timestamp < cut.aged_before
                waiting = self._waiting.setdefault(month, [])
                waiting.append(_Waiting(entry, "age" if aged else "count"))
            await self._wrap_whole_ones()

    async def _wrap_whole_ones(self) -> None:
        while waiting := self._waiting:
            month = max(waiting, key=lambda one: len(waiting[one]))
            if len(waiting[month]) < CHUNK and sum(map(len, waiting.values())) <= HELD:
                return
            await self._wrap_of(month)

    async def flush(self) -> None:
        """Wrap the rows that still wait."""
        while self._waiting:
            await self._wrap_of(min(self._waiting))

    async def _wrap_of(self, month: datetime) -> None:
        rows = self._waiting[month]
        self._waiting[month] = rows[CHUNK:]
        if not self._waiting[month]:
            del self._waiting[month]
        await self._wrap_rows(month, rows[:CHUNK])

    async def _wrap_rows(self, month: datetime, rows: Sequence[_Waiting]) -> None:
        """Wrap rows of one month; those that change meanwhile are looked at again."""
        trigger = "+".join(sorted({row.trigger for row in rows}))
        entries = [row.entry for row in rows]
        for _ in range(ATTEMPTS):
            if not entries:
                return
            try:
                chunk = await self._folded(month, trigger, entries)
            except OverflowError:  # sums of absurd figures: fewer rows in each archive
                if len(rows) == 1:
                    raise
                middle = len(rows) // 2
                await self._wrap_rows(month, rows[:middle])
                await self._wrap_rows(month, rows[middle:])
                return
            if await self._sealed(chunk):
                self._count(chunk.entries)
                return
            keys = [entry[:2] for entry in entries]
            entries = await self._parts.db.read(lambda tx: find_many(tx, keys))  # noqa: B023
        logger.bind(rows=len(entries)).warning("wrap.postponed")

    async def _folded(self, month: datetime, trigger: str, entries: Sequence[Entry]) -> Chunk:
        ordered = sorted(entries, key=lambda one: (one.user_id, one.timestamp, one.event_id))
        archive_id = short_id("arc")
        folding = Folding(archive_id, self._agreements)
        for start in range(0, len(ordered), 500):
            folding.add(ordered[start : start + 500])
            await asyncio.sleep(0)
        return Chunk(archive_id, month, trigger, ordered, folding.folded())

    async def _sealed(self, chunk: Chunk) -> bool:
        """Archive a chunk and take it out of the log; False where rows moved meanwhile."""
        db, store, clock = self._parts.db, self._parts.store, self._parts.clock
        if not self._begun:
            if not await db.read(is_begun):
                await db.write(lambda tx: announce_wrapping(tx, clock.now()), alone=True)
            self._begun = True
        await db.write(lambda tx: begin_writing(tx, chunk, clock.now()))
        try:
            written = await store.write(chunk.archive_id, chunk.month, chunk.entries)
            size, sha256 = await store.size_and_hash(written.path)
        except Exception:
            with suppress(Exception):  # else the next run does it
                await tidy(self._parts, chunk.archive_id)
            raise
        if (written.path, size, sha256) != (chunk.path, written.bytes, written.sha256):
            raise RuntimeError("the archive that was written is not the one that is there")
        commit = self._committing(chunk, size, sha256)
        try:
            await db.write(commit)
        except Moved:
            await tidy(self._parts, chunk.archive_id)
            return False
        logger.bind(archive=chunk.archive_id, rows=len(chunk.entries)).info("wrap.sealed")
        return True

    def _committing(self, chunk: Chunk, size: int, sha256: str) -> Callable[[Tx], Awaitable[None]]:
        now, holder = self._parts.clock.now(), self._holder

        async def work(tx: Tx) -> None:
            await seal(tx, chunk, path=chunk.path, size=size, sha256=sha256, holder=holder, now=now)

        return work

    def _count(self, entries: Sequence[Entry]) -> None:
        for user_id in sorted({entry.user_id for entry in entries}):
            mine = [entry for entry in entries if entry.user_id == user_id]
            self._tallies[user_id].add(mine, self._agreements[user_id])
            self._say(user_id)

    def _say(self, user_id: str) -> None:
        if self._tell is not None:
            rows = next(cut.rows for cut in self.cuts if cut.user_id == user_id)
            self._tell(user_id, self._tallies[user_id].rows, rows)

    async def result(self, cut: Cut) -> Result:
        """What became of a user's log."""
        tally = self._tallies[cut.user_id]
        after = await look(self._parts, cut.user_id)
        return Result(cut, tally.rows, after.total, tally.groups(), dry_run=False)
