"""`POST /v1/events` for OpenAPI and for applications mounted without the lean door."""

from typing import Any

from fastapi import APIRouter, Request, Response

from app.web.asgi import delegate

router = APIRouter(tags=["events"])

EVENT: dict[str, Any] = {
    "id": "chatcmpl-9f2c",
    "user_id": "alice",
    "timestamp": "2026-11-20T12:30:00Z",
    "provider": "openai",
    "model": "gpt-4o-mini",
    "usage": {"input_tokens": 1200, "cache_read_tokens": 1024, "output_tokens": 300},
    "endpoint": "/v1/chat/completions",
    "latency_ms": 812.5,
    "task_type": "summary",
    "tags": {"feature": "inbox"},
}
CHAT: dict[str, Any] = {
    "id": "chatcmpl-9f3a",
    "user_id": "alice",
    "provider": "openai",
    "response": {
        "id": "chatcmpl-9f3a",
        "object": "chat.completion",
        "model": "gpt-4.1-mini-2025-04-14",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}}],
        "usage": {
            "prompt_tokens": 50,
            "completion_tokens": 15,
            "total_tokens": 65,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    },
}
ADVISED: dict[str, Any] = {
    "id": "msg_01",
    "user_id": "alice",
    "provider": "anthropic",
    "api": "messages",
    "response": {
        "type": "message",
        "model": "claude-sonnet-4-6",
        "usage": {
            "input_tokens": 412,
            "output_tokens": 531,
            "service_tier": "standard",
            "iterations": [
                {"type": "message", "input_tokens": 412, "output_tokens": 89},
                {
                    "type": "advisor_message",
                    "model": "claude-opus-4-6",
                    "input_tokens": 823,
                    "output_tokens": 1612,
                },
                {
                    "type": "message",
                    "input_tokens": 1348,
                    "cache_read_input_tokens": 412,
                    "output_tokens": 442,
                },
            ],
        },
    },
}
RECEIPT: dict[str, Any] = {
    "id": "chatcmpl-9f2c",
    "status": "recorded",
    "user_id": "alice",
    "timestamp": "2026-11-20T12:30:00Z",
    "billing_period": "2026-11",
    "usage": {"input_tokens": 1200, "cache_read_tokens": 1024, "output_tokens": 300},
    "cost_usd": "0.0002832",
    "cost_status": "priced",
    "usage_status": "active",
}
OF_TWO_CALLS: dict[str, Any] = RECEIPT | {
    "id": "msg_01",
    "usage": {"input_tokens": 2995, "cache_read_tokens": 412, "output_tokens": 2143},
    "cost_usd": "0.0577836",
    "calls": [
        {
            "id": "msg_01",
            "model": "claude-sonnet-4-6",
            "usage": {"input_tokens": 2172, "cache_read_tokens": 412, "output_tokens": 531},
            "cost_usd": "0.0133686",
            "cost_status": "priced",
        },
        {
            "id": "msg_01#2",
            "model": "claude-opus-4-6",
            "usage": {"input_tokens": 823, "output_tokens": 1612},
            "cost_usd": "0.044415",
            "cost_status": "priced",
        },
    ],
}
SUMMARY: dict[str, Any] = {
    "recorded": 2,
    "duplicates": 0,
    "rejected": 1,
    "cost_usd": "0.00042",
    "results": [
        {
            "index": 1,
            "id": None,
            "status": "rejected",
            "detail": "Expected `int` >= 0",
            "pointer": "/1/usage/input_tokens",
        }
    ],
}

NOT_ONE: dict[str, Any] = SUMMARY | {
    "recorded": 0,
    "cost_usd": "0",
    "results": [SUMMARY["results"][0] | {"index": 0, "pointer": "/0/usage/input_tokens"}],
}


def _json(example: Any, description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"example": example}}}


def _named(description: str, **examples: Any) -> dict[str, Any]:
    values = {name: {"value": value} for name, value in examples.items()}
    return {"description": description, "content": {"application/json": {"examples": values}}}


def _flag(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": {"type": "boolean"}, "description": description}


@router.post(
    "/v1/events",
    status_code=201,
    responses={
        201: _named("One event, recorded and durable", one=RECEIPT, of_two_calls=OF_TWO_CALLS),
        200: _json(
            RECEIPT | {"status": "duplicate"}, "One event, sent before; or a batch, all accepted"
        ),
        207: _json(SUMMARY, "A batch of which some were refused; the others are recorded"),
        409: {"description": "The id stands for another event of this user"},
        413: {"description": "More than 1 MiB for one event, 16 MiB or 10,000 events for a batch"},
        415: {"description": "Neither application/json nor application/x-ndjson"},
        422: _json(
            NOT_ONE,
            "Not valid; `errors` names each place. A batch of which every event is refused is "
            "answered as one of which some are, in `application/json`",
        ),
        503: {"description": "Nothing was recorded; try again after `Retry-After`"},
    },
    openapi_extra={
        "parameters": [
            _flag("atomic", "A batch is recorded whole or not at all."),
            _flag("backfill", "Accept any age; needs the scope `manage`."),
            {
                "name": "results",
                "in": "query",
                "schema": {"type": "string", "enum": ["all"]},
                "description": "List every event of a batch, not only the refused ones.",
            },
            {
                "name": "Idempotency-Key",
                "in": "header",
                "schema": {"type": "string", "minLength": 1, "maxLength": 512},
                "description": "The `id` of a single event, in UTF-8; a batch ignores it.",
            },
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {},
                    "examples": {
                        "one": {"value": EVENT},
                        "openai_response": {"value": CHAT},
                        "anthropic_response_of_two_calls": {"value": ADVISED},
                    },
                },
                "application/x-ndjson": {"schema": {"type": "string"}},
            },
        },
    },
)
async def post_events(request: Request) -> Response:
    """Record what calls used: one object, an array, or NDJSON; gzip is welcome.

    The answer comes after the commit is durable. The same id with the same content is a duplicate
    and changes nothing. Instead of `usage` an event may carry `response`, what the provider
    answered; where that bills several calls the receipt lists them in `calls`.
    """
    return await delegate(request, request.app.state.events)
