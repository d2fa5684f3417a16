"""Defects of the daily and monthly tracker: the old formula beside ours, on the same calls."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import httpx
import pytest

from app.core.clock import FrozenClock
from app.runtime import Runtime
from tests.defects.calls import call, make_limit, may, post, read
from tests.properties.books import books_in

pytestmark = pytest.mark.anyio


async def test_d3_1_and_d3_2_a_count_has_no_cap(client: httpx.AsyncClient) -> None:
    rows = [call() for _ in range(1_500)]
    capped = rows[:1_000]
    assert len(capped) < 1_400  # a limit of 1,400 never trips
    await make_limit(client, 1_400, window="day")
    await post(client, *rows)
    assert (await may(client))["allowed"] is False
    assert (await read(client, "usage"))["total_calls"] == 1_500


async def test_d3_3_a_day_is_a_day_in_utc(client: httpx.AsyncClient, clock: FrozenClock) -> None:
    instant = datetime(2026, 11, 21, 23, 30, tzinfo=UTC)
    local = instant.astimezone(ZoneInfo("Pacific/Kiritimati")).date()
    assert local != instant.date()
    clock.advance(instant - clock.now())
    await make_limit(client, 1, window="day")
    await post(client, call())
    assert (await may(client))["allowed"] is False
    clock.advance(timedelta(minutes=29, seconds=59, microseconds=999_999))
    assert (await may(client))["allowed"] is False
    clock.advance(timedelta(microseconds=1))
    found = await may(client)
    assert found["allowed"] is True
    assert found["limits"][0]["resets_at"] == "2026-11-23T00:00:00Z"


async def test_d3_4_a_month_has_its_last_second(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    moments = ["2026-10-31T23:59:59.5Z", "2026-10-31T23:59:59.999999Z", "2026-11-01T00:00:00Z"]
    end = datetime(2026, 10, 31, 23, 59, 59, tzinfo=UTC)
    assert sum(datetime.fromisoformat(moment) <= end for moment in moments) == 0
    await post(client, *(call(timestamp=moment) for moment in moments))
    items = (await read(client, "usage/trends", periods="2"))["items"]
    assert [one["total_calls"] for one in items] == [2, 1]
    assert (await read(client, "usage", billing_period="2026-10"))["total_calls"] == 2


async def test_d3_5_a_check_that_cannot_read_does_not_say_yes(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.db.engine.random.uniform", lambda _low, _high: 0.001)
    await make_limit(client, 1)
    await post(client, call())

    async def broken(*_: object, **__: object) -> None:
        raise OSError("the database is gone")

    with monkeypatch.context() as patch:
        patch.setattr("app.limits.held.stands", broken)
        answer = await client.post("/v1/limits/check", json={"user_id": "alice"})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert (await may(client))["allowed"] is False


async def test_d3_6_small_calls_add_up_to_what_they_cost(client: httpx.AsyncClient) -> None:
    each = round(4 * 100 / 10**9, 6)  # four tokens at $0.10 a million
    assert each * 10_000 == 0
    usage = {"input_tokens": 2, "output_tokens": 0}
    for _ in range(2):
        await post(client, *(call(usage=usage) for _ in range(5_000)))
    assert (await read(client, "usage"))["total_cost_usd"] == "0.003"


async def test_d3_7_an_unknown_model_has_an_unknown_price(client: httpx.AsyncClient) -> None:
    guessed = 120 / 1_000 * 0.001
    assert guessed > 0
    told = await post(client, call(model="never-heard-of-it"))
    assert (told[0]["cost_usd"], told[0]["cost_status"]) == (None, "unpriced")
    usage = await read(client, "usage")
    assert (usage["unpriced_calls"], usage["total_cost_usd"]) == (1, "0")
    found = (await read(client, "events"))["items"][0]
    assert (found["model"], found["cost_usd"]) == ("never-heard-of-it", None)


async def test_d3_8_an_id_makes_a_retry_safe_and_many_events_one_request(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    calls = [call(id=str(number)) for number in range(50)]
    for _ in range(2):
        answer = await client.post("/v1/events", json=calls)
        assert answer.status_code == 200
    assert (answer.json()["recorded"], answer.json()["duplicates"]) == (0, 50)
    assert (await books_in(runtime.db)).calls == 50
