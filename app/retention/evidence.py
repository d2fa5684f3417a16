"""The row of an event that was wrapped, from the archive that it lies in."""

from app.core.errors import Damaged
from app.db.engine import Database, Tx
from app.retention.archives import ArchiveRow, get_archive
from app.retention.store import ArchiveStore
from app.usage.ledger import Entry
from app.usage.wrapped import WrappedRow, find_wrapped


async def entry_of_wrapped(
    db: Database, store: ArchiveStore, user_id: str, event_id: str
) -> Entry | None:
    """The row as it left the log; None where no such event is wrapped.

    Raises:
        Damaged: the archive's file is missing, or not the one that was written.
        Unavailable: it cannot be read now.
    """
    key = (user_id, event_id)

    async def look(tx: Tx) -> tuple[WrappedRow, ArchiveRow] | None:
        left = (await find_wrapped(tx, [key])).get(key)
        return None if left is None else (left, await get_archive(tx, left.archive_id))

    found = await db.read(look)
    if found is None:
        return None
    left, archive = found
    for entry in await store.read(archive.path, archive.sha256, only=[key]):
        if (entry.body_hash, entry.recorded_at) == (left.body_hash, left.recorded_at):
            return entry
    raise Damaged("the archive does not hold the event", id=archive.id)
