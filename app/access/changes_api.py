"""The endpoint that tells who changed what."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from app.access.api import (
    Cursor,
    Instant,
    JsonRoute,
    Name,
    Page,
    PageSize,
    Place,
    page_of,
    place_of,
    printable,
)
from app.access.changelog import list_changes
from app.access.deps import Admin, Db
from app.access.guard import require_user
from app.core.errors import InvalidInput

router = APIRouter(route_class=JsonRoute, tags=["audit"])
Ref = Annotated[str, StringConstraints(min_length=1, max_length=512), AfterValidator(printable)]
_LIMIT: dict[str, Any] = {"id": "lim_4f0c9a1b2c3d4e5f", "name": "monthly budget"}


class ChangeOut(BaseModel):
    """One change: who made it, through which door, and the thing before and after it.

    Secrets are never in it, and what was very long is cut (`…`). `before` is null for what was
    made, `after` for what was removed.
    """

    id: str
    at: datetime
    key_id: str
    key_name: str
    via: str
    request_id: str | None
    action: str
    kind: str
    ref: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "019a9f5e-0000-7000-8000-000000000000",
                    "at": "2026-11-20T12:30:00Z",
                    "key_id": "key_4f0c9a1b2c3d4e5f",
                    "key_name": "operations",
                    "via": "api",
                    "request_id": "req_5f3a9c1b2d",
                    "action": "change",
                    "kind": "limit",
                    "ref": "lim_4f0c9a1b2c3d4e5f",
                    "before": _LIMIT | {"amount": "100"},
                    "after": _LIMIT | {"amount": "250"},
                }
            ]
        }
    )


@router.get("/v1/audit/changes")
async def changes(
    key: Admin,
    db: Db,
    kind: Annotated[Name | None, Query(description="`limit`, `plan`, `key`, …")] = None,
    ref: Annotated[Ref | None, Query(description="The id of the thing.")] = None,
    key_id: Annotated[Name | None, Query(description="Changes made with this key.")] = None,
    start: Annotated[Instant | None, Query(alias="from")] = None,
    end: Annotated[Instant | None, Query(alias="to")] = None,
    cursor: Cursor = None,
    limit: PageSize = 100,
) -> Page[ChangeOut]:
    """What was changed by hand, newest first, `from <= at < to`; nothing ever leaves the list."""
    require_user(key, None)
    if start is not None and end is not None and end < start:
        raise InvalidInput.at("/to", "lies before `from`")
    after = place_of(cursor)
    rows = await db.read(
        lambda tx: list_changes(tx, kind, ref, key_id, after, limit + 1, start=start, end=end)
    )
    shown, more = page_of(rows, limit, lambda one: Place(one.at, one.id))
    return Page(items=[ChangeOut(**one._asdict()) for one in shown], next_cursor=more)
