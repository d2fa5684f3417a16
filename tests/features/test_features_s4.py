"""What the hour-bucketed store of backends told, told here; each test names its row."""

from typing import Any

import httpx
import pytest

from tests.defects.calls import call, post

pytestmark = pytest.mark.anyio


async def backends(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    answer = await client.get("/v1/analytics/backends", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def test_s4_1_an_hour_of_a_backend_has_its_sums_and_means(client: httpx.AsyncClient) -> None:
    await post(
        client,
        call(backend="gpu-1", latency_ms=100, ttft_ms=10, cost_usd="1"),
        call(backend="gpu-1", latency_ms=201, status_code=500, cost_usd="2"),
        call(backend="gpu-2"),
        call(),
    )
    newest = (await backends(client))[0]
    assert newest["hour"] == "2026-11-20T12:00:00Z"
    one, two = newest["backends"]
    assert (one["backend"], two["backend"]) == ("gpu-1", "gpu-2")
    assert (one["total_calls"], one["failed_calls"], one["total_tokens"]) == (2, 1, 240)
    assert (one["total_cost_usd"], one["avg_latency_ms"]) == ("3", 150.5)
    assert (two["total_calls"], two["avg_latency_ms"]) == (1, None)


async def test_s4_2_time_to_first_token_is_of_the_calls_that_have_one(
    client: httpx.AsyncClient,
) -> None:
    await post(client, call(backend="b", ttft_ms=400), *(call(backend="b") for _ in range(9)))
    assert (await backends(client))[0]["backends"][0]["avg_ttft_ms"] == 400


async def test_s4_3_hours_by_backend_and_since_newest_first(client: httpx.AsyncClient) -> None:
    await post(
        client,
        call(backend="a"),
        call(backend="b", timestamp="2026-11-20T10:00:00Z"),
        call(backend="a", timestamp="2026-11-20T09:59:59.999999Z"),
        call(backend="a", timestamp="2026-11-13T11:59:59Z"),
    )
    items = await backends(client)
    assert len(items) == 169
    assert (items[0]["hour"], items[-1]["hour"]) == ("2026-11-20T12:00:00Z", "2026-11-13T12:00:00Z")
    assert sum(len(item["backends"]) for item in items) == 3
    only = await backends(client, backend="a")
    assert [item["hour"] for item in only if item["backends"]] == [
        "2026-11-20T12:00:00Z",
        "2026-11-20T09:00:00Z",
    ]
    since = await backends(client, since="2026-11-20T10:30:00Z")
    assert [(item["hour"][11:13], len(item["backends"])) for item in since] == [
        *(("12", 1), ("11", 0), ("10", 1))
    ]


async def test_s4_4_the_totals_of_everything(client: httpx.AsyncClient) -> None:
    await post(
        client,
        call(cost_usd="1"),
        call(user_id="bob", cost_usd="2", status_code=404, timestamp="2026-10-20T00:00:00Z"),
    )
    told = (await client.get("/v1/analytics/totals")).json()
    assert (told["total_calls"], told["failed_calls"], told["total_tokens"]) == (2, 1, 240)
    assert (told["input_tokens"], told["output_tokens"]) == (200, 40)
    assert (told["total_cost_usd"], told["first_hour"]) == ("3", "2026-10-20T00:00:00Z")


async def test_s4_5_a_day_of_a_pool_counts_its_backends(client: httpx.AsyncClient) -> None:
    await post(
        client,
        *(call(pool="eu", backend=f"b{n % 3}", cost_usd="1") for n in range(6)),
        call(pool="eu", status_code=500, cost_usd="1"),
        call(pool="us", backend="b0"),
    )
    for _ in range(2):  # nothing is rebuilt, so nothing is counted twice
        today = (await client.get("/v1/analytics/pools")).json()["items"][0]
        eu, us = today["pools"]
        assert (today["date"], eu["pool"], us["pool"]) == ("2026-11-20", "eu", "us")
        assert (eu["total_calls"], eu["failed_calls"], eu["backends"]) == (7, 1, 3)
        assert (eu["total_tokens"], eu["total_cost_usd"], us["backends"]) == (840, "7", 1)


async def test_s4_6_thirty_days_are_thirty_days_however_many_pools(
    client: httpx.AsyncClient,
) -> None:
    await post(
        client,
        *(
            call(pool=f"p{pool}", timestamp=f"2026-11-{day:02d}T12:00:00Z")
            for day in range(1, 21)
            for pool in range(4)
        ),
    )
    items = (await client.get("/v1/analytics/pools")).json()["items"]
    assert len(items) == 30
    assert [len(item["pools"]) for item in items] == [4] * 20 + [0] * 10


async def test_s4_7_one_call_records_and_nothing_was_set_up(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/events", json=call(backend="new", pool="new"))
    assert answer.status_code == 201
    assert (await backends(client))[0]["backends"][0]["backend"] == "new"
