"""`POST /api/public/ingestion`: Langfuse's SDK v2 and what speaks like it."""

from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from app.core.errors import UnsupportedMedia
from app.ingest.foreign.cloudevents_api import BACKFILL, FAILURES, shown
from app.ingest.foreign.langfuse_door import Langfuse
from app.ingest.foreign.submit import Foreign
from app.web.asgi import lean

router = APIRouter(tags=["other formats"])
_AT = "2026-11-20T12:30:00Z"
BATCH: dict[str, Any] = {
    "batch": [
        {
            "id": "e1",
            "type": "trace-create",
            "timestamp": _AT,
            "body": {"id": "t1", "userId": "alice", "sessionId": "s1"},
        },
        {
            "id": "e2",
            "type": "generation-create",
            "timestamp": _AT,
            "body": {
                "id": "g1",
                "traceId": "t1",
                "model": "gpt-4o",
                "startTime": "2026-11-20T12:29:59Z",
                "endTime": _AT,
                "usage": {"input": 1200, "output": 340, "unit": "TOKENS"},
            },
        },
    ],
    "metadata": {"sdk_name": "python"},
}
_HOUSE = {"id": "tollgate", "name": "Tollgate"}
PROJECTS: dict[str, Any] = {"data": [{**_HOUSE, "organization": _HOUSE, "metadata": {}}]}
ANSWER: dict[str, Any] = {
    "successes": [{"id": "e1", "status": 201}, {"id": "e2", "status": 201}],
    "errors": [],
}


@router.get(
    "/api/public/projects",
    responses={200: {"description": "The key is good", "content": shown(PROJECTS)}},
)
async def list_langfuse_projects(request: Request) -> Response:
    """The one project there is, by which Langfuse's clients and Dify try their keys."""
    foreign: Foreign = request.app.state.foreign
    await foreign.open(lean(request))
    return Response(msgspec.json.encode(PROJECTS), media_type="application/json")


@router.post(
    "/api/public/ingestion",
    status_code=207,
    responses={207: {"description": "Item by item", "content": shown(ANSWER)}, **FAILURES},
    openapi_extra={
        "parameters": [BACKFILL],
        "requestBody": {"required": True, "content": shown(BATCH)},
    },
)
async def post_langfuse(request: Request) -> Response:
    """Record the generations of a Langfuse batch; everything else in it is accepted and ignored.

    A generation's creation and its updates are one call, also in several requests: it is recorded
    when its usage is known and its user named (on its trace), or after a while with its usage
    unknown; what is told later still corrects it. The key is the secret key; the public key may be
    anything.
    """
    foreign: Foreign = request.app.state.foreign
    door: Langfuse = request.app.state.langfuse
    opened = await foreign.open(lean(request))
    if opened.kind not in ("application/json", ""):
        raise UnsupportedMedia("send application/json")
    answer = await door.take(opened)
    return Response(msgspec.json.encode(answer), 207, media_type="application/json")
