"""A user's days, months and series over HTTP: what is answered, and what is refused where."""

from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, func, select

from app.access.keys import create_key
from app.core.errors import Unavailable
from app.db.engine import Database, Tx
from app.runtime import Runtime
from app.summaries import buckets
from app.usage.tables import UsageEvent
from tests.conftest import START
from tests.defects.calls import call, post, read

pytestmark = pytest.mark.anyio


async def test_a_user_never_seen_has_honest_zeros_and_no_means(client: httpx.AsyncClient) -> None:
    day = await read(client, "usage/daily")
    assert day["date"] == "2026-11-20"
    assert (day["start"], day["end"]) == ("2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z")
    assert (day["total_calls"], day["total_cost_usd"], day["error_rate"]) == (0, "0", 0.0)
    assert (day["avg_latency_ms"], day["avg_ttft_ms"], day["requests_by_task"]) == (None, None, {})
    month = await read(client, "usage/monthly", year="2024", month="2")
    assert len(month["days"]) == 29
    assert (month["start"], month["end"]) == ("2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z")
    nothing = {"p50": None, "p95": None, "p99": None}
    for grain, pieces in (("hour", 24), ("day", 30), ("month", 12)):
        series = await read(client, "usage/series", grain=grain)
        assert len(series["items"]) == pieces
        assert {item["total_calls"] for item in series["items"]} == {0}
        assert series["items"][0]["latency_ms"] == nothing
        assert series["items"][-1]["end"] == series["to"]
    assert (await read(client, "usage/series", group_by="model"))["items"] == []


async def test_a_range_is_half_open_to_the_microsecond(client: httpx.AsyncClient) -> None:
    moments = ["12:29:59.999999", "12:30:00", "12:30:00.000001", "12:31:00"]
    await post(client, *(call(timestamp=f"2026-11-20T{moment}Z") for moment in moments))
    span = {"from": "2026-11-20T12:30:00Z", "to": "2026-11-20T12:31:00Z"}
    for name in ("", "endpoint", "provider"):
        found = await read(client, "usage/series", **span, **({"group_by": name} if name else {}))
        assert [item["total_calls"] for item in found["items"]] == [2]
        assert (found["items"][0]["start"], found["items"][0]["end"]) == tuple(span.values())
    instant = span | {"to": span["from"]}
    assert (await read(client, "usage/series", **instant))["items"] == []
    offset = {"from": "2026-11-20T13:30:00+01:00", "to": "2026-11-20T13:31:00+01:00"}
    assert (await read(client, "usage/series", **offset))["items"][0]["total_calls"] == 2


async def test_a_group_that_was_not_named_is_null(client: httpx.AsyncClient) -> None:
    await post(client, call(task_type="chat"), call(session_id="s"))
    for name, values in (("task_type", [None, "chat"]), ("session_id", [None, "s"])):
        found = await read(
            client, "usage/series", group_by=name, **{"from": "2026-11-20T00:00:00Z"}
        )
        assert [item["group"][name] for item in found["items"]] == values


REFUSED: list[tuple[str, Mapping[str, str], str]] = [
    ("daily", {"date": "2026-13-01"}, "/date"),
    ("daily", {"date": "20261101"}, "/date"),
    ("daily", {"date": "1969-12-31"}, "/date"),
    ("daily", {"date": "9999-12-31"}, "/date"),
    ("daily", {"day": "2026-11-01"}, "/day"),
    ("monthly", {"year": "2026"}, "/month"),
    ("monthly", {"month": "3"}, "/year"),
    ("monthly", {"year": "1969", "month": "1"}, "/year"),
    ("monthly", {"year": "3000", "month": "1"}, "/year"),
    ("monthly", {"year": "2026", "month": "13"}, "/month"),
    ("series", {"grain": "week"}, "/grain"),
    ("series", {"from": "2026-11-01"}, "/from"),
    ("series", {"from": "2026-11-01T00:00:00"}, "/from"),
    ("series", {"from": "1969-11-01T00:00:00Z"}, "/from"),
    ("series", {"to": "3001-01-01T00:00:00Z"}, "/to"),
    ("series", {"from": "2026-11-02T00:00:00Z", "to": "2026-11-01T00:00:00Z"}, "/to"),
    ("series", {"group_by": "colour"}, "/group_by"),
    ("series", {"group_by": "model,model"}, "/group_by"),
    ("series", {"group_by": ","}, "/group_by"),
    ("series", {"grain": "hour", "from": "2020-01-01T00:00:00Z"}, "/from"),
]


@pytest.mark.parametrize(("path", "query", "pointer"), REFUSED)
async def test_what_is_not_understood_is_refused_where_it_stands(
    client: httpx.AsyncClient, path: str, query: Mapping[str, str], pointer: str
) -> None:
    answer = await client.get(f"/v1/users/alice/usage/{path}", params=dict(query))
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer


async def test_a_bound_key_reads_its_own_user_and_no_other(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    async def work(tx: Tx) -> str:
        made = await create_key(
            tx, name="k", scopes=("read",), user_id="alice", expires_at=None, now=START
        )
        return made[1]

    token = await runtime.db.write(work, alone=True)
    signed = {"Authorization": f"Bearer {token}"}
    for path in ("daily", "monthly", "series"):
        for user, status in (("alice", 200), ("bob", 403)):
            answer = await client.get(f"/v1/users/{user}/usage/{path}", headers=signed)
            assert answer.status_code == status
    for path in ("metrics", "health", "costs", "totals", "daily-cost", "backends", "pools"):
        answer = await client.get(f"/v1/analytics/{path}", headers=signed)
        assert answer.status_code == 403
    body = {"measures": ["calls"], "filters": {"user_id": "alice"}}
    answer = await client.post("/v1/analytics/query", json=body, headers=signed)
    assert answer.status_code == 403


async def forget_one(runtime: Runtime) -> None:
    """Take a call out of the log, as wrapping does, and leave the totals as they are."""
    await runtime.db.write(lambda tx: tx.run(delete(UsageEvent).where(UsageEvent.event_id == "e0")))


async def test_where_the_log_is_no_longer_whole_nothing_is_told_from_a_part(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    calls: list[dict[str, Any]] = [call(id=f"e{n}", latency_ms=5, endpoint="/x") for n in range(3)]
    await post(client, *calls, call(id="old", timestamp="2026-11-19T10:00:00Z", latency_ms=7))
    await forget_one(runtime)
    series = await read(client, "usage/series", **{"from": "2026-11-20T00:00:00Z"})
    assert [item["total_calls"] for item in series["items"]] == [3]
    assert series["items"][0]["latency_ms"] is series["items"][0]["ttft_ms"] is None
    for query in ({"group_by": "endpoint"}, {"from": "2026-11-20T12:10:00Z"}):
        answer = await client.get("/v1/users/alice/usage/series", params=query)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == f"/{next(iter(query))}"
    whole = {"from": "2026-11-19T09:00:00Z", "to": "2026-11-20T00:00:00Z"}
    series = await read(client, "usage/series", group_by="endpoint", **whole)
    assert series["items"][0]["latency_ms"]["p50"] == 7
    metrics = (await client.get("/v1/analytics/metrics?user_id=alice&hours=1")).json()
    assert (metrics["total_calls"], metrics["models"][0]["total_calls"]) == (3, 3)
    for name in ("endpoints", "status_codes", "client_errors", "latency_ms"):
        assert metrics[name] is None
    costs = (await client.get("/v1/analytics/costs?user_id=alice")).json()
    assert (costs["total_calls"], costs["by_endpoint"]) == (4, None)
    answer = await client.get("/v1/analytics/metrics?user_id=alice&team_id=red")
    assert answer.json()["errors"][0]["pointer"] == "/team_id"
    body = {"measures": ["calls"], "group_by": ["backend"]}
    body["filters"] = {"user_id": "alice", "endpoint": "/x"}  # type: ignore[assignment]
    answer = await client.post("/v1/analytics/query", json=body)
    assert answer.json()["errors"][0]["pointer"] == "/group_by"


async def test_more_calls_than_may_be_read_are_told_by_totals_alone(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.summaries.detail.MOST_READ", 2)
    await post(client, *(call(latency_ms=1) for _ in range(3)))
    series = await read(client, "usage/series", grain="hour", group_by="model")
    assert series["items"][-1]["total_calls"] == 3
    assert series["items"][-1]["latency_ms"] is None
    answer = await client.get("/v1/users/alice/usage/series?group_by=endpoint")
    assert answer.status_code == 422


async def test_more_items_than_allowed_are_refused_and_not_cut_off(
    client: httpx.AsyncClient,
) -> None:
    await post(client, *(call(model=f"m{n}") for n in range(420)))
    answer = await client.get("/v1/users/alice/usage/series?group_by=model&grain=hour")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/group_by"
    found = await read(client, "usage/series", group_by="model", **{"from": "2026-11-20T00:00:00Z"})
    assert len(found["items"]) == 420


async def test_a_statement_is_stopped_by_the_database_itself(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "STATEMENT_S", 0.05)

    async def slow(tx: Tx) -> None:
        await buckets.hurry(tx)
        if tx.dialect == "postgresql":
            await tx.fetch(select(func.pg_sleep(30)))
        else:
            raise Unavailable  # SQLite runs in this process: its caller's deadline stops it

    with pytest.raises(Unavailable):
        await db.read(slow)
    setting = select(func.current_setting("statement_timeout"))
    if db.dialect == "postgresql":
        assert (await db.read(lambda tx: tx.fetch(setting)))[0][0] == "0"
