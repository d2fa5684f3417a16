"""OTLP's JSON to spans and records: ids in hex, numbers that may be strings, any unknown field."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec
from msgspec import Struct

from app.core.errors import BadRequest, TooLarge
from app.ingest.otlp.spans import Event, Record, Span, Value
from app.web.strict import UNREADABLE, refusal

MAX_OBJECTS = 1_000_000
"""How many objects a body may hold: each takes memory though it is empty."""
_FAILED = (2, "2", "STATUS_CODE_ERROR")
_LARGEST = 1 << 64
_DEPTH = 24

Number = int | float | str | None
T = TypeVar("T")


class _Value(Struct, rename="camel", gc=False):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: Number = None
    double_value: Number = None
    array_value: "_Array | None" = None
    kvlist_value: "_Pairs | None" = None


class _Pair(Struct, gc=False):
    key: str = ""
    value: _Value | None = None


class _Array(Struct, gc=False):
    values: list[_Value] = []


class _Pairs(Struct, gc=False):
    values: list[_Pair] = []


class _Holder(Struct, gc=False):
    attributes: list[_Pair] = []


class _Scope(Struct, gc=False):
    name: str = ""


class _Status(Struct, gc=False):
    code: int | str = 0
    message: str = ""


class _Event(Struct, rename="camel", gc=False):
    name: str = ""
    time_unix_nano: Number = 0
    attributes: list[_Pair] = []


class _Span(Struct, rename="camel", gc=False):
    trace_id: str = ""
    span_id: str = ""
    parent_span_id: str | None = ""
    name: str = ""
    start_time_unix_nano: Number = 0
    end_time_unix_nano: Number = 0
    attributes: list[_Pair] = []
    events: list[_Event] = []
    status: _Status | None = None


class _Record(Struct, rename="camel", gc=False):
    trace_id: str | None = ""
    span_id: str | None = ""
    event_name: str | None = ""
    time_unix_nano: Number = 0
    observed_time_unix_nano: Number = 0
    body: _Value | None = None
    attributes: list[_Pair] = []


class _ScopeSpans(Struct, gc=False):
    scope: _Scope | None = None
    spans: list[_Span] = []


class _ScopeLogs(Struct, rename="camel", gc=False):
    scope: _Scope | None = None
    log_records: list[_Record] = []


class _ResourceSpans(Struct, rename="camel", gc=False):
    resource: _Holder | None = None
    scope_spans: list[_ScopeSpans] = []


class _ResourceLogs(Struct, rename="camel", gc=False):
    resource: _Holder | None = None
    scope_logs: list[_ScopeLogs] = []


class _Traces(Struct, rename="camel", gc=False):
    resource_spans: list[_ResourceSpans] = []


class _Logs(Struct, rename="camel", gc=False):
    resource_logs: list[_ResourceLogs] = []


class _Metrics(Struct, rename="camel", gc=False):
    resource_metrics: list[msgspec.Raw] = []


_traces = msgspec.json.Decoder(_Traces)
_logs = msgspec.json.Decoder(_Logs)
_metrics = msgspec.json.Decoder(_Metrics)


def read_spans(body: bytes) -> list[Span]:
    """The spans of a JSON traces request.

    Raises:
        BadRequest: not JSON, or not of that shape; `errors` names the place.
        TooLarge: more objects than are read.
    """
    found: list[Span] = []
    for one in _read(_traces, body).resource_spans:
        resource = _attributes(one.resource.attributes if one.resource else ())
        for scoped in one.scope_spans:
            scope = scoped.scope.name if scoped.scope else ""
            found += [_span(span, scope, resource) for span in scoped.spans]
    return found


def read_records(body: bytes) -> list[Record]:
    """The records of a JSON logs request; as `read_spans`."""
    found: list[Record] = []
    for one in _read(_logs, body).resource_logs:
        resource = _attributes(one.resource.attributes if one.resource else ())
        for scoped in one.scope_logs:
            scope = scoped.scope.name if scoped.scope else ""
            found += [_record(record, scope, resource) for record in scoped.log_records]
    return found


def check_metrics(body: bytes) -> None:
    """Refuse what is no JSON metrics request; as `read_spans`."""
    _read(_metrics, body)


def _read(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
    if body.count(b"{") > MAX_OBJECTS:
        raise TooLarge(f"at most {MAX_OBJECTS:,} objects in one request")
    try:
        return decoder.decode(body)
    except UNREADABLE as error:
        told = refusal(error, "")
        raise BadRequest(told.detail, **told.extra) from None


def _span(span: _Span, scope: str, resource: Mapping[str, Value]) -> Span:
    status = span.status
    return Span(
        span.trace_id.lower(),
        span.span_id.lower(),
        (span.parent_span_id or "").lower(),
        span.name,
        _whole(span.start_time_unix_nano),
        _whole(span.end_time_unix_nano),
        status is not None and status.code in _FAILED,
        status.message if status is not None else "",
        _attributes(span.attributes),
        [
            Event(each.name, _whole(each.time_unix_nano), _attributes(each.attributes))
            for each in span.events
        ],
        scope,
        resource,
    )


def _record(record: _Record, scope: str, resource: Mapping[str, Value]) -> Record:
    body = record.body.string_value if record.body else None
    return Record(
        (record.trace_id or "").lower(),
        (record.span_id or "").lower(),
        record.event_name or (body or "")[:256],
        _whole(record.time_unix_nano) or _whole(record.observed_time_unix_nano),
        _attributes(record.attributes),
        scope,
        resource,
    )


def _whole(number: Number) -> int:
    """A time in nanoseconds, as a number or a string; 0 where it is none."""
    try:
        value = int(number) if number is not None and len(str(number)) <= 20 else 0
    except (ValueError, OverflowError):
        return 0
    return value if 0 <= value < _LARGEST else 0


def _attributes(pairs: Sequence[_Pair]) -> dict[str, Value]:
    return {pair.key: _value(pair.value, 0) for pair in pairs}


def _value(value: _Value | None, depth: int) -> Value:
    if value is None or depth > _DEPTH:
        return None
    if value.string_value is not None:
        return value.string_value
    if value.int_value is not None:
        return value.int_value
    if value.bool_value is not None:
        return value.bool_value
    if value.double_value is not None:
        return value.double_value
    if value.array_value is not None:
        return [_value(one, depth + 1) for one in value.array_value.values]
    if value.kvlist_value is not None:
        return {pair.key: _value(pair.value, depth + 1) for pair in value.kvlist_value.values}
    return None
