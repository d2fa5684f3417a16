"""Endpoints that take an event back, or say what it should have been."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Request

from app.access.api import JsonRoute, printable
from app.access.deps import Manager, Note
from app.access.guard import require_user
from app.core.errors import InvalidInput
from app.db.engine import Tx
from app.ingest.correct import Done, Order
from app.ingest.correct_run import done
from app.ingest.correct_shapes import (
    CORRECT_EXAMPLES,
    CorrectedOut,
    CorrectIn,
    VoidIn,
    body_hash,
    correction_from,
    void_from,
)
from app.ingest.rerate_api import Served
from app.retention.evidence import entry_of_wrapped
from app.usage.api import EventId, EventOut, UserId, UserRoute, event_out, legible
from app.usage.corrections import AMOUNT, CORRECT, VOID, is_voided, shown
from app.usage.history import history_out
from app.usage.ledger import Entry


class CorrectRoute(JsonRoute, UserRoute):
    """A JSON body, and ids that may hold `/`."""


router = APIRouter(tags=["events"], route_class=CorrectRoute)
ONCE = "Sent again with the same key and body, the same answer comes and nothing is done twice"
OnceKey = Annotated[str | None, Header(min_length=1, max_length=256, description=ONCE)]


def _described(body: type, *examples: dict[str, Any]) -> dict[str, Any]:
    _, parts = msgspec.json.schema_components([body])
    schema = parts[body.__name__] | {"examples": list(examples)}
    for name, value in schema["properties"].items():
        if "$ref" in value:
            schema["properties"][name] = parts[value["$ref"].rpartition("/")[2]]
    content = {"application/json": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


_ANSWERS: dict[int | str, dict[str, Any]] = {
    404: {"description": "This user has no such event"},
    409: {"description": "It was voided, or its archive cannot be read"},
}


@router.post(
    "/v1/users/{user_id:path}/events/{event_id:path}/void",
    responses=_ANSWERS,
    openapi_extra=_described(VoidIn, {"reason": "the gateway reported the call twice"}),
)
async def void(
    request: Request,
    key: Manager,
    parts: Served,
    user_id: UserId,
    event_id: EventId,
    note: Note,
    idempotency_key: OnceKey = None,
) -> CorrectedOut:
    """Take an event back, of any age: its calls, tokens and cost leave every total and limit.

    The event stays readable and so does what it was. An event that told of several calls is taken
    back whole, unless one call is named (`id#2`). Voided again, it answers the same.
    """
    _checked(key, user_id, event_id, idempotency_key)
    body = void_from(await request.body())
    order = Order(
        *(user_id, event_id, None, body.reason, key.id),
        *(body_hash(VOID, body), idempotency_key),
    )
    return await carried_out(request, parts, order, note)


@router.post(
    "/v1/users/{user_id:path}/events/{event_id:path}/correct",
    responses=_ANSWERS,
    openapi_extra=_described(CorrectIn, *CORRECT_EXAMPLES),
)
async def correct(
    request: Request,
    key: Manager,
    parts: Served,
    user_id: UserId,
    event_id: EventId,
    note: Note,
    idempotency_key: OnceKey = None,
) -> CorrectedOut:
    """Say what an event of any age should have been: `fields` replace those of the event.

    Usage is replaced as a whole. The event is charged by the prices at its time, unless its cost
    is stated. Totals, limits and alerts move in the same commit. Instead of `fields`, `cost_usd`
    adds an amount to its cost, also where its row lies in an archive that cannot be read.
    """
    _checked(key, user_id, event_id, idempotency_key)
    body, edit = correction_from(await request.body(), user_id, parts.clock.now())
    kind = AMOUNT if body.fields is msgspec.UNSET else CORRECT
    order = Order(
        *(user_id, event_id, edit, body.reason, key.id),
        *(body_hash(kind, body), idempotency_key),
    )
    return await carried_out(request, parts, order, note)


def _checked(key: Manager, user_id: str, event_id: str, idempotency_key: str | None) -> None:
    require_user(key, user_id)
    legible(user_id, "user_id")
    legible(event_id, "event_id")
    if idempotency_key is not None:
        try:
            printable(idempotency_key)
        except ValueError:
            raise InvalidInput.at("/Idempotency-Key", "must be printable text") from None


async def carried_out(request: Request, parts: Served, order: Order, note: Note) -> CorrectedOut:
    store = request.app.state.store

    async def read_row(user_id: str, event_id: str) -> Entry | None:
        return await entry_of_wrapped(parts.db, store, user_id, event_id)

    async def noted(tx: Tx, found: Done, now: datetime) -> None:
        states = _stood(found, now), corrected_out(found)
        await note(tx, order.kind, "event", order.event_id, *states)

    return corrected_out(await done(parts, read_row, order, noted))


def _stood(found: Done, now: datetime) -> EventOut | None:
    """The event before what was said of it now; None where its row cannot be read. Pure."""
    first = found.rows[0]
    earlier = [one for one in first.corrections if one.entry.recorded_at < now]
    entry = shown(first.row, earlier)
    return None if entry is None else event_out(entry, found.agreement, earlier)


def corrected_out(found: Done) -> CorrectedOut:
    """An event after an order, for the wire. Pure."""
    first = found.rows[0]
    entry = shown(first.row, first.corrections)
    if entry is None:
        raise RuntimeError("an event that was corrected can be shown")
    facts = dict(event_out(entry, found.agreement, first.corrections))
    history = history_out(first.corrections)
    voided = [one.event_id for one in found.rows if is_voided(one.corrections)]
    return CorrectedOut(**facts | {"corrections": history, "voided_ids": voided})
