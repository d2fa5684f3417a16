"""Defects of the hour-bucketed store: the old formula beside ours, on the same calls."""

import asyncio
import math

import httpx
import pytest

from app.runtime import Runtime
from tests.defects.calls import call, post, read
from tests.properties.books import books_in

pytestmark = pytest.mark.anyio


async def test_d4_1_each_model_of_an_hour_has_its_own_total(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    calls = [call(backend="gpu", model=model) for model in ("gpt-4o-mini", "gpt-4o", "gpt-4o")]
    buckets: dict[tuple[str, int], list[object]] = {}
    for one in calls:  # the key is backend and hour; the model is whoever came first
        found = buckets.setdefault((one["backend"], 12), [one["model"], 0])
        found[1] = int(str(found[1])) + 1
    assert list(buckets.values()) == [["gpt-4o-mini", 3]]
    await post(client, *calls)
    models = (await read(client, "usage"))["providers"]["openai"]["models"]
    assert {name: model["calls"] for name, model in models.items()} == {
        "gpt-4o": 2,
        "gpt-4o-mini": 1,
    }
    books = await books_in(runtime.db)
    [backend] = [total for key, total in books.dimensions.items() if key[1] == "backend"]
    assert backend["calls"] == 3


async def test_d4_2_a_mean_is_a_sum_divided_once(client: httpx.AsyncClient) -> None:
    latencies = [1_000 + 21 * (number % 2) for number in range(2_000)]
    mean = 0
    for count, latency in enumerate(latencies):  # cut to a whole number at each step
        mean = math.floor((mean * count + latency) / (count + 1))
    assert mean < 1_005
    await post(client, *(call(latency_ms=latency) for latency in latencies), call())
    assert (await read(client, "usage"))["avg_latency_ms"] == 1010.5


async def test_d4_3_time_to_first_token_is_over_the_calls_that_have_one(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    streams = [400 if number % 10 == 9 else None for number in range(500)]
    mean = 0.0
    for count, first in enumerate(streams, 1):  # every request counts towards the weight
        if first is not None:
            mean = (mean * (count - 1) + first) / count
    assert mean < 250
    await post(client, *(call(ttft_ms=first) if first is not None else call() for first in streams))
    for totals in (await books_in(runtime.db))[1:3]:
        assert {total["ttft_us"] / total["ttft_calls"] for total in totals.values()} == {400_000}


async def test_d4_4_racing_first_calls_make_one_bucket(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    buckets: list[dict[str, int]] = []

    async def record() -> None:
        known = next(iter(buckets), None)  # nothing to update: so it inserts
        await asyncio.sleep(0)
        if known is None:
            buckets.append({"requests": 1})
        else:
            known["requests"] += 1

    await asyncio.gather(*(record() for _ in range(8)))
    assert len(buckets) == 8
    answers = await asyncio.gather(
        *(client.post("/v1/events", json=call(user_id=f"u{n % 5}")) for n in range(40))
    )
    assert {answer.status_code for answer in answers} == {201}
    hours = (await books_in(runtime.db)).hours
    assert [total["calls"] for total in hours.values()] == [8] * 5


async def test_d4_5_the_total_of_nothing_is_zero_and_not_null(client: httpx.AsyncClient) -> None:
    row = (None, None)  # what SUM gives of an empty table is one row
    totals = {"requests": row[0], "cost": row[1]} if row is not None else {"requests": 0, "cost": 0}
    assert totals["requests"] is None
    usage = await read(client, "usage")
    for name in ("total_calls", "total_tokens", "input_tokens", "output_tokens", "unpriced_calls"):
        assert usage[name] == 0
    assert usage["total_cost_usd"] == "0"
    assert usage["error_rate"] == 0.0
    assert usage["avg_latency_ms"] is None
    items = (await read(client, "usage/trends"))["items"]
    assert [one["total_calls"] for one in items] == [0] * 6


async def test_d4_7_what_was_used_is_not_rewritten_when_a_plan_or_limit_goes(
    client: httpx.AsyncClient,
) -> None:
    await post(client, call(backend="gpu", pool="eu"))
    before = await read(client, "usage/trends", periods="1")
    plan = (await client.post("/v1/plans", json={"name": "pro"})).json()["id"]
    body = {"plan_id": plan}
    assert (await client.put("/v1/users/bob/subscription", json=body)).status_code == 200
    assert (await client.delete(f"/v1/plans/{plan}")).status_code == 409
    assert await read(client, "usage/trends", periods="1") == before
