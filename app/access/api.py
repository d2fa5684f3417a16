"""How every body and page of the management API is read."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

from fastapi import Path, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from app.core.clock import from_micros, to_micros
from app.core.errors import InvalidInput
from app.web.lean import LeanRequest, headers_from, media_type
from app.web.strict import MARK, inflate, refuse_repeated_keys

T = TypeVar("T")
MAX_BODY = 64 * 1024
MAX_NAME_BYTES = 1024
ORDER_AND_ID = re.compile(r"(-?\d{1,18}):([\x20-\x7e]{0,128})")


class JsonRoute(APIRoute):
    """A route whose body is JSON, bounded, perhaps gzipped, and names no key twice."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def checked(request: Request) -> Response:
            if request.method not in ("POST", "PUT", "PATCH"):
                return await inner(request)
            headers = headers_from(request.scope["headers"])
            lean = LeanRequest(headers, "", request.receive, None)
            body = await lean.body(MAX_BODY)
            if body:
                media_type(lean, ("application/json",))
                body = inflate(body, lean.header(b"content-encoding").strip().lower(), MAX_BODY)
                body = body.removeprefix(MARK)
                refuse_repeated_keys(body)
            return await inner(Request(request.scope, _replay(body)))

        return checked


def _replay(body: bytes) -> Callable[[], Awaitable[Any]]:
    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


class Body(BaseModel):
    """What a client sends: exact types, nothing that we do not know."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Page(BaseModel, Generic[T]):
    """Some of a list, and where to go on."""

    items: list[T]
    next_cursor: str | None = None


def printable(value: str | None) -> str | None:
    """Refuse what no index can hold: control characters, half characters, too many bytes."""
    if value is None:
        return None
    if any(char < " " or char == "\x7f" for char in value):
        raise PydanticCustomError("name", "must not contain control characters")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise PydanticCustomError("name", "must be valid Unicode") from None
    if size > MAX_NAME_BYTES:
        raise PydanticCustomError("name", "at most 1,024 bytes in UTF-8")
    return value


_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


def _instant(value: object) -> datetime:
    if not isinstance(value, str) or not _RFC3339.fullmatch(value.upper()):
        raise PydanticCustomError("instant", "an RFC 3339 instant with an offset is expected")
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise PydanticCustomError("instant", "there is no such instant in UTC") from None


_WHEN = WithJsonSchema({"type": "string", "format": "date-time"})
Instant = Annotated[datetime, PlainValidator(_instant), _WHEN]
Name = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(printable)]
Provider = Annotated[
    str, StringConstraints(min_length=1, max_length=128), AfterValidator(printable)
]
UserId = Annotated[str, Path(min_length=1, max_length=256), AfterValidator(printable)]
Id = Annotated[str, Path(min_length=1, max_length=128), AfterValidator(printable)]
Cursor = Annotated[
    str | None, Query(max_length=512, description="`next_cursor` of the page before")
]
PageSize = Annotated[int, Query(alias="limit", ge=1, le=1000)]


class Place(NamedTuple):
    """Where a page of things in order of time ended."""

    at: datetime
    id: str


def cursor_of(at: datetime, thing_id: str) -> str:
    """The cursor that goes on after this thing."""
    return urlsafe_b64encode(f"{to_micros(at)}:{thing_id}".encode()).decode()


def place_of(cursor: str | None) -> Place | None:
    """Where to go on; None from the beginning.

    Raises:
        InvalidInput: not a cursor of ours.
    """
    if cursor is None:
        return None
    try:
        found = ORDER_AND_ID.fullmatch(urlsafe_b64decode(cursor.encode()).decode())
        if found:
            return Place(from_micros(int(found[1])), found[2])
    except (ValueError, OverflowError):
        pass
    raise InvalidInput.at("/cursor", "not a cursor of this list")


def page_of(rows: list[T], limit: int, place: Callable[[T], Place]) -> tuple[list[T], str | None]:
    """Of one row more than asked for: the page, and the cursor if there is more."""
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], cursor_of(*place(rows[limit - 1]))
