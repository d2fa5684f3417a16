"""`GET /v1/audit/consistency`: true after honest work, and every kind of tampering is found."""

import random
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from app.core.clock import EPOCH, FrozenClock, rfc3339
from app.db.engine import Tx
from app.runtime import Runtime
from tests.api.test_usage_api import limit, subscribe

pytestmark = pytest.mark.anyio
IDENTITIES = (
    "log_equals_hour_totals",
    "hour_totals_equal_period_totals",
    "events_counted_once",
    "hour_totals_equal_models",
    "hour_totals_equal_endpoints",
    "hour_totals_equal_status_codes",
    "limit_counters_equal_log",
    "alerts_equal_thresholds_reached",
    "held_equals_open_holds",
    "adjustments_sum_to_present",
    "corrections_sum_to_present",
    "archives_equal_wrapped",
)


def mixed(count: int, clock: FrozenClock, seed: int) -> list[dict[str, Any]]:
    """Calls of every kind: errors, unpriced, bare, late, of teams and keys, some sent twice."""
    pick = random.Random(seed)
    events: list[dict[str, Any]] = []
    for number in range(count):
        event: dict[str, Any] = {
            "id": f"{seed}-{number}",
            "user_id": pick.choice(["alice", "bob", "org/carol", "dave"]),
            "timestamp": rfc3339(clock.now() - timedelta(minutes=pick.randrange(60 * 24 * 30))),
            "status_code": pick.choice([200, 200, 200, 429, 500]),
        }
        if pick.random() < 0.8:
            event |= {"provider": "openai", "model": pick.choice(["gpt-4o", "gpt-4o-mini", "no"])}
            event["usage"] = {
                "input_tokens": pick.randrange(1000, 5000),
                "cache_read_tokens": pick.randrange(1000),
                "output_tokens": pick.randrange(500),
                "requests": 1,
            }
        for name, values in (
            ("endpoint", ["/chat", "/responses"]),
            ("latency_ms", [12.5, 900]),
            ("ttft_ms", [3, 4.25]),
            ("team_id", ["red", "blue"]),
            ("api_key_id", ["k1"]),
            ("task_type", ["chat"]),
        ):
            if pick.random() < 0.5:
                event[name] = pick.choice(values)
        events.append(event)
    return events + pick.sample(events, count // 5)


async def limits(runtime: Runtime) -> None:
    every = "50,80,90,100"
    for number, values in enumerate(
        (
            {"scope_key": "user:alice", "amount": 40},
            {"scope_key": "user:alice", "metric": "tokens", "window": "week", "amount": 100_000},
            {"scope_key": "all", "metric": "cost_usd", "window": "day", "amount": 10**7},
            {"scope_key": "all", "window": "lifetime", "amount": 250, "action": "warn"},
            {
                "scope_key": "team:red",
                "window": "hour",
                "amount": 2,
                "endpoint": "/chat",
                "action": "shadow",
            },
            {"scope_key": "key:k1", "window": "month", "amount": None},
            {"scope_key": "key:k1", "metric": "input_tokens", "window": "minute", "amount": 0},
            {"scope_key": "user:bob", "metric": "output_tokens", "model": "gpt-4o", "amount": 900},
        )
    ):
        await limit(runtime, id=f"lim_{number}", name=f"limit {number}", thresholds=every, **values)


async def fill(client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock) -> None:
    await subscribe(runtime, "1970-01-01T00:00:00", "2026-10-15T00:00:00", "month", "UTC")
    await limits(runtime)
    for seed in range(3):
        clock.advance(timedelta(minutes=7))
        answer = await client.post("/v1/events", json=mixed(120, clock, seed))
        assert answer.status_code == 200, answer.text
        assert answer.json()["duplicates"] == 24


async def audit(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.get("/v1/audit/consistency")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert found["consistent"] is (not found["differences"]) is (not found["difference_count"])
    return found


def failing(found: dict[str, Any]) -> list[str]:
    names = [one["name"] for one in found["identities"] if not one["holds"]]
    assert set(names) == {one["identity"] for one in found["differences"]}
    return names


async def tamper(runtime: Runtime, *statements: str) -> None:
    async def work(tx: Tx) -> int:
        return [await tx.run(text(one)) for one in statements][-1]

    assert await runtime.db.write(work)


async def test_an_empty_database_is_consistent(client: httpx.AsyncClient) -> None:
    found = await audit(client)
    assert found == {
        "consistent": True,
        "checked_at": "2026-11-20T12:30:00Z",
        "identities": [{"name": name, "holds": True, "compared": 0} for name in IDENTITIES],
        "differences": [],
        "difference_count": 0,
    }


async def test_honest_work_is_consistent(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await fill(client, runtime, clock)
    found = await audit(client)
    assert found["differences"] == []
    assert found["consistent"] is True
    compared = {one["name"]: one["compared"] for one in found["identities"]}
    assert compared["events_counted_once"] == 360
    assert compared.pop("adjustments_sum_to_present") == 0
    assert compared.pop("corrections_sum_to_present") == 0
    assert compared.pop("held_equals_open_holds") == 0
    assert compared.pop("archives_equal_wrapped") == 0
    assert min(compared.values()) > 10
    assert (await client.get("/v1/audit/consistency?x=1")).status_code == 422


MINI = "user_id = 'alice' AND model = 'gpt-4o-mini'"
FIRST = "(SELECT min(event_id) FROM usage_events WHERE user_id = 'alice')"
REACHED = "limit_id = 'lim_3' AND threshold = 80"


@pytest.mark.parametrize(
    ("statement", "names"),
    [
        (
            f"DELETE FROM usage_events WHERE user_id = 'alice' AND event_id = {FIRST}",
            {"log_equals_hour_totals", "limit_counters_equal_log"},
        ),
        (
            "UPDATE usage_events SET ttft_us = coalesce(ttft_us, 0) + 1 "
            f"WHERE user_id = 'alice' AND event_id = {FIRST}",
            {"log_equals_hour_totals"},
        ),
        (
            f"UPDATE period_totals SET cost_nanos = cost_nanos + 1 WHERE {MINI}",
            {"hour_totals_equal_period_totals"},
        ),
        (f"DELETE FROM period_totals WHERE {MINI}", {"hour_totals_equal_period_totals"}),
        (
            f"UPDATE hour_totals SET errors = errors + 1 WHERE {MINI} AND hour = "
            f"(SELECT min(hour) FROM hour_totals WHERE {MINI})",
            {
                "log_equals_hour_totals",
                "hour_totals_equal_period_totals",
                "hour_totals_equal_models",
                "hour_totals_equal_endpoints",
                "hour_totals_equal_status_codes",
            },
        ),
        (
            "UPDATE hour_dimensions SET cache_read_tokens = cache_read_tokens + 1 "
            "WHERE dimension = 'model'",
            {"hour_totals_equal_models"},
        ),
        (
            "UPDATE hour_dimensions SET value = value || 'x' WHERE dimension = 'model'",
            {"hour_totals_equal_models"},
        ),
        (
            "DELETE FROM hour_dimensions WHERE dimension = 'endpoint' AND value = '/chat'",
            {"hour_totals_equal_endpoints"},
        ),
        (
            "UPDATE hour_dimensions SET unpriced_calls = unpriced_calls + 1 "
            "WHERE dimension = 'status_code' AND value = '500'",
            {"hour_totals_equal_status_codes"},
        ),
        (
            "UPDATE limit_counters SET used = used + 1 WHERE limit_id = 'lim_5'",
            {"limit_counters_equal_log"},
        ),
        ("DELETE FROM limit_counters WHERE limit_id = 'lim_5'", {"limit_counters_equal_log"}),
        (
            "INSERT INTO limit_counters (scope_key, limit_id, window_start, used, held) "
            "SELECT 'key:other', limit_id, window_start, 1, 0 FROM limit_counters "
            "WHERE limit_id = 'lim_5' LIMIT 1",
            {"limit_counters_equal_log"},
        ),
        (f"DELETE FROM alerts WHERE {REACHED}", {"alerts_equal_thresholds_reached"}),
        (
            f"UPDATE alerts SET threshold = 99 WHERE {REACHED}",
            {"alerts_equal_thresholds_reached"},
        ),
        (
            "UPDATE alerts SET scope_key = 'user:mallory' WHERE limit_id = 'lim_0'",
            {"alerts_equal_thresholds_reached"},
        ),
    ],
)
async def test_tampering_is_found_and_named(
    client: httpx.AsyncClient,
    runtime: Runtime,
    clock: FrozenClock,
    statement: str,
    names: set[str],
) -> None:
    await fill(client, runtime, clock)
    await tamper(runtime, statement)
    assert set(failing(await audit(client))) == names


async def test_a_difference_says_where_and_how_much(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await limit(runtime, thresholds="100", amount=2)
    clock.advance(timedelta(minutes=1))
    event = {"user_id": "alice", "provider": "openai", "model": "gpt-4o-mini", "cost_usd": "0.5"}
    await client.post("/v1/events", json=[event | {"id": "1"}, event | {"id": "2"}])
    await tamper(
        runtime,
        "DELETE FROM alerts",
        "UPDATE limit_counters SET used = 3",
        "UPDATE period_totals SET cost_nanos = 1",
        "UPDATE hour_dimensions SET calls = 7 WHERE dimension = 'model'",
    )
    model = {"provider": "openai", "model": "gpt-4o-mini"}
    window = {"scope": "user:alice", "limit_id": "lim_1", "window_start": "2026-11-01T00:00:00Z"}
    found = await audit(client)
    assert found["difference_count"] == 4
    assert found["differences"] == [
        {
            "identity": "hour_totals_equal_period_totals",
            "where": {"user_id": "alice", **model, "measure": "cost_usd"},
            "expected": "1",
            "found": "0.000000001",
        },
        {
            "identity": "hour_totals_equal_models",
            "where": {"hour": "2026-11-20T12:00:00Z", **model, "measure": "calls"},
            "expected": 2,
            "found": 7,
        },
        {
            "identity": "limit_counters_equal_log",
            "where": window | {"measure": "calls"},
            "expected": 2,
            "found": 3,
        },
        {
            "identity": "alerts_equal_thresholds_reached",
            "where": window | {"threshold": "100", "measure": "alerts"},
            "expected": 1,
            "found": 0,
        },
    ]


async def test_an_event_counted_twice_is_found(client: httpx.AsyncClient, runtime: Runtime) -> None:
    await client.post("/v1/events", json={"id": "1", "user_id": "alice"})
    if runtime.db.dialect == "sqlite":
        await tamper(
            runtime,
            "CREATE TABLE copied AS SELECT * FROM usage_events",
            "DROP TABLE usage_events",
            "ALTER TABLE copied RENAME TO usage_events",
            "INSERT INTO usage_events SELECT * FROM usage_events",
        )
    else:
        await tamper(
            runtime,
            "ALTER TABLE usage_events DROP CONSTRAINT pk_usage_events",
            "INSERT INTO usage_events SELECT * FROM usage_events",
        )
    found = await audit(client)
    assert set(failing(found)) == {"log_equals_hour_totals", "events_counted_once"}
    assert {
        "identity": "events_counted_once",
        "where": {"user_id": "alice", "event_id": "1"},
        "expected": 1,
        "found": 2,
    } in found["differences"]


async def test_sums_beyond_64_bits_are_compared_exactly(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    dear = {"user_id": "alice", "provider": "p", "model": "m", "cost_usd": "9000000000"}
    for days in (0, 25):
        at = rfc3339(clock.now() - timedelta(days=days))
        answer = await client.post("/v1/events", json=dear | {"id": str(days), "timestamp": at})
        assert answer.status_code == 201, answer.text
    found = await audit(client)
    assert found["differences"] == []
    await tamper(runtime, "UPDATE period_totals SET cost_nanos = cost_nanos - 1")
    found = await audit(client)
    assert found["differences"] == [
        {
            "identity": "hour_totals_equal_period_totals",
            "where": {"user_id": "alice", "provider": "p", "model": "m", "measure": "cost_usd"},
            "expected": "18000000000",
            "found": "17999999999.999999998",
        }
    ]


async def test_at_most_a_thousand_differences_are_shown_and_all_are_counted(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    events = [{"id": "1", "user_id": f"user {number}"} for number in range(1_100)]
    await client.post("/v1/events", json=events)
    await tamper(runtime, "DELETE FROM period_totals")
    found = await audit(client)
    assert len(found["differences"]) == 1_000
    assert found["difference_count"] == 3_300  # calls, requests and unpriced calls of each


async def test_a_limit_is_judged_from_when_it_is_as_it_is(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    """A threshold reached before a limit was lowered need not have an alert."""
    await limit(runtime, thresholds="100", amount=10, created_at=EPOCH)
    await client.post("/v1/events", json=[{"id": str(n), "user_id": "alice"} for n in range(5)])
    assert (await audit(client))["consistent"] is True
    clock.advance(timedelta(minutes=1))
    await tamper(
        runtime,
        "UPDATE limits SET amount = 4",
        "INSERT INTO config_changes SELECT max(version) + 1, 'limits', 'user:alice', "
        + (
            f"{int(clock.now().timestamp()) * 1_000_000}"
            if runtime.db.dialect == "sqlite"
            else f"'{clock.now().isoformat()}'"
        )
        + " FROM config_changes",
    )
    assert (await audit(client))["consistent"] is True
    clock.advance(timedelta(minutes=1))
    await tamper(runtime, "UPDATE limits SET amount = 8")
    await client.post("/v1/events", json=[{"id": f"n{n}", "user_id": "alice"} for n in range(5)])
    assert (await audit(client))["consistent"] is True
    await tamper(runtime, "DELETE FROM alerts")
    assert failing(await audit(client)) == ["alerts_equal_thresholds_reached"]


async def test_what_a_limit_never_counted_is_not_asked_for(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    event = {"user_id": "alice", "timestamp": rfc3339(clock.now() - timedelta(days=3))}
    await client.post("/v1/events", json=event | {"id": "early"})
    now = clock.now()
    for number, window in enumerate(("hour", "day")):
        await limit(runtime, id=f"lim_{number}", window=window, created_at=now, counts_from=now)
    clock.advance(timedelta(minutes=1))
    await client.post("/v1/events", json=event | {"id": "late"})
    await client.post("/v1/events", json={"id": "now", "user_id": "alice"})
    found = await audit(client)
    assert found["differences"] == []
    assert found["identities"][6]["compared"] == 2
