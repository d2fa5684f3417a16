"""Endpoints that hand out everything: events as they stand, and charges as FOCUS has them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any, NamedTuple, TypeVar

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from app.access.api import printable
from app.access.deps import Db, Now, Reader
from app.access.guard import require_user
from app.access.keys import Key
from app.analytics.charges import charges
from app.analytics.exports import exported, wrapped_calls
from app.analytics.focus import COLUMNS, rows_of
from app.core.clock import EPOCH, Clock, hour_of
from app.core.errors import InvalidInput
from app.retention.store import ArchiveStore
from app.summaries.grains import DAY, HOUR, LAST_YEAR, Span
from app.usage.api import INSTANT, instant_from
from app.usage.export import Slice, columns_of, row_of
from app.usage.sheets import MEDIA_TYPES, Column, Format, Row, Sheet, sheet_of

T = TypeVar("T")
router = APIRouter(tags=["exports"])

WRAPPED_CALLS = "X-Tollgate-Wrapped-Calls"
NAMES = (
    *("provider", "model", "task_type", "endpoint", "team_id", "api_key_id", "session_id"),
    *("backend", "pool"),
)
_CSV = "id,user_id,timestamp,…,cost_usd,…\r\nreq_8f2c,alice,2026-11-20T12:30:00Z,…,0.00036,…\r\n"
_LINE = (
    '{"id":"req_8f2c","user_id":"alice","timestamp":"2026-11-20T12:30:00Z","provider":"openai",'
    '"model":"gpt-4o-mini","cost_usd":"0.00036","usage":{"input_tokens":1200}}\n'
)
_FOCUS = (
    "BilledCost,BillingAccountId,…,ChargePeriodStart,…\r\n"
    "0.00036,alice,…,2026-11-20T12:00:00Z,…\r\n"
)

FromText = Annotated[str | None, Query(alias="from", description=INSTANT)]
ToText = Annotated[str | None, Query(description=INSTANT)]
Name = Annotated[str | None, Query(max_length=512, description='"" stands for none given')]
UserName = Annotated[str | None, Query(min_length=1, max_length=256)]


def _described(csv: str, line: str) -> dict[int | str, dict[str, Any]]:
    return {
        200: {
            "description": "The rows, as they are read; an answer that breaks off is not the whole",
            "content": {
                "text/csv": {"schema": {"type": "string"}, "example": csv},
                "application/x-ndjson": {"schema": {"type": "string"}, "example": line},
                "application/vnd.apache.parquet": {
                    "schema": {"type": "string", "format": "binary"}
                },
            },
        }
    }


@router.get(
    "/v1/exports/events", response_class=StreamingResponse, responses=_described(_CSV, _LINE)
)
async def export_events(
    request: Request,
    db: Db,
    key: Reader,
    format: Annotated[Format, Query()] = "csv",
    from_: FromText = None,
    to: ToText = None,
    user_id: UserName = None,
    provider: Name = None,
    model: Name = None,
    task_type: Name = None,
    endpoint: Name = None,
    team_id: Name = None,
    api_key_id: Name = None,
    session_id: Name = None,
    backend: Name = None,
    pool: Name = None,
    include_wrapped: Annotated[
        bool, Query(description="Read events that left the log from their archives too")
    ] = False,
) -> StreamingResponse:
    """Every event as it stands, by user and time, where `from` <= timestamp < `to`.

    Without `include_wrapped` the header `X-Tollgate-Wrapped-Calls` says how many calls of these
    hours are archived and left out. A key that is bound to a user gets that user's.
    """
    _check_http(request)
    user_id = _whose(key, user_id)
    start, end = instant_from(from_, "from"), instant_from(to, "to")
    if start is not None and end is not None and end < start:
        raise InvalidInput.at("/to", "to: lies before `from`")
    given = (provider, model, task_type, endpoint, team_id, api_key_id, session_id, backend, pool)
    names = {name: value for name, value in zip(NAMES, given, strict=True) if value is not None}
    wanted = Slice(start, end, names)
    headers = {}
    store: ArchiveStore | None = request.app.state.store if include_wrapped else None
    if store is None:
        left_out = await db.read(lambda tx: wrapped_calls(tx, user_id, wanted))
        headers[WRAPPED_CALLS] = str(left_out)
    pages = exported(db, store, user_id, wanted)
    return await _streamed(
        _Export("events", format, columns_of(format), headers),
        pages,
        lambda page: [row_of(one) for one in page],
    )


@router.get(
    "/v1/exports/focus", response_class=StreamingResponse, responses=_described(_FOCUS, _FOCUS)
)
async def export_focus(
    request: Request,
    db: Db,
    clock: Now,
    key: Reader,
    format: Annotated[Format, Query()] = "csv",
    from_: FromText = None,
    to: ToText = None,
    user_id: UserName = None,
    issuer: Annotated[
        str | None,
        Query(min_length=1, max_length=256, description="InvoiceIssuerName; else the provider"),
    ] = None,
) -> StreamingResponse:
    """Charges by hour, user, model and task in the columns of FOCUS 1.2, archived usage included.

    `from` and `to` lie on whole hours; without them it is the last thirty days, to the hour that
    runs.
    """
    _check_http(request)
    user_id = _whose(key, user_id)
    if issuer is not None:
        _printable("issuer", issuer)
    span = _span(from_, to, clock)
    return await _streamed(
        _Export("focus", format, COLUMNS, {}),
        charges(db, user_id, span),
        lambda page: rows_of(page, issuer),
    )


def _whose(key: Key, user_id: str | None) -> str | None:
    if user_id is not None:
        _printable("user_id", user_id)
        require_user(key, user_id)
        return user_id
    return key.user_id


def _printable(name: str, value: str) -> None:
    try:
        printable(value)
    except ValueError as error:
        raise InvalidInput.at(f"/{name}", f"{name}: {error}") from None


def _span(from_: str | None, to: str | None, clock: Clock) -> Span:
    end = instant_from(to, "to") or hour_of(clock.now()) + HOUR
    start = instant_from(from_, "from") or max(EPOCH, end - 30 * DAY)
    for name, moment in (("to", end), ("from", start)):
        if not EPOCH.year <= moment.year <= LAST_YEAR:
            raise InvalidInput.at(f"/{name}", f"{name}: usage lies between 1970 and {LAST_YEAR}")
        if moment != hour_of(moment):
            raise InvalidInput.at(f"/{name}", f"{name}: totals are kept by the hour; name one")
    if end < start:
        raise InvalidInput.at("/to", "to: lies before `from`")
    return Span(start, end)


def _check_http(request: Request) -> None:
    """Refuse where the end of an answer is told by closing: half a file would look whole."""
    if request.scope.get("http_version") == "1.0":
        raise InvalidInput.at("", "an export needs HTTP/1.1, which tells a whole answer from half")


class _Export(NamedTuple):
    name: str
    form: Format
    columns: Sequence[Column]
    headers: dict[str, str]


async def _streamed(
    export: _Export,
    pages: AsyncIterator[Sequence[T]],
    rows: Callable[[Sequence[T]], Sequence[Row]],
) -> StreamingResponse:
    """The answer whose first page has been read: what fails before that is a problem document."""
    sheet = await asyncio.to_thread(sheet_of, export.form, export.columns)
    first = await _next(pages)

    async def body() -> AsyncIterator[bytes]:
        yield sheet.head()
        page = first
        while page is not None:
            piece = await asyncio.to_thread(_written, sheet, rows, page)
            if piece:
                yield piece
            page = await _next(pages)
        yield await asyncio.to_thread(sheet.end)

    suffix = f'attachment; filename="tollgate-{export.name}.{export.form}"'
    return StreamingResponse(
        body(),
        media_type=MEDIA_TYPES[export.form],
        headers={"Content-Disposition": suffix, "Cache-Control": "no-store", **export.headers},
    )


async def _next(pages: AsyncIterator[Sequence[T]]) -> Sequence[T] | None:
    try:
        return await anext(pages)
    except StopAsyncIteration:
        return None


def _written(
    sheet: Sheet, rows: Callable[[Sequence[T]], Sequence[Row]], page: Sequence[T]
) -> bytes:
    return sheet.rows(rows(page))
