"""Rebuild: work every total and counter out again, and put right those that differ.

It goes on in steps, some users or some hours each: one snapshot that is read, and short
transactions that add what was missing. One rebuild runs at a time, by a lease, and each of those
transactions holds it: of two that found the same difference only one can repair it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import NamedTuple, TypeVar

from loguru import logger

from app.alerts.crossings import crossings
from app.alerts.outbox import raise_alerts
from app.analytics.audit import PROOF_S, Standing, all_rules, at_counter, judged_counters
from app.analytics.matched import match_recorded
from app.core.clock import Clock
from app.core.errors import Conflict
from app.core.ids import uuid7
from app.db.changes import newest_version
from app.db.engine import Database, Tx
from app.db.lease import keep, release, take
from app.limits.counters import CounterKey, Growth, count
from app.limits.running import period_for
from app.plans.known import load
from app.summaries.rebuild import (
    Judged,
    dimension_hours,
    judge_dimensions,
    judge_users,
    repair,
    users_hours,
)
from app.summaries.reconcile import MAX_DIFFERENCES, Difference, amount

T = TypeVar("T")
NAME = "rebuild"
LEASE = timedelta(seconds=60)
RENEWED_EVERY_S = 20.0
HOURS_AT_ONCE = 20_000
"""About so many totals by hour are worked out in one step."""
DIMENSIONS_AT_ONCE = 50_000
ROWS_AT_ONCE = 500
"""So many rows are put right in one transaction; ingest waits no longer than for that."""
ATTEMPTS = 5
MOST_LOGGED = 100
"""So many values that differ are logged one by one; the counts are of all."""
IDENTITY = "limit_counters_equal_log"
Tell = Callable[[str, int, int], None]
"""Told what is looked at, how many steps are done, and out of how many."""


class Rebuilt(NamedTuple):
    """What a rebuild looked at and found; at most 1,000 differences are shown, all are counted.

    `rebuilt` says whether they were put right, as opposed to only named.
    """

    rebuilt: bool
    checked: int
    differing: int
    differences: Sequence[Difference]


async def rebuild(
    db: Database,
    clock: Clock,
    user_id: str | None = None,
    *,
    dry_run: bool = False,
    tell: Tell | None = None,
) -> Rebuilt:
    """Put right every total and limit counter that is not what was recorded.

    With `user_id` only that user's totals and the counters that count the user alone. Latency
    buckets of hours of which calls were wrapped stay as they are. Nothing that was told is taken
    back; a threshold that a counter reaches by being put right is told.

    Raises:
        Conflict: another rebuild runs, or took over; or limits were changed all the time.
        Unavailable: the database did not answer; what was put right until then stays so.
    """
    run = _Run(db, clock, dry_run, tell or (lambda what, done, of: None))
    if dry_run:
        await run.all(user_id)
    else:
        async with run.alone():
            await run.all(user_id)
    return Rebuilt(not dry_run, run.checked, run.differing, run.differences)


class _Run:
    """One rebuild, and what it has found so far."""

    def __init__(self, db: Database, clock: Clock, dry_run: bool, tell: Tell) -> None:
        self._db, self._clock, self._dry_run, self._tell = db, clock, dry_run, tell
        self._holder = uuid7()
        self.checked = self.differing = 0
        self.differences: list[Difference] = []

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Hold the lease while the body runs."""
        clock, holder = self._clock, self._holder
        if not await self._db.write(lambda tx: take(tx, NAME, holder, clock.now(), LEASE)):
            raise Conflict("a rebuild is running already; try again when it is done")
        renewing = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])
            with suppress(Exception):  # else the lease runs out by itself
                await self._db.write(lambda tx: release(tx, NAME, holder, clock.now()))

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEWED_EVERY_S)
            with suppress(Exception):  # whoever changes something looks whether it still holds
                await self._db.write(self._hold)

    async def _hold(self, tx: Tx) -> None:
        if not await keep(tx, NAME, self._holder, self._clock.now(), LEASE):
            raise Conflict("another rebuild has taken over; what was put right so far stays")

    async def _change(self, work: Callable[[Tx], Awaitable[T]]) -> T:
        async def held(tx: Tx) -> T:
            await self._hold(tx)
            return await work(tx)

        return await self._db.write(held)

    async def all(self, user_id: str | None) -> None:
        """Everything, one kind after another."""
        users = [(user_id, 0)] if user_id is not None else await self._read(users_hours)
        steps = list(_chunks(users))
        for done, user_ids in enumerate(steps):
            self._tell("totals of users", done, len(steps))
            await self._put_right(await self._read(lambda tx: judge_users(tx, user_ids)))  # noqa: B023
        if user_id is None:
            ranges = await self._read(lambda tx: dimension_hours(tx, DIMENSIONS_AT_ONCE))
            for done, hours in enumerate(ranges):
                self._tell("totals across users", done, len(ranges))
                await self._put_right(await self._read(lambda tx: judge_dimensions(tx, hours)))  # noqa: B023
        self._tell("limit counters", 0, 1)
        await self._counters(user_id)
        self._tell("limit counters", 1, 1)
        log = logger.bind(user=user_id, checked=self.checked, differing=self.differing)
        log.info("audit.rebuilt" if not self._dry_run else "audit.rebuild_tried")

    async def _read(self, work: Callable[[Tx], Awaitable[T]]) -> T:
        return await self._db.read(work, within_s=PROOF_S)

    async def _put_right(self, judged: Judged) -> None:
        wrong = judged.wrong
        if not self._dry_run:
            for start in range(0, len(wrong), ROWS_AT_ONCE):
                some = wrong[start : start + ROWS_AT_ONCE]
                await self._change(lambda tx: repair(tx, some))  # noqa: B023
        self.checked += judged.checked
        for one in wrong:
            self._note(one.differences())

    def _note(self, found: Sequence[Difference]) -> None:
        self.differing += len(found)
        for one in found[: MAX_DIFFERENCES - len(self.differences)]:
            self.differences.append(one)
            if len(self.differences) > MOST_LOGGED:
                continue
            bound = one.where | {"identity": one.identity}
            logger.bind(**bound, expected=one.expected, found=one.found).warning(
                "audit.differed" if self._dry_run else "audit.repaired"
            )

    # ---- counters -------------------------------------------------------------------------------

    async def _counters(self, user_id: str | None) -> None:
        for _ in range(ATTEMPTS):
            version, checked, wrong = await self._read(lambda tx: self._judge_counters(tx, user_id))
            if self._dry_run or await self._put_counters_right(version, wrong):
                self.checked += checked
                for one in wrong:
                    self._note([_difference(one)])
                return
        raise Conflict("limits were changed all the while; try again")

    async def _judge_counters(self, tx: Tx, user_id: str | None) -> tuple[int, int, list[Standing]]:
        rules, standing_since = await all_rules(tx, self._clock.now())
        if not rules:
            return await newest_version(tx), 0, []
        matched = await match_recorded(tx, standing_since, user_id)
        scope_key = None if user_id is None else f"user:{user_id}"
        judged = [one async for one in judged_counters(tx, rules, matched, scope_key)]
        wrong = [one for one in judged if one.expected != one.found]
        return await newest_version(tx), len(judged), wrong

    async def _put_counters_right(self, version: int, wrong: Sequence[Standing]) -> bool:
        """False where what is configured is not what it was: then other calls may count."""
        if not wrong:
            return True

        async def work(tx: Tx) -> bool:
            if await newest_version(tx) != version:
                return False
            now = self._clock.now()
            steps = await count(tx, await _growths(tx, wrong, self._clock))
            await raise_alerts(tx, crossings(steps, now), now)
            return True

        return await self._change(work)


def _chunks(users: Sequence[tuple[str, int]]) -> Iterator[list[str]]:
    """Users in steps of about as much work each. Pure."""
    chunk: list[str] = []
    hours = 0
    for user_id, more in users:
        if chunk and hours + more + 1 > HOURS_AT_ONCE:
            yield chunk
            chunk, hours = [], 0
        chunk.append(user_id)
        hours += more + 1
    if chunk:
        yield chunk


async def _growths(tx: Tx, wrong: Sequence[Standing], clock: Clock) -> dict[CounterKey, Growth]:
    """What each counter lacks, reported under the billing period of its window."""
    users = {one.key[0][5:] for one in wrong if one.key[0].startswith("user:")}
    agreements = await load(tx, users)
    found = {}
    for one in wrong:
        at = clock.now() if one.rule.window == "lifetime" else one.key[2]
        growth = found[one.key] = Growth(one.rule, period_for(one.key[0], agreements, at).key)
        growth.amount = one.expected - one.found
    return found


def _difference(one: Standing) -> Difference:
    metric = one.rule.metric
    where = at_counter(one.key) | {"measure": metric}
    return Difference(IDENTITY, where, amount(metric, one.expected), amount(metric, one.found))
