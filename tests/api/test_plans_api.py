"""Plans and subscriptions over HTTP."""

import json
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, true

from app.core.clock import FrozenClock
from app.plans.tables import Plan, Subscription
from app.runtime import Runtime

pytestmark = pytest.mark.anyio


async def plan(client: httpx.AsyncClient, name: str, **more: object) -> str:
    answer = await client.post("/v1/plans", json={"name": name} | more)
    assert answer.status_code == 201, answer.text
    found: str = answer.json()["id"]
    return found


async def event(client: httpx.AsyncClient, at: datetime | None = None, user: str = "alice") -> str:
    body = {"user_id": user, "usage": {"input_tokens": 10}}
    if at is not None:
        body["timestamp"] = at.isoformat()
    answer = await client.post("/v1/events", json=body)
    assert answer.status_code == 201, answer.text
    found: str = answer.json()["billing_period"]
    return found


async def put(client: httpx.AsyncClient, user: str, **body: object) -> dict[str, Any]:
    answer = await client.put(f"/v1/users/{user}/subscription", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def calls(client: httpx.AsyncClient, user: str = "alice") -> list[int]:
    items = (await client.get(f"/v1/users/{user}/limits")).json()["items"]
    return [item["used"] for item in sorted(items, key=lambda item: str(item["name"]))]


async def test_plans_are_made_read_changed_and_deleted(client: httpx.AsyncClient) -> None:
    pro = await plan(client, "pro")
    listed = (await client.get("/v1/plans")).json()
    assert [one["name"] for one in listed["items"]] == ["default", "pro"]
    found = (await client.get(f"/v1/plans/{pro}")).json()
    assert found == {
        "id": pro,
        "name": "pro",
        "default": False,
        "created_at": "2026-11-20T12:30:00Z",
    }
    taken = await client.post("/v1/plans", json={"name": "pro"})
    assert taken.status_code == 409
    assert (await client.patch(f"/v1/plans/{pro}", json={"name": "default"})).status_code == 409
    renamed = await client.patch(f"/v1/plans/{pro}", json={"name": "Pro"})
    assert renamed.json()["name"] == "Pro"
    assert (await client.put(f"/v1/plans/{pro}", json={"name": "Pro"})).status_code == 200
    assert (await client.put(f"/v1/plans/{pro}", json={})).status_code == 422
    assert (await client.delete(f"/v1/plans/{pro}")).status_code == 204
    assert (await client.get(f"/v1/plans/{pro}")).status_code == 404
    assert (await client.delete(f"/v1/plans/{pro}")).status_code == 404


async def test_exactly_one_plan_is_the_default(client: httpx.AsyncClient, runtime: Runtime) -> None:
    first = await plan(client, "first", default=True)
    second = await plan(client, "second")
    assert (await client.patch(f"/v1/plans/{first}", json={"default": False})).status_code == 409
    assert (await client.delete(f"/v1/plans/{first}")).status_code == 409
    assert (await client.patch(f"/v1/plans/{second}", json={"default": True})).status_code == 200
    query = select(Plan.id).where(Plan.is_default.is_(true()))
    rows = await runtime.db.read(lambda tx: tx.fetch(query))
    assert [row[0] for row in rows] == [second]
    assert (await client.get("/v1/users/new/subscription")).json()["plan_id"] == second
    await event(client, user="new")
    assert (await client.get("/v1/users/new/subscription")).json()["plan_id"] == second
    assert (await client.delete(f"/v1/plans/{first}")).status_code == 204


async def test_plans_come_in_pages(client: httpx.AsyncClient) -> None:
    for number in range(5):
        await plan(client, f"p{number}")
    names, cursor = [], None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/v1/plans", params=query)).json()
        names += [one["name"] for one in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(names) == ["default", "p0", "p1", "p2", "p3", "p4"]
    for bad in ("%00", "x", "OTk5OTk5OTk5OTk5OTk5OTk5OmE=", "é"):
        assert (await client.get(f"/v1/plans?cursor={bad}")).status_code == 422


async def test_a_plan_that_somebody_was_on_stays_and_its_limits_go_with_one_that_goes(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    used, unused = await plan(client, "used"), await plan(client, "unused")
    await put(client, "alice", plan_id=used)
    assert (await client.delete(f"/v1/plans/{used}")).status_code == 409
    clock.advance(timedelta(seconds=1))
    await put(client, "alice", plan_id="plan_default")
    assert (await client.delete(f"/v1/plans/{used}")).status_code == 409
    limit = {"name": "l", "scope": {"plan_id": unused}, "metric": "calls", "window": "day"}
    assert (await client.post("/v1/limits", json=limit | {"amount": 1})).status_code == 201
    assert (await client.delete(f"/v1/plans/{unused}")).status_code == 204
    assert (await client.get("/v1/limits")).json()["items"] == []


async def test_a_user_never_seen_has_implicit_terms_and_a_read_writes_nothing(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    found = (await client.get("/v1/users/a%2Fb/subscription")).json()
    assert found["implicit"] is True
    assert found["user_id"] == "a/b"
    assert found["plan_name"] == "default"
    assert found["billing_period"] == {
        "key": "2026-11",
        "start": "2026-11-01T00:00:00Z",
        "end": "2026-12-01T00:00:00Z",
    }
    query = select(func.count()).select_from(Subscription)
    assert (await runtime.db.read(lambda tx: tx.fetch(query)))[0][0] == 0
    await event(client, user="a/b")
    seen = (await client.get("/v1/users/a%2Fb/subscription")).json()
    assert seen == found | {"implicit": False}


async def test_first_terms_count_periods_from_the_anchor_both_ways(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    pro = await plan(client, "pro")
    found = await put(client, "alice", plan_id=pro, anchor="2026-11-15T00:00:00Z", interval="month")
    assert found["plan_id"] == pro
    assert found["billing_period"]["start"] == "2026-11-15T00:00:00Z"
    assert found == (await client.get("/v1/users/alice/subscription")).json()
    assert await event(client, clock.now() - timedelta(days=10)) == "2026-10-15"
    assert await event(client) == "2026-11-15"


async def test_later_terms_start_now_and_asking_again_changes_nothing(
    client: httpx.AsyncClient, clock: FrozenClock, runtime: Runtime
) -> None:
    pro = await plan(client, "pro")
    await event(client)
    clock.advance(timedelta(minutes=1))
    found = await put(client, "alice", plan_id=pro, anchor="2026-11-15T00:00:00Z")
    assert found["starts_at"] == "2026-11-20T12:31:00Z"
    assert found["billing_period"] == {
        "key": "2026-11-20",
        "start": "2026-11-20T12:31:00Z",
        "end": "2026-12-15T00:00:00Z",
    }
    assert await event(client) == "2026-11-20"
    assert await event(client, clock.now() - timedelta(minutes=1)) == "2026-11"
    clock.advance(timedelta(minutes=1))
    again = await put(client, "alice", plan_id=pro, anchor="2026-11-15T01:00:00+01:00")
    assert again == found
    assert await put(client, "alice", plan_id=pro) == found
    query = select(func.count()).select_from(Subscription)
    assert (await runtime.db.read(lambda tx: tx.fetch(query)))[0][0] == 2


async def test_what_is_left_out_stays_and_calendar_terms_follow_the_time_zone(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    pro = await plan(client, "pro")
    kept = await put(client, "alice", plan_id=pro)
    assert kept["billing_period"]["key"] == "2026-11"
    berlin = await put(client, "bob", plan_id=pro, timezone="Europe/Berlin")
    assert berlin["billing_period"]["start"] == "2026-10-31T23:00:00Z"
    weeks = await put(client, "eve", plan_id=pro, interval="week")
    assert weeks["billing_period"]["start"] == "2026-11-16T00:00:00Z"
    clock.advance(timedelta(minutes=1))
    moved = await put(client, "eve", plan_id="plan_default")
    assert moved["interval"] == "week"
    assert moved["billing_period"]["end"] == weeks["billing_period"]["end"]


@pytest.mark.parametrize("path", ["subscription/renew", "usage/reset"])
async def test_a_renewal_starts_an_empty_period_and_loses_nothing(
    client: httpx.AsyncClient, clock: FrozenClock, path: str
) -> None:
    for window in ("billing_period", "month"):
        limit = {"name": window, "scope": {"user_id": "alice"}, "metric": "calls"}
        await client.post("/v1/limits", json=limit | {"window": window, "amount": 100})
    await event(client)
    await event(client, clock.now() + timedelta(minutes=4))
    assert await calls(client) == [2, 2]
    clock.advance(timedelta(minutes=5))
    answer = await client.post(f"/v1/users/alice/{path}")
    assert answer.status_code == 200
    assert answer.json()["billing_period"] == {
        "key": "2026-11-20",
        "start": "2026-11-20T12:35:00Z",
        "end": "2026-12-20T12:35:00Z",
    }
    assert await calls(client) == [0, 2]
    assert await event(client) == "2026-11-20"
    assert await event(client, clock.now() - timedelta(minutes=2)) == "2026-11"
    assert await calls(client) == [1, 4]


async def test_new_terms_start_after_events_ahead_of_the_clock(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    await event(client, clock.now() + timedelta(minutes=3))
    found = (await client.post("/v1/users/alice/usage/reset")).json()
    assert found["starts_at"] == "2026-11-20T12:33:00.000001Z"
    twice = (await client.post("/v1/users/alice/usage/reset")).json()
    assert twice["starts_at"] == "2026-11-20T12:33:00.000002Z"
    assert twice["anchor"] == twice["starts_at"]
    assert await event(client) == "2026-11"


async def test_a_user_never_seen_can_be_renewed(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    answer = await client.post("/v1/users/x%2Fy/subscription/renew")
    assert answer.status_code == 200
    assert answer.json()["user_id"] == "x/y"
    assert await event(client, clock.now() - timedelta(days=1), "x/y") == "2026-11"
    assert await event(client, user="x/y") == "2026-11-20"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/plan_id"),
        ({"plan_id": "none"}, "/plan_id"),
        ({"plan_id": None}, "/plan_id"),
        ({"plan_id": "a\u0000"}, "/plan_id"),
        ({"plan_id": "plan_default", "anchor": "2026-11-15"}, "/anchor"),
        ({"plan_id": "plan_default", "anchor": "2026-11-15T00:00:00"}, "/anchor"),
        ({"plan_id": "plan_default", "anchor": "2026-02-30T00:00:00Z"}, "/anchor"),
        ({"plan_id": "plan_default", "anchor": "1969-12-31T23:59:59Z"}, "/anchor"),
        ({"plan_id": "plan_default", "anchor": "9999-12-31T23:59:59Z"}, "/anchor"),
        ({"plan_id": "plan_default", "timezone": "Mars/Base"}, "/timezone"),
        ({"plan_id": "plan_default", "timezone": "../etc/passwd"}, "/timezone"),
        ({"plan_id": "plan_default", "timezone": "America"}, "/timezone"),
        ({"plan_id": "plan_default", "timezone": "a\u0000"}, "/timezone"),
        ({"plan_id": "plan_default", "timezone": "\ud800"}, "/timezone"),
        ({"plan_id": "plan_default", "timezone": 1}, "/timezone"),
        ({"plan_id": "plan_default", "interval": "hour"}, "/interval"),
        ({"plan_id": "plan_default", "color": "red"}, "/color"),
    ],
)
async def test_what_is_wrong_with_terms_is_named(
    client: httpx.AsyncClient, body: dict[str, object], pointer: str
) -> None:
    answer = await client.put(
        "/v1/users/alice/subscription",
        content=json.dumps(body),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    "body",
    [
        {"name": ""},
        {"name": "x" * 129},
        {"name": "p", "default": "true"},
        {"name": "p", "default": 1},
        {"name": None},
        {"name": "p", "is_default": True},
        [],
        "p",
    ],
)
async def test_a_bad_plan_is_refused(client: httpx.AsyncClient, body: object) -> None:
    assert (await client.post("/v1/plans", json=body)).status_code == 422
