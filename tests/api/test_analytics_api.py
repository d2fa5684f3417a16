"""Analytics over HTTP: empty databases, refusals, outages, and the faults they must not have."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import delete

from app.core.clock import FrozenClock
from app.main import create_asgi
from app.pricing.catalog import Catalog
from app.runtime import Runtime, build
from app.summaries.tables import HourDimension
from tests.conftest import settings_for
from tests.defects.calls import call, make_limit, post

pytestmark = pytest.mark.anyio

PATHS = ("metrics", "health", "costs", "totals", "daily-cost", "backends", "pools")


async def get(client: httpx.AsyncClient, path: str, **query: Any) -> dict[str, Any]:
    answer = await client.get(f"/v1/analytics/{path}", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def ask(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("/v1/analytics/query", json={"measures": ["calls"]} | body)


async def test_d4_5_of_an_empty_database_zeros_and_nulls_are_told(
    client: httpx.AsyncClient,
) -> None:
    for path in PATHS:
        found = await get(client, path)
        assert found.get("total_calls", 0) == 0
        assert found.get("total_cost_usd", "0") == "0"
        assert found.get("avg_latency_ms") is None
        assert found.get("error_rate", 0.0) == 0.0
    assert (await get(client, "health"))["score"] == 100
    assert (await get(client, "totals"))["first_hour"] is None
    metrics = await get(client, "metrics")
    assert (metrics["calls_per_minute"], metrics["covered_minutes"]) == (0.0, 0.0)
    assert metrics["latency_ms"] == {"p50": None, "p95": None, "p99": None}
    assert {len(item["backends"]) for item in (await get(client, "backends"))["items"]} == {0}
    assert {len(item["pools"]) for item in (await get(client, "pools"))["items"]} == {0}
    answer = await ask(client, measures=["calls", "cost_usd", "avg_ttft_ms"], grain="hour")
    items = answer.json()["items"]
    assert len(items) == 24
    assert items[0]["measures"] == {"calls": 0, "cost_usd": "0", "avg_ttft_ms": None}


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ("metrics?hours=0", "/hours"),
        ("metrics?hours=9999999", "/hours"),
        ("metrics?hours=x", "/hours"),
        ("metrics?days=1", "/days"),
        ("metrics?user_id=%00", "/user_id"),
        ("metrics?api_key_id=k&team_id=red", "/team_id"),
        ("health?hours=-1", "/hours"),
        ("costs?days=0", "/days"),
        ("costs?days=3661", "/days"),
        ("totals?x=1", "/x"),
        ("daily-cost?date=yesterday", "/date"),
        ("backends?hours=8785", "/hours"),
        ("backends?since=2026-11-20", "/since"),
        ("backends?since=2026-11-20T13:00:00Z", "/since"),
        ("backends?since=2020-11-20T13:00:00Z", "/since"),
        ("pools?days=0", "/days"),
    ],
)
async def test_what_is_not_understood_is_refused_where_it_stands(
    client: httpx.AsyncClient, path: str, pointer: str
) -> None:
    answer = await client.get(f"/v1/analytics/{path}")
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"measures": []}, "/measures"),
        ({"measures": ["profit"]}, "/measures/0"),
        ({"measures": ["calls", "calls"]}, "/measures/1"),
        ({"group_by": ["colour"]}, "/group_by/0"),
        ({"group_by": ["model", "model"]}, "/group_by/1"),
        ({"group_by": ["endpoint", "backend"]}, "/group_by"),
        ({"group_by": ["team_id", "api_key_id"]}, "/group_by"),
        ({"group_by": ["user_id", "endpoint"]}, "/group_by"),
        ({"filters": {"endpoint": "/x", "pool": "eu"}}, "/filters"),
        ({"filters": {"model": []}}, "/filters/model"),
        ({"filters": {"model": ["m"] * 101}}, "/filters/model"),
        ({"filters": {"status_code": "abc"}}, "/filters/status_code"),
        ({"filters": {"status_code": "9999999999999999999999"}}, "/filters/status_code"),
        ({"grain": "week"}, "/grain"),
        ({"grain": "hour", "from": "2020-01-01T00:00:00Z"}, "/grain"),
        ({"from": "2026-11-20T12:30:00Z"}, "/from"),
        ({"from": "1969-01-01T00:00:00Z"}, "/from"),
        ({"to": "0001-01-01T00:00:00Z"}, "/to"),
        ({"to": "9999-12-31T23:59:59Z"}, "/to"),
        ({"from": "2026-11-20T00:00:00Z", "to": "2026-11-19T00:00:00Z"}, "/to"),
        ({"limit": 5}, "/limit"),
    ],
)
async def test_a_question_that_cannot_be_answered_is_refused_where_it_stands(
    client: httpx.AsyncClient, body: dict[str, Any], pointer: str
) -> None:
    answer = await ask(client, **body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"].startswith(pointer)


async def test_a_question_by_names_that_no_total_keeps_is_answered_for_one_user(
    client: httpx.AsyncClient,
) -> None:
    await post(
        client,
        call(endpoint="/x", backend="b", timestamp="2026-11-20T12:10:00Z"),
        call(endpoint="/x", backend="b", timestamp="2026-11-20T12:20:00Z"),
        call(endpoint="/x", backend="b", user_id="bob"),
    )
    one = {"filters": {"user_id": "alice"}, "group_by": ["endpoint", "backend"]}
    half = {"from": "2026-11-20T12:15:00Z", "to": "2026-11-20T13:00:00Z"}
    for span, calls in (({}, 2), (half, 1)):
        items = (await ask(client, **one, **span)).json()["items"]
        assert [item["measures"]["calls"] for item in items] == [calls]
        assert items[0]["group"] == {"endpoint": "/x", "backend": "b"}


async def test_more_items_than_allowed_are_refused_and_not_cut_off(
    client: httpx.AsyncClient,
) -> None:
    await post(client, *(call(model=f"m{n}", user_id=f"u{n}") for n in range(420)))
    for name in ("model", "user_id"):
        answer = await ask(client, group_by=[name], grain="hour")
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/group_by"
        assert len((await ask(client, group_by=[name])).json()["items"]) == 420


async def test_what_a_key_called_is_not_told_of_hours_before_it_was_kept(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await post(client, call(api_key_id="k", timestamp="2026-11-20T10:00:00Z"))
    gone = delete(HourDimension).where(HourDimension.dimension == "key_calls")
    await runtime.db.write(lambda tx: tx.run(gone))
    await post(client, call(api_key_id="k"))
    found = await get(client, "metrics", api_key_id="k")
    assert (found["total_calls"], found["models"], found["status_codes"]) == (2, None, None)
    assert (await get(client, "metrics", api_key_id="k", hours=1))["status_codes"] == {"200": 1}
    answer = await ask(client, group_by=["api_key_id", "model"])
    assert answer.json()["errors"][0]["pointer"] == "/from"
    found = (await ask(client, group_by=["api_key_id"])).json()
    assert found["items"][0]["measures"] == {"calls": 2}


async def test_every_answer_has_an_example_with_all_of_its_members(
    client: httpx.AsyncClient,
) -> None:
    document = (await client.get("/openapi.json")).json()
    schemas, checked = document["components"]["schemas"], 0
    for path, methods in document["paths"].items():
        if not path.startswith("/v1/analytics/") and not path.endswith(
            ("/usage/daily", "/usage/monthly", "/usage/series")
        ):
            continue
        for operation in methods.values():
            schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
            found = schemas[schema["$ref"].rpartition("/")[2]]
            assert found["example"].keys() == found["properties"].keys(), path
            checked += 1
    assert checked >= 11


# ---- faults that such figures had ---------------------------------------------------------------


async def test_d2_1_two_writers_and_a_restart_change_no_figure(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock, catalog: Catalog
) -> None:
    await post(client, *(call(backend="b", latency_ms=100) for _ in range(3)))
    other = build(runtime.settings.model_copy(update={"shard": 7}), clock=clock, catalog=catalog)
    await other.start()
    transport = httpx.ASGITransport(create_asgi(other))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://other", headers=dict(client.headers)
    ) as beside:
        await post(beside, *(call(backend="b", latency_ms=400) for _ in range(3)))
        told = [await get(one, "metrics") for one in (client, beside)]
        served = [await get(one, "backends", hours=1) for one in (client, beside)]
    await other.close()
    assert told[0] == told[1]
    assert served[0] == served[1]
    assert served[0]["items"][0]["backends"][0]["avg_latency_ms"] == 250
    found = await get(client, "metrics")
    assert found["total_tokens"] == found["total_calls"] * found["avg_tokens_per_call"] == 720


async def test_d2_3_the_rate_is_over_the_time_that_anything_is_known_of(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    await post(client, *(call() for _ in range(90)))
    found = await get(client, "metrics")
    assert (found["covered_minutes"], found["calls_per_minute"]) == (30, 3)
    clock.advance(timedelta(hours=1))
    found = await get(client, "metrics")
    assert (found["covered_minutes"], found["calls_per_minute"]) == (90, 1)
    assert (await get(client, "metrics", user_id="nobody"))["calls_per_minute"] == 0


async def test_d2_5_an_outage_is_an_error_and_never_zeros(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.db.engine.random.uniform", lambda _low, _high: 0.001)
    await post(client, call())

    async def broken(*_: object, **__: object) -> None:
        raise OSError("the database is gone")

    with monkeypatch.context() as patch:
        for module in ("everyone", "costs", "query"):
            patch.setattr(f"app.analytics.{module}.summed", broken)
        patch.setattr("app.analytics.costs.hurry", broken)
        answers = [await client.get(f"/v1/analytics/{path}") for path in PATHS]
        answers.append(await ask(client, group_by=["user_id"]))
    for answer in answers:
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        assert "score" not in answer.text
        assert "total_calls" not in answer.text


async def test_d2_6_health_sees_a_budget_that_is_exceeded(client: httpx.AsyncClient) -> None:
    await make_limit(client, "1", metric="cost_usd")
    await make_limit(client, "99", metric="cost_usd", scope={"user_id": "bob"})
    await post(client, call(cost_usd="2"))
    found = await get(client, "health")
    assert found["budgets"]["exceeded"] == 1
    assert found["score"] == 75
    assert found["issues"] == ["1 of 2 budgets exceeded; the fullest stands at 200.0%"]


async def test_d2_6_a_window_that_is_over_is_no_budget_any_more(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    for window in ("minute", "hour", "day", "week", "month", "billing_period", "lifetime"):
        await make_limit(client, "1", metric="cost_usd", window=window, name=window)
    await post(client, call(cost_usd="2"))
    spent = {}
    for wait in (timedelta(), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)):
        clock.advance(wait)
        budgets = (await get(client, "metrics", user_id="alice"))["budgets"]
        assert budgets["active"] == 7
        spent[wait] = {one["name"] for one in budgets["items"] if one["percent_used"] == 200}
    long = {"week", "month", "billing_period", "lifetime"}
    assert list(spent.values()) == [
        {"minute", "hour", "day"} | long,
        {"hour", "day"} | long,
        {"day"} | long,
        long,
    ]
    clock.advance(timedelta(days=12))
    budgets = (await get(client, "metrics"))["budgets"]
    assert {one["name"] for one in budgets["items"] if one["percent_used"]} == {"lifetime"}


async def test_d2_7_a_users_budgets_are_their_own_and_their_plans(
    client: httpx.AsyncClient,
) -> None:
    plan = (await client.get("/v1/plans")).json()["items"][0]["id"]
    await make_limit(client, "10", metric="cost_usd", scope={"plan_id": plan}, name="plan")
    await make_limit(client, "99", metric="cost_usd", scope={"all": True}, name="all")
    await make_limit(client, "50", metric="cost_usd", scope={"team_id": "red"}, name="team")
    await post(client, call(cost_usd="1"), call(user_id="bob", cost_usd="8", team_id="red"))
    for who, used in (("alice", "1"), ("bob", "8")):
        budgets = (await get(client, "metrics", user_id=who))["budgets"]
        assert [one["name"] for one in budgets["items"]] == ["plan"]
        assert (budgets["used_usd"], budgets["total_usd"]) == (used, "10")
    everyone = (await get(client, "metrics"))["budgets"]
    assert (everyone["active"], everyone["total_usd"]) == (4, "169")
    assert (await get(client, "metrics", team_id="red"))["budgets"]["used_usd"] == "8"


async def test_d2_10_figures_are_read_and_written_at_once_and_none_is_stale(
    client: httpx.AsyncClient,
) -> None:
    async def write(number: int) -> None:
        await post(client, call(id=str(number), cost_usd="1"))
        told = await get(client, "metrics")
        assert int(told["total_cost_usd"]) == told["total_calls"] > 0

    await asyncio.gather(*(write(number) for number in range(20)))
    assert (await get(client, "metrics"))["total_calls"] == 20


async def test_d2_11_what_the_client_did_wrong_is_told_apart(client: httpx.AsyncClient) -> None:
    await post(client, *(call(status_code=429) for _ in range(9)), call())
    found = await get(client, "health")
    assert (found["error_rate"], found["client_error_rate"]) == (90, 90)
    assert (found["server_error_rate"], found["score"], found["issues"]) == (0, 100, [])


async def test_what_takes_points_can_be_set(
    db_url: str, client: httpx.AsyncClient, clock: FrozenClock, runtime: Runtime
) -> None:
    settings = settings_for(db_url).model_copy(
        update={"health_client_errors": "50:40", "health_warning": 50}
    )
    await post(client, call(status_code=404))
    object.__setattr__(runtime, "settings", settings)
    found = await get(client, "health")
    assert (found["score"], found["status"]) == (60, "warning")
    assert found["issues"] == ["100.0% of the calls were refused as the client's fault"]


async def test_d4_6_hours_are_hours_however_many_backends(client: httpx.AsyncClient) -> None:
    await post(client, *(call(backend=f"b{n}") for n in range(200)))
    items = (await get(client, "backends"))["items"]
    assert len(items) == 169
    assert len(items[0]["backends"]) == 200
