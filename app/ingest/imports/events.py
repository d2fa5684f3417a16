"""Events of our own, as they are sent or were exported; and any CSV whose columns are named.

An exported event keeps its cost to the nano-dollar, as one that is stated. What was voided has
nothing to record and is left out.
"""

from collections.abc import Mapping
from typing import Any

from app.core.counters import COUNTERS, SECONDS
from app.ingest.imports.records import Fields, Record, id_for
from app.ingest.imports.values import (
    UnfitError,
    count_of,
    instant_of,
    number_of,
    object_of,
    usd_of,
    without_nothing,
)

SAID_BY_US = ("recorded_at", "cost_status", "price_ref", "voided", "corrections")
"""What an export tells of an event and nobody can send."""
_COUNTS = ("status_code", "retry_count", "request_bytes", "response_bytes")
_NUMBERS = ("latency_ms", "ttft_ms")
_OBJECTS = ("tags", "context")
_TEXTS = (
    *("id", "user_id", "timestamp", "provider", "model", "cost_usd", "endpoint", "method"),
    *("error_message", "user_agent", "ip_address", "team_id", "api_key_id", "session_id"),
    *("task_type", "backend", "pool", "hold_id"),
)
KNOWN = {*COUNTERS, *_COUNTS, *_NUMBERS, *_OBJECTS, *_TEXTS}


def event_from_line(record: Record) -> dict[str, Any] | None:
    """An event from a line of JSON; None where it was voided.

    Raises:
        UnfitError: it says no time: recorded again it would be another event.
    """
    fields = record.fields
    if fields.get("voided") is True:
        return None
    if not fields.get("timestamp"):
        raise UnfitError("timestamp is missing")
    event = {name: value for name, value in fields.items() if name not in SAID_BY_US}
    if "recorded_at" in fields:  # ours: a field that is null says nothing
        event = without_nothing(event)
        for name in ("kind", "billing_period"):
            event.pop(name, None)
    event.setdefault("id", id_for(record, "event"))
    return event


def event_from_columns(record: Record, names: Mapping[str, str]) -> dict[str, Any] | None:
    """An event from a line of CSV; `names` says which column holds a field, where it differs.

    Raises:
        UnfitError: a value that its field cannot have, or no time.
    """
    fields = _renamed(record.fields, names)
    if fields.get("voided") == "true":
        return None
    exported = "recorded_at" in fields
    event: dict[str, Any] = {"timestamp": instant_of(fields, "timestamp", naive_is_utc=False)}
    usage: dict[str, Any] = {}
    for name in fields:
        if name in COUNTERS:
            usage[name] = _amount(fields, name)
        elif name in _COUNTS:
            event[name] = count_of(fields, name)
        elif name in _NUMBERS:
            event[name] = float(number_of(fields, name) or 0)
        elif name in _OBJECTS:
            event[name] = object_of(fields, name)
        elif name == "cost_usd":
            event[name] = usd_of(fields, name)
        elif name.startswith("tag."):
            event.setdefault("tags", {})[name.removeprefix("tag.")] = fields[name]
        elif name not in SAID_BY_US and name != "timestamp":
            event[name] = fields[name]
    if usage or exported:
        event["usage"] = {name: amount for name, amount in usage.items() if amount}
    event.setdefault("id", id_for(record, "csv"))
    return event


def _renamed(fields: Fields, names: Mapping[str, str]) -> Fields:
    """The fields under our names; with `names` a column that nothing is known of is left out."""
    if not names:
        return fields
    columns = {column: name for name, column in names.items()}
    found = {name: value for name, value in fields.items() if name in KNOWN and name not in names}
    return found | {columns[column]: value for column, value in fields.items() if column in columns}


def _amount(fields: Fields, name: str) -> int | float | None:
    if name not in SECONDS:
        return count_of(fields, name)
    found = number_of(fields, name)
    return None if found is None else float(found)


def names_from(text: str) -> dict[str, str]:
    """Read `user_id=customer,input_tokens=prompt`: field by column.

    Raises:
        ValueError: a part without `=`, a field twice, or one that no event has.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        name, mark, column = (piece.strip() for piece in part.partition("="))
        if not mark or not column:
            raise ValueError(f"{part!r} is not field=column")
        if name not in KNOWN and not name.startswith("tag."):
            raise ValueError(f"an event has no field {name!r}")
        if name in found or column in found.values():
            raise ValueError(f"{name} or {column} is given twice")
        found[name] = column
    return found
