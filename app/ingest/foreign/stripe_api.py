"""Stripe's meter events over HTTP: v1 as a form, v2 as JSON, and v2's stream with its sessions."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from app.core.errors import (
    AppError,
    BadRequest,
    IdReused,
    TooLarge,
    UnsupportedMedia,
)
from app.ingest.foreign.answers import places_of, refusal_of, with_members
from app.ingest.foreign.cloudevents_api import BACKFILL, FAILURES, shown
from app.ingest.foreign.sessions import open_session
from app.ingest.foreign.stripe import MAX_STREAMED, SOURCE, drafts_of, from_form
from app.ingest.foreign.submit import Foreign, Opened, decoded, read_any
from app.web.asgi import lean

router = APIRouter(tags=["other formats"])
_FORM = "application/x-www-form-urlencoded"
SESSION_LASTS = timedelta(minutes=15)
EVENT: dict[str, Any] = {
    "event_name": "ai_tokens",
    "payload": {"value": "1540", "stripe_customer_id": "alice"},
    "identifier": "call-7",
}
V1: dict[str, Any] = {
    "object": "billing.meter_event",
    "created": 1795177800,
    "livemode": True,
    "timestamp": 1795177800,
    **EVENT,
}
V2: dict[str, Any] = {
    "object": "v2.billing.meter_event",
    "created": "2026-11-20T12:30:00.000Z",
    "livemode": True,
    "timestamp": "2026-11-20T12:30:00.000Z",
    **EVENT,
}
SESSION: dict[str, Any] = {
    "id": "key_2x7c",
    "object": "v2.billing.meter_event_session",
    "authentication_token": "tg_…",
    "created": "2026-11-20T12:30:00.000Z",
    "expires_at": "2026-11-20T12:45:00.000Z",
    "livemode": True,
}


@router.post(
    "/v1/billing/meter_events",
    responses={200: {"description": "The event", "content": shown(V1)}, **FAILURES},
    openapi_extra={
        "parameters": [BACKFILL],
        "requestBody": {
            "required": True,
            "content": {
                _FORM: {
                    "schema": {"type": "string"},
                    "example": "event_name=ai_tokens&payload[value]=1540"
                    "&payload[stripe_customer_id]=alice&identifier=call-7",
                }
            },
        },
    },
)
async def post_meter_event(request: Request) -> Response:
    """Record a Stripe meter event, a form. `payload[value]` counts on the meter `event_name`.

    With `payload[model]` and `payload[token_type]` the value is tokens of that model. `identifier`
    tells a repeat, else the header `Idempotency-Key`.
    """
    foreign: Foreign = request.app.state.foreign
    with _told_as_stripe_does():
        opened = await foreign.open(lean(request))
        if opened.kind not in (_FORM, ""):
            raise UnsupportedMedia(f"send {_FORM}")
        event = from_form(opened.body)
        at = await _recorded_one(foreign, opened, event)
    seconds = {"timestamp": int(at.timestamp()), "created": int(opened.now.timestamp())}
    return _answer({"object": "billing.meter_event", "livemode": True, **_told(event), **seconds})


@router.post(
    "/v2/billing/meter_events",
    responses={200: {"description": "The event", "content": shown(V2)}, **FAILURES},
    openapi_extra={
        "parameters": [BACKFILL],
        "requestBody": {"required": True, "content": shown(EVENT)},
    },
)
async def post_meter_event_v2(request: Request) -> Response:
    """Record a Stripe meter event, JSON; as `/v1/billing/meter_events`."""
    foreign: Foreign = request.app.state.foreign
    with _told_as_stripe_does():
        opened = await foreign.open(lean(request))
        _must_be_json(opened)
        event = await decoded(opened.body, read_any)
        if not isinstance(event, dict):
            raise BadRequest.at("", "an object was looked for")
        at = await _recorded_one(foreign, opened, event)
    instants = {"timestamp": _written(at), "created": _written(opened.now)}
    return _answer(
        {"object": "v2.billing.meter_event", "livemode": True, **_told(event), **instants}
    )


@router.post(
    "/v2/billing/meter_event_session",
    responses={200: {"description": "A token for the stream", "content": shown(SESSION)}},
)
async def post_meter_event_session(request: Request) -> Response:
    """Open a session for Stripe's meter event stream: a key for 15 minutes, shown once.

    It may record events as the key that asked may, and nothing else.
    """
    foreign: Foreign = request.app.state.foreign
    with _told_as_stripe_does():
        opened = await foreign.open(lean(request))
        key, token = await open_session(request.app.state.db, opened.key, opened.now, SESSION_LASTS)
    return _answer(
        {
            "id": key.id,
            "object": "v2.billing.meter_event_session",
            "authentication_token": token,
            "created": _written(opened.now),
            "expires_at": _written(key.expires_at or opened.now),
            "livemode": True,
        }
    )


@router.post(
    "/v2/billing/meter_event_stream",
    responses={200: {"description": "All recorded", "content": shown({})}, **FAILURES},
    openapi_extra={
        "parameters": [BACKFILL],
        "requestBody": {"required": True, "content": shown({"events": [EVENT]})},
    },
)
async def post_meter_event_stream(request: Request) -> Response:
    """Record many Stripe meter events, all or none.

    `identifier` tells a repeat, else the header `Idempotency-Key` with the place of the event.
    """
    foreign: Foreign = request.app.state.foreign
    with _told_as_stripe_does():
        opened = await foreign.open(lean(request))
        _must_be_json(opened)
        body = await decoded(opened.body, read_any)
        events = body.get("events") if isinstance(body, dict) else None
        if not isinstance(events, list) or not events:
            raise BadRequest.at("/events", "an array with at least one event was looked for")
        if len(events) > MAX_STREAMED:
            raise TooLarge(f"at most {MAX_STREAMED:,} events in one request")
        drafts = drafts_of(
            *(events, foreign.identity, opened.key, foreign.trust),
            base="/events",
            otherwise_id=_idempotency_key(opened),
        )
        told = await foreign.submit(opened, SOURCE, drafts, atomic=True)
        if told.refused:
            why = refusal_of(told)
            raise why or BadRequest("nothing was recorded", errors=places_of(told.refused))
    return _answer({})


def _must_be_json(opened: Opened) -> None:
    if opened.kind not in ("application/json", ""):
        raise UnsupportedMedia("send application/json")


def _idempotency_key(opened: Opened) -> str:
    """What Stripe's clients make for each call, and send again with its retries."""
    return opened.headers.get(b"idempotency-key", b"").decode("latin-1").strip()


async def _recorded_one(foreign: Foreign, opened: Opened, event: dict[str, Any]) -> datetime:
    """Record one meter event and say when it happened."""
    drafts = drafts_of(
        *([event], foreign.identity, opened.key, foreign.trust),
        otherwise_id=_idempotency_key(opened),
    )
    told = await foreign.submit(opened, SOURCE, drafts)
    if (error := refusal_of(told)) is not None:
        raise error
    if told.conflicts:
        detail = "another event came with this identifier; the first one stays"
        raise IdReused(detail, errors=[{"pointer": "/identifier", "detail": detail}])
    return told.logged[0].entry.timestamp


def _told(event: dict[str, Any]) -> dict[str, Any]:
    return {name: event.get(name) for name in ("event_name", "identifier", "payload")}


@contextmanager
def _told_as_stripe_does() -> Iterator[None]:
    """Add to every refusal the member that Stripe's clients read.

    Its client for Node.js takes any answer without it for the event, whatever the status.
    """
    try:
        yield
    except AppError as error:
        raise _as_stripe_says(error) from None


def _as_stripe_says(error: AppError) -> AppError:
    shown_first = (error.extra.get("errors") or [{}])[0]
    told = {
        "type": _type_of(error),
        "message": error.detail or error.title,
        "code": error.slug.replace("-", "_"),
        "param": shown_first.get("pointer", "").strip("/").replace("/", ".") or None,
    }
    return with_members(error, {"error": told})


def _type_of(error: AppError) -> str:
    if isinstance(error, IdReused):
        return "idempotency_error"
    return "invalid_request_error" if error.status < 500 else "api_error"


def _written(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _answer(body: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")
