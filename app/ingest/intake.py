"""Group commit: calls and holds go through one queue, and a batch is what arrived meanwhile.

Whoever posts hands over calls and waits. A lane takes what has gathered, runs `meter` once for all
of it in one transaction, and answers each waiter after the commit. There is no timer: while one
batch commits the next one gathers. A batch that fails for one call's sake is tried again in halves,
so that the bad call fails alone. When the queue is full, callers are told so and nothing is kept.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import apsw
import asyncpg
from loguru import logger
from sqlalchemy import exc as sa_exc

from app.access.keys import Key, KeyRing
from app.core.clock import Clock
from app.core.errors import (
    AppError,
    HoldClosed,
    IdReused,
    InvalidInput,
    NotFound,
    OutOfWindow,
    Unavailable,
)
from app.db.changes import Feed
from app.db.engine import Database, Lane, Tx
from app.ingest.calls import Call
from app.ingest.counted import REJECTED, count_logged
from app.ingest.meter import House, Metered, meter
from app.limits.check import Standing
from app.limits.hold_judge import HoldAsk, HoldKey
from app.limits.holds import Decision, Taken, find_holds
from app.metrics.figures import Figures
from app.usage.ledger import Logged, Torn

QUEUED_CALLS = 50_000
FORGOTTEN = "so old that ids of its time are no longer kept: it might be counted twice"
BATCH_CALLS = 2_000
SHORTEST_S = 0.5
"""The least time that a batch is given, however long its oldest submission has waited."""
SPILL = 1_000_000
"""How far a lane's shard moves when the rows of its shard are full."""


@dataclass(slots=True)
class Outcome:
    """The answer to one submission: what became of each event, or of the hold."""

    logged: list[Logged]
    standing: Standing | None
    billing_periods: list[str]
    decision: Decision | None = None


class Answer(Protocol):
    """Where the outcome goes: a future, or something that writes it out at once."""

    def done(self) -> bool: ...
    def set_result(self, outcome: Outcome, /) -> None: ...
    def set_exception(self, error: Exception, /) -> None: ...


class Submission:
    """What one request hands over, and where its answer will be.

    `events` says of how many events the calls tell. Instead of calls there may be one hold asked
    for. `settles` names the hold that the calls must end, or nothing of them is recorded. `door`
    is whence they came.
    """

    __slots__ = (
        "answer",
        "arrived_s",
        "ask",
        "atomic",
        "calls",
        "door",
        "events",
        "key",
        "settles",
        "spilled",
        "stand",
        "token",
        "version",
    )

    def __init__(
        self,
        calls: Sequence[Call],
        key: Key,
        token: str,
        version: int,
        answer: Answer,
        *,
        events: int,
        stand: bool = False,
        atomic: bool = False,
        ask: HoldAsk | None = None,
        settles: HoldKey | None = None,
        door: str = "events",
    ) -> None:
        self.ask, self.settles, self.door = ask, settles, door
        self.calls, self.key, self.token, self.version = calls, key, token, version
        self.answer, self.events, self.stand, self.atomic = answer, events, stand, atomic
        self.arrived_s, self.spilled = 0.0, False

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes, any one of which is enough for it."""
        if self.ask is not None:
            return ("check",)
        return ("ingest",) if self.settles is None else ("ingest", "check")

    @property
    def size(self) -> int:
        """How much of a batch it takes."""
        return len(self.calls) or 1


class Intake:
    """The queue and its lanes: one on SQLite, two on PostgreSQL."""

    def __init__(
        self,
        db: Database,
        feed: Feed,
        keys: KeyRing,
        house: House,
        clock: Clock,
        *,
        lanes: int,
        first_shard: int = 0,
        figures: Figures | None = None,
    ) -> None:
        self._figures = figures or Figures(clock)
        self._figures.queued.read(lambda: self._queued_calls, "events")
        self._db, self._feed, self._keys, self._house, self._clock = db, feed, keys, house, clock
        self._queue: deque[Submission] = deque()
        self._holds: deque[Submission] = deque()
        self._queued_calls = 0
        self._ready = asyncio.Event()
        self._closing = False
        self._lanes = [db.lane() for _ in range(lanes)]
        self._shards = [first_shard + number for number in range(lanes)]
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to drain the queue."""
        self._tasks = [
            asyncio.create_task(self._drain(lane, number))
            for number, lane in enumerate(self._lanes)
        ]

    async def close(self) -> None:
        """Finish what is queued, then stop."""
        self._closing = True
        self._ready.set()
        await asyncio.gather(*self._tasks)
        for lane in self._lanes:
            await lane.close()

    def enqueue(self, submission: Submission) -> None:
        """Hand over calls or a hold; the answer comes after their commit.

        Raises:
            Unavailable: the queue is full or closing.
        """
        if self._closing or self._queued_calls + submission.size > QUEUED_CALLS:
            self._figures.intake_refused.add("full")
            raise Unavailable("the intake is full; nothing was recorded")
        submission.arrived_s = self._clock.monotonic_s()
        (self._queue if submission.ask is None else self._holds).append(submission)
        self._queued_calls += submission.size
        self._ready.set()

    async def submit(
        self,
        calls: Sequence[Call],
        key: Key,
        token: str,
        version: int,
        *,
        events: int,
        stand: bool = False,
        atomic: bool = False,
        ask: HoldAsk | None = None,
        settles: HoldKey | None = None,
        door: str = "events",
    ) -> Outcome:
        """Hand over calls, or a hold, and wait until that is durable.

        Raises:
            Unavailable: the queue is full or closing, or the database did not take the batch.
            Unauthenticated: the key was revoked in the meantime.
            IdReused: `atomic`, and an id stands for another event.
            NotFound, HoldClosed: there is no such hold to settle, or it has ended.
        """
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        asked = Submission(
            *(calls, key, token, version, answer),
            events=events,
            stand=stand,
            atomic=atomic,
            ask=ask,
            settles=settles,
            door=door,
        )
        self.enqueue(asked)
        return await answer

    async def _drain(self, lane: Lane, number: int) -> None:
        while True:
            if not self._queue and not (self._holds and not number):
                if self._closing:
                    return
                self._ready.clear()
                await self._ready.wait()
            await asyncio.sleep(0)  # let everything that has already arrived join
            batch = self._refuse_the_late(self._take(number))
            if not batch:
                continue
            try:
                await self._record(lane, number, batch)
            except Exception as error:  # a bug: its callers are told, the lane goes on
                logger.exception("intake.failed")
                self._fail(batch, error)

    def _take(self, number: int) -> list[Submission]:
        """What this lane records next. Holds all go through the first one.

        They wait for each other's counters anyway: in one batch they do so once.
        """
        batch: list[Submission] = []
        calls = 0
        while self._holds and not number and calls < BATCH_CALLS:
            batch.append(self._holds.popleft())
            calls += 1
        while self._queue:
            following = self._queue[0]
            if batch and (batch[0].atomic or following.atomic):
                break
            if batch and calls + following.size > BATCH_CALLS:
                break
            batch.append(self._queue.popleft())
            calls += following.size
        self._queued_calls -= calls
        return batch

    async def _record(self, lane: Lane, number: int, batch: list[Submission]) -> None:
        now, attempts = self._clock.now(), 0

        async def work(tx: Tx) -> list[Outcome | AppError]:
            nonlocal attempts
            attempts += 1
            return await self._work(tx, batch, self._shards[number], now, again=attempts > 1)

        began_s = self._clock.monotonic_s()
        try:
            outcomes = await lane.write(work, within_s=self._time_left(batch))
        except _Refused as refused:
            self._fail([refused.submission], refused.why)
            rest = [one for one in batch if one is not refused.submission]
            if rest:
                await self._record(lane, number, rest)
        except (Torn, Taken):  # what came between is committed, so the next attempt sees it
            await self._record(lane, number, batch)
        except AppError as error:
            self._fail(batch, error)
        except _DATA_ERRORS as error:
            await self._split(lane, number, batch, error)
        else:
            self._figures.batch("events", sum(one.size for one in batch), began_s)
            for submission, outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, AppError):
                    self._fail([submission], outcome)
                    continue
                if outcome.logged:
                    count_logged(self._figures, submission.door, outcome.logged)
                if not submission.answer.done():
                    submission.answer.set_result(outcome)

    def _time_left(self, batch: Sequence[Submission]) -> float:
        """Time in the queue counts: whoever arrived first decides when it is too late."""
        waited = self._clock.monotonic_s() - min(one.arrived_s for one in batch)
        return max(self._db.patience_s - waited, SHORTEST_S)

    def _refuse_the_late(self, batch: list[Submission]) -> list[Submission]:
        """Tell those who waited too long for others; the rest go on."""
        oldest_s = self._clock.monotonic_s() - self._db.patience_s
        late = [one for one in batch if one.arrived_s < oldest_s]
        if late:
            self._fail(late, Unavailable("the database did not answer in time"))
        return [one for one in batch if one.arrived_s >= oldest_s]

    async def _split(
        self, lane: Lane, number: int, batch: list[Submission], error: Exception
    ) -> None:
        """Find the call for whose sake the batch failed.

        First with a fresh shard of the cross-user totals: one user's absurd figures may have
        filled the rows that all share, and nobody else's events may fail for that.
        """
        if not batch[0].spilled:
            self._shards[number] += SPILL
            for submission in batch:
                submission.spilled = True
            await self._record(lane, number, batch)
            return
        if len(batch) > 1:
            middle = len(batch) // 2
            await self._record(lane, number, batch[:middle])
            await self._record(lane, number, batch[middle:])
            return
        detail = "with this, a total would pass what can be counted (2^63-1)"
        logger.bind(error=type(error).__name__).warning("intake.refused")
        self._fail(batch, InvalidInput.at("", detail))

    def _fail(self, batch: Sequence[Submission], error: Exception) -> None:
        refused = isinstance(error, AppError) and error.status < 500
        if not refused:
            self._figures.intake_refused.add("failed", by=len(batch))
        for submission in batch:
            if refused and submission.ask is None:
                self._figures.events.add(submission.door, REJECTED, by=submission.events)
            if not submission.answer.done():
                submission.answer.set_exception(error)

    async def _work(
        self, tx: Tx, batch: Sequence[Submission], shard: int, now: datetime, *, again: bool
    ) -> list[Outcome | AppError]:
        await self._feed.catch_up(tx)
        for submission in batch:
            if submission.version != self._feed.version:
                try:
                    self._keys.find_still(submission.token, now, *submission.scopes)
                except AppError as error:
                    raise _Refused(submission, error) from None
        late, settled = await _look_at_holds(tx, batch)
        taken = [one for one in batch if one not in late] if late else batch
        calls = [call for submission in taken for call in submission.calls]
        stand = {one.calls[0].event.user_id for one in taken if one.stand}
        asks = [one.ask for one in taken if one.ask is not None]
        metered = await meter(
            *(tx, calls),
            house=self._house,
            now=now,
            shard=shard,
            stand=stand,
            again=again,
            asks=asks,
        )
        outcomes = iter(_outcomes(taken, metered, {**settled, **metered.settled}))
        return [late.get(one) or next(outcomes) for one in batch]


async def _look_at_holds(
    tx: Tx, batch: Sequence[Submission]
) -> tuple[dict[Submission, AppError], dict[HoldKey, str | None]]:
    """Who would settle a hold that is not there or has ended, and which event settled which."""
    settling = [(one, one.settles) for one in batch if one.settles is not None]
    if not settling:
        return {}, {}
    rows = await find_holds(tx, {key for _, key in settling})
    late: dict[Submission, AppError] = {}
    for one, key in settling:
        row = rows.get(key)
        if row is None:
            late[one] = NotFound("no such hold", id=key[1])
        elif row.state == "released" or (
            row.state == "settled" and row.settled_event_id != one.calls[0].event_id
        ):
            late[one] = HoldClosed("this hold has ended; nothing was recorded", state=row.state)
    return late, {key: row.settled_event_id for key, row in rows.items() if row.state == "settled"}


class _Refused(Exception):
    def __init__(self, submission: Submission, why: AppError) -> None:
        super().__init__(str(why))
        self.submission, self.why = submission, why


_DATA_ERRORS = (
    apsw.ConstraintError,
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    sa_exc.IntegrityError,
    OverflowError,
)


def _outcomes(
    batch: Sequence[Submission], metered: Metered, settled: Mapping[HoldKey, str | None]
) -> list[Outcome]:
    outcomes, start = [], 0
    decisions = iter(metered.decisions)
    for submission in batch:
        if submission.ask is not None:
            outcomes.append(Outcome([], None, [], next(decisions)))
            continue
        logged = metered.logged[start : start + submission.events]
        start += submission.events
        if submission.atomic:
            _refuse_in_part(submission, logged)
        _check_settled(submission, logged, settled)
        standing, periods = None, []
        if submission.stand:
            entry = logged[0].entry
            standing = metered.standings[entry.user_id]
            periods = [metered.agreements[entry.user_id].period_at(entry.timestamp).key]
        outcomes.append(Outcome(logged, standing, periods))
    return outcomes


def _refuse_in_part(submission: Submission, logged: Sequence[Logged]) -> None:
    """Refuse what was to be recorded whole and cannot be, naming each place that hinders it."""
    reused = [place for place, one in enumerate(logged) if one.status == "conflict"]
    if reused:
        detail = "this id stands for another event"
        errors = [{"pointer": f"/{place}/id", "detail": detail} for place in reused]
        raise _Refused(submission, IdReused("nothing was recorded", errors=errors))
    late = [place for place, one in enumerate(logged) if one.status == "out_of_window"]
    if late:
        errors = [{"pointer": f"/{place}/timestamp", "detail": FORGOTTEN} for place in late]
        raise _Refused(submission, OutOfWindow("nothing was recorded", errors=errors))


def _check_settled(
    submission: Submission, logged: Sequence[Logged], settled: Mapping[HoldKey, str | None]
) -> None:
    """Refuse an event that is new and came too late to end its hold."""
    key = submission.settles
    if key is None or logged[0].status != "recorded":
        return
    if settled.get(key) != logged[0].entry.event_id:
        raise _Refused(submission, HoldClosed("this hold has ended; nothing was recorded"))
