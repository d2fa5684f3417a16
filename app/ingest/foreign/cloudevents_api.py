"""`POST /api/v1/events`: CloudEvents, and Lago's events on the same path."""

from typing import Any

from fastapi import APIRouter, Request, Response

from app.core.errors import BadRequest, IdReused, InvalidInput, UnsupportedMedia
from app.ingest.foreign import lago
from app.ingest.foreign.answers import places_of, refusal_of, with_members, without_conflicts
from app.ingest.foreign.cloudevents import SOURCE, CloudEvents, from_binary, is_binary
from app.ingest.foreign.submit import Foreign, Opened, decoded, read_any
from app.web.asgi import lean

router = APIRouter(tags=["other formats"])
ONE, MANY = "application/cloudevents+json", "application/cloudevents-batch+json"
_JSON = ("application/json", "")

EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "call-7",
    "source": "chat-service",
    "type": "prompt",
    "subject": "alice",
    "time": "2026-11-20T12:30:00Z",
    "data": {
        "provider": "openai",
        "model": "gpt-4o",
        "input_tokens": 1200,
        "cached_input_tokens": 1024,
        "output_tokens": 340,
    },
}
LAGO: dict[str, Any] = {
    "transaction_id": "call-7",
    "external_subscription_id": "alice",
    "code": "llm_tokens",
    "timestamp": "1795177800",
    "properties": {"model": "gpt-4o", "prompt_tokens": 1200, "completion_tokens": 340},
}
LAGO_ANSWER: dict[str, Any] = {
    "event": {
        "lago_id": "0d5c2c1e-52b8-5a4c-8d22-0ad8a6f7d6a0",
        **LAGO,
        "lago_customer_id": None,
        "lago_subscription_id": None,
        "timestamp": "2026-11-20T12:30:00.000Z",
        "precise_total_amount_cents": None,
        "created_at": "2026-11-20T12:30:01.000Z",
    }
}
BACKFILL: dict[str, Any] = {
    "name": "backfill",
    "in": "query",
    "schema": {"type": "boolean"},
    "description": "Accept any age; needs the scope `manage`.",
}
FAILURES: dict[int | str, dict[str, Any]] = {
    400: {"description": "Not what the format allows; nothing was recorded"},
    413: {"description": "More than 16 MiB or 10,000 events"},
    415: {"description": "A media type or an encoding that is not read here"},
    422: {"description": "Outside the acceptance window, or refused as the format's server would"},
    503: {"description": "Nothing was recorded; try again after `Retry-After`"},
}


def shown(example: Any) -> dict[str, Any]:
    """A JSON body for the description of an endpoint."""
    return {"application/json": {"schema": {"examples": [example]}}}


@router.post(
    "/api/v1/events",
    status_code=204,
    responses={
        204: {"description": "CloudEvents: recorded, or sent before"},
        200: {"description": "Lago: the event", "content": shown(LAGO_ANSWER)},
        207: {"description": "Some of many CloudEvents were refused; the others are recorded"},
        **FAILURES,
    },
    openapi_extra={
        "parameters": [BACKFILL],
        "requestBody": {
            "required": True,
            "content": {
                ONE: {"schema": {"type": "object"}, "example": EVENT},
                MANY: {"schema": {"type": "array", "items": {}}, "example": [EVENT]},
                "application/json": {"schema": {"examples": [EVENT, {"event": LAGO}]}},
            },
        },
    },
)
async def post_cloudevents(request: Request) -> Response:
    """Record CloudEvents: structured, batched, binary (`ce-…` headers), or bare JSON.

    `source` and `id` together tell a repeat. `subject` is the user. `data` with a model or tokens
    is a model call; anything else counts on a plain meter with the name of the `type`. A body with
    `event` is Lago's, and answered as Lago does.
    """
    foreign: Foreign = request.app.state.foreign
    reader: CloudEvents = request.app.state.cloudevents
    opened = await foreign.open(lean(request))
    kind = opened.kind
    if is_binary(opened.headers) and kind not in (ONE, MANY):
        if kind not in _JSON and not kind.endswith("+json"):
            raise UnsupportedMedia("the data of an event must be JSON")
        events: object = from_binary(opened.headers, opened.body)
    elif kind in (ONE, MANY, *_JSON):
        events = await decoded(opened.body, read_any)
    else:
        raise UnsupportedMedia(f"send {ONE}, {MANY} or application/json")
    if kind in _JSON and isinstance(events, dict) and _is_lagos(events):
        return await _lago(foreign, opened, events)
    if kind in (ONE, MANY) and isinstance(events, list) != (kind == MANY):
        raise BadRequest.at("", "an array was looked for" if kind == MANY else "one object, please")
    told = await foreign.submit(opened, SOURCE, reader.drafts(events, opened.key))
    if (error := refusal_of(told)) is not None:
        raise error
    if told.refused:
        found = without_conflicts(told)
        return Response(found.body, found.status, media_type="application/json")
    return Response(status_code=204)


@router.post(
    "/api/v1/events/batch",
    responses={
        200: {"description": "The events", "content": shown({"events": [LAGO_ANSWER["event"]]})},
        **FAILURES,
    },
    openapi_extra={
        "parameters": [BACKFILL],
        "requestBody": {"required": True, "content": shown({"events": [LAGO]})},
    },
)
async def post_lago_batch(request: Request) -> Response:
    """Record events of Lago's, all or none."""
    foreign: Foreign = request.app.state.foreign
    opened = await foreign.open(lean(request))
    return await _lago(foreign, opened, await decoded(opened.body, read_any))


def _is_lagos(body: dict[str, Any]) -> bool:
    return "event" in body and "specversion" not in body


async def _lago(foreign: Foreign, opened: Opened, body: Any) -> Response:
    drafts = lago.drafts_of(body, foreign.identity, foreign.trust)
    try:
        told = await foreign.submit(opened, lago.SOURCE, drafts, atomic=True)
    except IdReused as error:
        again = [{**one, "detail": "value_already_exist"} for one in error.extra["errors"]]
        raise _refused(InvalidInput("value_already_exist", errors=again)) from None
    except InvalidInput as error:
        raise _refused(error) from None
    if told.refused:
        why = refusal_of(told)
        if not isinstance(why, InvalidInput):
            raise why or BadRequest("nothing was recorded")
        raise _refused(InvalidInput("nothing was recorded", errors=places_of(told.refused)))
    one = isinstance(body.get("event"), dict)
    sent = [body["event"]] if one else body["events"]
    found = [
        lago.told_back(event, told.logged[at].entry.timestamp, opened.now)
        for at, event in enumerate(sent)
    ]
    answer = {"event": found[0]} if one else {"events": found}
    return Response(lago.written(answer), media_type="application/json")


def _refused(error: InvalidInput) -> InvalidInput:
    """With what Lago's clients look for beside the members of a problem document."""
    details = {one["pointer"]: [one["detail"]] for one in error.extra["errors"]}
    members = {"error": "Unprocessable Entity", "code": "validation_errors"}
    return with_members(error, {**members, "error_details": details})
