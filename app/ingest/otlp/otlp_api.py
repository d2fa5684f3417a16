"""OpenTelemetry's routes, for exporters as they are."""

from typing import Any

from fastapi import APIRouter, Request, Response

from app.ingest.otlp.door import OtlpDoor
from app.web.asgi import delegate

router = APIRouter(tags=["other formats"])

SPAN: dict[str, Any] = {
    "traceId": "5b8efff798038103d269b633813fc60c",
    "spanId": "eee19b7ec3c1b174",
    "name": "chat gpt-4o",
    "kind": 3,
    "startTimeUnixNano": "1795177800000000000",
    "endTimeUnixNano": "1795177800812000000",
    "attributes": [
        {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
        {"key": "gen_ai.provider.name", "value": {"stringValue": "openai"}},
        {"key": "gen_ai.request.model", "value": {"stringValue": "gpt-4o"}},
        {"key": "gen_ai.response.id", "value": {"stringValue": "chatcmpl-9f2c4d7e81ab"}},
        {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "1200"}},
        {"key": "gen_ai.usage.output_tokens", "value": {"intValue": "300"}},
        {"key": "user.id", "value": {"stringValue": "alice"}},
    ],
}
TRACES: dict[str, Any] = {
    "resourceSpans": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
            "scopeSpans": [{"scope": {"name": "my-app"}, "spans": [SPAN]}],
        }
    ]
}
LOGS: dict[str, Any] = {
    "resourceLogs": [
        {
            "resource": {"attributes": [{"key": "user.id", "value": {"stringValue": "alice"}}]},
            "scopeLogs": [
                {
                    "scope": {"name": "codex_otel"},
                    "logRecords": [
                        {
                            "timeUnixNano": "1795177800812000000",
                            "attributes": [
                                {"key": name, "value": {"stringValue": value}}
                                for name, value in (
                                    ("event.name", "codex.sse_event"),
                                    ("event.kind", "response.completed"),
                                    ("conversation.id", "01a1fb75-5bf7"),
                                    ("model", "gpt-5-codex"),
                                    ("input_token_count", "1200"),
                                    ("cached_token_count", "1024"),
                                    ("output_token_count", "340"),
                                )
                            ],
                        }
                    ],
                }
            ],
        }
    ]
}
METRICS: dict[str, Any] = {"resourceMetrics": []}
PARTIAL: dict[str, Any] = {
    "partialSuccess": {"rejectedSpans": "1", "errorMessage": "older than 35 days"}
}
_REFUSED: dict[int | str, dict[str, Any]] = {
    400: {"description": "Not OTLP, cut off, or another signal's"},
    413: {"description": "More than 16 MiB after decompression"},
    415: {"description": "Neither application/x-protobuf nor application/json"},
    503: {"description": "Nothing was recorded; send it again after `Retry-After`"},
}


def _answers(example: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    content = {"application/json": {"example": example}, "application/x-protobuf": {}}
    return {200: {"description": "Accepted and durable", "content": content}, **_REFUSED}


def _body(example: dict[str, Any], *, backfill: bool = True) -> dict[str, Any]:
    flag = {
        "name": "backfill",
        "in": "query",
        "schema": {"type": "boolean"},
        "description": "Accept any age; needs the scope `manage`.",
    }
    return {
        "parameters": [flag] if backfill else [],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"examples": [example]}},
                "application/x-protobuf": {"schema": {"type": "string", "format": "binary"}},
            },
        },
    }


@router.post("/v1/traces", responses=_answers(PARTIAL), openapi_extra=_body(TRACES))
async def post_traces(request: Request) -> Response:
    """Record the model calls that OpenTelemetry spans tell of, each call once.

    OTLP/HTTP, protobuf or JSON, gzip is welcome. Spans that are no model call are accepted; whom
    they name reaches the calls below them, also when they arrive later.
    """
    return await delegate(request, _door(request).traces)


@router.post(
    "/api/public/otel/v1/traces",
    responses=_answers(PARTIAL),
    openapi_extra=_body(TRACES),
)
async def post_langfuse_traces(request: Request) -> Response:
    """As `/v1/traces`, where Langfuse's SDK sends them; the secret key is one of ours."""
    return await delegate(request, _door(request).traces)


@router.post("/v1/logs", responses=_answers({}), openapi_extra=_body(LOGS))
async def post_logs(request: Request) -> Response:
    """Record the model calls that OpenTelemetry log records tell of, such as coding agents write.

    Codex CLI, Gemini CLI, Claude Code, and the GenAI conventions' own event.
    """
    return await delegate(request, _door(request).logs)


@router.post("/v1/metrics", responses=_answers({}), openapi_extra=_body(METRICS, backfill=False))
async def post_metrics(request: Request) -> Response:
    """Accept OpenTelemetry metrics, and record nothing: they repeat what spans and logs tell."""
    return await delegate(request, _door(request).metrics)


def _door(request: Request) -> OtlpDoor:
    found: OtlpDoor = request.app.state.otlp
    return found
