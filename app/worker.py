"""The process that does the jobs and serves nothing."""

import asyncio
import os
import signal
from contextlib import suppress
from datetime import timedelta

from loguru import logger
from sqlalchemy import make_url

from app.core.clock import Clock
from app.core.ids import uuid7
from app.db.clock import database_now
from app.db.engine import Database, Tx
from app.db.lease import release, take
from app.db.migrate import NEWEST, current_revision
from app.jobs import PRESENCE
from app.runtime import Runtime, build
from app.settings import Settings
from app.start import PATIENCE_S, NotReadyError, refuse_unsafe

PRESENT_FOR = timedelta(seconds=90)
PRESENT_EVERY_S = 30.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def run(settings: Settings) -> None:
    """Do the jobs until SIGTERM or SIGINT.

    Raises:
        NotReadyError: the schema is not this version's, or PostgreSQL loses what it acknowledged.
    """
    await _ready(settings)
    leaving = asyncio.Event()
    for one in _SIGNALS:
        asyncio.get_running_loop().add_signal_handler(one, leaving.set)
    await work_until(leaving, build(settings))


async def _ready(settings: Settings) -> None:
    _exists(settings.database_url)
    found = await current_revision(settings.database_url)
    if found != NEWEST:
        raise NotReadyError(
            f"the database is at revision {found} and this version needs {NEWEST}: "
            "run `tollgate migrate`"
        )
    db = Database.open(settings.database_url, pool_size=4, patience_s=PATIENCE_S)
    try:
        await refuse_unsafe(db, settings)
    finally:
        await db.close()


def _exists(database_url: str) -> None:
    """Refuse a SQLite file that is not there: opening it would make one."""
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite" and not os.path.exists(url.database or ""):
        raise NotReadyError(f"there is no database at {url.database}")


async def work_until(leaving: asyncio.Event, runtime: Runtime) -> None:
    """Do the jobs until told to leave; what is in the middle of something is given a moment."""
    await runtime.start()
    runtime.jobs.start()
    presence = asyncio.create_task(_be_present(runtime.db, runtime.clock))
    logger.bind(jobs=runtime.jobs.names).info("worker.started")
    await leaving.wait()
    presence.cancel()
    await asyncio.wait([presence])
    await runtime.close()
    logger.info("worker.left")


async def _be_present(db: Database, clock: Clock) -> None:
    holder = uuid7()

    async def tell(tx: Tx) -> None:
        await take(tx, PRESENCE, holder, await database_now(tx, clock), PRESENT_FOR)

    async def leave(tx: Tx) -> None:
        await release(tx, PRESENCE, holder, await database_now(tx, clock))

    try:
        while True:
            with suppress(Exception):  # the next one may get through
                await db.write(tell)
            await asyncio.sleep(PRESENT_EVERY_S)
    finally:
        with suppress(Exception):  # else it runs out by itself
            await db.write(leave)
