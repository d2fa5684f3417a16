"""Every door for other programs' formats: keys, encodings, repeats, and bad input."""

import base64
import gzip
import json
from typing import Any

import httpx
import pytest

from app.runtime import Runtime
from tests.conftest import ADMIN
from tests.foreign.requests import DOORS, JSON, made_key, total_calls

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("path", DOORS)
async def test_the_same_request_twice_counts_once(path: str, client: httpx.AsyncClient) -> None:
    for _ in range(2):
        answer = await client.post(path, json=DOORS[path])
        assert answer.status_code < 300, answer.text
    assert await total_calls(client) == 1


@pytest.mark.parametrize("path", DOORS)
async def test_gzip_and_chunks_are_read(path: str, client: httpx.AsyncClient) -> None:
    packed = gzip.compress(json.dumps(DOORS[path]).encode())

    async def chunks() -> Any:
        for at in range(0, len(packed), 7):
            yield packed[at : at + 7]

    headers = {**JSON, "content-encoding": "gzip"}
    answer = await client.post(path, content=chunks(), headers=headers)
    assert answer.status_code < 300, answer.text
    assert await total_calls(client) == 1


@pytest.mark.parametrize("path", DOORS)
async def test_a_bomb_is_too_large(path: str, client: httpx.AsyncClient) -> None:
    bomb = gzip.compress(b" " * (64 << 20))
    answer = await client.post(path, content=bomb, headers={**JSON, "content-encoding": "gzip"})
    assert answer.status_code == 413, answer.text
    assert await total_calls(client) == 0


@pytest.mark.parametrize("path", DOORS)
async def test_eight_mebibytes_are_read(path: str, client: httpx.AsyncClient) -> None:
    body = json.dumps(DOORS[path]).encode() + b" " * (8 << 20)
    answer = await client.post(path, content=body, headers=JSON)
    assert answer.status_code < 300, answer.text


@pytest.mark.parametrize("path", DOORS)
async def test_the_key_may_be_the_password_of_basic(path: str, client: httpx.AsyncClient) -> None:
    basic = base64.b64encode(f"pk-lf-1:{ADMIN}".encode()).decode()
    answer = await client.post(path, json=DOORS[path], headers={"authorization": f"Basic {basic}"})
    assert answer.status_code < 300, answer.text
    wrong = base64.b64encode(b"pk-lf-1:wrong").decode()
    answer = await client.post(path, json=DOORS[path], headers={"authorization": f"Basic {wrong}"})
    assert answer.status_code == 401


@pytest.mark.parametrize("path", DOORS)
async def test_a_bound_key_writes_its_own_user_only(
    path: str, client: httpx.AsyncClient, runtime: Runtime
) -> None:
    token = await made_key(runtime, "ingest", user_id="bob")
    answer = await client.post(path, json=DOORS[path], headers={"authorization": f"Bearer {token}"})
    if path == "/api/public/ingestion":
        assert [one["status"] for one in answer.json()["errors"]] == [403], answer.text
    else:
        assert answer.status_code == 403, answer.text
    assert await total_calls(client) == 0


@pytest.mark.parametrize("path", DOORS)
async def test_a_backfill_needs_manage(
    path: str, client: httpx.AsyncClient, runtime: Runtime
) -> None:
    token = await made_key(runtime, "ingest")
    headers = {"authorization": f"Bearer {token}"}
    answer = await client.post(f"{path}?backfill=true", json=DOORS[path], headers=headers)
    assert (answer.status_code, answer.json()["scope"]) == (403, "manage")


BAD = (
    *(b"", b"{", b"null", b"5", b'"x"', b"[]", b"[null]", b"[[]]", b"{}", b"\xff\xfe", b"[1e999]"),
    *(b"[" * 5000, b'{"event": 5}', b'{"events": [5]}', b'{"events": {}}', b'{"event": {}}'),
)


@pytest.mark.parametrize("path", [*DOORS, "/v1/billing/meter_events"])
async def test_what_is_no_request_of_the_format_is_refused_and_never_a_fault(
    path: str, client: httpx.AsyncClient
) -> None:
    kind = (
        "application/x-www-form-urlencoded"
        if path.startswith("/v1/billing")
        else JSON["content-type"]
    )
    for body in BAD:
        answer = await client.post(path, content=body, headers={"content-type": kind})
        assert 400 <= answer.status_code < 500, (body, answer.text)
        assert answer.json()["errors"], (body, answer.text)
    assert await total_calls(client) == 0


@pytest.mark.parametrize("path", DOORS)
async def test_any_part_of_a_request_replaced_by_nonsense_is_never_a_fault(
    path: str, client: httpx.AsyncClient
) -> None:
    for nonsense in (None, True, -1, 1.5, "x\u0000", [], {}, "9" * 400, 10**30, {"a": {"b": []}}):
        for body in _with(DOORS[path], nonsense):
            answer = await client.post(path, json=body)
            assert answer.status_code < 500, (body, answer.text)
    assert (await client.get("/v1/audit/consistency")).json()["consistent"]


def _with(value: Any, nonsense: Any) -> list[Any]:
    found = [nonsense]
    if isinstance(value, dict):
        for name, inner in value.items():
            found += [{**value, name: one} for one in _with(inner, nonsense)]
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            for one in _with(inner, nonsense):
                found.append([*value[:place], one, *value[place + 1 :]])
    return found


@pytest.mark.parametrize("path", DOORS)
async def test_a_busy_service_says_when_to_send_it_again(
    path: str, client: httpx.AsyncClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime.intake, "_closing", True)
    answer = await client.post(path, json=DOORS[path])
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), answer.text
    monkeypatch.undo()
    assert await total_calls(client) == 0
    assert (await client.post(path, json=DOORS[path])).status_code < 300
    assert await total_calls(client) == 1
