"""Every event there is, one page after the other: of the log, and of its archives where wanted.

Each page is a short read of its own, so that an export of hours holds up neither writers nor the
database's housekeeping. What was recorded before the export began is in it exactly once, also
where rows are archived or restored while it runs; what is recorded meanwhile may be in it or not.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, func, or_, select

from app.core.clock import hour_of
from app.core.errors import Unavailable
from app.db.engine import Database, Tx
from app.db.types import table_of
from app.retention.store import ArchiveStore, Damaged
from app.retention.tables import Archive
from app.summaries.buckets import hurry
from app.summaries.tables import PeriodTotal, WrappedUsage
from app.usage.export import (
    Exported,
    Place,
    Slice,
    as_they_stand,
    earlier_users,
    moves_any,
    next_rows,
)
from app.usage.ledger import Entry

USERS = 500
FILE_PAGE = 2_000
_total, _wrapped = table_of(PeriodTotal).c, table_of(WrappedUsage).c
_archive = table_of(Archive).c


class File(NamedTuple):
    """An archive that may hold events that are wanted."""

    path: str
    sha256: str
    sealed: bool


class Border(NamedTuple):
    """Where the log had been read to when an archive was sealed, or was restored."""

    place: Place | None
    sealed: bool


async def users_after(tx: Tx, user_id: str | None, wanted: Slice) -> list[str]:
    """The next users who ever used something, in the order of the database."""
    query = select(_total.user_id).distinct().order_by(_total.user_id).limit(USERS)
    if user_id is not None:
        query = query.where(_total.user_id > user_id)
    if wanted.end is not None:
        query = query.where(_total.period_start < wanted.end)
    return [row[0] for row in await tx.fetch(query)]


async def wrapped_calls(tx: Tx, user_id: str | None, wanted: Slice) -> int:
    """How many calls that are wanted are no longer in the log, by the hours that they were in."""
    where: list[ColumnElement[bool]] = [] if user_id is None else [_wrapped.user_id == user_id]
    if wanted.start is not None:
        where.append(_wrapped.hour >= hour_of(wanted.start))
    if wanted.end is not None:
        where.append(_wrapped.hour < wanted.end)
    for name, value in wanted.names.items():
        if name in _wrapped:
            same = _wrapped[name] == value
            where.append(same if value else or_(same, _wrapped[name].is_(None)))
    await hurry(tx)
    return int(
        (await tx.fetch(select(func.coalesce(func.sum(_wrapped.calls), 0)).where(*where)))[0][0]
    )


async def exported(
    db: Database, store: ArchiveStore | None, user_id: str | None, wanted: Slice
) -> AsyncIterator[list[Exported]]:
    """The events in pages: of one user or of all; with a `store` those that were archived too.

    Raises:
        Unavailable: the database does not answer, or an archive cannot be read; what came before
            is then not the whole.
    """
    reader = _Reader(db, wanted, with_archives=store is not None)
    users = [user_id] if user_id is not None else await reader.users(None)
    while users:
        async for page in reader.log(users):
            yield page
        users = [] if user_id is not None else await reader.users(users[-1])
    if store is not None:
        async for page in reader.archived(store, user_id):
            yield page


class _Reader:
    """How far an export is, and what became of archives on the way."""

    def __init__(self, db: Database, wanted: Slice, *, with_archives: bool) -> None:
        self._db, self._wanted, self._with_archives = db, wanted, with_archives
        self._files: dict[str, File] | None = None
        self._borders: dict[str, list[Border]] = {}
        self._last: Place | None = None

    async def users(self, last: str | None) -> list[str]:
        return await self._db.read(lambda tx: users_after(tx, last, self._wanted))

    async def log(self, users: Sequence[str]) -> AsyncIterator[list[Exported]]:
        place: Place | None = None
        while True:
            page, place = await self._page(users, place)
            yield page
            if place is None:
                return

    async def _page(
        self, users: Sequence[str], after: Place | None
    ) -> tuple[list[Exported], Place | None]:
        async def work(tx: Tx) -> tuple[list[Exported], Place | None, dict[str, File]]:
            await hurry(tx)
            files = await self._known(tx) if self._with_archives else {}
            entries, end = await next_rows(tx, users, self._wanted, after)
            return await as_they_stand(tx, entries, self._wanted), end, files

        found, end, files = await self._db.read(work)
        if self._with_archives:
            self._note(files, after)
            self._last = end or Place(users[-1])
        return found, end

    def _note(self, files: dict[str, File], after: Place | None) -> None:
        """Remember where the log had been read to when an archive came or went."""
        place = after or self._last
        before = self._files
        for archive_id, file in files.items():
            was = file.sealed if before is None else _was_sealed(before, archive_id)
            if was != file.sealed:
                self._borders.setdefault(archive_id, []).append(Border(place, file.sealed))
        self._files = files

    async def _known(self, tx: Tx) -> dict[str, File]:
        where: list[ColumnElement[bool]] = [_archive.state.in_(("sealed", "restored"))]
        start, end = self._wanted.start, self._wanted.end
        if (start or end) and not await moves_any(tx, self._wanted):
            if start is not None:
                where.append(_archive.last_at >= start)
            if end is not None:
                where.append(_archive.first_at < end)
        query = select(_archive.id, _archive.path, _archive.sha256, _archive.state).where(*where)
        rows = await tx.fetch(query.order_by(_archive.created_at, _archive.id))
        return {row[0]: File(row[1], row[2], row[3] == "sealed") for row in rows}

    # ---- archives ----

    async def archived(
        self, store: ArchiveStore, user_id: str | None
    ) -> AsyncIterator[list[Exported]]:
        files = await self._db.read(self._known)
        self._note(files, None)
        for archive_id, file in files.items():
            borders = self._borders.get(archive_id, [])
            if not file.sealed and not borders:
                continue
            try:
                entries = await store.read(file.path, file.sha256)
            except Damaged as error:
                raise Unavailable(f"the archive {archive_id} cannot be read whole") from error
            if user_id is not None:
                entries = [entry for entry in entries if entry.user_id == user_id]
            missed = await self._missed(entries, borders)
            for begin in range(0, len(missed), FILE_PAGE):
                yield await self._standing(missed[begin : begin + FILE_PAGE])
                await asyncio.sleep(0)

    async def _standing(self, entries: Sequence[Entry]) -> list[Exported]:
        return await self._db.read(lambda tx: as_they_stand(tx, entries, self._wanted))

    async def _missed(self, entries: list[Entry], borders: Sequence[Border]) -> list[Entry]:
        """The rows of an archive that were not in the log when the export came by.

        A row that had been passed before the archive first changed was seen as that left it, and so
        on for each change.
        """
        if not borders:
            return entries
        users = {entry.user_id for entry in entries}
        left, missed = entries, []
        for border in borders:
            if border.place is None:
                continue
            place = border.place
            earlier = await self._db.read(lambda tx, at=place: earlier_users(tx, users, at.user_id))  # type: ignore[misc]
            passed = [entry for entry in left if place.passed(entry, earlier)]
            left = [entry for entry in left if not place.passed(entry, earlier)]
            if not border.sealed:  # until then it was sealed, so these were not in the log
                missed += passed
        return missed + (left if borders[-1].sealed else [])


def _was_sealed(files: dict[str, File], archive_id: str) -> bool:
    return archive_id in files and files[archive_id].sealed
