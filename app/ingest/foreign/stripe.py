"""Stripe's meter events: a quantity on a meter, or tokens of a model where the payload says so."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from app.access.keys import Key
from app.core.errors import AppError, BadRequest, InvalidInput
from app.ingest.foreign.identity import Identity, event_id, text_of
from app.ingest.foreign.lago import instant_of
from app.ingest.foreign.metered import metered, object_of
from app.ingest.foreign.submit import Draft

SOURCE = "stripe"
MAX_FIELDS = 100
MAX_STREAMED = 10_000
_CUSTOMER = "stripe_customer_id"


def from_form(body: bytes) -> dict[str, Any]:
    """A form as the object it stands for: `payload[value]=5` is `{"payload": {"value": "5"}}`.

    Raises:
        BadRequest: not a form.
    """
    try:
        pairs = parse_qsl(
            *(body.decode(), True, True),
            max_num_fields=MAX_FIELDS,
            errors="strict",
        )
    except (ValueError, UnicodeDecodeError):
        raise BadRequest.at("", "a form of at most 100 fields was looked for") from None
    found: dict[str, Any] = {}
    payload: dict[str, str] = {}
    for name, value in pairs:
        if name.startswith("payload[") and name.endswith("]"):
            payload[name[len("payload[") : -1]] = value
        else:
            found[name] = value
    return found | {"payload": payload}


def drafts_of(
    events: Sequence[object],
    identity: Identity,
    key: Key,
    trust: str,
    *,
    base: str = "",
    otherwise_id: str = "",
) -> list[Draft | AppError]:
    """The drafts of meter events.

    `otherwise_id` names one that has no `identifier`; of many, with its place among them.
    """
    found: list[Draft | AppError] = []
    for place, event in enumerate(events):
        at = f"{base}/{place}" if base else ""
        try:
            name = event_id(otherwise_id, str(place)) if base and otherwise_id else otherwise_id
            found.append(_draft(object_of(event, at), at, identity, key, trust, name))
        except InvalidInput as error:
            found.append(error)
    return found


def _draft(
    event: Mapping[str, Any],
    at: str,
    identity: Identity,
    key: Key,
    trust: str,
    otherwise_id: str,
) -> Draft:
    meter = text_of(event.get("event_name"))
    if meter is None:
        raise InvalidInput.at(f"{at}/event_name", "this field is required")
    payload = object_of(event.get("payload"), f"{at}/payload")
    if payload.get("value") in (None, ""):
        raise InvalidInput.at(f"{at}/payload/value", "this field is required")
    fields, comparable = metered(payload, meter, f"{at}/payload", trust)
    user = text_of(payload.get(_CUSTOMER)) or identity.named(payload) or key.user_id
    if user is not None:
        fields["user_id"] = user
    if named := text_of(event.get("identifier")) or otherwise_id:
        fields["id"] = event_id(named)
    when = instant_of(event.get("timestamp"), f"{at}/timestamp")
    if when is not None:
        fields["timestamp"] = when
    if team := identity.team(payload):
        fields["team_id"] = team
    places = {
        "id": f"{at}/identifier",
        "timestamp": f"{at}/timestamp",
        "user_id": f"{at}/payload/{_CUSTOMER}",
        "model": f"{at}/payload/model" if payload.get("model") else f"{at}/event_name",
        "usage": f"{at}/payload/value",
    }
    return Draft(fields, at, places, comparable)
