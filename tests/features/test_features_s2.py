"""What the request analytics told, told here; each test names its row in the list of features."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from app.analytics.budgets import Budgets
from app.analytics.health import health_of, points_for, steps_from, weights_of
from app.analytics.metrics import Parts
from app.core.clock import FrozenClock, rfc3339
from app.db.engine import Database
from app.runtime import Runtime
from app.summaries.sums import NONE
from app.usage.tables import UsageEvent
from tests.conftest import START, settings_for
from tests.defects.calls import call, make_limit, post, read

pytestmark = pytest.mark.anyio
HOUR = timedelta(hours=1)


async def metrics(client: httpx.AsyncClient, **query: Any) -> dict[str, Any]:
    answer = await client.get("/v1/analytics/metrics", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def health(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.get("/v1/analytics/health")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_s2_1_a_request_event_keeps_everything_about_the_request(
    client: httpx.AsyncClient,
) -> None:
    said: dict[str, Any] = {
        "endpoint": "/v1/chat/completions",
        "method": "POST",
        "status_code": 429,
        "latency_ms": 812.5,
        "api_key_id": "key-1",
        "ip_address": "192.0.2.7",
        "user_agent": "sdk/1.0",
        "request_bytes": 4096,
        "response_bytes": 18,
        "error_message": "slow down",
    }
    await post(client, call(id="e", timestamp=rfc3339(START), **said))
    kept = await read(client, "events/e")
    assert {name: kept[name] for name in said} == said
    assert kept["timestamp"] == rfc3339(START)
    assert kept["usage"] == {"input_tokens": 100, "output_tokens": 20}
    assert kept["cost_usd"] == "0.000027"


async def test_s2_2_events_are_not_forgotten_after_ten_thousand_or_a_day(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    for batch in range(2):
        await post(client, *(call(id=f"{batch}-{n}", usage={}) for n in range(5_500)))
    clock.advance(timedelta(hours=30))
    assert (await metrics(client, hours=48))["total_calls"] == 11_000
    assert (await metrics(client, hours=24))["total_calls"] == 0


async def test_s2_3_calls_are_counted_by_endpoint_status_code_and_model(
    client: httpx.AsyncClient,
) -> None:
    await post(
        client,
        call(endpoint="/chat", latency_ms=100, cost_usd="1"),
        call(endpoint="/chat", latency_ms=300, cost_usd="2", status_code=400),
        call(endpoint="/embed", model="m", cost_usd="4"),
    )
    found = await metrics(client)
    assert found["status_codes"] == {"200": 2, "400": 1}
    chat, embed = found["endpoints"]
    assert (chat["endpoint"], chat["total_calls"], chat["failed_calls"]) == ("/chat", 2, 1)
    assert (chat["avg_latency_ms"], chat["total_tokens"], chat["total_cost_usd"]) == (200, 240, "3")
    assert (embed["endpoint"], embed["avg_latency_ms"]) == ("/embed", None)
    models = {one["model"]: one["total_calls"] for one in found["models"]}
    assert models == {"gpt-4o-mini": 2, "m": 1}


async def test_s2_4_the_metrics_of_the_last_hours_by_user_and_key(
    client: httpx.AsyncClient,
) -> None:
    await post(
        client,
        *(call(model=f"m{n % 12:02d}", endpoint=f"/{n % 12:02d}", cost_usd="1") for n in range(24)),
        call(model="m03", endpoint="/03", latency_ms=1234.5678, status_code=500, cost_usd="2"),
        call(user_id="bob", api_key_id="k", cost_usd="5"),
        call(user_id="bob", timestamp=rfc3339(START - 25 * HOUR), cost_usd="100"),
    )
    found = await metrics(client)
    assert found["hours"] == 24
    assert (found["total_calls"], found["successful_calls"], found["failed_calls"]) == (26, 25, 1)
    assert found["error_rate"] == 3.85
    assert found["avg_latency_ms"] == 1234.568
    assert found["total_cost_usd"] == "31"
    assert found["avg_cost_per_call_usd"] == "1.192307692"
    assert found["avg_tokens_per_call"] == 120
    assert (len(found["models"]), len(found["endpoints"])) == (10, 10)
    assert found["models"][0]["model"] == "m03"
    assert (await metrics(client, hours=26))["total_cost_usd"] == "131"
    assert (await metrics(client, user_id="bob"))["total_cost_usd"] == "5"
    of_key = await metrics(client, api_key_id="k")
    assert (of_key["total_calls"], of_key["models"][0]["model"]) == (1, "gpt-4o-mini")
    assert of_key["status_codes"] == {"200": 1}


async def test_s2_5_the_metrics_tell_the_budgets_of_those_asked_about(
    client: httpx.AsyncClient,
) -> None:
    money = {"metric": "cost_usd"}
    await make_limit(client, "10", **money, name="mine")
    await make_limit(client, "4", **money, name="bob's", scope={"user_id": "bob"})
    await make_limit(client, "8", **money, name="key's", scope={"api_key_id": "k"}, window="day")
    await make_limit(client, 5, name="no money")
    await make_limit(client, "1", **money, name="a shadow", action="shadow")
    await post(client, call(cost_usd="2.5", api_key_id="k"), call(user_id="bob", cost_usd="5"))
    mine = (await metrics(client, user_id="alice"))["budgets"]
    assert [one["name"] for one in mine["items"]] == ["mine"]
    assert (mine["active"], mine["total_usd"], mine["used_usd"]) == (1, "10", "2.5")
    assert (mine["percent_used"], mine["exceeded"]) == (25, 0)
    of_key = (await metrics(client, api_key_id="k"))["budgets"]
    assert [(one["name"], one["percent_used"]) for one in of_key["items"]] == [("key's", 31.25)]
    everyone = (await metrics(client))["budgets"]
    assert (everyone["active"], everyone["exceeded"], everyone["total_usd"]) == (3, 1, "22")
    assert (everyone["items"][0]["name"], everyone["highest_percent"]) == ("bob's", 125)


async def test_s2_6_no_cache_stands_between_a_write_and_what_is_told(
    client: httpx.AsyncClient,
) -> None:
    for count in range(1, 4):
        await post(client, call())
        assert (await metrics(client))["total_calls"] == count


STEPS = {
    "errors": ("5:15,10:30", [(5, 0), (5.01, 15), (10, 15), (10.01, 30), (100, 30)]),
    "latency": ("2:10,5:25", [(2, 0), (2.001, 10), (5, 10), (5.001, 25)]),
    "budgets": ("75:10,90:20", [(75, 0), (75.01, 10), (90, 10), (90.01, 20)]),
}


@pytest.mark.parametrize("name", STEPS)
def test_s2_7_deductions_grow_in_steps(name: str) -> None:
    text, expected = STEPS[name]
    assert [(value, points_for(value, steps_from(text))) for value, _ in expected] == expected
    at = steps_from("80:10,100:25")
    assert [points_for(value, at, at_least=True) for value in (79.99, 80, 99.99, 100)] == [
        *(0, 10, 10, 25)
    ]


async def test_s2_7_the_score_is_of_the_last_hour(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    await post(client, *(call(status_code=500, latency_ms=6_000) for _ in range(3)))
    told = await health(client)
    assert told["score"] == 100 - 30 - 25
    clock.advance(3 * HOUR)
    await post(client, *(call(latency_ms=2_100) for _ in range(15)), call(status_code=503))
    assert (await health(client))["score"] == 100 - 15 - 10
    await make_limit(client, "10", metric="cost_usd", window="month")
    await post(client, call(cost_usd="9.5"))
    told = await health(client)
    assert told["score"] == 100 - 15 - 10 - 20 - 10
    await post(client, call(cost_usd="1"))
    assert (await health(client))["score"] == 100 - 15 - 10 - 20 - 25


async def test_s2_8_the_status_says_what_the_score_means(client: httpx.AsyncClient) -> None:
    told = await health(client)
    assert (told["score"], told["status"]) == (100, "healthy")
    await post(client, *(call(latency_ms=6_000) for _ in range(9)))
    assert (await health(client))["status"] == "warning"
    await post(client, call(status_code=500), call(status_code=500))
    told = await health(client)
    assert (told["score"], told["status"]) == (45, "critical")
    ruin = settings_for("sqlite:///x.db").model_copy(update={"health_server_errors": "0:999"})
    parts = Parts(
        NONE._replace(calls=1, errors=1), {}, {}, {("500",): NONE._replace(calls=1)}, None, None
    )
    assert health_of(parts, Budgets([]), weights_of(ruin)).score == 0


async def test_s2_9_each_deduction_has_an_issue_and_a_recommendation(
    client: httpx.AsyncClient,
) -> None:
    await make_limit(client, "1", metric="cost_usd")
    await post(client, call(status_code=500, latency_ms=6_000, cost_usd="2"))
    told = await health(client)
    assert len(told["issues"]) == len(told["recommendations"]) == 4
    assert told["issues"][0] == "100.0% of the calls failed on the server's side"
    assert "6.00 s" in told["issues"][1]
    assert all(told["recommendations"])


async def test_s2_10_costs_by_model_endpoint_and_day(client: httpx.AsyncClient) -> None:
    await post(
        client,
        call(cost_usd="0.5", endpoint="/chat"),
        call(cost_usd="0.25", endpoint="/chat", timestamp=rfc3339(START - 24 * HOUR), model="m"),
        call(cost_usd="4", user_id="bob"),
    )
    answer = await client.get("/v1/analytics/costs", params={"user_id": "alice"})
    told = answer.json()
    assert told["days"] == len(told["daily"]) == 30
    assert (told["total_cost_usd"], told["total_cost_cents"]) == ("0.75", "75")
    assert (told["cost_per_call_usd"], told["tokens_per_call"]) == ("0.375", 120)
    assert (told["cost_per_token_usd"], told["cost_per_million_tokens_usd"]) == ("0.003125", "3125")
    by_model = {one["model"]: one["total_cost_usd"] for one in told["by_model"]}
    assert by_model == {"gpt-4o-mini": "0.5", "m": "0.25"}
    assert [(one["endpoint"], one["total_cost_usd"]) for one in told["by_endpoint"]] == [
        ("/chat", "0.75")
    ]
    assert [day["total_cost_usd"] for day in told["daily"]][-3:] == ["0", "0.25", "0.5"]
    everyone = (await client.get("/v1/analytics/costs")).json()
    assert everyone["total_cost_usd"] == "4.75"


async def test_s2_11_a_database_that_was_just_made_has_true_budgets(
    client: httpx.AsyncClient,
) -> None:
    told = await metrics(client)
    assert (told["total_calls"], told["budgets"]["active"]) == (0, 0)
    await make_limit(client, "1000", metric="cost_usd")
    await post(client, call(cost_usd="250"))
    found = (await metrics(client))["budgets"]
    assert (found["active"], found["total_usd"], found["used_usd"]) == (1, "1000", "250")
    assert found["percent_used"] == 25.0


async def test_s2_12_closing_finishes_what_was_accepted(
    client: httpx.AsyncClient, runtime: Runtime, db_url: str
) -> None:
    sent = [
        asyncio.create_task(client.post("/v1/events", json=call(id=f"e{n}"))) for n in range(40)
    ]
    await asyncio.sleep(0.01)
    await runtime.close()
    answers = await asyncio.gather(*sent)
    assert {one.status_code for one in answers} <= {201, 503}
    kept = Database.open(db_url)
    query = select(func.count()).select_from(UsageEvent)
    logged = (await kept.read(lambda tx: tx.fetch(query)))[0][0]
    await kept.close()
    assert logged == sum(one.status_code == 201 for one in answers)
