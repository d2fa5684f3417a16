"""Protobuf to spans and records. The protobuf library is loaded by the first body that needs it."""

from collections.abc import Iterable
from typing import Any

from app.core.errors import BadRequest, InvalidInput, TooLarge
from app.ingest.otlp.spans import Attributes, Event, Record, Span, Value

SIGNALS = ("traces", "logs", "metrics")
EXAMINED_BYTES = 1 << 20
"""A body up to this size cannot hold enough empty messages to matter."""
MAX_MESSAGES = 1_000_000
"""How many messages, at any depth, a larger body may hold: each takes memory though it is empty."""
_DEPTH = 24
_FAILED = 2

_VALUE: dict[int, Any] = {}
_PAIR: dict[int, Any] = {2: _VALUE}
_VALUE.update({5: {1: _VALUE}, 6: {1: _PAIR}})
_EVENT: dict[int, Any] = {3: _PAIR}
_SPAN: dict[int, Any] = {9: _PAIR, 11: _EVENT, 13: {4: _PAIR}, 15: {}}
_RECORD: dict[int, Any] = {5: _VALUE, 6: _PAIR}
_RESOURCE: dict[int, Any] = {1: _PAIR}
_SCOPE: dict[int, Any] = {3: _PAIR}
_ANY: dict[int, Any] = {}
_SHAPES: dict[str, dict[int, Any]] = {
    "traces": {1: {1: _RESOURCE, 2: {1: _SCOPE, 2: _SPAN}}},
    "logs": {1: {1: _RESOURCE, 2: {1: _SCOPE, 2: _RECORD}}},
    "metrics": {1: {1: _RESOURCE, 2: {1: _SCOPE, 2: _ANY}}},
}
"""Which fields of a message are messages, by their numbers."""


def read_spans(body: bytes) -> list[Span]:
    """The spans of an `ExportTraceServiceRequest`.

    Raises:
        BadRequest: not one, or cut off.
        TooLarge: more messages than are read.
    """
    return [
        _span(span, scope, resource)
        for spans, scope, resource in _scoped(_parsed(body, "traces").resource_spans, "spans")
        for span in spans
    ]


def read_records(body: bytes) -> list[Record]:
    """The log records of an `ExportLogsServiceRequest`; as `read_spans`."""
    return [
        Record(
            record.trace_id.hex(),
            record.span_id.hex(),
            record.event_name or record.body.string_value[:256],
            record.time_unix_nano or record.observed_time_unix_nano,
            _pairs(record.attributes),
            scope,
            resource,
        )
        for records, scope, resource in _scoped(_parsed(body, "logs").resource_logs, "log_records")
        for record in records
    ]


def check_metrics(body: bytes) -> None:
    """Refuse what is no `ExportMetricsServiceRequest`; as `read_spans`."""
    if len(body) <= EXAMINED_BYTES:
        _parsed(body, "metrics")
    else:
        examine(body, "metrics")


def partial(signal: str, refused: int, message: str) -> bytes:
    """The answer to a request of which some was refused."""
    service = _service(signal)
    name = {"traces": "Trace", "logs": "Logs"}[signal]
    answer = getattr(service, f"Export{name}ServiceResponse")()
    field = "rejected_spans" if signal == "traces" else "rejected_log_records"
    setattr(answer.partial_success, field, refused)
    answer.partial_success.error_message = message
    found: bytes = answer.SerializeToString()
    return found


def _service(signal: str) -> Any:
    # 12 MB that a service which is sent no protobuf never needs
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2  # noqa: PLC0415
    from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2  # noqa: PLC0415
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2  # noqa: PLC0415

    return {
        "traces": trace_service_pb2,
        "logs": logs_service_pb2,
        "metrics": metrics_service_pb2,
    }[signal]


def _parsed(body: bytes, signal: str) -> Any:
    if len(body) > EXAMINED_BYTES:
        examine(body, signal)
    service = _service(signal)
    name = {"traces": "Trace", "logs": "Logs", "metrics": "Metrics"}[signal]
    request = getattr(service, f"Export{name}ServiceRequest")()
    try:
        request.ParseFromString(body)
    except Exception as error:  # its DecodeError is loaded with it, and derives from nothing else
        if type(error).__name__ != "DecodeError":
            raise
        raise _unreadable() from None
    return request


def _unreadable() -> InvalidInput:
    return BadRequest.at("", "not an OTLP message, or cut off")


def _scoped(resources: Iterable[Any], name: str) -> Iterable[tuple[Any, str, Attributes]]:
    for one in resources:
        resource = _pairs(one.resource.attributes)
        for scoped in one.scope_spans if name == "spans" else one.scope_logs:
            yield getattr(scoped, name), scoped.scope.name, resource


def _span(span: Any, scope: str, resource: Attributes) -> Span:
    return Span(
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.name,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.code == _FAILED,
        span.status.message,
        _pairs(span.attributes),
        [Event(each.name, each.time_unix_nano, _pairs(each.attributes)) for each in span.events],
        scope,
        resource,
    )


def _pairs(pairs: Iterable[Any]) -> dict[str, Value]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Value:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: _value(pair.value) for pair in value.kvlist_value.values}
    if kind is None or kind == "bytes_value":
        return None
    found: Value = getattr(value, kind)
    return found


# ---- before anything is built ------------------------------------------------------------------


def examine(body: bytes, signal: str) -> None:
    """Walk a body without building anything of it.

    Raises:
        BadRequest: it is not well-formed.
        TooLarge: it holds more than a million messages.
    """
    left = MAX_MESSAGES
    ahead: list[tuple[int, int, dict[int, Any], int]] = [(0, len(body), _SHAPES[signal], 0)]
    while ahead:
        at, end, shape, depth = ahead.pop()
        while at < end:
            tag, at = _number(body, at, end)
            field, wire = tag >> 3, tag & 7
            if wire == 0:
                _, at = _number(body, at, end)
            elif wire == 2:
                size, at = _number(body, at, end)
                if at + size > end:
                    raise _unreadable()
                if field in shape and depth < _DEPTH:
                    ahead.append((at, at + size, shape[field], depth + 1))
                left -= 1
                at += size
            elif wire in (1, 5):
                at += 8 if wire == 1 else 4
            else:
                raise _unreadable()
            if left < 0:
                raise TooLarge(f"at most {MAX_MESSAGES:,} messages in one request")
        if at != end:
            raise _unreadable()


def _number(body: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            break
    raise _unreadable()
