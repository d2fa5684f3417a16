"""Pages of archives: which there are, whether each is whole, and back into the log with one."""

from collections.abc import Mapping
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import func, select

from app.access.api import Cursor, Place, page_of, place_of
from app.access.deps import Db, Now
from app.core.errors import AppError, Conflict, InvalidInput, Unavailable
from app.dashboard.csv_rows import csv_rows
from app.dashboard.deps import Managing, SeenAll, Viewer, form
from app.dashboard.frame import page
from app.dashboard.moves import Note, SeenAllHere, cursor_links, see
from app.db.engine import Tx
from app.retention import api as retention_api
from app.retention import archives_api as archives
from app.retention.api import WrapOut, Wrapping
from app.retention.archives import ArchiveRow, Asked, list_archives
from app.retention.archives_api import Store, VerifiedOut
from app.retention.tables import Archive

router = APIRouter()
HOME = "/dashboard/system/archives"
STATES = ("sealed", "restored", "writing", "dropping")
ROWS, CSV_ROWS = 50, 10_000


class Sum(NamedTuple):
    """All archives of one state together."""

    archives: int = 0
    events: int = 0
    bytes: int = 0


async def sums(tx: Tx) -> Mapping[str, Sum]:
    """What archives come to, by state."""
    query = select(
        Archive.state, func.count(), func.sum(Archive.events), func.sum(Archive.bytes)
    ).group_by(Archive.state)
    return {row[0]: Sum(*map(int, row[1:])) for row in await tx.fetch(query)}


@router.get(HOME)
async def listed(
    viewer: SeenAll,
    db: Db,
    state: str = "",
    user: Annotated[str, Query(max_length=256)] = "",
    cursor: Cursor = None,
    format: str = "",
    done: str = "",
) -> Response:
    """Every archive, newest first."""
    if format == "csv":
        asked = Asked(state if state in STATES else None, None, user or None)
        rows = await db.read(lambda tx: list_archives(tx, asked, None, CSV_ROWS))
        return csv_rows("archives", ArchiveRow._fields[:-1], [row[:-1] for row in rows])
    return await _page(viewer, db, state=state, user=user, cursor=cursor, done=done)


async def _page(
    viewer: Viewer,
    db: Db,
    *,
    state: str = "",
    user: str = "",
    cursor: str | None = None,
    done: str = "",
    problem: str = "",
    verified: VerifiedOut | None = None,
    wrapped: WrapOut | None = None,
    status: int = 200,
) -> Response:
    asked = Asked(state if state in STATES else None, None, user or None)
    before = place_of(cursor)

    async def work(tx: Tx) -> tuple[list[ArchiveRow], Mapping[str, Sum]]:
        return await list_archives(tx, asked, before, ROWS + 1), await sums(tx)

    rows, total = await db.read(work)
    shown, more = page_of(rows, ROWS, lambda row: Place(row.created_at, row.id))
    keep = {"state": asked.state or "", "user": user}
    return page(
        viewer,
        "system_archives.html",
        status=status,
        archives=shown,
        sealed=total.get("sealed", Sum()),
        restored=total.get("restored", Sum()),
        keep=keep,
        states=[(one, one) for one in STATES],
        links=cursor_links(HOME, keep, cursor, more),
        done=done,
        problem=problem,
        verified=verified,
        wrapped=wrapped,
    )


def _problem(error: AppError) -> str:
    problems = error.extra.get("problems") or []
    return "; ".join([error.detail or error.title, *problems])


@router.post(HOME + "/wrap")
async def wrap(request: Request, viewer: Managing, db: Db, parts: Wrapping, note: Note) -> Response:
    """Wrap a user's log as far as their retention asks for it, or say what would be."""
    values = await form(request)
    user_id, dry_run = values.get("user", "").strip(), values.get("dry_run") == "yes"
    try:
        if not 1 <= len(user_id) <= 256:
            raise InvalidInput.at("/user", "a user id of at most 256 characters is expected")
        found = await retention_api.wrap_now(
            user_id, key=viewer.key, parts=parts, note=note, dry_run=dry_run
        )
    except (InvalidInput, Conflict, Unavailable) as error:
        if viewer.part:
            return page(viewer, "system_wrapped.html", problem=_problem(error), wrapped=None)
        return await _page(viewer, db, problem=_problem(error), status=error.status)
    if viewer.part:
        return page(viewer, "system_wrapped.html", wrapped=found, problem="")
    return await _page(viewer, db, wrapped=found)


@router.post(HOME + "/{archive_id}/verify")
async def verify(archive_id: str, viewer: SeenAllHere, db: Db, store: Store) -> Response:
    """Read the whole file, and say whether it is the one that was written."""
    try:
        found = await archives.verify(archive_id, key=viewer.key, db=db, store=store)
    except (Conflict, Unavailable) as error:
        if viewer.part:
            return page(viewer, "system_verified.html", problem=_problem(error), verified=None)
        return await _page(viewer, db, problem=_problem(error), status=error.status)
    if viewer.part:
        return page(viewer, "system_verified.html", verified=found, problem="")
    return await _page(viewer, db, verified=found)


@router.post(HOME + "/{archive_id}/restore")
async def restore(
    archive_id: str, viewer: Managing, db: Db, clock: Now, store: Store, note: Note
) -> Response:
    """Put the rows of an archive back into the log."""
    try:
        await archives.restore(
            archive_id, key=viewer.key, db=db, clock=clock, store=store, note=note
        )
    except (Conflict, Unavailable) as error:
        return await _page(viewer, db, problem=_problem(error), status=error.status)
    return see(f"{HOME}?done=restored")
