"""What the API answers about one user's events."""

import re
from collections.abc import Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import unquote

import msgspec
from fastapi import APIRouter, Path, Query, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel

from app.access.deps import Db, Reader
from app.access.guard import require_user
from app.core.counters import as_mapping
from app.core.errors import AppError, Damaged, InvalidInput, NotFound, Unavailable
from app.core.money import to_usd
from app.db.engine import Database, Tx
from app.plans.known import Agreement, agreement_of, load
from app.plans.periods import calendar_months
from app.pricing.api import Known, LineOut, line_out
from app.pricing.catalog import Catalog
from app.usage.corrections import Correction, Key, corrected, is_voided, shown
from app.usage.explain import VOIDED, account_of
from app.usage.history import CorrectionOut, history_out
from app.usage.ledger import Entry, usage_of
from app.usage.pages import WrappedLog, list_items
from app.usage.read import Place, Wanted, cursor_of, get_event, place_of
from app.usage.wrapped import WrappedRow, find_wrapped
from app.usage.wrapped_out import (
    WRAPPED,
    WrappedEventOut,
    WrappedOut,
    wrapped_event_out,
    wrapped_out,
)
from app.usage.wrapped_stands import standing_of

TAG = "tag."
_SLASH = "\udc2f"  # decoding a path can never make this
_OFFSET_WITHOUT_PLUS = re.compile(r" (?=\d\d:\d\d$)")


class UserRoute(APIRoute):
    """A route whose ids may hold `/`: sent as `%2F` it never ends an id."""

    def matches(self, scope: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        raw: bytes = scope.get("raw_path") or b""
        if b"%2f" not in raw.lower():
            return super().matches(scope)
        steps = raw.partition(b"?")[0].decode("ascii", "replace").split("/")
        path = "/".join(unquote(step).replace("/", _SLASH) for step in steps)
        match, found = super().matches({**scope, "path": path})
        if params := found.get("path_params"):
            found["path_params"] = {
                name: value.replace(_SLASH, "/") if isinstance(value, str) else value
                for name, value in params.items()
            }
        return match, found


router = APIRouter(tags=["usage"], route_class=UserRoute)

UserId = Annotated[str, Path(max_length=256, description="`/` in it is sent as `%2F`")]
EventId = Annotated[str, Path(max_length=600, description="`/` in it is sent as `%2F`")]
INSTANT = "RFC 3339 with an offset, as 2026-11-01T00:00:00Z"
Equal = Annotated[str | None, Query(max_length=512)]

EVENT: dict[str, Any] = {
    "id": "req_8f2c",
    "kind": "event",
    "user_id": "alice",
    "timestamp": "2026-11-20T12:30:00Z",
    "provider": "openai",
    "model": "gpt-4o-mini",
    "usage": {"input_tokens": 1200, "output_tokens": 300},
    "cost_usd": "0.00036",
    "cost_status": "priced",
    "price_ref": "openai/gpt-4o-mini",
    "status_code": 200,
    "endpoint": "/v1/chat/completions",
    "method": "POST",
    "error_message": None,
    "retry_count": 0,
    "latency_ms": 812.5,
    "ttft_ms": 190.0,
    "request_bytes": 4096,
    "response_bytes": 1800,
    "user_agent": None,
    "ip_address": None,
    "team_id": "research",
    "api_key_id": None,
    "session_id": None,
    "task_type": "chat",
    "backend": None,
    "pool": None,
    "hold_id": None,
    "tags": {"env": "prod"},
    "context": {},
    "billing_period": "2026-11",
    "recorded_at": "2026-11-20T12:30:00.120000Z",
    "late": False,
    "voided": False,
    "corrections": 0,
}


class EventOut(BaseModel):
    """One event as it stands: one that was voided uses and costs nothing.

    `late` says that it was recorded after its billing period had ended.
    """

    id: str
    kind: Literal["event"]
    user_id: str
    timestamp: datetime
    provider: str | None
    model: str | None
    usage: dict[str, int | float]
    cost_usd: str | None
    cost_status: str
    price_ref: str
    status_code: int
    endpoint: str | None
    method: str | None
    error_message: str | None
    retry_count: int | None
    latency_ms: float | None
    ttft_ms: float | None
    request_bytes: int | None
    response_bytes: int | None
    user_agent: str | None
    ip_address: str | None
    team_id: str | None
    api_key_id: str | None
    session_id: str | None
    task_type: str | None
    backend: str | None
    pool: str | None
    hold_id: str | None
    tags: dict[str, str]
    context: dict[str, str]
    billing_period: str
    recorded_at: datetime
    late: bool
    voided: bool
    corrections: int

    model_config = {"json_schema_extra": {"example": EVENT}}


class EventsOut(BaseModel):
    """A page of events and of groups of wrapped ones; `next_cursor` is null on the last one."""

    items: list[EventOut | WrappedOut]
    next_cursor: str | None

    model_config = {
        "json_schema_extra": {"example": {"items": [EVENT, WRAPPED], "next_cursor": None}}
    }


@router.get(
    "/v1/users/{user_id:path}/events",
    openapi_extra={
        "parameters": [
            {
                "name": "tag.NAME",
                "in": "query",
                "required": False,
                "schema": {"type": "string"},
                "description": "Events that carry the tag NAME with this value, as `tag.env=prod`",
            }
        ]
    },
)
async def list_user_events(
    request: Request,
    db: Db,
    key: Reader,
    user_id: UserId,
    from_: Annotated[str | None, Query(alias="from", description=INSTANT)] = None,
    to: Annotated[str | None, Query(description=INSTANT)] = None,
    provider: Equal = None,
    model: Equal = None,
    endpoint: Equal = None,
    status: Annotated[Literal["ok", "error"] | None, Query()] = None,
    team_id: Equal = None,
    session_id: Equal = None,
    task_type: Equal = None,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> EventsOut:
    """A user's events, newest first, where `from` <= timestamp < `to`.

    They are found and ordered by what was sent, and shown as they stand after their corrections.
    Old ones may have been wrapped: these appear as groups (`kind` is `wrapped`), each at the time
    of its last call, with sums as they stand. Groups do not tell sessions or tags apart: who asks
    for one sees none.
    """
    require_user(key, user_id)
    legible(user_id, "user_id")
    start, end = instant_from(from_, "from"), instant_from(to, "to")
    if start is not None and end is not None and end < start:
        raise InvalidInput.at("/to", "to: lies before `from`")
    tags = tuple(
        (name.removeprefix(TAG), value)
        for name, value in request.query_params.items()
        if name.startswith(TAG)
    )
    failed = None if status is None else status == "error"
    wanted = Wanted(
        start, end, provider, model, endpoint, failed, team_id, session_id, task_type, tags
    )
    after = None if cursor is None else place_of(cursor)

    wrapped: WrappedLog = request.app.state.wrapped_log

    async def work(tx: Tx) -> tuple[list[EventOut | WrappedOut], Place | None]:
        page, end_of_page = await list_items(tx, user_id, wanted, after, limit, wrapped)
        known = await corrected(tx, [one[:2] for one in page if isinstance(one, Entry)])
        agreement = await _agreed(tx, user_id)
        items = [
            standing_out(one, known, agreement)
            if isinstance(one, Entry)
            else wrapped_out(one, agreement)
            for one in page
        ]
        return items, end_of_page

    items, end_of_page = await db.read(work)
    request.app.state.listed(user_id)
    return EventsOut(
        items=items,
        next_cursor=None if end_of_page is None else cursor_of(end_of_page),
    )


class ExplanationOut(BaseModel):
    """An event's cost, line by line; the amounts sum to it, to the last nano-dollar.

    Made from the price entries that the event cites, whatever prices are in force by now. Without
    lines, `why` says what was missing, or that the caller stated the cost.
    """

    id: str
    user_id: str
    provider: str | None
    model: str | None
    cost_usd: str | None
    cost_nano_usd: int | None
    cost_status: str
    price_ref: str
    tier: str
    why: str
    lines: list[LineOut]
    corrections: list[CorrectionOut]

    model_config = {
        "json_schema_extra": {
            "example": {
                "id": "req_8f2c",
                "user_id": "alice",
                "provider": "openai",
                "model": "gpt-4o-mini",
                "cost_usd": "0.00018",
                "cost_nano_usd": 180000,
                "cost_status": "priced",
                "price_ref": "cat_1a2b3c4d:openai/gpt-4o-mini",
                "tier": "",
                "why": "rated by genai-prices 0.2.3",
                "lines": [
                    {
                        "unit": "input_uncached_text",
                        "quantity": 1200,
                        "usd_per_block": "0.15",
                        "block": 1000000,
                        "amount_usd": "0.00018",
                        "price_row": "cat_1a2b3c4d:openai/gpt-4o-mini",
                    }
                ],
                "corrections": [],
            }
        }
    }


@router.get("/v1/users/{user_id:path}/events/{event_id:path}/explain")
async def explain_user_event(
    request: Request, db: Db, key: Reader, known: Known, user_id: UserId, event_id: EventId
) -> ExplanationOut:
    """How an event came to its cost: each unit, its rate, and the price entry that states it.

    Of an event that was corrected this is how it came to its present cost; `corrections` tells by
    which steps. One that was wrapped is read from its archive; where that cannot be read, the
    problem names the archive.
    """
    require_user(key, user_id)
    legible(user_id, "user_id")
    legible(event_id, "event_id")

    found = await _find(db, request.app.state.wrapped_log, (user_id, event_id))
    if found.stands is None:
        raise _unread(found)
    entry = found.stands
    return await db.read(lambda tx: _explained(tx, entry, found.corrections, known.catalog))


async def _explained(
    tx: Tx, entry: Entry, corrections: Sequence[Correction], catalog: Catalog
) -> ExplanationOut:
    found = VOIDED
    if not is_voided(corrections):
        found = await account_of(tx, entry, catalog)
    return ExplanationOut(
        id=entry.event_id,
        user_id=entry.user_id,
        provider=entry.provider or None,
        model=entry.model or None,
        cost_usd=None if entry.cost_nanos is None else to_usd(entry.cost_nanos),
        cost_nano_usd=entry.cost_nanos,
        cost_status=entry.cost_status,
        price_ref=entry.price_ref,
        tier=found.tier,
        why=found.why,
        lines=[line_out(line) for line in found.lines],
        corrections=history_out(corrections),
    )


@router.get("/v1/users/{user_id:path}/events/{event_id:path}")
async def get_user_event(
    request: Request, db: Db, key: Reader, user_id: UserId, event_id: EventId
) -> EventOut | WrappedEventOut:
    """One event as it stands; one that was wrapped is read from its archive."""
    require_user(key, user_id)
    legible(user_id, "user_id")
    legible(event_id, "event_id")

    found = await _find(db, request.app.state.wrapped_log, (user_id, event_id))
    stands, corrections, agreement = found.stands, found.corrections, found.agreement
    event = None if stands is None else event_out(stands, agreement, corrections)
    if found.left is None and event is not None:
        return event
    assert found.left is not None
    return wrapped_event_out((user_id, event_id), found.left, stands, corrections, event, agreement)


class Found(NamedTuple):
    """An event wherever it is; `left` is of one that was wrapped.

    `stands` is None where only its archive tells of it and cannot be read: then `failure` says why.
    """

    stands: Entry | None
    left: WrappedRow | None
    corrections: Sequence[Correction]
    agreement: Agreement
    failure: AppError | None = None


async def _find(db: Database, wrapped: WrappedLog, key: Key) -> Found:
    """The event as it stands, from the log or from its archive.

    Raises:
        NotFound: this user has none under that id.
    """

    async def work(tx: Tx) -> Found:
        corrections = (await corrected(tx, [key])).get(key, ())
        agreement = await _agreed(tx, key[0])
        try:
            row = await get_event(tx, *key)
        except NotFound:
            left = await find_wrapped(tx, [key])
            if key not in left:
                raise
            return Found(None, left[key], corrections, agreement)
        return Found(shown(row, corrections) or row, None, corrections, agreement)

    found = await db.read(work)
    if found.left is None:
        return found
    row, failure = None, None
    try:
        row = await wrapped.entry(*key)
    except (Damaged, Unavailable) as error:
        failure = error
    stands = standing_of(found.left, row, found.corrections)
    if stands is None and failure is None:  # it was restored meanwhile
        return await db.read(work)
    return found._replace(stands=stands, failure=failure)


def _unread(found: Found) -> AppError:
    """What is said of a wrapped event where its archive is needed and cannot be read. Pure."""
    assert found.left is not None
    assert found.failure is not None
    archive_id = found.left.archive_id
    detail = (
        f"this event was wrapped into archive {archive_id}, which cannot be read: "
        f"{found.failure.detail}; bring its file back, and to have the event in the log again "
        f"POST /v1/archives/{archive_id}/restore"
    )
    return type(found.failure)(detail, archive_id=archive_id)


async def _agreed(tx: Tx, user_id: str) -> Agreement:
    # Read here and not from the cache: what a snapshot reads may be older than what is cached.
    known = (await load(tx, [user_id])).get(user_id)
    return known or agreement_of([calendar_months("")])


def event_out(
    entry: Entry, agreement: Agreement, corrections: Sequence[Correction] = ()
) -> EventOut:
    """An event as the contract has it; `entry` is how it stands after its corrections. Pure."""
    period = agreement.period_at(entry.timestamp)
    return EventOut(
        id=entry.event_id,
        kind="event",
        user_id=entry.user_id,
        timestamp=entry.timestamp,
        provider=entry.provider or None,
        model=entry.model or None,
        usage=as_mapping(usage_of(entry)),
        cost_usd=None if entry.cost_nanos is None else to_usd(entry.cost_nanos),
        cost_status=entry.cost_status,
        price_ref=entry.price_ref,
        status_code=entry.status_code,
        endpoint=entry.endpoint,
        method=entry.method,
        error_message=entry.error_message,
        retry_count=entry.retry_count,
        latency_ms=_ms(entry.latency_us),
        ttft_ms=_ms(entry.ttft_us),
        request_bytes=entry.request_bytes,
        response_bytes=entry.response_bytes,
        user_agent=entry.user_agent,
        ip_address=entry.ip_address,
        team_id=entry.team_id,
        api_key_id=entry.api_key_id,
        session_id=entry.session_id,
        task_type=entry.task_type,
        backend=entry.backend,
        pool=entry.pool,
        hold_id=entry.hold_id,
        tags=_pairs(entry.tags),
        context=_pairs(entry.context),
        billing_period=period.key,
        recorded_at=entry.recorded_at,
        late=entry.recorded_at >= period.end,
        voided=is_voided(corrections),
        corrections=sum(one.sign < 0 for one in corrections),
    )


def standing_out(
    entry: Entry, known: Mapping[Key, Sequence[Correction]], agreement: Agreement
) -> EventOut:
    """An event of the log as it stands after its corrections, if it has any. Pure."""
    corrections = known.get(entry[:2], ())
    return event_out(shown(entry, corrections) or entry, agreement, corrections)


def _ms(micros: int | None) -> float | None:
    return None if micros is None else micros / 1000


def _pairs(text: str | None) -> dict[str, str]:
    return msgspec.json.decode(text, type=dict[str, str]) if text else {}


def legible(text: str, name: str) -> None:
    """Refuse NUL: nothing stored holds one, and PostgreSQL takes none."""
    if "\0" in text:
        raise InvalidInput.at(f"/{name}", f"{name}: must not contain NUL")


def instant_from(text: str | None, name: str) -> datetime | None:
    """An instant of a query in UTC; `+` that came as a space is taken for what was meant.

    Raises:
        InvalidInput: not RFC 3339 with an offset, or no such instant in UTC.
    """
    if text is None:
        return None
    try:
        found = msgspec.convert(_OFFSET_WITHOUT_PLUS.sub("+", text), _Aware)
        return found.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        raise InvalidInput.at(f"/{name}", f"{name}: expected {INSTANT}") from None


_Aware = Annotated[datetime, msgspec.Meta(tz=True)]
