"""Requests as real clients sent them, the calls they tell of, and requests made by hand."""

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.conftest import START

FOLDER = Path(__file__).parents[1] / "fixtures" / "otlp"
NAMES = sorted(path.name.removesuffix(".scenario.json") for path in FOLDER.glob("*.scenario.json"))
PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}
START_NS = int(START.timestamp()) * 10**9
MS = 10**6


class Sent(NamedTuple):
    """One request as it was sent."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@cache
def requests_of(name: str) -> list[Sent]:
    """The requests of a scenario."""
    return [
        Sent(one["path"], one["headers"], (FOLDER / one["file"]).read_bytes())
        for one in _scenario(name)["requests"]
    ]


def expected_of(name: str) -> list[dict[str, Any]]:
    """The calls that a scenario's requests tell of."""
    found: list[dict[str, Any]] = _scenario(name)["expected"]
    return found


@cache
def _scenario(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.scenario.json").read_text())


async def send(client: httpx.AsyncClient, sent: Sent) -> None:
    """Send a request, which must be accepted whole."""
    answer = await client.post(sent.path, content=sent.body, headers=dict(sent.headers))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == sent.headers["content-type"]
    assert answer.content == (
        b"{}" if sent.headers["content-type"] == JSON["content-type"] else b""
    )


def one_span_each(sent: Sent) -> list[Sent]:
    """The same spans, each in a request of its own."""
    body = gzip.decompress(sent.body) if sent.body[:2] == b"\x1f\x8b" else sent.body
    if sent.headers["content-type"] == JSON["content-type"]:
        return [Sent(sent.path, JSON, json.dumps(one).encode()) for one in _json_each(body)]
    return [Sent(sent.path, PROTOBUF, one.SerializeToString()) for one in _protobuf_each(body)]


def _json_each(body: bytes) -> Iterable[dict[str, Any]]:
    for resource in json.loads(body)["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                alone = {**scope, "spans": [span]}
                yield {"resourceSpans": [{**resource, "scopeSpans": [alone]}]}


def _protobuf_each(body: bytes) -> Iterable[Message]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                one = ExportTraceServiceRequest()
                outer = one.resource_spans.add()
                outer.resource.CopyFrom(resource.resource)
                inner = outer.scope_spans.add()
                inner.scope.CopyFrom(scope.scope)
                inner.spans.add().CopyFrom(span)
                yield one


def joined(several: Sequence[Sent]) -> Sent:
    """Several requests as one; protobuf messages and our JSON both join by their lists."""
    first = several[0]
    if first.headers["content-type"] == JSON["content-type"]:
        spans = [one for sent in several for one in json.loads(sent.body)["resourceSpans"]]
        return first._replace(body=json.dumps({"resourceSpans": spans}).encode())
    return first._replace(body=b"".join(sent.body for sent in several))


# ---- what stands --------------------------------------------------------------------------------


async def events_of(client: httpx.AsyncClient, *users: str) -> list[dict[str, Any]]:
    """The events of these users that count."""
    found: list[dict[str, Any]] = []
    for user in users:
        answer = await client.get(f"/v1/users/{user}/events?limit=1000")
        found += [one | {"user": user} for one in answer.json()["items"] if not is_void(one)]
    return found


def is_void(event: Mapping[str, Any]) -> bool:
    """Whether an event was taken back."""
    return bool(event["voided"])


async def sums_of(client: httpx.AsyncClient, *users: str) -> dict[str, Any]:
    """What each user used and pays, by model; and that every identity of the books holds."""
    found: dict[str, Any] = {}
    for user in users:
        usage = (await client.get(f"/v1/users/{user}/usage?billing_period=2026-11")).json()
        names = ("total_calls", "input_tokens", "output_tokens", "total_cost_usd")
        found[user] = {name: usage[name] for name in names} | {
            "models": {
                (provider, model): each
                for provider, of in usage["providers"].items()
                for model, each in of["models"].items()
                if each["calls"]
            }
        }
    audit = (await client.get("/v1/audit/consistency")).json()
    assert audit["consistent"], audit["differences"]
    return found


# ---- by hand ------------------------------------------------------------------------------------


def span(
    span_id: int,
    *,
    trace: int = 1,
    parent: int = 0,
    scope: str = "app",
    start_ms: float = 0,
    end_ms: float = 100,
    resource: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    events: Sequence[Any] = (),
    **attributes: Any,
) -> dict[str, Any]:
    """One span in a request of its own; in names of attributes `__` stands for a dot."""
    found = {
        "traceId": f"{trace:032x}",
        "spanId": f"{span_id:016x}",
        "name": "span",
        "startTimeUnixNano": str(START_NS + round(start_ms * MS)),
        "endTimeUnixNano": str(START_NS + round(end_ms * MS)),
        "attributes": pairs(attributes),
        "events": list(events),
        **({"parentSpanId": f"{parent:016x}"} if parent else {}),
        **({"status": status} if status else {}),
    }
    return {
        "resource": {"attributes": pairs(resource or {"service__name": "shop"})},
        "scopeSpans": [{"scope": {"name": scope}, "spans": [found]}],
    }


def call(span_id: int, *, tokens: tuple[int, int] = (1200, 340), **more: Any) -> dict[str, Any]:
    """A span of a model call."""
    said: dict[str, Any] = {
        "gen_ai__operation__name": "chat",
        "gen_ai__provider__name": "openai",
        "gen_ai__request__model": "gpt-4o",
        "gen_ai__usage__input_tokens": tokens[0],
        "gen_ai__usage__output_tokens": tokens[1],
    }
    said |= more
    return span(span_id, **{name: value for name, value in said.items() if value is not None})


def record(
    *,
    time_ms: float = 0,
    scope: str = "logs",
    resource: Mapping[str, Any] | None = None,
    **said: Any,
) -> dict[str, Any]:
    """One log record in a request of its own."""
    found = {
        "timeUnixNano": str(START_NS + round(time_ms * MS)),
        "attributes": pairs(said),
    }
    return {
        "resource": {"attributes": pairs(resource or {"service__name": "cli"})},
        "scopeLogs": [{"scope": {"name": scope}, "logRecords": [found]}],
    }


def pairs(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"key": name.replace("__", "."), "value": _value(value)}
        for name, value in attributes.items()
    ]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    return {"stringValue": value}


async def send_spans(client: httpx.AsyncClient, *spans: dict[str, Any]) -> httpx.Response:
    """Send these spans in one request."""
    return await client.post("/v1/traces", json={"resourceSpans": list(spans)})


async def send_records(client: httpx.AsyncClient, *records: dict[str, Any]) -> httpx.Response:
    """Send these log records in one request."""
    return await client.post("/v1/logs", json={"resourceLogs": list(records)})
