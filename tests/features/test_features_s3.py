"""What the daily and monthly tracker did, done here; each test names its row."""

import httpx
import pytest

from app.core.clock import FrozenClock
from app.settings import Settings
from tests.defects.calls import call, may, post, read

pytestmark = pytest.mark.anyio


async def test_s3_1_one_call_is_logged_with_all_that_was_said(client: httpx.AsyncClient) -> None:
    said = {"task_type": "summarise", "session_id": "s-1", "latency_ms": 321.0}
    failed = {"status_code": 500, "error_message": "out of memory"}
    told = await post(client, call(**said, **failed, tags={"character_id": "c-9"}))
    kept = await read(client, f"events/{told[0]['id']}")
    assert {name: kept[name] for name in said | failed} == said | failed
    assert kept["tags"] == {"character_id": "c-9"}
    assert kept["usage"] == {"input_tokens": 100, "output_tokens": 20}
    assert kept["cost_usd"] == "0.000027"
    assert kept["timestamp"].endswith("Z")


async def test_s3_2_prices_are_stated_for_a_thousand_tokens_or_any_block(
    client: httpx.AsyncClient,
) -> None:
    rates = {
        "input_tokens": {"usd": "0.0001", "per": 1_000},
        "output_tokens": {"usd": "0.0003", "per": 1_000},
    }
    price = {"provider": "own", "model": "llama-3-8b", "rates": rates}
    assert (await client.post("/v1/prices", json=price)).status_code == 201
    told = await post(client, call(provider="own", model="llama-3-8b"))
    assert told[0]["cost_usd"] == "0.000016"


async def test_s3_3_a_default_price_is_one_that_somebody_stated_and_is_marked(
    client: httpx.AsyncClient,
) -> None:
    rates = {
        "input_tokens": {"usd": "0.001", "per": 1_000},
        "output_tokens": {"usd": "0.005", "per": 1_000},
    }
    price = {"provider": "*", "model": "*", "default": True, "rates": rates}
    assert (await client.post("/v1/prices", json=price)).status_code == 201
    told = await post(client, call(provider="own", model="never-seen"))
    assert (told[0]["cost_usd"], told[0]["cost_status"]) == ("0.0002", "estimated")


async def test_s3_4_a_day_has_requests_tokens_cost_and_requests_by_task(
    client: httpx.AsyncClient,
) -> None:
    await post(
        client,
        call(task_type="chat"),
        call(task_type="chat", status_code=500),
        call(),
        call(task_type="chat", timestamp="2026-11-19T23:59:59.999999Z"),
        call(user_id="bob"),
    )
    day = await read(client, "usage/daily", date="2026-11-20")
    assert (day["total_calls"], day["failed_calls"]) == (3, 1)
    assert (day["input_tokens"], day["output_tokens"], day["total_tokens"]) == (300, 60, 360)
    assert day["total_cost_usd"] == "0.000081"
    assert day["requests_by_task"] == {"chat": 2, "general": 1}
    assert (await read(client, "usage/daily", date="2026-11-19"))["total_calls"] == 1


async def test_s3_5_a_month_has_requests_tokens_and_cost_and_exists(
    client: httpx.AsyncClient,
) -> None:
    await post(
        client,
        call(timestamp="2026-10-31T23:59:59.999999Z"),
        call(timestamp="2026-11-01T00:00:00Z"),
        call(),
    )
    october = await read(client, "usage/monthly", year="2026", month="10")
    november = await read(client, "usage/monthly", year="2026", month="11")
    assert (october["total_calls"], november["total_calls"]) == (1, 2)
    assert (november["total_tokens"], november["total_cost_usd"]) == (240, "0.000054")
    assert november == await read(client, "usage/monthly")
    for month in ("0", "13", "-1", "x", "1.5"):
        answer = await client.get(f"/v1/users/alice/usage/monthly?year=2026&month={month}")
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/month"


async def test_s3_6_what_all_users_spent_on_a_day(client: httpx.AsyncClient) -> None:
    await post(client, *(call(user_id=f"u{n}", cost_usd="0.5") for n in range(1_200)))
    told = (await client.get("/v1/analytics/daily-cost?date=2026-11-20")).json()
    assert (told["total_cost_usd"], told["total_calls"]) == ("600", 1_200)
    assert told["by_model"][0]["total_cost_usd"] == "600"
    before = (await client.get("/v1/analytics/daily-cost?date=2026-11-19")).json()
    assert (before["total_cost_usd"], before["by_model"]) == ("0", [])


async def test_s3_7_todays_count_is_exact_and_an_outage_is_no_zero(
    client: httpx.AsyncClient, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.db.engine.random.uniform", lambda _low, _high: 0.001)
    await post(client, *(call() for _ in range(3)))
    assert (await read(client, "usage/daily"))["total_calls"] == 3

    async def broken(*_: object, **__: object) -> None:
        raise OSError("the database is gone")

    with monkeypatch.context() as patch:
        patch.setattr("app.summaries.daily.summed", broken)
        answer = await client.get("/v1/users/alice/usage/daily")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert "total_calls" not in answer.text


async def test_s3_8_an_estimate_before_the_call_and_the_price_of_a_model(
    client: httpx.AsyncClient,
) -> None:
    body = {"provider": "openai", "model": "gpt-4o-mini", "usage": call()["usage"]}
    told = (await client.post("/v1/prices/estimate", json=body)).json()
    assert told["cost_usd"] == "0.000027"
    assert (await may(client, provider="openai", model="gpt-4o-mini", usage=call()["usage"]))[
        "estimated_cost_usd"
    ] == "0.000027"
    query = {"provider": "openai", "model": "gpt-4o-mini"}
    assert (await client.get("/v1/prices/resolve", params=query)).status_code == 200
    assert (await read(client, "usage"))["total_calls"] == 0


def test_s3_9_what_is_set_wrongly_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_HEALTH_LATENCY_S", "soon:10")
    with pytest.raises(ValueError, match="health_latency_s"):
        Settings()  # type: ignore[call-arg]
    monkeypatch.setenv("TOLLGATE_HEALTH_LATENCY_S", "1.5:10,3:20")
    assert Settings().health_latency_s == "1.5:10,3:20"  # type: ignore[call-arg]
