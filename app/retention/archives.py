"""Archives as the database knows them: one by its id, or a page of those that are asked for."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import exists, literal, select, tuple_

from app.core.errors import NotFound
from app.db.engine import Tx
from app.db.types import table_of
from app.retention.tables import Archive
from app.usage.tables import WrappedEvent


class ArchiveRow(NamedTuple):
    """An archive as it stands: the columns of its table."""

    id: str
    state: str
    created_at: datetime
    changed_at: datetime
    month: datetime
    path: str
    trigger: str
    users: int
    events: int
    bytes: int
    sha256: str
    first_at: datetime | None
    last_at: datetime | None
    last_recorded_at: datetime | None
    sums: dict[str, int]


class Asked(NamedTuple):
    """Which archives a reader asks for; None asks for nothing in particular."""

    state: str | None = None
    month: datetime | None = None
    user_id: str | None = None


_archive = table_of(Archive).c
_event = table_of(WrappedEvent).c
_columns = tuple(_archive[name] for name in ArchiveRow._fields)


async def get_archive(tx: Tx, archive_id: str) -> ArchiveRow:
    """The archive of that id.

    Raises:
        NotFound: there is none.
    """
    row = await tx.first(select(*_columns).where(_archive.id == archive_id))
    if row is None:
        raise NotFound("no such archive", id=archive_id)
    return ArchiveRow._make(row)


async def list_archives(
    tx: Tx, asked: Asked, before: tuple[datetime, str] | None, limit: int
) -> list[ArchiveRow]:
    """At most `limit` archives, newest first; with a user, those that hold rows of theirs."""
    order = (_archive.created_at, _archive.id)
    query = select(*_columns).order_by(*(one.desc() for one in order)).limit(limit)
    if asked.state is not None:
        query = query.where(_archive.state == asked.state)
    if asked.month is not None:
        query = query.where(_archive.month == asked.month)
    if asked.user_id is not None:
        theirs = (_event.user_id == asked.user_id, _event.archive_id == _archive.id)
        query = query.where(exists().where(*theirs))
    if before is not None:
        last = tuple_(literal(before[0], _archive.created_at.type), literal(before[1]))
        query = query.where(tuple_(*order) < last)
    return [ArchiveRow._make(row) for row in await tx.fetch(query)]
