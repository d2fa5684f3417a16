"""Work that nobody waits for: each job in one process at a time, none keeps it from stopping."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import NamedTuple

from loguru import logger

from app.core.clock import Clock
from app.core.ids import uuid7
from app.db.clock import database_now
from app.db.engine import Database, Tx
from app.db.lease import conclude, release, take
from app.metrics.figures import Figures

LEASE = timedelta(seconds=60)
PRESENCE = "worker"
"""The lease that says that a process is there which does jobs and nothing else."""
RENEWED_EVERY_S = 20.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 300.0
FAILURE_LENGTH = 300
STOPPING_S = 3.0
"""How long a job that is told to stop may take; then the process goes on without it."""


class Job(NamedTuple):
    """Something to do: looked at every so often and when woken, done where `is_due` says so.

    `is_due` only reads, so that a service at rest writes nothing. Both may be cancelled anywhere.
    """

    name: str
    every_s: float
    is_due: Callable[[], Awaitable[bool]]
    work: Callable[[], Awaitable[object]]


class Jobs:
    """Runs jobs beside whatever else the process does."""

    def __init__(
        self, db: Database, clock: Clock, jobs: Sequence[Job], figures: Figures | None = None
    ) -> None:
        self._figures = figures or Figures(clock)
        self._db, self._clock, self._jobs, self._holder = db, clock, jobs, uuid7()
        self._woken = {job.name: asyncio.Event() for job in jobs}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def names(self) -> list[str]:
        """What the jobs are called, in the order in which they were given."""
        return [job.name for job in self._jobs]

    def start(self) -> None:
        """Begin to look after the jobs."""
        self._tasks = [asyncio.create_task(self._tend(job), name=job.name) for job in self._jobs]

    def wake(self, name: str) -> None:
        """Look at a job now rather than when its time has come."""
        self._woken[name].set()

    async def close(self) -> None:
        """Stop, in the middle of a job too: what it had not committed is done another time."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOPPING_S)

    async def _tend(self, job: Job) -> None:
        failures = 0
        while True:
            self._woken[job.name].clear()
            try:
                await self.run(job)
            except Exception as error:  # whatever it is, the job is tried again
                failures += 1
                if failures == 1:
                    logger.opt(exception=error).bind(job=job.name).error("job.failed")
            else:
                if failures:
                    logger.bind(job=job.name, failures=failures).info("job.recovered")
                failures = 0
            if failures:  # being woken does not make it come sooner
                await asyncio.sleep(min(FIRST_PAUSE_S * 2 ** min(failures, 30), LONGEST_PAUSE_S))
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(job.every_s):
                    await self._woken[job.name].wait()

    async def run(self, job: Job) -> bool:
        """Do the job if it is due and no other process does it; whether it was done."""
        if not await job.is_due() or not await self._take(job.name):
            return False
        began_s = self._clock.monotonic_s()
        work = asyncio.ensure_future(job.work())
        try:
            while not (await asyncio.wait([work], timeout=RENEWED_EVERY_S))[0]:
                if not await self._take(job.name):
                    raise RuntimeError(f"another process has taken over {job.name}")
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait([work])
            if not work.cancelled():
                self._figures.job(job.name, began_s, failed=work.exception() is not None)
            with suppress(Exception):  # else the lease runs out by itself
                await self._give_up(job.name, work)
        work.result()
        return True

    async def _take(self, name: str) -> bool:
        async def work(tx: Tx) -> bool:
            now = await database_now(tx, self._clock)
            return await take(tx, name, self._holder, now, LEASE)

        return await self._db.write(work)

    async def _give_up(self, name: str, done: "asyncio.Future[object]") -> None:
        """Let the lease go, and note what came of the job unless it was stopped on the way."""

        async def work(tx: Tx) -> None:
            now = await database_now(tx, self._clock)
            if done.cancelled():
                await release(tx, name, self._holder, now)
                return
            error = done.exception()
            failure = None if error is None else f"{type(error).__name__}: {error}"
            await conclude(tx, name, self._holder, now, failure and failure[:FAILURE_LENGTH])

        await self._db.write(work)
