"""A limit is raised for a while: at once, everywhere, until then, and no longer."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.analytics.audit import prove
from app.core.clock import FrozenClock, rfc3339
from app.runtime import Runtime

pytestmark = pytest.mark.anyio

LIMIT = {"name": "calls", "scope": {"user_id": "alice"}, "metric": "calls", "window": "month"}


async def limit(client: httpx.AsyncClient, **change: object) -> str:
    answer = await client.post("/v1/limits", json=LIMIT | {"amount": 2} | change)
    assert answer.status_code == 201, answer.text
    found: str = answer.json()["id"]
    return found


async def calls(client: httpx.AsyncClient, count: int) -> None:
    batch = [{"user_id": "alice"}] * count
    assert (await client.post("/v1/events", json=batch)).status_code == 200


async def allowed(client: httpx.AsyncClient) -> bool:
    answer = await client.post("/v1/limits/check", json={"user_id": "alice"})
    found: bool = answer.json()["allowed"]
    return found


async def alerted(client: httpx.AsyncClient) -> list[int]:
    items = (await client.get("/v1/users/alice/alerts")).json()["items"]
    return sorted(item["threshold"] for item in items)


async def state(client: httpx.AsyncClient) -> dict[str, Any]:
    [found] = (await client.get("/v1/users/alice/limits")).json()["items"]
    return dict(found)


async def assert_proven(runtime: Runtime) -> None:
    proof = await runtime.db.read(lambda tx: prove(tx, runtime.clock.now()))
    assert proof.differences == []


async def test_d1_5_a_raise_lets_the_next_call_pass_and_ends_by_the_clock(
    client: httpx.AsyncClient, clock: FrozenClock, runtime: Runtime
) -> None:
    made = await limit(client)
    await calls(client, 2)
    assert not await allowed(client)
    until = clock.now() + timedelta(hours=1)
    body = {"amount": 10, "until": rfc3339(until), "reason": "launch"}
    clock.advance(timedelta(seconds=1))
    raised = (await client.post(f"/v1/limits/{made}/raise", json=body)).json()
    assert raised["amount"] == 10
    assert raised["standing_amount"] == 2
    assert raised["raised_until"] == rfc3339(until)
    assert await allowed(client)
    shown = await state(client)
    assert (shown["limit"], shown["remaining"], shown["raised_until"]) == (10, 8, rfc3339(until))
    usage = (await client.get("/v1/users/alice/usage")).json()
    assert usage["usage_status"] == "active"
    assert usage["usage_percentages"] == {"calls": 20.0}
    await assert_proven(runtime)
    clock.advance(until - clock.now() - timedelta(microseconds=1))
    assert await allowed(client)
    clock.advance(timedelta(microseconds=1))
    assert not await allowed(client)
    assert (await state(client))["limit"] == 2
    lowered = (await client.get(f"/v1/limits/{made}")).json()
    assert (lowered["amount"], lowered["standing_amount"], lowered["raised_until"]) == (2, 2, None)
    await assert_proven(runtime)


async def test_thresholds_are_of_the_amount_in_force_and_alert_once(
    client: httpx.AsyncClient, clock: FrozenClock, runtime: Runtime
) -> None:
    made = await limit(client, amount=10)
    await calls(client, 8)
    assert await alerted(client) == [80]
    body = {"amount": 20, "until": rfc3339(clock.now() + timedelta(hours=1))}
    clock.advance(timedelta(seconds=1))
    await client.post(f"/v1/limits/{made}/raise", json=body)
    await calls(client, 5)
    assert await alerted(client) == [80]
    await calls(client, 5)
    assert await alerted(client) == [80, 90]
    await assert_proven(runtime)
    clock.advance(timedelta(hours=2))
    await assert_proven(runtime)
    assert await alerted(client) == [80, 90]
    await calls(client, 1)
    assert await alerted(client) == [80, 90, 100]
    await calls(client, 1)
    assert await alerted(client) == [80, 90, 100]
    await assert_proven(runtime)


async def test_ending_a_raise_and_a_lower_amount_alert_at_once(
    client: httpx.AsyncClient, clock: FrozenClock, runtime: Runtime
) -> None:
    made = await limit(client, amount=10, thresholds=[100])
    path = f"/v1/limits/{made}/raise"
    until = rfc3339(clock.now() + timedelta(hours=1))
    await client.post(path, json={"amount": None, "until": until})
    assert (await state(client))["limit"] is None
    await calls(client, 15)
    assert await alerted(client) == []
    clock.advance(timedelta(seconds=1))
    ended = (await client.request("DELETE", path)).json()
    assert (ended["amount"], ended["raised_until"]) == (10, None)
    assert await alerted(client) == [100]
    assert (await client.delete(path)).status_code == 200
    await assert_proven(runtime)
    other = await limit(client, name="lower", amount=1000, thresholds=[100])
    body = {"amount": 5, "until": until}
    assert (await client.post(f"/v1/limits/{other}/raise", json=body)).json()["amount"] == 5
    assert await alerted(client) == [100, 100]
    assert not await allowed(client)


async def test_every_raise_is_kept_and_a_new_one_replaces(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    made = await limit(client, metric="cost_usd", amount="1")
    path = f"/v1/limits/{made}"
    until = rfc3339(clock.now() + timedelta(hours=1))
    for amount in ("2", "3"):
        body = {"amount": amount, "until": until, "reason": "more"}
        assert (await client.post(f"{path}/raise", json=body)).status_code == 200
    assert (await client.get(path)).json()["amount"] == "3"
    await client.delete(f"{path}/raise")
    rows = (await client.get(f"{path}/raises")).json()["items"]
    assert [(row["kind"], row["amount"]) for row in rows] == [
        *(("end", "3"), ("raise", "3"), ("raise", "2"))
    ]
    first = (await client.get(f"{path}/raises?limit=2")).json()
    rest = (await client.get(f"{path}/raises?limit=2&cursor={first['next_cursor']}")).json()
    assert first["items"] + rest["items"] == rows
    assert rest["next_cursor"] is None
    assert (await client.get(f"{path}/raises?cursor=MTphYmM=")).status_code == 422
    await client.post(f"{path}/raise", json={"amount": "9", "until": until})
    other = await client.patch(path, json={"metric": "calls", "amount": 4})
    assert (other.json()["amount"], other.json()["raised_until"]) == (4, None)


async def test_a_changed_limit_stays_raised(client: httpx.AsyncClient, clock: FrozenClock) -> None:
    made = await limit(client)
    until = rfc3339(clock.now() + timedelta(hours=1))
    await client.post(f"/v1/limits/{made}/raise", json={"amount": 9, "until": until})
    changed = (await client.patch(f"/v1/limits/{made}", json={"amount": 3, "window": "day"})).json()
    assert (changed["amount"], changed["standing_amount"]) == (9, 3)
    assert changed["raised_until"] == until


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"until": "2026-11-20T12:30:00Z"}, "/until"),
        ({"until": "2020-01-01T00:00:00Z"}, "/until"),
        ({"until": "2027-01-01T00:00:00"}, "/until"),
        ({"until": None}, "/until"),
        ({"amount": -1}, "/amount"),
        ({"amount": "5"}, "/amount"),
        ({"amount": 2**63}, "/amount"),
        ({"reason": ""}, "/reason"),
        ({"reason": "a\u0000"}, "/reason"),
        ({"reason": "a" * 513}, "/reason"),
        ({"colour": 1}, "/colour"),
    ],
)
async def test_what_is_wrong_with_a_raise_is_named(
    client: httpx.AsyncClient, change: dict[str, object], pointer: str
) -> None:
    made = await limit(client)
    body = {"amount": 9, "until": "2027-01-01T00:00:00Z"} | change
    answer = await client.post(f"/v1/limits/{made}/raise", json=body)
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert (await client.get(f"/v1/limits/{made}")).json()["raised_until"] is None
    missing = await client.post("/v1/limits/none/raise", json={"amount": 1, "until": body["until"]})
    assert missing.status_code in (404, 422)
