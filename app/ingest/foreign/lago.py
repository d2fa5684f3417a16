"""Lago's events: `{"event": {…}}` and `{"events": […]}`, as its clients and LiteLLM send them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import msgspec

from app.core.errors import AppError, BadRequest, InvalidInput
from app.ingest.foreign.identity import Identity, event_id, text_of
from app.ingest.foreign.metered import metered, object_of
from app.ingest.foreign.submit import Draft

SOURCE = "lago"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_INSTANT = 32
_BEYOND_S = 10**12


def drafts_of(body: object, identity: Identity, trust: str) -> list[Draft | AppError]:
    """The drafts of a request.

    Raises:
        BadRequest: neither `event` nor `events` with something in it.
    """
    said = body if isinstance(body, dict) else {}
    if isinstance(said.get("event"), dict):
        return [_tried(said["event"], "/event", identity, trust)]
    events = said.get("events")
    if not isinstance(events, list) or not events:
        raise BadRequest.at("/events", "an array with at least one event was looked for")
    return [_tried(one, f"/events/{at}", identity, trust) for at, one in enumerate(events)]


def _tried(event: object, pointer: str, identity: Identity, trust: str) -> Draft | AppError:
    try:
        return _draft(object_of(event, pointer), pointer, identity, trust)
    except InvalidInput as error:
        return error


def _draft(event: dict[str, Any], pointer: str, identity: Identity, trust: str) -> Draft:
    for name in ("transaction_id", "code"):
        if text_of(event.get(name)) is None:
            raise InvalidInput.at(f"{pointer}/{name}", "value_is_mandatory")
    customer = "external_subscription_id"
    if text_of(event.get(customer)) is None and text_of(event.get("external_customer_id")):
        customer = "external_customer_id"
    user = text_of(event.get(customer))
    if user is None:
        raise InvalidInput.at(f"{pointer}/{customer}", "value_is_mandatory")
    said, where = object_of(event.get("properties"), f"{pointer}/properties"), "properties"
    fields, comparable = metered(
        *(said, str(event["code"]), f"{pointer}/{where}", trust),
        cents=event.get("precise_total_amount_cents"),
    )
    fields |= {"id": event_id(user, str(event["transaction_id"])), "user_id": user}
    at = instant_of(event.get("timestamp"), f"{pointer}/timestamp")
    if at is not None:
        fields["timestamp"] = at
    if team := identity.team(said):
        fields["team_id"] = team
    if session := identity.session(said):
        fields["session_id"] = session
    places = {
        "id": f"{pointer}/transaction_id",
        "user_id": f"{pointer}/{customer}",
        "timestamp": f"{pointer}/timestamp",
        "model": f"{pointer}/{where}/model",
        "provider": f"{pointer}/{where}/provider",
    }
    return Draft(fields, pointer, places, comparable)


def instant_of(value: object, pointer: str) -> datetime | str | None:
    """Seconds since 1970, as a number or a string, whole or not; text else stays as it is.

    Raises:
        InvalidInput: neither, or a time that no calendar has.
    """
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise InvalidInput.at(pointer, "seconds since 1970 were looked for")
    text = str(value).strip()
    if len(text) > _LONGEST_INSTANT:
        raise InvalidInput.at(pointer, "seconds since 1970 were looked for")
    try:
        seconds = Decimal(text)
    except InvalidOperation:
        return text
    try:
        if not abs(seconds) < _BEYOND_S:
            raise OverflowError
        return _EPOCH + timedelta(microseconds=int(seconds * 1_000_000))
    except (OverflowError, ValueError, InvalidOperation):
        raise InvalidInput.at(pointer, "no such instant") from None


def told_back(event: dict[str, Any], at: datetime, now: datetime) -> dict[str, Any]:
    """An event as Lago answers with it; its `lago_id` is the same for the same event."""
    user = event.get("external_subscription_id") or event.get("external_customer_id")
    name = f"tollgate:{user}|{event['transaction_id']}"
    return {
        "lago_id": str(uuid5(NAMESPACE_URL, name)),
        "transaction_id": str(event["transaction_id"]),
        "lago_customer_id": None,
        "lago_subscription_id": None,
        "external_subscription_id": event.get("external_subscription_id"),
        "code": str(event["code"]),
        "timestamp": _written(at),
        "precise_total_amount_cents": event.get("precise_total_amount_cents"),
        "properties": event.get("properties") or {},
        "created_at": _written(now),
    }


written = msgspec.json.Encoder().encode


def _written(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
