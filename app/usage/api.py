"""What the API answers about one user's events."""

import re
from collections.abc import Collection, MutableMapping
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
from app.core.errors import InvalidInput
from app.core.money import to_usd
from app.db.engine import Tx
from app.plans.known import Agreement, agreement_of, load
from app.plans.periods import calendar_months
from app.pricing.api import Known, LineOut, line_out
from app.usage.explain import account_of
from app.usage.ledger import Entry, usage_of
from app.usage.read import Place, Wanted, cursor_of, get_event, list_events, place_of

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
}


class EventOut(BaseModel):
    """One event as it stands in the log."""

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

    model_config = {"json_schema_extra": {"example": EVENT}}


class EventsOut(BaseModel):
    """A page of events; `next_cursor` is null on the last one."""

    items: list[EventOut]
    next_cursor: str | None

    model_config = {"json_schema_extra": {"example": {"items": [EVENT], "next_cursor": None}}}


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
    """A user's events, newest first, where `from` <= timestamp < `to`."""
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

    async def work(tx: Tx) -> tuple[list[Entry], Place | None, Agreement]:
        page, end_of_page = await list_events(tx, user_id, wanted, after, limit)
        return page, end_of_page, await _agreed(tx, user_id)

    page, end_of_page, agreement = await db.read(work)
    return EventsOut(
        items=[event_out(entry, agreement) for entry in page],
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
            }
        }
    }


@router.get("/v1/users/{user_id:path}/events/{event_id:path}/explain")
async def explain_user_event(
    request: Request, db: Db, key: Reader, known: Known, user_id: UserId, event_id: EventId
) -> ExplanationOut:
    """How an event came to its cost: each unit, its rate, and the price entry that states it."""
    require_user(key, user_id)
    refuse_unknown(request, ())
    legible(user_id, "user_id")
    legible(event_id, "event_id")

    async def work(tx: Tx) -> ExplanationOut:
        entry = await get_event(tx, user_id, event_id)
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
        )

    return await db.read(work)


@router.get("/v1/users/{user_id:path}/events/{event_id:path}")
async def get_user_event(
    request: Request, db: Db, key: Reader, user_id: UserId, event_id: EventId
) -> EventOut:
    """One event as it stands in the log."""
    require_user(key, user_id)
    refuse_unknown(request, ())
    legible(user_id, "user_id")
    legible(event_id, "event_id")

    async def work(tx: Tx) -> EventOut:
        entry = await get_event(tx, user_id, event_id)
        return event_out(entry, await _agreed(tx, user_id))

    return await db.read(work)


async def _agreed(tx: Tx, user_id: str) -> Agreement:
    # Read here and not from the cache: what a snapshot reads may be older than what is cached.
    known = (await load(tx, [user_id])).get(user_id)
    return known or agreement_of([calendar_months("")])


def event_out(entry: Entry, agreement: Agreement) -> EventOut:
    """An event as the contract has it. Pure."""
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
        billing_period=agreement.period_at(entry.timestamp).key,
        recorded_at=entry.recorded_at,
    )


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
