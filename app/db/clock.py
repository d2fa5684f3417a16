"""One time for every process: on PostgreSQL it is the database that says it."""

from datetime import datetime

from app.core.clock import Clock
from app.db.engine import Tx


async def database_now(tx: Tx, clock: Clock) -> datetime:
    """The database's own time where processes on several machines share it, else the process's.

    It is the time of the statement and not of the transaction: what waited for a lock sees how late
    it has become.
    """
    if tx.dialect == "sqlite":
        return clock.now()
    return clock.database_now(await tx.hot.fetchval("SELECT clock_timestamp()"))
