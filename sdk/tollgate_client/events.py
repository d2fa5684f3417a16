"""An event as it is sent: checked as far as a client can, with its id and its time, one line."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypedDict

from tollgate_client.ids import uuid7

LONGEST = 1 << 20
"""Bytes of one event; the service takes no more."""


class Ask(TypedDict, total=False):
    """What a call is going to be: what the service is asked before it is made.

    `usage` are upper bounds in the service's counters; `cost_usd` states a cost instead.
    """

    provider: str
    model: str
    endpoint: str
    team_id: str
    api_key_id: str
    usage: Mapping[str, float]
    cost_usd: str | Decimal
    context: Mapping[str, str]


class Dimensions(TypedDict, total=False):
    """What calls are told apart by, besides user, provider and model."""

    team_id: str
    api_key_id: str
    session_id: str
    task_type: str
    backend: str
    pool: str
    tags: Mapping[str, str]
    context: Mapping[str, str]


class Event(Ask, total=False):
    """What a call was. Either `usage` or `response`, the provider's answer or its usage block.

    Durations are milliseconds, `timestamp` is an aware datetime (now, if left out), money is a
    decimal string or a Decimal, never a float.
    """

    id: str
    timestamp: datetime
    response: object
    api: str
    method: str
    status_code: int
    error_message: str
    retry_count: int
    latency_ms: float
    ttft_ms: float
    request_bytes: int
    response_bytes: int
    user_agent: str
    ip_address: str
    session_id: str
    task_type: str
    backend: str
    pool: str
    tags: Mapping[str, str]
    hold_id: str


EVENT_FIELDS = Event.__required_keys__ | Event.__optional_keys__
ASK_FIELDS = Ask.__required_keys__ | Ask.__optional_keys__


def ask_of(user_id: str, ask: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a check or a hold.

    Raises:
        ValueError, TypeError: a field that does not exist or cannot be meant.
    """
    found: dict[str, Any] = plain(_fields(user_id, ask, ASK_FIELDS))
    return found


def event_of(user_id: str, event: Mapping[str, Any]) -> tuple[str, bytes]:
    """The event's id and its line, newline included; what is sent again is this very line.

    Raises:
        ValueError, TypeError: a field that does not exist or cannot be meant.
    """
    said = _fields(user_id, event, EVENT_FIELDS)
    if "usage" in said and "response" in said:
        raise ValueError("give `usage` or `response`, not both")
    said.setdefault("id", uuid7())
    moment = said.setdefault("timestamp", datetime.now(UTC))
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ValueError("`timestamp` must be a datetime with its offset")
    said["timestamp"] = moment.astimezone(UTC).isoformat()
    line = json.dumps(plain(said), separators=(",", ":"), allow_nan=False).encode() + b"\n"
    if len(line) > LONGEST:
        raise ValueError("one event is at most 1 MiB; send the usage block instead")
    return said["id"], line


def _fields(user_id: str, said: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    if not isinstance(user_id, str) or not user_id:
        raise ValueError("`user_id` must be a string that is not empty")
    unknown = sorted(said.keys() - known)
    if unknown:
        raise TypeError(f"no such field: {', '.join(unknown)}")
    found = {"user_id": user_id} | {k: v for k, v in said.items() if v is not None}
    cost = found.get("cost_usd")
    if isinstance(cost, Decimal):
        found["cost_usd"] = format(cost, "f")
    elif cost is not None and not isinstance(cost, str):
        raise TypeError("`cost_usd` must be a decimal string or a Decimal")
    return found


def plain(value: object) -> Any:
    """The value as JSON can say it; models of the providers' libraries are written out."""
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json", exclude_none=True, warnings=False)
    return value
