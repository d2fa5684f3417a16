"""Alerts over HTTP."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.core.clock import FrozenClock

pytestmark = pytest.mark.anyio


async def reach(client: httpx.AsyncClient, user: str) -> str:
    """Make a limit of ten calls, and ten calls in one batch."""
    limit = {"name": "ten", "scope": {"user_id": user}, "metric": "calls", "window": "month"}
    made = await client.post("/v1/limits", json=limit | {"amount": 10})
    sent = await client.post("/v1/events", json=[{"user_id": user}] * 10)
    assert sent.json()["recorded"] == 10
    found: str = made.json()["id"]
    return found


async def alerts(client: httpx.AsyncClient, user: str, query: str = "") -> dict[str, Any]:
    answer = await client.get(f"/v1/users/{user}/alerts{query}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_alerts_are_listed_and_read(client: httpx.AsyncClient, clock: FrozenClock) -> None:
    limit_id = await reach(client, "a%2Fb".replace("%2F", "/"))
    found = (await alerts(client, "a%2Fb"))["items"]
    assert {one["threshold"]: (one["severity"], one["type"]) for one in found} == {
        80: ("info", "usage_warning"),
        90: ("warning", "usage_warning"),
        100: ("error", "limit_reached"),
    }
    first = found[0]
    assert first.keys() == {
        *("id", "limit_id", "type", "severity", "threshold", "title", "message"),
        *("billing_period", "created_at", "read", "sent_at"),
    }
    assert first["limit_id"] == limit_id
    assert first["billing_period"] == "2026-11"
    assert first["read"] is False
    answer = await client.post(f"/v1/alerts/{first['id']}/read")
    assert answer.status_code == 200
    assert answer.json() == first | {"read": True}
    clock.advance(timedelta(hours=1))
    assert (await client.post(f"/v1/alerts/{first['id']}/read")).json() == answer.json()
    unread = (await alerts(client, "a%2Fb", "?unread=true"))["items"]
    assert [one["id"] for one in unread] == [one["id"] for one in found[1:]]
    assert len((await alerts(client, "a%2Fb"))["items"]) == 3
    assert (await alerts(client, "nobody"))["items"] == []
    assert (await client.post("/v1/alerts/none/read")).status_code == 404


async def test_alerts_come_newest_first_in_pages(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    await reach(client, "alice")
    clock.advance(timedelta(hours=1))
    await reach(client, "alice")
    seen: list[dict[str, Any]] = []
    query = "?limit=2"
    while True:
        page = await alerts(client, "alice", query)
        seen += page["items"]
        if page["next_cursor"] is None:
            break
        query = f"?limit=2&cursor={page['next_cursor']}"
    assert len({one["id"] for one in seen}) == len(seen) == 6
    times = [one["created_at"] for one in seen]
    assert times == sorted(times, reverse=True)
    for bad in ("limit=0", "limit=1001", "cursor=x", "unread=perhaps"):
        assert (await client.get(f"/v1/users/alice/alerts?{bad}")).status_code == 422


async def test_a_bound_key_reads_its_own_users_alerts_only(client: httpx.AsyncClient) -> None:
    await reach(client, "alice")
    await reach(client, "bob")
    body = {"name": "k", "scopes": ["read"], "user_id": "alice"}
    key = (await client.post("/v1/api-keys", json=body)).json()["key"]
    signed = {"Authorization": f"Bearer {key}"}
    assert (await client.get("/v1/users/bob/alerts", headers=signed)).status_code == 403
    bobs = (await alerts(client, "bob"))["items"][0]["id"]
    own = (await alerts(client, "alice"))["items"][0]["id"]
    assert (await client.post(f"/v1/alerts/{bobs}/read", headers=signed)).status_code == 404
    assert (await client.post(f"/v1/alerts/{own}/read", headers=signed)).status_code == 200
    assert len((await alerts(client, "bob", "?unread=true"))["items"]) == 3
