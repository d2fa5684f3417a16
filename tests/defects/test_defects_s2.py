"""Defects of the request analytics: the old formula beside ours, on the same calls."""

import httpx
import pytest

from app.runtime import Runtime
from tests.defects.calls import call, post, read
from tests.properties.books import books_in

pytestmark = pytest.mark.anyio


async def test_d2_4_every_way_to_sum_the_cost_gives_the_same(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    calls = [
        call(cost_usd="1.5", endpoint="/chat"),
        call(cost_usd="0.25", model="", endpoint=None),
        call(cost_usd="2", provider="", endpoint="/embed"),
    ]
    calls = [{k: v for k, v in one.items() if v not in ("", None)} for one in calls]
    by_model = sum(float(one["cost_usd"]) for one in calls if one.get("model"))
    assert by_model != sum(float(one["cost_usd"]) for one in calls)
    await post(client, *calls)
    books = await books_in(runtime.db)
    whole = 3_750_000_000
    for totals in (books.periods, books.hours):
        assert sum(total["cost_nanos"] for total in totals.values()) == whole
    for dimension in ("model", "endpoint", "status_code"):
        own = [total for key, total in books.dimensions.items() if key[1] == dimension]
        assert sum(total["cost_nanos"] for total in own) == whole
    assert (await read(client, "usage"))["total_cost_usd"] == "3.75"


async def test_d2_5_an_outage_is_not_shown_as_no_traffic(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.db.engine.random.uniform", lambda _low, _high: 0.001)
    await post(client, call())

    async def broken(*_: object, **__: object) -> None:
        raise OSError("the database is gone")

    with monkeypatch.context() as patch:
        patch.setattr("app.analytics.usage.used_in", broken)
        for path in ("usage", "usage/trends"):
            answer = await client.get(f"/v1/users/alice/{path}")
            assert answer.status_code == 503
            assert answer.headers["Retry-After"]
            assert "total_calls" not in answer.text
    assert (await read(client, "usage"))["total_calls"] == 1


async def test_d2_9_a_call_of_a_few_tokens_costs_something(client: httpx.AsyncClient) -> None:
    cents = round((7 * 150 / 10**9) * 100)
    assert cents == 0
    told = await post(client, *(call(usage={"input_tokens": 7}) for _ in range(1_000)))
    assert told[0]["cost_usd"] == "0.00000105"
    assert (await read(client, "usage"))["total_cost_usd"] == "0.00105"
