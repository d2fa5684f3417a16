"""Whom and what a limit concerns: scopes, names, time zones, and what each action does."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.core.clock import FrozenClock
from app.runtime import Runtime
from tests.properties.books import assert_balanced

pytestmark = pytest.mark.anyio

LIMIT = {"name": "l", "metric": "calls", "window": "month", "amount": 2}


async def limit(client: httpx.AsyncClient, **change: object) -> str:
    answer = await client.post("/v1/limits", json=LIMIT | change)
    assert answer.status_code == 201, answer.text
    found: str = answer.json()["id"]
    return found


async def check(client: httpx.AsyncClient, user: str, **more: object) -> dict[str, Any]:
    answer = await client.post("/v1/limits/check", json={"user_id": user} | more)
    found: dict[str, Any] = answer.json()
    return found


async def event(client: httpx.AsyncClient, user: str = "alice", **more: object) -> None:
    body = {"user_id": user, "provider": "openai", "model": "gpt-4o-mini"} | more
    assert (await client.post("/v1/events", json=body)).status_code == 201


async def test_every_scope_is_asked_the_most_specific_first(client: httpx.AsyncClient) -> None:
    for name, scope in (
        ("all", {"all": True}),
        ("plan", {"plan_id": "plan_default"}),
        ("team", {"team_id": "red"}),
        ("key", {"api_key_id": "k1"}),
        ("user", {"user_id": "alice"}),
    ):
        await limit(client, name=name, scope=scope, amount=1)
    await event(client, team_id="red", api_key_id="k1")
    found = await check(client, "alice", team_id="red", api_key_id="k1")
    assert [one["name"] for one in found["limits"]] == ["user", "key", "team", "plan", "all"]
    assert found["binding"]["name"] == "user"
    other = await check(client, "bob")
    assert [one["name"] for one in other["limits"]] == ["plan", "all"]
    assert other["binding"]["name"] == "all"


async def test_a_plans_limit_binds_each_user_alone(client: httpx.AsyncClient) -> None:
    await limit(client, scope={"plan_id": "plan_default"}, amount=1)
    await event(client)
    assert not (await check(client, "alice"))["allowed"]
    assert (await check(client, "bob"))["allowed"]


async def test_s1_8_a_shadow_counts_and_shows_and_does_nothing_else(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    made = await limit(client, scope={"user_id": "alice"}, amount=1, action="shadow")
    for _ in range(3):
        await event(client)
    found = await check(client, "alice")
    assert found["allowed"] is True
    assert found["usage_status"] == "active"
    assert [(one["action"], one["allowed"], one["used"]) for one in found["limits"]] == [
        ("shadow", False, 3)
    ]
    assert (await client.get("/v1/users/alice/alerts")).json()["items"] == []
    await assert_balanced(runtime.db)
    clock.advance(timedelta(seconds=1))
    await client.patch(f"/v1/limits/{made}", json={"action": "warn"})
    assert len((await client.get("/v1/users/alice/alerts")).json()["items"]) == 3
    found = await check(client, "alice")
    assert (found["allowed"], found["usage_status"]) == (True, "limit_reached")
    await client.patch(f"/v1/limits/{made}", json={"action": "block"})
    assert (await check(client, "alice"))["allowed"] is False


async def test_d1_12_s1_16_none_at_all_denies_the_first_call_and_null_denies_nothing(
    client: httpx.AsyncClient,
) -> None:
    await limit(client, scope={"user_id": "alice"}, amount=None)
    assert (await check(client, "alice"))["allowed"] is True
    await limit(client, scope={"user_id": "alice"}, amount=0, match={"model": "o3"})
    assert (await check(client, "alice", model="gpt-4o"))["allowed"] is True
    found = await check(client, "alice", provider="openai", model="openai/o3")
    assert found["allowed"] is False
    assert found["binding"]["percent_used"] == 100.0
    assert found["usage_status"] == "limit_reached"


async def test_a_threshold_may_lie_beyond_the_limit(client: httpx.AsyncClient) -> None:
    await limit(client, scope={"user_id": "alice"}, thresholds=[100, 150, 200])
    for reached in ([], [100], [100, 150], [100, 150, 200]):
        await event(client)
        items = (await client.get("/v1/users/alice/alerts")).json()["items"]
        assert sorted(item["threshold"] for item in items) == reached


@pytest.mark.parametrize("early", [True, False])
async def test_a_limit_means_a_model_however_it_is_spelled(
    client: httpx.AsyncClient, runtime: Runtime, early: bool
) -> None:
    """The same whether the limit was there before the calls or is seeded from them."""
    spellings = [("openai", "gpt-4o"), ("OpenAI", "openai/GPT-4o"), ("litellm", "openai/gpt-4o")]
    scopes: list[dict[str, object]] = [{"user_id": "alice"}, {"all": True}, {"team_id": "red"}]
    match = {"provider": "Openai", "model": "gpt-4o"}

    async def make() -> None:
        for scope in scopes:
            for more in ({}, {"endpoint": "/chat"}):
                await limit(client, scope=scope, match=match | more, amount=3)

    async def send() -> None:
        others = [("azure", "gpt-4o"), ("openai", "gpt-4o-mini"), ("xai", "grok-4")]
        for provider, model in spellings + others:
            await event(client, provider=provider, model=model, team_id="red", endpoint="/chat")

    for step in (make, send) if early else (send, make):
        await step()
    for provider, model in spellings:
        ask = {"provider": provider, "model": model, "team_id": "red", "endpoint": "/chat"}
        found = await check(client, "alice", **ask)
        assert [one["used"] for one in found["limits"]] == [3] * 6
        assert not found["allowed"]
    found = await check(client, "alice", provider="azure", model="gpt-4o", team_id="red")
    assert found["limits"] == []
    proof = (await client.get("/v1/audit/consistency")).json()
    assert proof["differences"] == []


async def test_a_day_is_that_of_the_limits_zone_and_the_zone_may_change(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    """At 12:30 in UTC it is still the same day in Los Angeles, and the evening of it in Tokyo."""
    await event(client, timestamp="2026-11-19T23:00:00Z")  # the 20th in Tokyo and Kathmandu
    await event(client, timestamp="2026-11-19T16:00:00Z")  # the 20th in Tokyo alone
    await event(client)
    names = {"UTC": 1, "Asia/Tokyo": 3, "Asia/Kathmandu": 2, "America/Los_Angeles": 1}
    for name in names:
        await limit(client, name=name, scope={"user_id": "alice"}, window="day", timezone=name)
    items = (await client.get("/v1/users/alice/limits")).json()["items"]
    assert {one["name"]: one["used"] for one in items} == names
    ends = {one["name"]: one["resets_at"] for one in items}
    assert ends["Asia/Kathmandu"] == "2026-11-20T18:15:00Z"
    assert ends["America/Los_Angeles"] == "2026-11-21T08:00:00Z"
    [tokyo] = [one["id"] for one in items if one["name"] == "Asia/Tokyo"]
    clock.advance(timedelta(seconds=1))
    changed = await client.patch(f"/v1/limits/{tokyo}", json={"timezone": "Asia/Kathmandu"})
    assert changed.json()["timezone"] == "Asia/Kathmandu"
    await event(client)
    items = (await client.get("/v1/users/alice/limits")).json()["items"]
    assert [one["used"] for one in items if one["id"] == tokyo] == [3]
    proof = (await client.get("/v1/audit/consistency")).json()
    assert proof["differences"] == []
