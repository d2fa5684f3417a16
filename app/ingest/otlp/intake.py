"""Telemetry goes through one queue: what has gathered is settled together, in one transaction.

Whoever posts waits for the commit. What one request brings is settled in one transaction, unless it
tells of more than 10,000 calls: the events end up the same however it is divided.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta

import apsw
import asyncpg
from loguru import logger
from sqlalchemy import exc as sa_exc

from app.access.keys import Key, KeyRing
from app.core.clock import Clock
from app.core.errors import AppError, Damaged, Unavailable
from app.db.changes import Feed
from app.db.engine import Database, Tx
from app.ingest.calls import Window
from app.ingest.correct import Evidence
from app.ingest.counted import DUPLICATE, RECORDED, REJECTED, count_statuses
from app.ingest.foreign.submit import Foreign
from app.ingest.meter import House
from app.ingest.otlp.drafts import SOURCE
from app.ingest.otlp.parts import Part, divided, halves, joined
from app.ingest.otlp.plan import EventKey, Plan
from app.ingest.otlp.settle import (
    NOTHING_KNOWN,
    Arrived,
    LiesElsewhere,
    Settled,
    planned,
    settle,
)
from app.ingest.otlp.telling import Link, Spot, Telling
from app.usage.ledger import Entry, Torn

QUEUED = 50_000
TOGETHER = 500
"""So many tellings of several requests are settled in one transaction: some 50 ms."""
PLANNED_APART = 200
"""From so many on the plan is made in a thread, before the transaction begins."""
ATTEMPTS = 6
BEYOND = "with this, a total would pass what can be counted (2^63-1)"
_BEYOND = (
    *(apsw.ConstraintError, asyncpg.DataError, asyncpg.IntegrityConstraintViolationError),
    *(asyncpg.ProgramLimitExceededError, sa_exc.DataError, sa_exc.IntegrityError, OverflowError),
)
_OF_EVENTS = (RECORDED, DUPLICATE, REJECTED, "conflict", "out_of_window")
ReadRow = Callable[[str, str], Awaitable[Entry | None]]
"""The row of an archived event, by its user and id."""


class OtlpIntake:
    """The queue and its one lane. `keep_for` is how long later tellings are waited for."""

    def __init__(
        self,
        db: Database,
        feed: Feed,
        keys: KeyRing,
        house: House,
        clock: Clock,
        foreign: Foreign,
        *,
        unknown: str,
        keep_for: timedelta,
        read_row: ReadRow,
    ) -> None:
        self._db, self._feed, self._keys, self._house, self._clock = db, feed, keys, house, clock
        self._foreign, self._unknown, self._keep_for = foreign, unknown, keep_for
        self._read_row = read_row
        self._lane = db.lane()
        foreign.figures.queued.read(lambda: self._queued, SOURCE)
        self._queue: deque[Part] = deque()
        self._queued = 0
        self._draining: asyncio.Task[None] | None = None
        self._closing = False

    async def close(self) -> None:
        """Finish what is queued, then stop."""
        self._closing = True
        while self._draining is not None and not self._draining.done():
            with suppress(Exception):
                await self._draining
        await self._lane.close()

    async def submit(
        self,
        told: Mapping[Spot, Telling],
        links: Mapping[Spot, Link],
        key: Key,
        token: str,
        version: int,
        window: Window | None,
    ) -> dict[Spot, str]:
        """Settle what a request tells; durable on return. What was refused, and why.

        Raises:
            Unavailable: the queue is full or the database did not take it; send it all again.
            Unauthenticated: the key was revoked in the meantime.
        """
        owner, now_s = key.user_id or "", self._clock.monotonic_s()
        later_s = now_s + self._db.patience_s
        parts = [
            Part(Arrived(owner, window, *some), key, token, version, later_s if place else now_s)
            for place, some in enumerate(divided(told, links))
        ]
        size = sum(part.size for part in parts)
        if self._closing or (self._queued and self._queued + size > QUEUED):
            self._foreign.figures.intake_refused.add("full")
            raise Unavailable("the intake is full; nothing was recorded")
        self._queue.extend(parts)
        self._queued += size
        if self._draining is None or self._draining.done():
            self._draining = asyncio.create_task(self._drain())
        found = await asyncio.gather(*(part.answer for part in parts), return_exceptions=True)
        refused: dict[Spot, str] = {}
        for one in found:
            if isinstance(one, BaseException):
                raise one
            refused |= one
        return refused

    async def _drain(self) -> None:
        while self._queue:
            await asyncio.sleep(0)  # let everything that has already arrived join
            batch = self._take()
            try:
                await self._settle(batch)
            except Exception as error:  # a bug: those who wait are told, the queue goes on
                logger.exception("otlp.failed")
                _fail(batch, error)

    def _take(self) -> list[Part]:
        """What is settled next: parts of one owner and one window, as far as they fit."""
        batch: list[Part] = []
        size = 0
        while self._queue:
            following = self._queue[0]
            if batch and (
                size + following.size > TOGETHER or following.arrived[:2] != batch[0].arrived[:2]
            ):
                break
            batch.append(self._queue.popleft())
            size += following.size
        self._queued -= size
        return batch

    async def _settle(self, batch: list[Part]) -> None:
        """Settle parts together; if that cannot be for one's sake, each by itself."""
        batch = [part for part in batch if self._still_waits(part)]
        if not batch:
            return
        began_s = self._clock.monotonic_s()
        try:
            settled = await self._written(batch)
        except _Revoked as gone:
            _fail([gone.part], gone.why)
            await self._settle([part for part in batch if part is not gone.part])
        except AppError as error:
            _fail(batch, error)
        except _BEYOND as error:
            await self._halved(batch, error)
        else:
            for what, count in settled.counts.items():
                self._foreign.tally.add(SOURCE, what, count)
            self._count(settled, len(batch), began_s)
            for part in batch:
                mine = {
                    spot: why for spot, why in settled.refused.items() if spot in part.arrived.told
                }
                _answer(part, mine)

    def _count(self, settled: Settled, size: int, began_s: float) -> None:
        events = [(what, settled.counts[what]) for what in _OF_EVENTS]
        count_statuses(self._foreign.figures, SOURCE, events)
        self._foreign.figures.batch(SOURCE, size, began_s)

    async def _written(self, batch: Sequence[Part]) -> Settled:
        arrived = joined([part.arrived for part in batch])
        evidence: dict[EventKey, Evidence] = {}

        ready = await self._planned(arrived)

        async def work(tx: Tx) -> Settled:
            await self._feed.catch_up(tx)
            now = self._clock.now()
            for part in batch:
                if part.version != self._feed.version:
                    try:
                        self._keys.find_still(part.token, now, "ingest")
                    except AppError as error:
                        raise _Revoked(part, error) from None
            return await settle(
                *(tx, arrived),
                foreign=self._foreign,
                unknown=self._unknown,
                house=self._house,
                evidence=evidence,
                ready=ready,
                now=now,
                until=now + self._keep_for,
            )

        for _ in range(ATTEMPTS):
            try:
                return await self._lane.write(work, within_s=self._time_left(batch))
            except Torn:
                continue
            except LiesElsewhere as found:
                evidence[found.key] = {found.key[1]: await self._row(found.key)}
        raise Unavailable("an event moved between log and archive; nothing was recorded")

    async def _planned(self, arrived: Arrived) -> Plan | None:
        """The plan for much that is new, so that nobody waits for a transaction that thinks."""
        if len(arrived.told) < PLANNED_APART:
            return None
        now = self._clock.now()
        return await asyncio.to_thread(
            planned, arrived, NOTHING_KNOWN, self._foreign, self._unknown, now
        )

    async def _row(self, key: EventKey) -> Entry | None:
        try:
            return await self._read_row(*key)
        except (Damaged, Unavailable):
            return None

    async def _halved(self, batch: list[Part], error: Exception) -> None:
        """Find what makes a total pass what can be counted, and refuse that alone."""
        if len(batch) > 1:
            for part in batch:
                await self._settle([part])
            return
        [part] = batch
        told = part.arrived.told
        if len(told) <= 1:
            logger.bind(error=type(error).__name__).warning("otlp.refused")
            self._foreign.tally.add(SOURCE, REJECTED, len(told))
            count_statuses(self._foreign.figures, SOURCE, [(REJECTED, len(told))])
            _answer(part, dict.fromkeys(told, BEYOND))
            return
        refused: dict[Spot, str] = {}
        for some in halves(part.arrived):
            half = Part(some, part.key, part.token, part.version, self._clock.monotonic_s())
            await self._settle([half])
            try:
                refused |= half.answer.result()
            except AppError as why:
                _fail([part], why)
                return
        _answer(part, refused)

    def _still_waits(self, part: Part) -> bool:
        """Whether its sender still waits."""
        if part.answer.done():
            return False
        if part.arrived_s < self._clock.monotonic_s() - self._db.patience_s:
            _fail([part], Unavailable("the database did not answer in time"))
            return False
        return True

    def _time_left(self, batch: Sequence[Part]) -> float:
        waited = self._clock.monotonic_s() - min(part.arrived_s for part in batch)
        return max(self._db.patience_s - waited, 0.5)


class _Revoked(Exception):
    def __init__(self, part: Part, why: AppError) -> None:
        super().__init__(str(why))
        self.part, self.why = part, why


def _answer(part: Part, refused: dict[Spot, str]) -> None:
    if not part.answer.done():
        part.answer.set_result(refused)


def _fail(batch: Sequence[Part], error: Exception) -> None:
    for part in batch:
        if not part.answer.done():
            part.answer.set_exception(error)
