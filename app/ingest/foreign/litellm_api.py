"""`POST /v1/ingest/litellm`: what LiteLLM's `generic_api` callback sends."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from app.core.errors import UnsupportedMedia
from app.ingest.foreign.answers import refusal_of, without_conflicts
from app.ingest.foreign.cloudevents_api import BACKFILL, FAILURES, shown
from app.ingest.foreign.litellm import SOURCE, drafts_of
from app.ingest.foreign.submit import Foreign, decoded
from app.web.asgi import lean

router = APIRouter(tags=["other formats"])
_KINDS = ("application/json", "application/x-ndjson", "application/ndjson", "text/plain", "")

RECORD: dict[str, Any] = {
    "id": "chatcmpl-9f2c",
    "litellm_call_id": "6a8f0198-2699-4bb4-a7ff-31899a524bed",
    "call_type": "acompletion",
    "status": "success",
    "custom_llm_provider": "openai",
    "model": "openai/gpt-4o",
    "startTime": 1795177799.2,
    "endTime": 1795177800.2,
    "response_cost": 0.00512,
    "end_user": "alice",
    "metadata": {
        "user_api_key_team_id": "team-red",
        "usage_object": {
            "prompt_tokens": 1200,
            "completion_tokens": 340,
            "prompt_tokens_details": {"cached_tokens": 1024},
        },
    },
}
SUMMARY = {"recorded": 1, "duplicates": 0, "rejected": 0, "cost_usd": "0.00512", "results": []}


@router.post(
    "/v1/ingest/litellm",
    responses={
        200: {"description": "Recorded, or sent before", "content": shown(SUMMARY)},
        207: {"description": "Some records were refused; the others are recorded"},
        **FAILURES,
    },
    openapi_extra={
        "parameters": [BACKFILL],
        "requestBody": {
            "required": True,
            "content": {
                **shown([RECORD]),
                "application/x-ndjson": {"schema": {"type": "string"}},
            },
        },
    },
)
async def post_litellm(request: Request) -> Response:
    """Record LiteLLM's standard logging payloads: an array, lines, or one object.

    `litellm_call_id` tells a repeat. Prompts and answers in a record are dropped unread.
    """
    foreign: Foreign = request.app.state.foreign
    opened = await foreign.open(lean(request))
    if opened.kind not in _KINDS:
        raise UnsupportedMedia("send application/json or application/x-ndjson")
    read = partial(drafts_of, identity=foreign.identity, key=opened.key, trust=foreign.trust)
    told = await foreign.submit(opened, SOURCE, await decoded(opened.body, read))
    if (error := refusal_of(told)) is not None:
        raise error
    found = without_conflicts(told)
    return Response(found.body, found.status, media_type="application/json")
