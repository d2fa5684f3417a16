"""`GET /v1/users/{user_id}/usage` and `…/usage/trends` over HTTP."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import func, insert, select, update

from app.alerts.tables import Alert
from app.core.clock import EPOCH, FrozenClock, rfc3339
from app.db.changes import announce
from app.db.engine import Tx
from app.db.types import Base
from app.limits.tables import Limit
from app.plans.tables import Plan, Subscription
from app.runtime import Runtime

pytestmark = pytest.mark.anyio


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


async def post(client: httpx.AsyncClient, *events: dict[str, Any]) -> None:
    answer = await client.post("/v1/events?backfill=true", json=list(events))
    assert answer.status_code == 200, answer.text


async def limit(runtime: Runtime, **values: Any) -> None:
    """Set a limit from the beginning of time, as an administrator would."""
    row = {
        "id": "lim_1",
        "name": "calls",
        "scope_key": "user:alice",
        "provider": None,
        "model": None,
        "endpoint": None,
        "metric": "calls",
        "window": "billing_period",
        "amount": 10,
        "action": "block",
        "thresholds": "10,20,30,40,50,60,70,80,90,95,100",
        "created_at": EPOCH,
        "counts_from": EPOCH,
    } | values

    async def work(tx: Tx) -> None:
        await tx.run(insert(Limit), [row])
        await announce(tx, "limits", row["scope_key"], runtime.clock.now())

    await runtime.db.write(work, alone=True)


async def subscribe(runtime: Runtime, starts: str, anchor: str, interval: str, zone: str) -> None:
    async def work(tx: Tx) -> None:
        plan_id = (await tx.fetch(select(Plan.id)))[0][0]
        row = {
            "user_id": "alice",
            "starts_at": at(starts),
            "plan_id": plan_id,
            "anchor_at": at(anchor),
            "interval": interval,
            "timezone": zone,
            "created_at": runtime.clock.now(),
        }
        await tx.run(insert(Subscription), [row])
        await announce(tx, "subscriptions", "alice", runtime.clock.now())

    await runtime.db.write(work, alone=True)


async def rows_of(runtime: Runtime) -> dict[str, int]:
    async def work(tx: Tx) -> dict[str, int]:
        return {
            table.name: (await tx.fetch(select(func.count()).select_from(table)))[0][0]
            for table in Base.metadata.sorted_tables
        }

    return await runtime.db.read(work)


async def test_a_user_never_seen_gets_zeros_and_nothing_is_written(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await limit(runtime, scope_key="all")
    before = await rows_of(runtime)
    usage = await client.get("/v1/users/nobody/usage")
    assert usage.status_code == 200
    body = usage.json()
    assert body.pop("limits")[0] | {"resets_at": None} == {
        "id": "lim_1",
        "name": "calls",
        "metric": "calls",
        "window": "billing_period",
        "scope": {"all": True},
        "limit": 10,
        "used": 0,
        "held": 0,
        "remaining": 10,
        "percent_used": 0.0,
        "resets_at": None,
        "action": "block",
        "allowed": True,
        "raised_until": None,
    }
    assert body == {
        "billing_period": {
            "key": "2026-11",
            "start": "2026-11-01T00:00:00Z",
            "end": "2026-12-01T00:00:00Z",
        },
        "usage_status": "active",
        "total_calls": 0,
        "total_tokens": 0,
        "input_tokens": 0,
        "output_tokens": 0,
        "total_cost_usd": "0",
        "avg_latency_ms": None,
        "error_rate": 0,
        "providers": {},
        "usage_percentages": {"calls": 0},
        "alerts": [],
        "last_updated": None,
        "unpriced_calls": 0,
    }
    trends = (await client.get("/v1/users/nobody/usage/trends?periods=3")).json()["items"]
    assert [item["billing_period"]["key"] for item in trends] == ["2026-09", "2026-10", "2026-11"]
    assert {item["total_calls"] for item in trends} == {0}
    await client.get("/v1/users/nobody/events")
    await client.get("/v1/users/nobody/events/e")
    await client.get("/v1/audit/consistency")
    assert await rows_of(runtime) == before


async def test_usage_sums_the_period(client: httpx.AsyncClient, clock: FrozenClock) -> None:
    mini = {"user_id": "alice", "provider": "openai", "model": "gpt-4o-mini"}
    tokens = {"input_tokens": 1200, "output_tokens": 300}
    await post(
        client,
        mini | {"id": "1", "usage": tokens, "latency_ms": 100.5},
        mini | {"id": "2", "usage": tokens, "latency_ms": 300, "status_code": 503},
        mini | {"id": "3", "usage": tokens, "cost_usd": "1.000000001"},
        {"id": "4", "user_id": "alice"},
        mini | {"id": "5", "usage": tokens, "timestamp": "2026-10-31T23:59:59.999999Z"},
        mini | {"id": "6", "usage": tokens, "user_id": "bob"},
    )
    await post(client, mini | {"id": "1", "usage": tokens, "latency_ms": 100.5})
    body = (await client.get("/v1/users/alice/usage")).json()
    assert list(body) == [
        *("billing_period", "usage_status", "total_calls", "total_tokens", "input_tokens"),
        *("output_tokens", "total_cost_usd", "avg_latency_ms", "error_rate", "providers"),
        *("limits", "usage_percentages", "alerts", "last_updated", "unpriced_calls"),
    ]
    assert body["total_calls"] == 4
    assert body["total_tokens"] == 4500
    assert (body["input_tokens"], body["output_tokens"]) == (3600, 900)
    assert body["total_cost_usd"] == "1.000720001"
    assert body["avg_latency_ms"] == 200.25
    assert body["error_rate"] == 25
    assert body["unpriced_calls"] == 1
    assert body["last_updated"] == "2026-11-20T12:30:00Z"
    model = {
        "calls": 3,
        "tokens": 4500,
        "input_tokens": 3600,
        "output_tokens": 900,
        "cost_usd": "1.000720001",
    }
    none = {"calls": 1, "tokens": 0, "cost_usd": "0"}
    assert body["providers"] == {
        "openai": {
            "calls": 3,
            "tokens": 4500,
            "cost_usd": "1.000720001",
            "models": {"gpt-4o-mini": model},
        },
        "unknown": none | {"models": {"unknown": none | {"input_tokens": 0, "output_tokens": 0}}},
    }
    for key in ("2026-10", "2026-10-01"):
        before = (await client.get(f"/v1/users/alice/usage?billing_period={key}")).json()
        assert before["billing_period"]["key"] == "2026-10"
        assert before["total_calls"] == 1
    assert (await client.get("/v1/users/alice/usage?billing_period=2026-12")).json()[
        "total_calls"
    ] == 0


@pytest.mark.parametrize(
    "key",
    [
        *("", "2026", "2026-13", "2026-1", "2026-11-02", "2026-11-31", "1969-12", "9999-12"),
        *("0000-01", "2026-11-20T00:00:00Z", "%D9%A2026-11", "2026-W45", "2026-W45-1", "20261101"),
    ],
)
async def test_a_period_that_is_none_is_refused(client: httpx.AsyncClient, key: str) -> None:
    answer = await client.get(f"/v1/users/alice/usage?billing_period={key}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/billing_period"


@pytest.mark.parametrize(
    "path",
    [
        *("usage?period=2026-11", "usage/trends?periods=0", "usage/trends?periods=121"),
        *("usage/trends?periods=x", "usage/trends?n=1"),
    ],
)
async def test_bad_queries_are_refused(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(f"/v1/users/alice/{path}")).status_code == 422


async def test_limits_and_alerts_are_told(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await limit(runtime)
    await limit(runtime, id="lim_2", name="twice", metric="cost_usd", amount=2 * 10**9)
    await limit(runtime, id="lim_3", name="twice", amount=None)
    for number in range(12):
        clock.advance(timedelta(minutes=1))
        await post(client, {"id": f"e{number}", "user_id": "alice", "cost_usd": "0.1"})
    body = (await client.get("/v1/users/alice/usage")).json()
    assert body["usage_status"] == "limit_reached"
    assert body["usage_percentages"] == {
        "calls": 120.0,
        "twice (lim_2)": 60.0,
        "twice (lim_3)": 0.0,
    }
    states = {state["id"]: state for state in body["limits"]}
    assert states["lim_1"]["used"] == 12
    assert states["lim_1"]["allowed"] is False
    assert states["lim_2"]["used"] == "1.2"
    assert states["lim_3"]["limit"] is None
    assert len(body["alerts"]) == 10
    newest = body["alerts"][0]
    assert newest | {"id": "", "title": "", "message": ""} == {
        "id": "",
        "limit_id": "lim_2",
        "type": "usage_warning",
        "severity": "info",
        "threshold": 60,
        "title": "",
        "message": "",
        "billing_period": "2026-11",
        "created_at": "2026-11-20T12:42:00Z",
        "read": False,
        "sent_at": None,
    }
    times = [alert["created_at"] for alert in body["alerts"]]
    assert times == sorted(times, reverse=True)

    async def read(tx: Tx) -> None:
        await tx.run(update(Alert).where(Alert.id == newest["id"]).values(read_at=clock.now()))

    await runtime.db.write(read)
    again = (await client.get("/v1/users/alice/usage")).json()["alerts"]
    assert newest["id"] not in [alert["id"] for alert in again]


async def test_trends_fill_gaps(client: httpx.AsyncClient) -> None:
    event = {"user_id": "alice", "provider": "openai", "model": "gpt-4o-mini"}
    await post(
        client,
        event | {"id": "1", "timestamp": "2026-11-01T00:00:00Z", "cost_usd": "1"},
        event | {"id": "2", "timestamp": "2026-08-31T23:59:59Z", "cost_usd": "2"},
        event | {"id": "3", "timestamp": "2026-05-31T23:59:59Z"},
    )
    items = (await client.get("/v1/users/alice/usage/trends")).json()["items"]
    assert [(item["billing_period"]["key"], item["total_calls"]) for item in items] == [
        *(("2026-06", 0), ("2026-07", 0), ("2026-08", 1)),
        *(("2026-09", 0), ("2026-10", 0), ("2026-11", 1)),
    ]
    assert list(items[0]) == [
        *("billing_period", "total_calls", "total_tokens", "total_cost_usd"),
        *("avg_latency_ms", "error_rate", "providers"),
    ]
    assert items[2]["total_cost_usd"] == "2"
    assert items[2]["providers"]["openai"]["models"]["gpt-4o-mini"]["calls"] == 1
    assert items[0]["providers"] == {}
    many = (await client.get("/v1/users/alice/usage/trends?periods=120")).json()["items"]
    assert len(many) == 120
    assert sum(item["total_calls"] for item in many) == 3


async def test_anchored_terms_and_several_of_them(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await post(client, {"id": "0", "user_id": "alice", "timestamp": "2026-08-20T00:00:00Z"})
    await subscribe(runtime, "2026-09-15T07:00:00", "2026-09-15T07:00:00", "month", "Europe/Berlin")
    await subscribe(runtime, "2026-11-18T00:00:00", "2026-11-16T00:00:00", "week", "UTC")
    events = ["2026-09-10", "2026-09-20", "2026-10-20", "2026-11-17", "2026-11-19"]
    await post(
        client,
        *({"id": day, "user_id": "alice", "timestamp": f"{day}T00:00:00Z"} for day in events),
    )
    items = (await client.get("/v1/users/alice/usage/trends?periods=6")).json()["items"]
    shown = [(item["billing_period"], item["total_calls"]) for item in items]
    assert [(period["key"], calls) for period, calls in shown] == [
        ("2026-08", 1),
        ("2026-09", 1),
        ("2026-09-15", 1),
        ("2026-10-15", 1),
        ("2026-11-15", 1),
        ("2026-11-18", 1),
    ]
    assert shown[-2][0]["start"] == "2026-11-15T08:00:00Z"  # Berlin left summer time
    assert shown[-2][0]["end"] == shown[-1][0]["start"] == "2026-11-18T00:00:00Z"
    assert shown[-1][0]["end"] == "2026-11-23T00:00:00Z"
    for period, calls in shown:
        key = period["key"]
        usage = (await client.get(f"/v1/users/alice/usage?billing_period={key}")).json()
        assert usage["billing_period"] == period
        assert usage["total_calls"] == calls
    now = (await client.get("/v1/users/alice/usage")).json()
    assert now["billing_period"] == shown[-1][0]
    listed = (await client.get("/v1/users/alice/events")).json()["items"]
    assert listed[0]["billing_period"] == "2026-11-18"
    assert (await client.get("/v1/audit/consistency")).json()["consistent"] is True
    assert (await client.get("/v1/users/alice/usage?billing_period=2026-11")).status_code == 422


async def test_yearly_periods_stop_at_the_beginning_of_time(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await subscribe(runtime, "1970-01-01T00:00:00", "1970-01-01T00:00:00", "year", "UTC")
    items = (await client.get("/v1/users/alice/usage/trends?periods=120")).json()["items"]
    assert len(items) == 57
    assert items[0]["billing_period"]["key"] == "1970-01-01"


async def test_the_routes_are_described(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    listing = paths["/v1/users/{user_id}/events"]["get"]
    assert {"from", "to", "tag.NAME", "cursor", "limit"} <= {
        parameter["name"] for parameter in listing["parameters"]
    }
    for path in ("usage", "usage/trends", "events/{event_id}"):
        assert paths[f"/v1/users/{{user_id}}/{path}"]["get"]["description"]


async def test_periods_that_share_a_key_are_told_by_the_instant_they_start(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    for number in range(4):
        await post(client, {"id": f"{number}", "user_id": "alice"})
        clock.advance(timedelta(minutes=5, microseconds=7))
        if number < 3:
            assert (await client.post("/v1/users/alice/usage/reset")).status_code == 200
            clock.advance(timedelta(minutes=5))
    periods = (await client.get("/v1/users/alice/periods")).json()["items"]
    assert len({one["key"] for one in periods}) < len(periods) == 4
    for period in periods:
        for start in (period["start"], period["start"].replace("Z", "+00:00")):
            query = {"billing_period": start}
            found = (await client.get("/v1/users/alice/usage", params=query)).json()
            assert found["billing_period"] == {
                name: period[name] for name in ("key", "start", "end")
            }
            assert found["total_calls"] == period["total_calls"] == 1
            then = {"as_of": rfc3339(clock.now())}
            known = (await client.get("/v1/users/alice/usage", params=query | then)).json()
            assert known["billing_period"] == found["billing_period"]
    for wrong in ("2026-11-20T12:00:00Z", "2026-11-20T12:00:00", "9999-12-31T23:59:59-12:00"):
        answer = await client.get(f"/v1/users/alice/usage?billing_period={wrong}")
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/billing_period"
