"""Rate what was unpriced when a price for it arrives.

Events are rated when they come, by the prices in force then. So an event without a price is looked
at again only after prices changed: which change that was is noted when all have been looked at, and
until the next one nothing is read of them.
"""

from sqlalchemy import Text, func, literal_column, select

from app.db.changes import ConfigChange
from app.db.engine import Tx
from app.db.lease import mark_of, note
from app.db.types import table_of
from app.ingest.rerate import rerate
from app.ingest.rerate_apply import Parts, batches, counted
from app.usage.adjust import Cause
from app.usage.sweep import Filter
from app.usage.tables import UsageEvent

NAME = "rate-unpriced"
EVERY_S = 60.0
CAUSE = Cause("rerate", "a price arrived", None, "tollgate")
WANTED = Filter(cost_status=("unpriced",))

_change, _log = table_of(ConfigChange).c, table_of(UsageEvent).c


async def prices_seen(tx: Tx) -> str:
    """Which change of prices is the newest one."""
    query = select(func.max(_change.version)).where(_change.kind == "prices")
    return str((await tx.fetch(query))[0][0] or 0)


async def is_due(parts: Parts) -> bool:
    """Whether prices changed since the unpriced events were looked at, if there are any."""

    async def work(tx: Tx) -> bool:
        if await mark_of(tx, NAME) == await prices_seen(tx):
            return False
        unpriced = _log.cost_status == literal_column("'unpriced'", Text)
        return await tx.first(select(_log.event_id).where(unpriced).limit(1)) is not None

    return await parts.db.read(work)


async def rate_unpriced(parts: Parts) -> int:
    """Rate every unpriced event that a price covers by now; how many there were."""
    seen = await parts.db.read(prices_seen)
    rated = 0
    async for batch in batches(parts, WANTED, None):
        keys, now = batch.keys, parts.clock.now()

        async def work(tx: Tx) -> int:
            await parts.feed.catch_up(tx)
            made = await rerate(tx, keys, house=parts.house, cause=CAUSE, now=now)  # noqa: B023
            return len(made)

        if keys:
            rated += await counted(parts.db, work)
    now = parts.clock.now()
    await parts.db.write(lambda tx: note(tx, NAME, seen, now))
    return rated
