"""Carry out a re-rate: some events a transaction, each of which also notes how far it has come.

Between two transactions the process may die, another one may go on, or both may at once: a step is
taken by one of them, and an event that is charged right is not changed again.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple, TypeVar

import apsw
import asyncpg
from sqlalchemy import exc as sa_exc

from app.core.clock import Clock
from app.core.errors import Conflict
from app.db.changes import Feed
from app.db.engine import Database, Tx
from app.ingest.meter import House
from app.ingest.rerate import Corrected, differs, rerate, revised
from app.ingest.rerate_store import RerateRow, advance, claim, get_rerate, set_going
from app.usage.adjust import Cause
from app.usage.sweep import Filter, Key, key_from_text, key_to_text, page_to_rate, place_in

T = TypeVar("T")
_BEYOND = (apsw.ConstraintError, asyncpg.DataError, sa_exc.DataError, OverflowError)
CHUNK = 500
"""So many events are changed in one transaction; ingest waits no longer than for that."""
PAGE = 2_000
STRETCH = 100_000
"""After so many events that stay as they are, how far it has come is noted all the same."""


class Parts(NamedTuple):
    """What rating needs of the service."""

    db: Database
    feed: Feed
    house: House
    clock: Clock


class Batch(NamedTuple):
    """Events that are charged differently by now, out of `scanned`; None: nothing comes after."""

    keys: list[tuple[str, str]]
    scanned: int
    after: Key | None


async def batches(parts: Parts, wanted: Filter, after: Key | None) -> AsyncIterator[Batch]:
    """Walk the events behind `after`; at the end there is always one batch with no place.

    Events that were corrected are looked at and left out.
    """
    keys: list[tuple[str, str]] = []
    scanned = 0
    while True:
        await parts.db.glance(parts.feed.catch_up)
        catalog = parts.house.prices.catalog
        at = after
        page, said = await parts.db.read(lambda tx: page_to_rate(tx, wanted, at, PAGE))  # noqa: B023
        for entry in page.entries:
            scanned += 1
            revision = None if entry[:2] in said else revised(entry, catalog)
            if revision is not None and differs(revision):
                keys.append(entry[:2])
                if len(keys) == CHUNK:
                    yield Batch(keys, scanned, place_in(wanted, entry))
                    keys, scanned = [], 0
        after = page.after
        if after is None:
            yield Batch(keys, scanned, None)
            return
        if scanned >= STRETCH:
            yield Batch(keys, scanned, after)
            keys, scanned = [], 0
        await asyncio.sleep(0)


async def apply_rerate(parts: Parts, rerate_id: str) -> RerateRow:
    """Apply a re-rate to its end, from wherever it stands; one that was applied stays as it is.

    Raises:
        NotFound: there is none.
        Conflict: it was cancelled, or a total would pass what can be counted.
        Unavailable: the database did not take a step; those before it stay, and it can go on.
    """
    row = await parts.db.write(lambda tx: set_going(tx, rerate_id))
    while row.state == "applying":
        after = None if row.cursor is None else key_from_text(row.wanted, row.cursor)
        async for batch in batches(parts, row.wanted, after):
            if not await _step(parts, row, batch):
                break
            row = await parts.db.read(lambda tx: get_rerate(tx, rerate_id))
        row = await parts.db.read(lambda tx: get_rerate(tx, rerate_id))
    if row.state == "cancelled":
        raise Conflict("this re-rate was cancelled; what it changed stays", state=row.state)
    return row


async def _step(parts: Parts, row: RerateRow, batch: Batch) -> bool:
    """Change the events of a batch and note it; False if somebody else took this step."""
    now = parts.clock.now()
    cause = Cause("rerate", row.reason, row.id, row.created_by)

    async def work(tx: Tx) -> bool:
        if not await claim(tx, row):
            return False
        await parts.feed.catch_up(tx)
        made = await rerate(tx, batch.keys, house=parts.house, cause=cause, now=now)
        await advance(
            tx,
            row,
            cursor=None if batch.after is None else key_to_text(batch.after),
            scanned=batch.scanned,
            changed=len(made),
            delta_nanos=sum((one.cost_nanos or 0) - (one.entry.cost_nanos or 0) for one in made),
            now=now,
        )
        return True

    return await counted(parts.db, work)


async def counted(db: Database, work: Callable[[Tx], Awaitable[T]]) -> T:
    """Run a step in a transaction, again where an event of it was corrected meanwhile.

    Raises:
        Conflict: a total would pass what can be counted.
    """
    try:
        while True:
            with suppress(Corrected):
                return await db.write(work)
    except _BEYOND as error:
        raise Conflict("with these prices a total would pass what can be counted") from error
