"""Defects of the per-user tracker: the old formula beside ours, on the same calls."""

import asyncio
import threading
from datetime import timedelta
from types import SimpleNamespace

import httpx
import pytest

from app.core.clock import FrozenClock
from app.runtime import Runtime
from tests.defects.calls import call, make_limit, may, post, read
from tests.properties.books import everything_in, log_in

pytestmark = pytest.mark.anyio


async def test_d1_1_an_error_rate_is_counted_and_not_rebuilt_from_a_percentage(
    client: httpx.AsyncClient,
) -> None:
    failed = [number % 10 == 3 for number in range(2_000)]
    rate = 0.0
    for calls, wrong in enumerate(failed):  # the errors so far, read back out of the percentage
        errors = int(rate / 100 * calls) + wrong
        rate = errors / (calls + 1) * 100
    assert rate < 1
    await post(client, *(call(status_code=500 if wrong else 200) for wrong in failed))
    assert (await read(client, "usage"))["error_rate"] == 10.0


async def test_d1_2_a_threshold_alerts_once_though_nothing_was_delivered(
    client: httpx.AsyncClient,
) -> None:
    rows: list[dict[str, object]] = []
    for used in range(1, 121):  # looks for one that was sent; but nothing marks any as sent
        for threshold in (80, 90, 100):
            seen = any(row["threshold"] == threshold and row["is_sent"] for row in rows)
            if used >= threshold and not seen:
                rows.append({"threshold": threshold, "is_sent": False})
                break
    assert len(rows) > 30
    await make_limit(client, 100)
    for _ in range(12):
        await post(client, *(call() for _ in range(10)))
    found = (await read(client, "alerts"))["items"]
    assert sorted(one["threshold"] for one in found) == [80, 90, 100]
    severities = {one["threshold"]: (one["severity"], one["type"]) for one in found}
    assert severities[80] == ("info", "usage_warning")
    assert severities[90] == ("warning", "usage_warning")
    assert severities[100] == ("error", "limit_reached")


async def test_d1_3_the_first_call_of_a_period_counts(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    summary = SimpleNamespace(total_calls=None)  # a column's default is there after the flush only
    with pytest.raises(TypeError):
        summary.total_calls += 1
    await post(client, call())
    clock.advance(timedelta(days=15))
    await post(client, call())
    periods = (await read(client, "usage/trends", periods="2"))["items"]
    assert [one["total_calls"] for one in periods] == [1, 1]
    assert [one["billing_period"]["key"] for one in periods] == ["2026-11", "2026-12"]


async def test_d1_4_no_call_is_lost_between_reading_and_writing_back(
    client: httpx.AsyncClient,
) -> None:
    stored, barrier = [0], threading.Barrier(8)

    def writer() -> None:
        for _ in range(25):
            read_before = stored[0]
            barrier.wait()  # the others read the same
            stored[0] = read_before + 1
            barrier.wait()

    threads = [threading.Thread(target=writer) for _ in range(8)]
    for thread in threads:
        thread.start()
    await asyncio.to_thread(lambda: [thread.join() for thread in threads])
    assert stored == [25]
    for _ in range(25):
        await asyncio.gather(*(client.post("/v1/events", json=call()) for _ in range(8)))
    assert (await read(client, "usage"))["total_calls"] == 200


@pytest.mark.parametrize("change", ["raise", "reset", "delete"])
async def test_d1_5_a_refusal_does_not_outlive_its_reason(
    client: httpx.AsyncClient, clock: FrozenClock, change: str
) -> None:
    made = await make_limit(client, 1)
    await post(client, call())
    assert (await may(client))["allowed"] is False
    if change == "raise":
        await client.patch(f"/v1/limits/{made['id']}", json={"amount": 5})
    elif change == "delete":
        await client.delete(f"/v1/limits/{made['id']}")
    else:
        clock.advance(timedelta(seconds=1))
        assert (await client.post("/v1/users/alice/usage/reset")).status_code == 200
    assert (await may(client))["allowed"] is True


async def test_d1_5_a_check_counts_the_tokens_that_are_asked_for(client: httpx.AsyncClient) -> None:
    await make_limit(client, 500, metric="tokens")
    await post(client, call())
    for wanted, allowed in ((380, True), (381, False), (10, True)):
        usage = {"input_tokens": wanted, "output_tokens": 0}
        assert (await may(client, usage=usage))["allowed"] is allowed


async def test_d1_7_a_provider_that_nobody_foresaw_counts_and_is_limited(
    client: httpx.AsyncClient,
) -> None:
    class Summary:
        """One column a provider; another name becomes an attribute that no statement writes."""

        columns = ("openai_calls", "gemini_calls")

        def __init__(self) -> None:
            self.openai_calls = self.gemini_calls = 0

    summary = Summary()
    summary.groq_calls = getattr(summary, "groq_calls", 0) + 1
    assert sum(getattr(summary, name) for name in Summary.columns) == 0
    await make_limit(client, 2, match={"provider": "groq"})
    await post(client, call(provider="groq", model="m"), call(provider="groq", model="m"))
    usage = await read(client, "usage")
    assert usage["providers"]["groq"]["calls"] == usage["total_calls"] == 2
    assert (await may(client, provider="groq"))["allowed"] is False
    assert (await may(client, provider="openai"))["allowed"] is True


async def test_d1_8_and_d1_9_two_periods_of_one_month_are_two(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    await make_limit(client, 3)
    await post(client, call(), call())
    clock.advance(timedelta(seconds=1))
    assert (await client.post("/v1/users/alice/subscription/renew")).status_code == 200
    await post(client, call())
    items = (await read(client, "usage/trends", periods="2"))["items"]
    assert [one["total_calls"] for one in items] == [2, 1]
    starts = [one["billing_period"]["start"] for one in items]
    assert starts == ["2026-11-01T00:00:00Z", "2026-11-20T12:30:01Z"]
    assert items[0]["billing_period"]["end"] == starts[1]
    for one in items:
        found = await read(client, "usage", billing_period=one["billing_period"]["key"])
        assert found["total_calls"] == one["total_calls"]
    assert (await read(client, "limits"))["items"][0]["used"] == 1


@pytest.mark.parametrize(("metric", "amount"), [("cost_usd", "0.000054"), ("tokens", 240)])
async def test_d1_10_cost_and_tokens_alert_and_show_in_the_status(
    client: httpx.AsyncClient, metric: str, amount: object
) -> None:
    await make_limit(client, amount, metric=metric)
    assert (await client.post("/v1/events", json=call())).json()["usage_status"] == "active"
    last = (await client.post("/v1/events", json=call())).json()
    assert last["usage_status"] == "limit_reached"
    assert len((await read(client, "alerts"))["items"]) == 3


async def test_d1_11_a_jump_raises_one_alert_for_each_threshold_and_never_again(
    client: httpx.AsyncClient,
) -> None:
    await make_limit(client, 10)
    await post(client, *(call() for _ in range(7)))
    assert (await read(client, "alerts"))["items"] == []
    await post(client, *(call() for _ in range(3)))
    alerts = (await read(client, "alerts"))["items"]
    assert sorted(one["threshold"] for one in alerts) == [80, 90, 100]
    assert sorted(one["severity"] for one in alerts) == ["error", "info", "warning"]
    await post(client, *(call() for _ in range(30)))
    assert (await read(client, "alerts"))["items"] == alerts


async def test_d1_12_nothing_allowed_is_not_everything_allowed(client: httpx.AsyncClient) -> None:
    made = await make_limit(client, 0)
    assert (await may(client))["allowed"] is False
    await client.patch(f"/v1/limits/{made['id']}", json={"amount": None})
    found = await may(client)
    assert found["allowed"] is True
    assert found["limits"][0]["limit"] is None


async def test_d1_13_a_reset_is_not_undone_by_a_read_and_loses_nothing(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    await make_limit(client, 5)
    await post(client, *(call() for _ in range(5)))
    clock.advance(timedelta(seconds=1))
    await client.post("/v1/users/alice/usage/reset")
    for _ in range(2):
        totals = [
            one["total_calls"] for one in (await read(client, "usage/trends", periods="2"))["items"]
        ]
        assert totals == [5, 0]
        assert (await read(client, "usage"))["total_calls"] == 0
        assert (await may(client))["limits"][0]["used"] == 0
    assert len((await read(client, "events"))["items"]) == 5


async def test_d1_14_reading_writes_nothing(client: httpx.AsyncClient, runtime: Runtime) -> None:
    before = await everything_in(runtime.db)
    for path in ("usage", "usage/trends", "events", "limits", "alerts", "subscription"):
        await read(client, path)
    await may(client)
    assert await everything_in(runtime.db) == before


async def test_d1_15_a_retry_counts_once_and_a_late_event_in_its_own_period(
    client: httpx.AsyncClient,
) -> None:
    late = call(id="a", timestamp="2026-10-31T23:59:59.999999Z")
    for _ in range(3):
        assert (await client.post("/v1/events", json=late)).status_code in (200, 201)
    await post(client, call(id="b", timestamp="2026-11-01T00:00:00Z"), late)
    totals = [
        one["total_calls"] for one in (await read(client, "usage/trends", periods="2"))["items"]
    ]
    assert totals == [1, 1]


async def test_d1_16_what_is_cached_is_priced_as_cached_and_sums_are_exact(
    client: httpx.AsyncClient,
) -> None:
    tenth = sum([0.1] * 10)
    assert tenth != 1.0
    await post(client, *(call(cost_usd="0.1") for _ in range(10)))
    assert (await read(client, "usage"))["total_cost_usd"] == "1"
    usage = {"input_tokens": 1_000_000, "cache_read_tokens": 1_000_000}
    told = await post(client, call(usage=usage))
    assert told[0]["cost_usd"] == "0.075"


@pytest.mark.parametrize(
    ("provider", "cost", "status"),
    [("openai", "0.000027", "estimated"), ("nobody", None, "unpriced")],
)
async def test_d1_17_a_missing_model_is_never_priced_as_if_it_were_known(
    client: httpx.AsyncClient, provider: str, cost: str | None, status: str
) -> None:
    bare = {name: value for name, value in call(provider=provider).items() if name != "model"}
    told = (await client.post("/v1/events", json=bare)).json()
    assert (told["cost_usd"], told["cost_status"]) == (cost, status)
    event = (await read(client, "events"))["items"][0]
    assert (event["model"], event["cost_status"]) == (None, status)
    assert (await read(client, "usage"))["unpriced_calls"] == int(cost is None)


async def test_d1_18_a_failure_is_told_and_not_swallowed(
    client: httpx.AsyncClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.db.engine.random.uniform", lambda _low, _high: 0.001)

    async def broken(*_: object, **__: object) -> None:
        raise OSError("the network is gone")

    with monkeypatch.context() as patch:
        patch.setattr("app.ingest.meter.raise_alerts", broken)
        answer = await client.post("/v1/events", json=call(id="a"))
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
    assert await log_in(runtime.db) == {}
    assert (await client.post("/v1/events", json=call(id="a"))).status_code == 201


@pytest.mark.parametrize(("status", "wrong"), [(199, 0), (204, 0), (302, 0), (400, 1), (503, 1)])
async def test_d1_20_an_error_is_status_400_or_more_everywhere(
    client: httpx.AsyncClient, status: int, wrong: int
) -> None:
    await post(client, call(status_code=status))
    assert (await read(client, "usage"))["error_rate"] == 100.0 * wrong
    trend = (await read(client, "usage/trends", periods="1"))["items"][0]
    assert trend["error_rate"] == 100.0 * wrong
    assert len((await read(client, "events", status="error"))["items"]) == wrong
