"""`POST /v1/events` over HTTP."""

import httpx
import pytest

pytestmark = pytest.mark.anyio

EVENT = {
    "id": "e1",
    "user_id": "alice",
    "provider": "openai",
    "model": "gpt-4o-mini",
    "usage": {"input_tokens": 1200, "output_tokens": 300},
}


async def test_one_event_is_recorded_once(client: httpx.AsyncClient) -> None:
    first = await client.post("/v1/events", json=EVENT)
    assert first.status_code == 201
    assert first.json() == {
        "id": "e1",
        "status": "recorded",
        "user_id": "alice",
        "timestamp": "2026-11-20T12:30:00Z",
        "billing_period": "2026-11",
        "usage": {"input_tokens": 1200, "output_tokens": 300},
        "cost_usd": "0.00036",
        "cost_status": "priced",
        "usage_status": "active",
    }
    again = await client.post("/v1/events", json=EVENT)
    assert again.status_code == 200
    assert again.json() == first.json() | {"status": "duplicate"}


async def test_another_body_under_the_same_id_is_a_conflict(client: httpx.AsyncClient) -> None:
    await client.post("/v1/events", json=EVENT)
    other = await client.post("/v1/events", json=EVENT | {"usage": {"input_tokens": 1}})
    assert other.status_code == 409
    assert other.headers["content-type"] == "application/problem+json"
    assert other.json()["type"] == "/docs/problems#id-reused"
