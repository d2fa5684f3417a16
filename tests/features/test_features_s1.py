"""What the tracker of users' billing periods did, done here; each test names its row."""

import asyncio
from datetime import timedelta

import httpx
import pytest

from app.core.clock import FrozenClock, rfc3339
from tests.conftest import START
from tests.defects.calls import call, make_limit, may, post, read

pytestmark = pytest.mark.anyio
PROVIDERS = (
    *("gemini", "openai", "anthropic", "mistral", "wavespeed", "tavily", "serper", "metaphor"),
    *("firecrawl", "stability", "exa", "video", "image_edit", "audio"),
)


async def test_s1_1_one_call_is_tracked_with_its_outcome_and_priced(
    client: httpx.AsyncClient,
) -> None:
    said = {
        "endpoint": "/v1/chat/completions",
        "method": "POST",
        "latency_ms": 640.25,
        "status_code": 200,
        "request_bytes": 900,
        "response_bytes": 1200,
        "user_agent": "sdk/2",
        "ip_address": "192.0.2.9",
        "error_message": "none",
        "retry_count": 2,
        "context": {"service_tier": "standard"},
    }
    receipt = (await client.post("/v1/events", json=call(id="one", **said))).json()
    assert (receipt["cost_usd"], receipt["cost_status"]) == ("0.000027", "priced")
    kept = await read(client, "events/one")
    assert {name: kept[name] for name in said} == said


async def test_s1_2_every_provider_counts_and_can_be_limited(client: httpx.AsyncClient) -> None:
    await post(client, *(call(provider=name, model="m", cost_usd="0.5") for name in PROVIDERS))
    usage = await read(client, "usage")
    assert {name: one["calls"] for name, one in usage["providers"].items()} == dict.fromkeys(
        PROVIDERS, 1
    )
    assert usage["total_cost_usd"] == "7"
    for name in PROVIDERS:
        await make_limit(client, 1, name=name, match={"provider": name})
    assert [(await may(client, provider=name))["allowed"] for name in PROVIDERS] == [False] * 14


async def test_s1_4_a_provider_behind_another_one_is_priced_and_shown_as_it_was_named(
    client: httpx.AsyncClient,
) -> None:
    answered = await client.post(
        "/v1/events",
        json=call(id="hf", provider="huggingface", model="openai/gpt-oss-120b:groq"),
    )
    assert answered.json()["cost_status"] == "priced"
    kept = await read(client, "events/hf")
    assert (kept["provider"], kept["model"]) == ("huggingface", "openai/gpt-oss-120b:groq")
    lines = (await read(client, "events/hf/explain"))["lines"]
    assert lines
    assert all("groq" in line["price_row"] for line in lines)


async def test_s1_6_a_period_may_span_two_months_and_its_key_finds_it_from_both(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    plan = (await client.get("/v1/plans")).json()["items"][0]["id"]
    put = await client.put(
        "/v1/users/alice/subscription",
        json={"plan_id": plan, "anchor": "2026-11-15T00:00:00Z", "interval": "month"},
    )
    assert put.status_code == 200, put.text
    first = (await client.post("/v1/events", json=call())).json()["billing_period"]
    clock.advance(timedelta(days=20))  # the next month, the same period
    second = (await client.post("/v1/events", json=call())).json()["billing_period"]
    assert first == second == "2026-11-15"
    assert (await read(client, "usage"))["total_calls"] == 2
    assert (await read(client, "usage", billing_period=first))["total_calls"] == 2
    unknown = await client.get("/v1/users/alice/usage?billing_period=2026-12-15")
    assert unknown.status_code in (200, 422)
    assert unknown.json().get("total_calls", 0) == 0


async def test_s1_7_a_period_sums_calls_tokens_cost_latency_and_errors_by_provider(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    await post(
        client,
        call(latency_ms=100, cost_usd="0.25"),
        call(latency_ms=301, cost_usd="0.5", status_code=500),
        call(provider="exa", model="search", usage={"web_searches": 3}, cost_usd="1"),
    )
    usage = await read(client, "usage")
    assert (usage["total_calls"], usage["total_tokens"]) == (3, 240)
    assert (usage["total_cost_usd"], usage["avg_latency_ms"]) == ("1.75", 200.5)
    assert usage["error_rate"] == 33.33
    assert usage["last_updated"] == rfc3339(clock.now())
    openai, exa = usage["providers"]["openai"], usage["providers"]["exa"]
    assert (openai["calls"], openai["tokens"], openai["cost_usd"]) == (2, 240, "0.75")
    assert (exa["calls"], exa["tokens"], exa["cost_usd"]) == (1, 0, "1")


async def test_s1_8_the_status_is_that_of_the_fullest_limit(client: httpx.AsyncClient) -> None:
    await make_limit(client, 10)
    await make_limit(client, "100", name="cost", metric="cost_usd")
    seen = []
    for cost in ("1", "1", "1", "1", "1", "1", "1", "1", "1", "90"):
        seen.append(
            (await client.post("/v1/events", json=call(cost_usd=cost))).json()["usage_status"]
        )
    assert seen == ["active"] * 7 + ["warning"] * 2 + ["limit_reached"]
    usage = await read(client, "usage")
    assert usage["usage_status"] == "limit_reached"
    assert sorted(usage["usage_percentages"].values()) == [99.0, 100.0]


async def test_s1_13_s1_14_trends_are_six_periods_and_equal_what_was_logged(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    months = [START - timedelta(days=31 * back) for back in range(6)]
    for number, at in enumerate(months, 1):
        events = [call(timestamp=rfc3339(at), cost_usd=str(number)) for _ in range(number)]
        answer = await client.post("/v1/events?backfill=true", json=events)
        assert answer.status_code == 200, answer.text
    items = (await read(client, "usage/trends"))["items"]
    assert [one["total_calls"] for one in items] == [6, 5, 4, 3, 2, 1]
    assert [one["total_cost_usd"] for one in items] == ["36", "25", "16", "9", "4", "1"]
    proof = (await client.get("/v1/audit/consistency")).json()
    assert proof["consistent"] is True


async def test_s1_15_d1_6_a_call_is_allowed_before_it_is_made_and_what_is_held_counts(
    client: httpx.AsyncClient,
) -> None:
    await make_limit(client, 500, metric="tokens")
    asked = {"usage": {"input_tokens": 300, "output_tokens": 100}}
    assert (await may(client, **asked))["allowed"] is True
    hold = {"user_id": "alice", "provider": "openai", "model": "gpt-4o-mini", **asked}
    answers = await asyncio.gather(
        *(client.post("/v1/holds", json=hold | {"id": f"h{number}"}) for number in range(20))
    )
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [201] + [429] * 19
    denied = await may(client, **asked)
    assert (denied["allowed"], denied["limits"][0]["held"]) == (False, 400)
    assert denied["limits"][0]["metric"] == "tokens"


async def test_s1_18_what_was_written_is_read_at_once(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    for number in range(1, 6):
        await client.post("/v1/events", json=call())
        assert (await read(client, "usage"))["total_calls"] == number
    clock.advance(timedelta(seconds=1))
    await client.post("/v1/users/alice/usage/reset")
    assert (await read(client, "usage"))["total_calls"] == 0


async def test_s1_19_a_refused_event_is_told_and_changes_nothing(
    client: httpx.AsyncClient,
) -> None:
    answer = await client.post("/v1/events", json=call(usage={"input_tokens": -1}))
    assert answer.status_code == 422
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.json()["errors"][0]["pointer"] == "/usage/input_tokens"
    assert (await read(client, "usage"))["total_calls"] == 0
