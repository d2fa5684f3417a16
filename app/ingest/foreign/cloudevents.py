"""CloudEvents, as OpenMeter's clients, LiteLLM's `openmeter` callback and others send them."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from app.access.keys import Key
from app.core.counters import COUNTERS, SECONDS
from app.core.errors import AppError, BadRequest, InvalidInput
from app.ingest.decode import EventIn
from app.ingest.foreign.counts import number_of
from app.ingest.foreign.identity import Identity, event_id, found_at, text_of
from app.ingest.foreign.metered import metered, object_of
from app.ingest.foreign.submit import Draft, read_any

SOURCE = "cloudevents"
LONGEST = 1024
_NEEDED = ("specversion", "id", "source", "type")
_FIELDS = frozenset(EventIn.__struct_fields__) - {"usage", "response", "api", "tags", "context"}


class CloudEvents:
    """Makes drafts of CloudEvents.

    `paths` says where fields of ours stand that are not found by themselves: a field, or
    `usage.<counter>`, to a path in the event.
    """

    def __init__(self, identity: Identity, trust: str, paths: Mapping[str, str]) -> None:
        self._identity, self._trust, self._paths = identity, trust, paths
        for name in paths:
            head, _, counter = name.partition(".")
            if name not in _FIELDS and not (head == "usage" and counter in COUNTERS):
                raise ValueError(f"no field of an event, nor usage.<counter>: {name}")

    def drafts(self, events: object, key: Key) -> list[Draft | AppError]:
        """One event, or an array of them; what is none is refused alone.

        Raises:
            BadRequest: neither an object nor an array with something in it.
        """
        if isinstance(events, list):
            if not events:
                raise BadRequest.at("", "send at least one event")
            return [self._tried(event, key, f"/{place}") for place, event in enumerate(events)]
        if not isinstance(events, dict):
            raise BadRequest.at("", "a CloudEvent, or an array of them, was looked for")
        return [self._tried(events, key, "")]

    def _tried(self, event: object, key: Key, pointer: str) -> Draft | AppError:
        try:
            return self._draft(event, key, pointer)
        except InvalidInput as error:
            return error

    def _draft(self, given: object, key: Key, pointer: str) -> Draft:
        event = object_of(given, pointer)
        for name in _NEEDED:
            value = event.get(name)
            if not isinstance(value, str) or not value.strip() or len(value) > LONGEST:
                detail = f"a text of 1 to {LONGEST} characters is required"
                raise InvalidInput.at(f"{pointer}/{name}", detail)
        if event["specversion"].split(".")[0] != "1":
            raise InvalidInput.at(f"{pointer}/specversion", "1.0 was looked for")
        data, where = _data_of(event, pointer)
        mapped = {
            name.removeprefix("usage."): number_of(
                value, f"{pointer}/{path.replace('.', '/')}", name.rpartition(".")[2] in SECONDS
            )
            for name, path in self._paths.items()
            if name.startswith("usage.") and (value := found_at(event, path)) is not None
        }
        fields, comparable = metered(data, event["type"], where, self._trust, mapped=mapped)
        fields["id"] = event_id(event["source"], event["id"])
        if event.get("time"):
            fields["timestamp"] = event["time"]
        if team := self._identity.team(data):
            fields["team_id"] = team
        if session := self._identity.session(data):
            fields["session_id"] = session
        user = text_of(event.get("subject")) or self._identity.named(data) or key.user_id
        if user is not None:
            fields["user_id"] = user
        for name, path in self._paths.items():
            if "." not in name and (value := found_at(event, path)) is not None:
                fields[name] = value
        places = {
            "id": f"{pointer}/id",
            "timestamp": f"{pointer}/time",
            "user_id": f"{pointer}/subject",
            **{name: f"{pointer}/{path.replace('.', '/')}" for name, path in self._paths.items()},
        }
        for name in fields.keys() - places.keys() - {"usage", "context"}:
            places[name] = f"{where}/{name}"
        return Draft(fields, pointer, places, comparable)


def _data_of(event: Mapping[str, Any], pointer: str) -> tuple[dict[str, Any], str]:
    """The data of an event, also where it is base64 or JSON in a string."""
    if (encoded := event.get("data_base64")) is not None:
        pointer = f"{pointer}/data_base64"
        try:
            raw = base64.b64decode(encoded, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise InvalidInput.at(pointer, "base64 was looked for") from None
        return _object_in(raw, pointer), pointer
    pointer = f"{pointer}/data"
    data = event.get("data")
    if isinstance(data, str):
        return _object_in(data.encode("utf-8", "surrogatepass"), pointer), pointer
    return object_of(data, pointer), pointer


def _object_in(text: bytes, pointer: str) -> dict[str, Any]:
    try:
        return object_of(read_any(text), pointer)
    except BadRequest as error:
        raise InvalidInput.at(pointer, error.detail) from None


def is_binary(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the event's attributes are headers and the body is its data."""
    return b"ce-specversion" in headers or b"ce-id" in headers


def from_binary(headers: Mapping[bytes, bytes], body: bytes) -> dict[str, Any]:
    """An event in binary mode as the object that structured mode has."""
    event: dict[str, Any] = {
        name[3:].decode("latin-1"): _header_text(value)
        for name, value in headers.items()
        if name.startswith(b"ce-")
    }
    return event | {"data": read_any(body) if body.strip() else None}


def _header_text(value: bytes) -> str:
    """Characters beyond ASCII are percent-encoded UTF-8; some clients send them as they are."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    return unquote(text.strip('"'))
