"""Carry out an order from its first look to its commit, wherever the event lies."""

from collections.abc import Awaitable, Callable
from datetime import datetime

import apsw
import asyncpg
from sqlalchemy import exc as sa_exc

from app.core.errors import Damaged, InvalidInput, Unavailable
from app.db.engine import Tx
from app.ingest.correct import (
    Done,
    Evidence,
    Moved,
    Order,
    carry_out,
    needs_evidence,
    rows_meant,
)
from app.ingest.correct_fields import Amount
from app.ingest.rerate_apply import Parts
from app.usage.corrections import corrected
from app.usage.ledger import Entry
from app.usage.lock import look_at_events

ATTEMPTS = 5
_BEYOND = (apsw.ConstraintError, asyncpg.DataError, sa_exc.DataError, OverflowError)
ReadRow = Callable[[str, str], Awaitable[Entry | None]]
"""The row of a wrapped event, read from its archive, by user and event id."""


Also = Callable[[Tx, Done, datetime], Awaitable[None]]
"""What else is done in the transaction of an order: told what came of it, and its time."""


async def done(parts: Parts, read_row: ReadRow, order: Order, also: Also | None = None) -> Done:
    """Carry out an order in one transaction; it holds when this returns.

    Raises:
        NotFound, Conflict, IdReused: as `carry_out`.
        InvalidInput: as `carry_out`, or a total would pass what can be counted.
        Unavailable: the database or the archive did not answer; nothing was changed.
    """
    for _ in range(ATTEMPTS):
        evidence = await _evidence(parts, read_row, order)

        async def work(tx: Tx) -> Done:
            await parts.feed.catch_up(tx)
            now = parts.clock.now()
            found = await carry_out(tx, order, house=parts.house, evidence=evidence, now=now)  # noqa: B023
            if also is not None:
                await also(tx, found, now)
            return found

        try:
            return await parts.db.write(work)
        except Moved:
            continue
        except _BEYOND:
            detail = "with this, a cost or a total would pass what can be counted (2^63-1)"
            raise InvalidInput.at("", detail) from None
    raise Unavailable("the event moved between log and archive; nothing was changed")


async def _evidence(parts: Parts, read_row: ReadRow, order: Order) -> Evidence:
    """What the archives say of those of the rows meant that nothing else tells of."""

    async def look(tx: Tx) -> list[str]:
        kept = await look_at_events(tx, order.user_id, rows_meant(order))
        if all(one.row is not None for one in kept.values()):
            return []
        known = await corrected(tx, [(order.user_id, event_id) for event_id in kept])
        return [
            event_id
            for event_id, one in kept.items()
            if needs_evidence(one, known.get((order.user_id, event_id), []))
        ]

    found: dict[str, Entry | None] = {}
    for event_id in await parts.db.read(look):
        try:
            found[event_id] = await read_row(order.user_id, event_id)
        except Damaged:
            found[event_id] = None
        except Unavailable:
            if not isinstance(order.edit, Amount):
                raise
            found[event_id] = None
    return found
