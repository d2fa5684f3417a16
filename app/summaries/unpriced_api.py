"""The endpoint for models that were seen without a price."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from app.access.api import JsonRoute, Page, PageSize
from app.access.deps import Db, Reader
from app.access.guard import require_user
from app.core.errors import InvalidInput
from app.summaries.unpriced import list_unpriced

router = APIRouter(route_class=JsonRoute, tags=["prices"])
Mark = Annotated[str | None, Query(max_length=2048, description="`next_cursor` of the page before")]


class UnpricedOut(BaseModel):
    """A model with calls whose cost is unknown; the hours are those of the calls, in UTC."""

    provider: str | None
    model: str | None
    calls: int
    users: int
    first_hour: datetime
    last_hour: datetime

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "provider": "acme",
                    "model": "chat-1",
                    "calls": 42,
                    "users": 3,
                    "first_hour": "2026-11-20T12:00:00Z",
                    "last_hour": "2026-11-21T09:00:00Z",
                }
            ]
        }
    )


@router.get("/v1/prices/unpriced")
async def unpriced(
    key: Reader, db: Db, cursor: Mark = None, limit: PageSize = 100
) -> Page[UnpricedOut]:
    """Models seen without a price, with how many calls; those priced since are not among them."""
    require_user(key, None)
    after = None if cursor is None else _names(cursor)
    rows, more = await db.read(lambda tx: list_unpriced(tx, after, limit))
    items = [
        UnpricedOut(
            provider=row.provider or None,
            model=row.model or None,
            calls=row.calls,
            users=row.users,
            first_hour=row.first_hour,
            last_hour=row.last_hour,
        )
        for row in rows
    ]
    last = (rows[-1].provider, rows[-1].model) if rows and more else None
    return Page(items=items, next_cursor=None if last is None else _cursor(last))


def _cursor(names: tuple[str, str]) -> str:
    return urlsafe_b64encode(msgspec.json.encode(names)).decode()


def _names(cursor: str) -> tuple[str, str]:
    try:
        text = urlsafe_b64decode(cursor.encode())
        provider, model = msgspec.json.decode(text, type=tuple[str, str])
    except (ValueError, msgspec.MsgspecError):
        raise InvalidInput.at("/cursor", "not a cursor of this list") from None
    if "\0" in provider or "\0" in model:
        raise InvalidInput.at("/cursor", "not a cursor of this list")
    return provider, model
