"""What is no OTLP is refused clearly, nothing of it is stored, and nothing ends in a 5xx."""

import base64
import gzip
import json
import random
from datetime import timedelta

import httpx
import pytest

from app.core.clock import FrozenClock
from app.ingest.otlp import decode
from tests.conftest import ADMIN
from tests.otlp.scenarios import (
    JSON,
    PROTOBUF,
    call,
    events_of,
    record,
    requests_of,
    send_records,
    send_spans,
    span,
)

pytestmark = pytest.mark.anyio
ROUTES = ("/v1/traces", "/v1/logs", "/v1/metrics", "/api/public/otel/v1/traces")
WHOLE = requests_of("otel_traceloop-anthropic")[0].body


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (WHOLE[:-7], PROTOBUF, 400),
        (b"\xff" * 50, PROTOBUF, 400),
        (b"not json", JSON, 400),
        (b"[]", JSON, 400),
        (b'{"resourceSpans": 3, "resourceLogs": 3, "resourceMetrics": 3}', JSON, 400),
        (b"{}", {"content-type": "text/plain"}, 415),
        (b"{}", {}, 415),
        (b"\x1f\x8b\x00", PROTOBUF | {"content-encoding": "gzip"}, 422),
        (gzip.compress(b"\0" * (20 << 20)), PROTOBUF | {"content-encoding": "gzip"}, 413),
        (b"{}", JSON | {"content-encoding": "br"}, 415),
    ],
)
async def test_what_is_no_otlp_is_refused(
    client: httpx.AsyncClient, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = await client.post(path, content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert await events_of(client, "unknown", "user-otel") == []


@pytest.mark.parametrize("path", ROUTES)
async def test_an_empty_request_is_accepted(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.post(path, content=b"", headers=PROTOBUF)).status_code == 200
    assert (await client.post(path, content=b"{}", headers=JSON)).json() == {}


async def test_log_records_sent_as_traces_are_told_where_to_go(client: httpx.AsyncClient) -> None:
    logs = {"resourceSpans": [{"scopeSpans": [{"spans": [{"timeUnixNano": "1"}]}]}]}
    answer = await client.post("/v1/traces", json=logs)
    assert answer.status_code == 400
    assert "/v1/logs" in answer.json()["detail"]


async def test_spans_without_ids_beside_others_are_ignored(client: httpx.AsyncClient) -> None:
    nameless = call(1, user__id="alice")
    nameless["scopeSpans"][0]["spans"][0]["traceId"] = "abc"
    answer = await send_spans(client, nameless, call(2, user__id="alice"))
    assert answer.status_code == 200
    assert len(await events_of(client, "alice")) == 1


async def test_a_call_outside_the_window_is_told_of_in_the_answer(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    clock.advance(timedelta(days=60))
    answer = await send_spans(client, call(1, user__id="alice"))
    partial = answer.json()["partialSuccess"]
    assert answer.status_code == 200
    assert partial["rejectedSpans"] == "1"
    assert "35 days" in partial["errorMessage"]
    late = requests_of("otel_openai_v2-default")[0]
    answer = await client.post(late.path, content=late.body, headers=PROTOBUF)
    assert answer.content == decode.partial("traces", 10, partial["errorMessage"])

    answer = await client.post(
        "/v1/traces?backfill=true", json={"resourceSpans": [call(1, user__id="alice")]}
    )
    assert answer.json() == {}
    assert len(await events_of(client, "alice")) == 1


async def test_absurd_values_never_end_in_an_error_of_ours(client: httpx.AsyncClient) -> None:
    absurd = [
        call(1, tokens=(2**70, -5), user__id="alice"),
        call(2, gen_ai__request__model="m" * 5000, user__id="a" * 5000),
        call(3, gen_ai__usage__cache_read__input_tokens=2**53 - 1, user__id="bell\x07"),
        call(4, start_ms=-(10**15), end_ms=10**15),
        call(5, end_ms=-5000, gen_ai__response__id="x" * 9000),
        call(6, litellm__cost__total=1e300, operation__cost=-1.0),
        call(7, parent=7),
        call(8, parent=9),
        call(9, parent=8),
        span(
            10,
            gen_ai__operation__name="chat",
            openinference__span__kind="\udcff".encode("utf-16", "surrogatepass").hex(),
        ),
    ]
    for one in absurd:
        answer = await send_spans(client, one)
        assert answer.status_code == 200, answer.text
    assert (await send_spans(client, *absurd)).status_code == 200
    deep = {"arrayValue": {"values": []}}
    for _ in range(200):
        deep = {"arrayValue": {"values": [deep]}}
    one = call(11)
    one["scopeSpans"][0]["spans"][0]["attributes"].append({"key": "deep", "value": deep})
    assert (await send_spans(client, one)).status_code in (200, 400)
    huge = record(event__name="codex.sse_event", model="x", input_token_count="9" * 40)
    assert (await send_records(client, huge)).status_code == 200
    audit = (await client.get("/v1/audit/consistency")).json()
    assert audit["consistent"], audit["differences"]


async def test_cut_and_scrambled_bodies_never_end_in_an_error_of_ours(
    client: httpx.AsyncClient,
) -> None:
    chance = random.Random(7)
    for _ in range(60):
        body = bytearray(WHOLE[: chance.randrange(len(WHOLE))])
        for _ in range(chance.randrange(4)):
            if body:
                body[chance.randrange(len(body))] = chance.randrange(256)
        path = chance.choice(ROUTES)
        answer = await client.post(path, content=bytes(body), headers=PROTOBUF)
        assert answer.status_code in (200, 400), answer.text


async def test_a_flood_of_empty_messages_is_refused_before_it_takes_memory(
    client: httpx.AsyncClient,
) -> None:
    inner = b"\x12\x00" * 1_500_000
    scope = b"\x12" + _varint(len(inner)) + inner
    flood = b"\x0a" + _varint(len(scope)) + scope
    for path in ROUTES[:2]:
        answer = await client.post(path, content=flood, headers=PROTOBUF)
        assert answer.status_code == 413
    many = b'{"resourceSpans":[' + b"{}," * 1_100_000 + b"{}]}"
    assert (await client.post("/v1/traces", content=many, headers=JSON)).status_code == 413


async def test_eight_mebibytes_in_chunks_and_packed_are_accepted(
    client: httpx.AsyncClient,
) -> None:
    prompt = "x" * (9 << 20)
    body = json.dumps(
        {"resourceSpans": [call(1, user__id="alice", gen_ai__prompt=prompt)]}
    ).encode()

    async def pieces() -> object:
        for start in range(0, len(body), 1 << 20):
            yield body[start : start + (1 << 20)]

    answer = await client.post("/v1/traces", content=pieces(), headers=JSON)  # type: ignore[arg-type]
    assert answer.status_code == 200
    packed = JSON | {"content-encoding": "gzip"}
    answer = await client.post("/v1/traces", content=gzip.compress(body), headers=packed)
    assert answer.status_code == 200
    assert len(await events_of(client, "alice")) == 1


async def test_a_key_of_ours_as_langfuses_secret_key_signs_in(client: httpx.AsyncClient) -> None:
    basic = base64.b64encode(f"pk-lf-1:{ADMIN}".encode()).decode()
    answer = await client.post(
        "/api/public/otel/v1/traces",
        json={"resourceSpans": [call(1, user__id="alice")]},
        headers={"Authorization": f"Basic {basic}"},
    )
    assert answer.status_code == 200
    assert len(await events_of(client, "alice")) == 1


async def test_a_key_of_one_user_books_everything_to_that_user(client: httpx.AsyncClient) -> None:
    made = await client.post(
        "/v1/api-keys", json={"name": "laptop", "scopes": ["ingest"], "user_id": "alice"}
    )
    own = {"Authorization": f"Bearer {made.json()['key']}"}
    body = {"resourceSpans": [call(1, user__id="alice@example.com")]}
    assert (await client.post("/v1/traces", json=body, headers=own)).status_code == 200
    assert len(await events_of(client, "alice")) == 1
    assert await events_of(client, "alice@example.com") == []


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])
