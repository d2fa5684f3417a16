"""Endpoints for archives: what there is, whether it is whole, and back into the log with it."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict

from app.access.api import (
    Cursor,
    Id,
    JsonRoute,
    Page,
    PageSize,
    Place,
    page_of,
    place_of,
    printable,
)
from app.access.deps import Db, Manager, Note, Now, Reader
from app.access.guard import require_user
from app.core.money import to_usd
from app.db.engine import Tx
from app.retention.archives import ArchiveRow, Asked, get_archive, list_archives
from app.retention.restore import restore as put_back
from app.retention.store import ArchiveStore
from app.retention.verify import verify as look

router = APIRouter(prefix="/v1/archives", route_class=JsonRoute, tags=["archives"])
State = Literal["writing", "sealed", "restored", "dropping"]
_SUMS = {"calls": 1000, "errors": 3, "input_tokens": 812000, "output_tokens": 91000}
_SUMS_SHOWN: dict[str, Any] = {**_SUMS, "cost_usd": "0.1764"}


def _store(request: Request) -> ArchiveStore:
    found: ArchiveStore = request.app.state.store
    return found


Store = Annotated[ArchiveStore, Depends(_store)]
Month = Annotated[
    str | None, Query(pattern=r"^20[0-9]{2}-(0[1-9]|1[0-2])$", description="`2026-11`, in UTC")
]
Whose = Annotated[
    str | None,
    Query(min_length=1, max_length=256, description="archives that hold rows of this user"),
    AfterValidator(printable),
]
_ARCHIVE: dict[str, Any] = {
    "id": "arc_4f0c9a1b2c3d4e5f",
    "state": "sealed",
    "month": "2026-11",
    "path": "month=2026-11/arc_4f0c9a1b2c3d4e5f.parquet",
    "trigger": "count",
    "users": 1,
    "events": 1000,
    "bytes": 41200,
    "sha256": "b4b0648e9ea19cda05568b88cff96e1ceee016db840b330ad10cf30f6a9d9c86",
    "first_at": "2026-11-01T08:00:00Z",
    "last_at": "2026-11-19T17:30:00Z",
    "last_recorded_at": "2026-11-19T17:30:01Z",
    "created_at": "2026-11-20T12:30:00Z",
    "changed_at": "2026-11-20T12:30:01Z",
    "sums": _SUMS_SHOWN,
}


class ArchiveOut(BaseModel):
    """One file of rows that left the log, all of one month in UTC.

    `writing` and `dropping` are not finished: their rows are in the log. `sealed` holds rows that
    the log no longer has, `restored` rows that are back in it. `sums` is what its rows add up to.
    """

    id: str
    state: State
    month: str
    path: str
    trigger: str
    users: int
    events: int
    bytes: int
    sha256: str
    first_at: datetime | None
    last_at: datetime | None
    last_recorded_at: datetime | None
    created_at: datetime
    changed_at: datetime
    sums: dict[str, int | str]

    model_config = ConfigDict(json_schema_extra={"examples": [_ARCHIVE]})


class VerifiedOut(BaseModel):
    """Whether an archive is whole: each of the `problems` is one sentence."""

    id: str
    ok: bool
    problems: list[str]
    events: int
    sums: dict[str, int | str]

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": _ARCHIVE["id"],
                    "ok": True,
                    "problems": [],
                    "events": 1000,
                    "sums": _SUMS_SHOWN,
                }
            ]
        }
    )


def shown_sums(sums: Any) -> dict[str, int | str]:
    """Sums for the wire: money as a decimal string."""
    return {
        "cost_usd" if name == "cost_nanos" else name: to_usd(value)
        if name == "cost_nanos"
        else value
        for name, value in sums.items()
    }


def archive_out(row: ArchiveRow) -> ArchiveOut:
    """An archive for the wire."""
    facts = row._asdict() | {"month": f"{row.month:%Y-%m}", "sums": shown_sums(row.sums)}
    return ArchiveOut(**facts)


@router.get("")
async def list_all(
    key: Reader,
    db: Db,
    state: State | None = None,
    month: Month = None,
    user_id: Whose = None,
    cursor: Cursor = None,
    limit: PageSize = 100,
) -> Page[ArchiveOut]:
    """Every archive, newest first. With `user_id`: those that rows of that user lie in."""
    require_user(key, None)
    start = None if month is None else datetime(int(month[:4]), int(month[5:]), 1, tzinfo=UTC)
    asked, before = Asked(state, start, user_id), place_of(cursor)
    rows = await db.read(lambda tx: list_archives(tx, asked, before, limit + 1))
    shown, more = page_of(rows, limit, lambda row: Place(row.created_at, row.id))
    return Page(items=[archive_out(row) for row in shown], next_cursor=more)


@router.get("/{archive_id}")
async def get(archive_id: Id, key: Reader, db: Db) -> ArchiveOut:
    """One archive."""
    require_user(key, None)
    return archive_out(await db.read(lambda tx: get_archive(tx, archive_id)))


@router.post("/{archive_id}/verify")
async def verify(archive_id: Id, key: Reader, db: Db, store: Store) -> VerifiedOut:
    """Read the whole file, and compare it with its manifest and with what was kept of its rows.

    Changes nothing. 503 means that the file cannot be read now, which says nothing of it.
    """
    require_user(key, None)
    found = await look(db, store, archive_id)
    return VerifiedOut(
        id=found.archive.id,
        ok=found.ok,
        problems=found.problems,
        events=found.events,
        sums=shown_sums(found.sums),
    )


@router.post("/{archive_id}/restore")
async def restore(
    archive_id: Id, key: Manager, db: Db, clock: Now, store: Store, note: Note
) -> ArchiveOut:
    """Put the rows back into the log. Every total stays as it is; restored twice, nothing changes.

    409 if the file is damaged, with the `problems`. The file stays. Rows that the retention does
    not keep are wrapped again in time.
    """
    require_user(key, None)

    async def noted(tx: Tx, before: ArchiveRow, after: ArchiveRow) -> None:
        states = archive_out(before), archive_out(after)
        await note(tx, "restore", "archive", archive_id, *states)

    return archive_out(await put_back(db, store, archive_id, clock.now(), noted))
