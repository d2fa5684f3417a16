"""What is when a subscription ends by itself, and the periods of a user."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from app.core.clock import FrozenClock
from app.plans.tables import Subscription
from app.runtime import Runtime

pytestmark = pytest.mark.anyio

EXPIRES = "2026-11-25T00:00:00Z"


async def plan(client: httpx.AsyncClient, name: str = "pro") -> str:
    found: str = (await client.post("/v1/plans", json={"name": name})).json()["id"]
    return found


async def put(client: httpx.AsyncClient, **body: object) -> dict[str, Any]:
    answer = await client.put("/v1/users/alice/subscription", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def get(client: httpx.AsyncClient) -> dict[str, Any]:
    return dict((await client.get("/v1/users/alice/subscription")).json())


async def event(client: httpx.AsyncClient, **more: object) -> None:
    body = {"user_id": "alice", "cost_usd": "0.5"} | more
    assert (await client.post("/v1/events", json=body)).status_code == 201


async def check(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.post("/v1/limits/check", json={"user_id": "alice"})
    return dict(answer.json())


async def periods(client: httpx.AsyncClient, query: str = "") -> list[tuple[str, int, bool]]:
    items = (await client.get(f"/v1/users/alice/periods{query}")).json()["items"]
    return [(one["key"], one["total_calls"], one["current"]) for one in items]


async def assert_proven(client: httpx.AsyncClient) -> None:
    proof = (await client.get("/v1/audit/consistency")).json()
    assert proof["differences"] == []


async def test_s1_16_an_expired_subscription_falls_back_to_the_default_plan(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    pro = await plan(client)
    for plan_id, amount in ((pro, 100), ("plan_default", 1)):
        limit = {"name": plan_id, "scope": {"plan_id": plan_id}, "metric": "calls"}
        body = limit | {"window": "billing_period", "amount": amount}
        assert (await client.post("/v1/limits", json=body)).status_code == 201
    anchor = "2026-11-15T00:00:00Z"
    agreed = await put(client, plan_id=pro, anchor=anchor, expires_at=EXPIRES)
    assert (agreed["expires_at"], agreed["on_expiry"]) == (EXPIRES, "fallback")
    assert agreed["billing_period"]["end"] == EXPIRES
    await event(client)
    clock.advance(timedelta(days=5))
    await event(client)
    assert (await check(client))["limits"][0]["name"] == "plan_default"
    assert (await check(client))["allowed"] is False
    found = await get(client)
    assert (found["plan_id"], found["expires_at"]) == ("plan_default", None)
    assert found["billing_period"] == {
        "key": "2026-11-25",
        "start": EXPIRES,
        "end": "2026-12-01T00:00:00Z",
    }
    await event(client, timestamp="2026-11-24T23:59:59.999999Z")
    assert await periods(client) == [("2026-11-25", 1, True), ("2026-11-15", 2, False)]
    await assert_proven(client)
    assert (await client.delete("/v1/plans/plan_default")).status_code == 409


async def test_s1_16_a_subscription_renews_itself(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    pro = await plan(client)
    await put(client, plan_id=pro, expires_at=EXPIRES, on_expiry="renew", timezone="Europe/Berlin")
    await event(client)
    clock.advance(timedelta(days=5))
    found = await get(client)
    assert (found["plan_id"], found["anchor"], found["expires_at"]) == (pro, EXPIRES, None)
    assert found["billing_period"]["end"] == "2026-12-25T00:00:00Z"
    await event(client)
    assert [one[1] for one in await periods(client)] == [1, 1]
    await assert_proven(client)


async def test_s1_16_an_expired_subscription_is_refused_while_its_events_count(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    pro = await plan(client)
    found = await put(client, plan_id=pro, expires_at=EXPIRES, on_expiry="refuse")
    assert (await check(client))["allowed"] is True
    clock.advance(timedelta(days=5))
    denied = await check(client)
    assert (denied["allowed"], denied["message"]) == (False, "subscription expired")
    assert denied["binding"] is None
    await event(client)
    assert (await get(client))["refused"] is True
    assert await put(client, plan_id=pro) == found | {"refused": True}  # nothing asked for
    later = await put(client, plan_id=pro, expires_at="2026-12-24T00:00:00Z")
    assert later["refused"] is False
    assert later["starts_at"] == found["starts_at"]  # no period began
    assert (await check(client))["allowed"] is True
    clock.advance(timedelta(days=60))
    assert (await check(client))["allowed"] is False
    renewed = await client.post("/v1/users/alice/subscription/renew")
    assert renewed.json()["expires_at"] is None
    assert (await check(client))["allowed"] is True
    await assert_proven(client)


async def test_an_expiry_is_moved_without_a_new_period_and_taken_away(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    pro = await plan(client)
    await event(client)
    first = await put(client, plan_id=pro, expires_at=EXPIRES)
    for body in ({"expires_at": "2026-11-26T00:00:00Z", "on_expiry": "renew"}, {}):
        moved = await put(client, plan_id=pro, **body)
        assert moved["expires_at"] == "2026-11-26T00:00:00Z"
        assert moved["on_expiry"] == "renew"
        assert moved["starts_at"] == first["starts_at"]
    gone = await put(client, plan_id=pro, expires_at=None)
    assert (gone["expires_at"], gone["on_expiry"]) == (None, None)
    assert gone["starts_at"] == first["starts_at"]
    clock.advance(timedelta(days=30))
    assert (await get(client))["plan_id"] == pro
    await assert_proven(client)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"expires_at": "2026-11-20T12:30:00Z"}, "/expires_at"),
        ({"expires_at": "2026-11-20T12:31:00Z"}, "/expires_at"),  # an event lies beyond
        ({"expires_at": "soon"}, "/expires_at"),
        ({"on_expiry": "refuse"}, "/on_expiry"),
        ({"on_expiry": "explode", "expires_at": EXPIRES}, "/on_expiry"),
        ({"starts_at": "2026-11-20T12:30:00Z"}, "/starts_at"),
    ],
)
async def test_what_is_wrong_with_an_expiry_is_named(
    client: httpx.AsyncClient, body: dict[str, object], pointer: str
) -> None:
    await event(client, timestamp="2026-11-20T12:34:00Z")
    answer = await client.put(
        "/v1/users/alice/subscription", json={"plan_id": "plan_default"} | body
    )
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert (await get(client))["expires_at"] is None


async def test_terms_may_start_later_and_the_last_word_counts(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    pro, team = await plan(client), await plan(client, "team")
    await event(client)
    ahead = await put(client, plan_id=pro, starts_at=EXPIRES)
    assert (ahead["plan_id"], ahead["starts_at"]) == (pro, EXPIRES)
    running = (await client.get("/v1/users/alice/periods")).json()["items"][0]
    assert (running["plan_id"], running["end"]) == ("plan_default", EXPIRES)
    await put(client, plan_id=team, starts_at="2026-11-26T00:00:00Z")
    clock.advance(timedelta(days=5))
    assert (await client.get("/v1/users/alice/periods")).json()["items"][0]["plan_id"] == (
        "plan_default"
    )
    clock.advance(timedelta(days=1))
    assert (await client.get("/v1/users/alice/periods")).json()["items"][0]["plan_id"] == team
    await assert_proven(client)


async def test_d1_8_d1_9_s1_17_periods_of_one_month_are_listed_apart(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    for _ in range(3):
        await event(client)
        clock.advance(timedelta(days=1))
        assert (await client.post("/v1/users/alice/usage/reset")).status_code == 200
    await event(client)
    listed = [("2026-11-23", 1, True), ("2026-11-22", 1, False)]
    listed += [("2026-11-21", 1, False), ("2026-11", 1, False)]
    assert await periods(client) == listed
    answer = (await client.get("/v1/users/alice/periods")).json()["items"]
    assert [one["start"] for one in answer[:-1]] == [one["end"] for one in answer[1:]]
    assert {one["total_cost_usd"] for one in answer} == {"0.5"}
    page = (await client.get("/v1/users/alice/periods?limit=3")).json()
    rest = (await client.get(f"/v1/users/alice/periods?cursor={page['next_cursor']}")).json()
    assert page["items"] + rest["items"] == answer
    assert rest["next_cursor"] is None
    assert (await client.get("/v1/users/alice/periods?cursor=x")).status_code == 422
    assert (await client.get("/v1/users/alice/periods?limit=0")).status_code == 422


async def test_s1_12_the_periods_of_a_user_never_seen_write_nothing(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    assert await periods(client) == [("2026-11", 0, True)]
    query = select(func.count()).select_from(Subscription)
    assert (await runtime.db.read(lambda tx: tx.fetch(query)))[0][0] == 0
    await event(client, timestamp="2026-10-31T23:59:59Z")
    assert await periods(client) == [("2026-11", 0, True), ("2026-10", 1, False)]
