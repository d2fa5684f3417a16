"""What an OpenTelemetry request holds, whichever way it was written."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

Value = str | bool | int | float | Sequence["Value"] | Mapping[str, "Value"] | None
Attributes = Mapping[str, Value]


class Event(NamedTuple):
    """Something that happened during a span."""

    name: str
    time_ns: int
    attributes: Attributes


class Span(NamedTuple):
    """A stretch of work. Ids are lower-case hex, empty where none was sent; times are Unix ns."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start_ns: int
    end_ns: int
    failed: bool
    message: str
    attributes: Attributes
    events: Sequence[Event]
    scope: str
    resource: Attributes


class Record(NamedTuple):
    """A log record; `name` is its event's, `span_id` that of the span it was written in."""

    trace_id: str
    span_id: str
    name: str
    time_ns: int
    attributes: Attributes
    scope: str
    resource: Attributes


def is_id(value: str, size: int) -> bool:
    """Whether these are the hex digits of an id of that many bytes that is not all zeros."""
    return len(value) == 2 * size and any(char != "0" for char in value)
