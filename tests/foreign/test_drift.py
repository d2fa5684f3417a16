"""A cost that a caller stated is kept beside ours, and how far they are apart is exact."""

from typing import Any

import httpx
import pytest

from app.core.clock import FrozenClock
from app.core.money import from_usd
from app.runtime import Runtime
from tests.conftest import START
from tests.foreign.captured import events_of
from tests.foreign.requests import RECORD
from tests.integration.rerates import charging, rerated
from tests.otlp.scenarios import call, send_spans

pytestmark = pytest.mark.anyio

GPT = {"provider": "openai", "model": "gpt-4o", "usage": {"input_tokens": 1000}}
OURS = "0.0025"


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(START)


def event(name: str, cost: str | None, **more: Any) -> dict[str, Any]:
    """A call of 1,000 input tokens, which is $0.0025 by our prices."""
    said = {"id": name, "user_id": "alice", **GPT, **more}
    return said if cost is None else {**said, "cost_usd": cost}


async def drift(client: httpx.AsyncClient, days: int = 30) -> dict[str, Any]:
    """The answer, whose items sum to the whole."""
    answer = await client.get(f"/v1/analytics/drift?days={days}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    for name in ("events", "events_over_5_percent"):
        assert found[name] == sum(one[name] for one in found["items"])
    for name in ("stated_cost_usd", "our_cost_usd"):
        items = sum(from_usd(one[name]) for one in found["items"])
        assert from_usd(found[name]) == items
    return found


async def send(client: httpx.AsyncClient, *events: dict[str, Any]) -> None:
    answer = await client.post("/v1/events", json=list(events))
    assert answer.status_code == 200, answer.text


async def test_a_stated_cost_has_ours_beside_it_on_its_event(client: httpx.AsyncClient) -> None:
    await send(client, event("e1", "0.003", context={"service_tier": "standard"}))
    [found] = await events_of(client, "alice")
    assert (found["cost_usd"], found["cost_status"]) == ("0.003", "provided")
    assert found["context"] == {
        "service_tier": "standard",
        "stated_cost_usd": "0.003",
        "priced_cost_usd": OURS,
        "cost_compared": "events",
    }


async def test_every_door_counts_into_the_drift_once(client: httpx.AsyncClient) -> None:
    for _ in range(2):
        await send(client, event("e1", "0.003"), event("e2", "0.0025"), event("e3", None))
        await client.post("/v1/ingest/litellm", json={**RECORD, "response_cost": 0.5})
        span = call(
            1,
            user__id="alice",
            gen_ai__usage__cache_read__input_tokens=0,
            gen_ai__usage__cost=0.00645,
        )
        assert (await send_spans(client, span)).status_code == 200

    found = await drift(client)
    by_source = {one["source"]: one for one in found["items"]}
    assert by_source["events"] == {
        "source": "events",
        "provider": "openai",
        "model": "gpt-4o",
        "events": 2,
        "events_over_5_percent": 1,
        "stated_cost_usd": "0.0055",
        "our_cost_usd": "0.005",
        "drift_percent": 10.0,
    }
    assert by_source["litellm"]["events_over_5_percent"] == 1
    assert by_source["litellm"]["stated_cost_usd"] == "0.5"
    otlp = by_source["otlp"]
    assert (otlp["events"], otlp["events_over_5_percent"]) == (1, 0)
    assert (otlp["stated_cost_usd"], otlp["our_cost_usd"]) == ("0.00645", "0.0064")


async def test_costs_of_other_facts_are_not_compared(client: httpx.AsyncClient) -> None:
    """Without the split of cached tokens, of no price, of 0, and of an event of several calls."""
    unsplit = call(1, user__id="alice", gen_ai__usage__cost=0.001)
    assert (await send_spans(client, unsplit)).status_code == 200
    await send(
        client,
        event("free", "0"),
        event("unknown", "0.003", provider="acme", model="private"),
        {"id": "none", "user_id": "alice", "cost_usd": "0.1"},
    )
    assert (await drift(client))["events"] == 0


async def test_pairs_of_those_names_that_a_caller_sends_break_nothing(
    client: httpx.AsyncClient,
) -> None:
    await send(
        client,
        event("a", None, context={"cost_compared": "events", "stated_cost_usd": "a lot"}),
        event("b", "0.003", context={"cost_compared": "nowhere", "stated_cost_usd": "-1"}),
        event("c", None, context={"cost_compared": "events"}),
    )
    assert (await drift(client))["events"] == 0


async def test_corrections_voids_and_wraps_leave_the_drift_exact(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await send(client, *(event(name, "0.003") for name in ("a", "b", "c", "d")))
    path = "/v1/users/alice/events"
    assert (await client.post(f"{path}/a/void", json={"reason": "r"})).status_code == 200
    doubled = {"fields": {"usage": {"input_tokens": 2000}}, "reason": "r"}
    answer = await client.post(f"{path}/b/correct", json=doubled)
    assert answer.status_code == 200, answer.text
    paid = {"fields": {"cost_usd": "0.0001"}, "reason": "r"}
    assert (await client.post(f"{path}/c/correct", json=paid)).status_code == 200

    expected = await drift(client)
    assert (expected["events"], expected["stated_cost_usd"]) == (3, "0.009")
    assert expected["our_cost_usd"] == "0.01"
    policy = {"max_rows": 1, "keep_rows": 0}
    answer = await client.put("/v1/retention", json=policy)
    await client.post("/v1/users/alice/logs/wrap")
    assert await drift(client) == expected


async def test_a_new_price_moves_ours_where_ours_is_charged(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    cost = {"response_cost": 0.01}
    await client.post("/v1/ingest/litellm", json={**RECORD, **cost})
    before = await drift(client)
    [item] = before["items"]
    charged = charging(runtime.house.prices.catalog, gpt_4o=5000)
    runtime.house.prices.catalog = charged
    assert (await rerated(client, model="gpt-4o"))["changed"] == 1
    [found] = await events_of(client, "alice")
    [item] = (await drift(client))["items"]
    assert item["our_cost_usd"] == found["cost_usd"]
    assert item["our_cost_usd"] != before["our_cost_usd"]
    assert (item["events"], item["stated_cost_usd"]) == (1, "0.01")


async def test_days_bound_what_is_told(client: httpx.AsyncClient) -> None:
    await send(client, event("old", "0.003", timestamp="2026-11-18T23:59:59Z"))
    assert (await drift(client, days=2))["events"] == 0
    assert (await drift(client, days=3))["events"] == 1
    for query, pointer in (("days=0", "/days"), ("day=3", "/day")):
        answer = await client.get(f"/v1/analytics/drift?{query}")
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
