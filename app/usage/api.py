"""What the API answers about one user's events."""

import re
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import unquote

import msgspec
from fastapi import APIRouter, Path, Query, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel

from app.access.deps import Db, Reader
from app.access.guard import require_user
from app.core.counters import as_mapping
from app.core.errors import Damaged, InvalidInput, NotFound, Unavailable
from app.core.money import to_usd
from app.db.engine import Tx
from app.plans.known import Agreement, agreement_of, load
from app.plans.periods import calendar_months
from app.pricing.api import Known, LineOut, line_out
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
    of its last call, as they were when they were wrapped. Groups do not tell sessions or tags
    apart: who asks for one sees none.
    """
    require_user(key, user_id)
    refuse_unknown(request, _LIST_QUERY, TAG)
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


_LIST_QUERY = (
    *("from", "to", "provider", "model", "endpoint", "status", "team_id", "session_id"),
    *("task_type", "cursor", "limit"),
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
    which steps.
    """
    require_user(key, user_id)
    refuse_unknown(request, ())
    legible(user_id, "user_id")
    legible(event_id, "event_id")

    async def work(tx: Tx) -> ExplanationOut:
        logged = await get_event(tx, user_id, event_id)
        corrections = (await corrected(tx, [logged[:2]])).get(logged[:2], ())
        entry = shown(logged, corrections) or logged
        found = VOIDED
        if not is_voided(corrections):
            found = await account_of(tx, entry, known.catalog)
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

    return await db.read(work)


@router.get("/v1/users/{user_id:path}/events/{event_id:path}")
async def get_user_event(
    request: Request, db: Db, key: Reader, user_id: UserId, event_id: EventId
) -> EventOut | WrappedEventOut:
    """One event as it stands, or what is left of one that was wrapped."""
    require_user(key, user_id)
    refuse_unknown(request, ())
    legible(user_id, "user_id")
    legible(event_id, "event_id")

    async def work(tx: Tx) -> EventOut | tuple[WrappedRow, Sequence[Correction], Agreement]:
        key = (user_id, event_id)
        known, agreement = await corrected(tx, [key]), await _agreed(tx, user_id)
        try:
            return standing_out(await get_event(tx, *key), known, agreement)
        except NotFound:
            left = await find_wrapped(tx, [key])
            if key not in left:
                raise
            return left[key], known.get(key, ()), agreement

    found = await db.read(work)
    if isinstance(found, EventOut):
        return found
    left, corrections, agreement = found
    wrapped: WrappedLog = request.app.state.wrapped_log
    try:
        row = await wrapped.entry(user_id, event_id)
    except (Damaged, Unavailable):
        row = None
    stands = None if row is None else shown(row, corrections) or row
    event = None if stands is None else event_out(stands, agreement, corrections)
    return wrapped_event_out(user_id, event_id, left, event, agreement)


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


def refuse_unknown(request: Request, known: Collection[str], prefix: str | None = None) -> None:
    """Refuse a query parameter that is not known, given twice, or not readable."""
    seen: set[str] = set()
    for name, value in request.query_params.multi_items():
        shown = name[:64]
        free = prefix is not None and name.startswith(prefix) and len(name) > len(prefix)
        if name not in known and not free:
            raise InvalidInput.at(f"/{shown}", f"{shown}: unknown query parameter")
        if name in seen:
            raise InvalidInput.at(f"/{shown}", f"{shown}: given twice")
        seen.add(name)
        legible(name, shown)
        legible(value, shown)


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
