"""Forget ids of wrapped events that are older than they are to be known.

First it is announced from when on ids are known, with no ingest beside it; every door refuses older
events from then on. Only after that they go. So nothing that is accepted could be there already.
"""

from datetime import datetime, timedelta

from sqlalchemy import select

from app.core.clock import Clock
from app.db.due import Remove
from app.db.engine import Database, Tx
from app.db.types import table_of
from app.retention.pick import users_behind
from app.retention.policy import Policy, policies
from app.retention.tables import Archive
from app.usage.tables import WrappedEvent
from app.usage.wrapped import WrappedIds, forget_before

USERS = 200
"""So many users are looked at in one read."""

_kept, _archive = table_of(WrappedEvent).c, table_of(Archive).c
_remove = Remove(table_of(WrappedEvent), ("user_id", "archive_id"), ("user_id",))


async def due_before(db: Database, by_default: Policy, now: datetime) -> datetime | None:
    """Ids of events before this instant are to be forgotten; None where they are, or all stay."""

    async def work(tx: Tx) -> datetime | None:
        days = (await policies(tx, by_default)).everyone.keep_ids_days
        if days is None:
            return None
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        before, known = midnight - timedelta(days=days), WrappedIds()
        await known.reload(tx, set())
        is_new = known.known_from is None or known.known_from < before
        return before if known.exist and is_new else None

    return await db.read(work)


async def forget(db: Database, clock: Clock, before: datetime) -> int:
    """Forget the ids in archives that end before this instant; how many there were."""
    now = clock.now()
    await db.write(lambda tx: forget_before(tx, before, now), alone=True)
    gone, after = 0, ""
    while users := await db.read(lambda tx: users_behind(tx, after, USERS)):  # noqa: B023
        after = users[-1]
        query = (
            select(_kept.user_id, _kept.archive_id)
            .distinct()
            .join(Archive, _archive.id == _kept.archive_id)
            .where(_kept.user_id.in_(users), _archive.last_at < before)
        )
        for row in await db.read(lambda tx: tx.fetch(query)):  # noqa: B023
            key = tuple(row)
            gone += len(await db.write(lambda tx: _remove(tx, [key])))  # noqa: B023
    return gone
