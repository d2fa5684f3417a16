"""A key with `requests_per_minute` is slowed down at every door, and no other key is."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.access.recent import Recent
from app.core.clock import FrozenClock
from app.runtime import Runtime
from tests.conftest import START

pytestmark = pytest.mark.anyio

USER = {"user_id": "alice"}
DOORS: list[tuple[str, str, Any]] = [
    ("POST", "/v1/events", USER),
    ("POST", "/v1/events", [USER, USER]),
    ("POST", "/v1/limits/check", USER),
    ("POST", "/v1/holds", USER),
    ("POST", "/v1/holds/none/settle", {"event": USER}),
    ("POST", "/v1/holds/none/release", None),
    ("POST", "/v1/traces", {"resourceSpans": []}),
    ("POST", "/v1/logs", {"resourceLogs": []}),
    ("POST", "/v1/metrics", {"resourceMetrics": []}),
    ("POST", "/v1/ingest/litellm", {"id": "l", "end_user": "alice", "model": "m"}),
    ("POST", "/api/public/ingestion", {"batch": []}),
    ("POST", "/v2/billing/meter_event_session", None),
    ("GET", "/v1/users/alice/usage", None),
    ("POST", "/v1/prices/estimate", {"provider": "openai", "usage": {}}),
    ("GET", "/v1/plans", None),
]


async def made(client: httpx.AsyncClient, **body: object) -> dict[str, str]:
    said = {"name": "k", "scopes": ["ingest", "check", "read", "manage"]} | body
    answer = await client.post("/v1/api-keys", json=said)
    assert answer.status_code == 201, answer.text
    found: dict[str, str] = answer.json()
    return found


@pytest.mark.parametrize(("method", "path", "body"), DOORS)
async def test_every_door_refuses_the_request_beyond_the_rate(
    client: httpx.AsyncClient, clock: FrozenClock, method: str, path: str, body: Any
) -> None:
    key = await made(client, requests_per_minute=2)
    free = await made(client)

    async def ask(token: str) -> httpx.Response:
        signed = {"Authorization": f"Bearer {token}"}
        return await client.request(method, path, json=body, headers=signed)

    for _ in range(2):
        assert (await ask(key["key"])).status_code not in (401, 403, 429)
    clock.advance(timedelta(seconds=20))
    for _ in range(3):
        refused = await ask(key["key"])
        assert refused.status_code == 429, refused.text
        assert refused.headers["retry-after"] == "40"
    told = refused.json()
    if refused.headers["content-type"] == "application/problem+json":
        assert told["type"] == "/docs/problems#rate-limited"
        assert (told["requests_per_minute"], told["retry_after_s"]) == (2, 40)
    assert (await ask(free["key"])).status_code != 429
    clock.advance(timedelta(seconds=40))
    assert (await ask(key["key"])).status_code not in (401, 403, 429)


async def test_the_swift_way_leaves_what_it_does_not_admit_to_the_door(
    runtime: Runtime, client: httpx.AsyncClient
) -> None:
    key = await made(client, requests_per_minute=1)
    headers = {
        b"content-type": b"application/json",
        b"authorization": f"Bearer {key['key']}".encode(),
    }
    signed = {"Authorization": f"Bearer {key['key']}"}
    assert (await client.post("/v1/events", json=USER, headers=signed)).status_code == 201
    for door in (runtime.events, runtime.check, runtime.holds):
        assert not door.swift(dict(headers), b'{"user_id":"alice"}', None)


async def test_what_is_refused_does_not_count(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    key = await made(client, requests_per_minute=1)
    signed = {"Authorization": f"Bearer {key['key']}"}
    for _ in range(5):
        await client.post("/v1/events", json=USER, headers=signed)
        clock.advance(timedelta(seconds=12))
    assert (await client.post("/v1/events", json=USER, headers=signed)).status_code == 201
    usage = await client.get("/v1/users/alice/usage")
    assert usage.json()["total_calls"] == 2


async def test_a_session_is_as_slow_as_its_key(client: httpx.AsyncClient) -> None:
    key = await made(client, requests_per_minute=2)
    opened = await client.post(
        "/v2/billing/meter_event_session", headers={"Authorization": f"Bearer {key['key']}"}
    )
    signed = {"Authorization": f"Bearer {opened.json()['authentication_token']}"}
    answers = [await client.post("/v1/events", json=USER, headers=signed) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 201, 429]


@given(steps=st.lists(st.integers(0, 40_000_000), min_size=1, max_size=60), limit=st.integers(1, 5))
def test_no_sixty_seconds_ever_hold_more_than_the_limit(steps: list[int], limit: int) -> None:
    recent, now, admitted = Recent(), START, []
    for step in steps:
        now += timedelta(microseconds=step)
        wait_s = recent.wait_s(now, limit)
        assert 0 <= wait_s <= 60
        if wait_s == 0:
            admitted.append(now)
        else:
            held = [at for at in admitted if at > now - timedelta(seconds=60)]
            assert len(held) == limit
            assert held[0] <= now + timedelta(seconds=wait_s) - timedelta(seconds=60)
    for place, first in enumerate(admitted[:-limit] if limit < len(admitted) else []):
        assert admitted[place + limit] - first >= timedelta(seconds=60)


def test_a_clock_that_is_set_back_locks_nobody_out() -> None:
    recent = Recent()
    assert recent.wait_s(START, 1) == 0
    assert recent.wait_s(START - timedelta(hours=1), 1) == 0
