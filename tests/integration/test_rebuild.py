"""Rebuild: what was damaged is named and put right, whatever else goes on meanwhile."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from app.analytics import repair
from app.analytics.audit import prove
from app.analytics.repair import rebuild
from app.core.clock import FrozenClock, rfc3339
from app.core.errors import Conflict
from app.db.engine import Tx
from app.db.lease import take
from app.limits.tables import Counter
from app.retention.policy import Policy, set_policy
from app.retention.tables import Archive
from app.retention.wrap import Parts, wrap
from app.runtime import Runtime
from app.summaries.rebuild import judge_users
from app.summaries.tables import HourDimension, HourTotal, PeriodTotal
from app.usage.tables import UsageEvent
from tests.api.test_audit_api import audit, fill, tamper
from tests.api.test_usage_api import limit
from tests.properties.books import everything_in

pytestmark = pytest.mark.anyio
DAMAGE = {
    "a period's total": ("UPDATE period_totals SET cost_nanos = cost_nanos + 7", {"period_totals"}),
    "periods that are gone": (
        "DELETE FROM period_totals WHERE user_id = 'alice'",
        {"period_totals"},
    ),
    "an hour's total": ("UPDATE hour_totals SET calls = 0, errors = 9", {"hour_totals"}),
    "hours that are gone": ("DELETE FROM hour_totals WHERE user_id = 'bob'", {"hour_totals"}),
    "an hour that never was": (
        "INSERT INTO hour_totals (user_id, hour, provider, model, task_type, calls) "
        "SELECT 'mallory', hour, 'p', 'm', '', 3 FROM hour_totals LIMIT 1",
        {"hour_totals"},
    ),
    "models across users": (
        "UPDATE hour_dimensions SET value = value || 'x' WHERE dimension = 'model'",
        {"hour_dimensions"},
    ),
    "teams across users": (
        "DELETE FROM hour_dimensions WHERE dimension IN ('team', 'key_calls')",
        {"hour_dimensions"},
    ),
    "latencies": (
        "UPDATE hour_dimensions SET calls = calls + 1 WHERE dimension IN ('latency', 'ttft')",
        {"hour_dimensions"},
    ),
    "counters": ("UPDATE limit_counters SET used = used - 1 WHERE used > 0", {"limit_counters"}),
    "counters that are gone": ("DELETE FROM limit_counters", {"limit_counters"}),
}
TOTALS = (PeriodTotal, HourTotal, HourDimension, Counter)


async def totals(runtime: Runtime) -> dict[str, Any]:
    """Every total and counter that says anything, whichever writer's row it is in."""
    everything = await everything_in(runtime.db)
    found = {one.__tablename__: everything[one.__tablename__] for one in TOTALS}
    found["limit_counters"] = [row for row in found["limit_counters"] if any(row[3:])]
    across: dict[tuple[Any, ...], list[int]] = {}
    for _, *row in found["hour_dimensions"]:
        kept = across.setdefault(tuple(row[:3]), [0] * len(row[3:]))
        across[tuple(row[:3])] = [one + more for one, more in zip(kept, row[3:], strict=True)]
    dimensions = sorted((*key, *sums) for key, sums in across.items() if any(sums))
    return found | {"hour_dimensions": dimensions}


async def post_rebuild(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post("/v1/audit/rebuild", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("name", DAMAGE)
async def test_s1_13_damage_is_named_and_put_right(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock, name: str
) -> None:
    statement, where = DAMAGE[name]
    await fill(client, runtime, clock)
    honest = await totals(runtime)
    await tamper(runtime, statement)
    damaged = await totals(runtime)
    assert damaged != honest

    tried = await post_rebuild(client, dry_run=True)
    assert tried["rebuilt"] is False
    assert await totals(runtime) == damaged

    found = await post_rebuild(client)
    assert found["rebuilt"] is True
    assert found["repaired"] == tried["repaired"]
    assert found["repaired_count"] == len(found["repaired"]) or len(found["repaired"]) == 1000
    named = {one["identity"].replace("log_equals_", "") for one in found["repaired"]}
    assert {one.replace("_equal_log", "") for one in named} == where
    repaired = await totals(runtime)
    for table, rows in honest.items():
        assert repaired[table] == rows, table
    assert (await audit(client))["consistent"] is True
    assert (await post_rebuild(client))["repaired"] == []


async def test_a_rebuild_of_one_user_leaves_the_others(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await fill(client, runtime, clock)
    honest = await totals(runtime)
    await tamper(
        runtime,
        "UPDATE period_totals SET calls = calls + 1",
        "UPDATE limit_counters SET used = used - 1 WHERE limit_id IN ('lim_0', 'lim_3')",
    )
    found = await post_rebuild(client, user_id="alice")
    for one in found["repaired"]:
        assert "alice" in (one["where"].get("user_id"), one["where"].get("scope", "")[5:])
    failing = {one["identity"] for one in (await audit(client))["differences"]}
    assert failing == {"hour_totals_equal_period_totals", "limit_counters_equal_log"}
    await post_rebuild(client)
    assert await totals(runtime) == honest


async def test_nothing_is_rebuilt_twice_at_once(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await fill(client, runtime, clock)
    honest = await totals(runtime)
    for _ in range(3):
        await tamper(runtime, "UPDATE hour_totals SET calls = calls + 1")
        done = await asyncio.gather(
            *(rebuild(runtime.db, clock) for _ in range(4)), return_exceptions=True
        )
        refused = [one for one in done if isinstance(one, Conflict)]
        assert len(refused) < len(done)
        assert [one for one in done if isinstance(one, BaseException)] == refused
        assert await totals(runtime) == honest


async def test_who_lost_the_lease_changes_nothing_more(
    client: httpx.AsyncClient,
    runtime: Runtime,
    clock: FrozenClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await fill(client, runtime, clock)
    honest = await totals(runtime)
    await tamper(runtime, "UPDATE hour_totals SET calls = calls + 1")
    judge = judge_users
    other: list[Any] = []

    async def slow(tx: Tx, user_ids: list[str]) -> Any:
        found = await judge(tx, user_ids)
        if not other:
            other.append(None)
            clock.advance(repair.LEASE * 2)
            other.append(await rebuild(runtime.db, clock))
        return found

    monkeypatch.setattr(repair, "judge_users", slow)
    with pytest.raises(Conflict, match="taken over"):
        await rebuild(runtime.db, clock)
    assert other[1].differing > 0
    assert await totals(runtime) == honest


async def test_a_rebuild_that_runs_is_told(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await runtime.db.write(lambda tx: take(tx, repair.NAME, "else", clock.now(), repair.LEASE))
    answer = await client.post("/v1/audit/rebuild", json={})
    assert answer.status_code == 409
    clock.advance(repair.LEASE)
    assert (await post_rebuild(client))["rebuilt"] is True


async def test_without_a_body_everything_is_worked_out_again(client: httpx.AsyncClient) -> None:
    whole = await post_rebuild(client)
    answer = await client.post("/v1/audit/rebuild")
    assert answer.status_code == 200, answer.text
    assert answer.json() == whole


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"user": "alice"}, "/user"),
        ({"user_id": ""}, "/user_id"),
        ({"user_id": 7}, "/user_id"),
        ({"dry_run": "no"}, "/dry_run"),
    ],
)
async def test_bad_bodies_are_told_where(
    client: httpx.AsyncClient, body: dict[str, Any], pointer: str
) -> None:
    answer = await client.post("/v1/audit/rebuild", json=body)
    assert answer.status_code == 422
    assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]


async def test_a_rebuild_amid_heavy_ingest_loses_and_doubles_nothing(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await limit(runtime, id="all", scope_key="all", window="lifetime", amount=10**9)
    await limit(runtime, id="each", scope_key="plan:plan_default", metric="tokens", amount=10**9)
    await limit(runtime, id="red", scope_key="team:red", window="day", amount=10**9)
    sent, rebuilt = 0, 0

    async def ingest(writer: int) -> None:
        nonlocal sent
        for number in range(40):
            events = [
                {
                    "id": f"{writer}-{number}-{place}",
                    "user_id": f"user {place % 7}",
                    "provider": "openai",
                    "model": "gpt-4o-mini",
                    "team_id": "red",
                    "latency_ms": place,
                    "usage": {"input_tokens": number, "output_tokens": 1},
                    "timestamp": rfc3339(clock.now() - timedelta(hours=place % 50)),
                }
                for place in range(25)
            ]
            answer = await client.post("/v1/events", json=events)
            assert answer.status_code == 200, answer.text
            sent += 25

    async def damage_and_repair() -> None:
        nonlocal rebuilt
        while sent < 3 * 40 * 25:
            await tamper(
                runtime,
                "UPDATE period_totals SET calls = calls + 5",
                "UPDATE hour_totals SET cost_nanos = cost_nanos - 3",
                "UPDATE hour_dimensions SET calls = calls + 1",
                "UPDATE limit_counters SET used = used - 2",
            ) if sent else None
            rebuilt += (await rebuild(runtime.db, clock)).differing > 0
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for writer in range(3):
            group.create_task(ingest(writer))
        group.create_task(damage_and_repair())
    await rebuild(runtime.db, clock)
    assert rebuilt
    proof = await runtime.db.read(lambda tx: prove(tx, clock.now()))
    assert proof.differences == []

    async def counted(tx: Tx) -> tuple[int, int]:
        calls = select(func.sum(PeriodTotal.calls))
        rows = select(func.count()).select_from(UsageEvent)
        return int((await tx.fetch(calls))[0][0]), (await tx.fetch(rows))[0][0]

    assert await runtime.db.read(counted) == (sent, sent)


async def test_a_threshold_that_a_repair_reaches_is_told(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await limit(runtime, thresholds="50,100", amount=4)
    clock.advance(timedelta(minutes=1))
    await client.post("/v1/events", json={"id": "1", "user_id": "alice"})
    await tamper(runtime, "UPDATE limit_counters SET used = 0")
    await client.post("/v1/events", json={"id": "2", "user_id": "alice"})
    failing = {one["identity"] for one in (await audit(client))["differences"]}
    assert failing == {"limit_counters_equal_log"}
    await post_rebuild(client)
    assert (await audit(client))["consistent"] is True
    items = (await client.get("/v1/users/alice/alerts")).json()["items"]
    assert [one["threshold"] for one in items] == [50]


async def wrapped(runtime: Runtime, user_ids: list[str], keep: int) -> int:
    """Wrap all but the newest of these users' rows; how many archives there are."""
    policy = Policy(keep, keep, None, None)

    async def agree(tx: Tx) -> None:
        for user_id in user_ids:
            await set_policy(tx, user_id, policy, runtime.clock.now())

    await runtime.db.write(agree, alone=True)
    await wrap(Parts(runtime.db, runtime.store, runtime.clock, policy), user_ids)
    found = await runtime.db.read(lambda tx: tx.fetch(select(func.count()).select_from(Archive)))
    return int(found[0][0])


@pytest.mark.parametrize("name", sorted(DAMAGE.keys() - {"latencies"}))  # these are not kept
async def test_d0_3_a_rebuild_counts_every_call_that_was_wrapped(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock, name: str
) -> None:
    await fill(client, runtime, clock)
    assert await wrapped(runtime, ["alice", "bob", "dave"], 10)
    found = await audit(client)
    assert found["differences"] == []
    honest = await totals(runtime)
    await tamper(runtime, DAMAGE[name][0])
    assert (await post_rebuild(client))["repaired"]
    assert await totals(runtime) == honest
    assert (await audit(client))["consistent"] is True


async def test_d1_13_a_rebuild_does_not_undo_a_reset(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await limit(runtime, window="billing_period", amount=100)
    for number in range(3):
        clock.advance(timedelta(minutes=1))
        await client.post("/v1/events", json={"id": str(number), "user_id": "alice"})
        answer = await client.post("/v1/users/alice/usage/reset")
        assert answer.status_code in (200, 201), answer.text
    clock.advance(timedelta(minutes=1))
    await client.post("/v1/events", json={"id": "last", "user_id": "alice"})
    before = await totals(runtime)
    usage = (await client.get("/v1/users/alice/usage")).json()
    assert usage["total_calls"] == 1
    assert (await post_rebuild(client))["repaired"] == []
    await tamper(runtime, "DELETE FROM period_totals", "DELETE FROM limit_counters")
    await post_rebuild(client)
    assert await totals(runtime) == before
    assert (await client.get("/v1/users/alice/usage")).json()["total_calls"] == 1


async def test_s1_14_trends_read_what_a_rebuild_put_right(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await fill(client, runtime, clock)
    path = "/v1/users/bob/usage/trends?periods=6"
    honest = (await client.get(path)).json()
    await wrapped(runtime, ["bob"], 5)
    await tamper(runtime, "DELETE FROM period_totals WHERE user_id = 'bob'")
    assert (await client.get(path)).json() != honest
    await post_rebuild(client, user_id="bob")
    assert (await client.get(path)).json() == honest
