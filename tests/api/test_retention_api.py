"""Retention over HTTP: bounds for everyone and for one user, wrapping, and reading what was."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.core.clock import FrozenClock
from app.core.errors import Unavailable
from app.retention.job import NAME
from app.retention.store import ArchiveStore
from app.runtime import Runtime
from tests.integration.wraps import assert_accounted, call, ids_in_log, ids_kept, send

pytestmark = pytest.mark.anyio
OPEN: dict[str, Any] = {"max_rows": None, "keep_rows": None, "max_age_days": None}


async def set_to(client: httpx.AsyncClient, user: str = "", **bounds: Any) -> httpx.Response:
    path = f"/v1/retention/users/{user}" if user else "/v1/retention"
    return await client.put(path, json=bounds)


async def test_the_settings_hold_until_something_is_set(client: httpx.AsyncClient) -> None:
    usual = {"max_rows": 5000, "keep_rows": 4000, "max_age_days": 90, "keep_ids_days": None}
    assert (await client.get("/v1/retention")).json() == usual | {"source": "settings"}
    answer = await set_to(client, max_age_days=30)
    assert answer.json() == usual | {"max_age_days": 30, "source": "default"}
    assert (await client.get("/v1/retention/users/a/b")).json()["source"] == "default"
    own = await set_to(client, "a/b", max_rows=None)
    assert own.json() == usual | OPEN | {"max_age_days": 30, "source": "user"}
    assert (await client.get("/v1/retention/users/a/b")).json() == own.json()
    assert (await client.get("/v1/retention")).json() == answer.json()
    assert (await client.delete("/v1/retention/users/a/b")).status_code == 204
    assert (await client.delete("/v1/retention/users/a/b")).status_code == 404
    assert (await client.get("/v1/retention/users/a/b")).json()["source"] == "default"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"keep_rows": 5001}, "/keep_rows"),
        ({"max_rows": 10}, "/keep_rows"),
        ({"keep_rows": None}, "/keep_rows"),
        ({"max_rows": None, "keep_rows": 1}, "/max_rows"),
        ({"max_age_days": 0}, "/max_age_days"),
        ({"max_age_days": "30"}, "/max_age_days"),
        ({"max_rows": -1, "keep_rows": 0}, "/max_rows"),
        ({"max_rows": 10**12}, "/max_rows"),
        ({"keep_ids_days": 34}, "/keep_ids_days"),
        ({"rows": 5}, "/rows"),
    ],
)
async def test_bounds_that_make_no_sense_are_refused_by_name(
    client: httpx.AsyncClient, body: dict[str, Any], pointer: str
) -> None:
    answer = await client.put("/v1/retention", json=body)
    assert answer.status_code == 422, answer.text
    assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]
    assert (await client.get("/v1/retention")).json()["source"] == "settings"


async def test_wrapping_says_what_it_did_and_why(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await send(client, [call(number) for number in range(5)])
    await send(client, [call(number, days=100) for number in range(5, 8)])
    await set_to(client, "ann", max_rows=4, keep_rows=2)
    dry = (await client.post("/v1/users/ann/logs/wrap?dry_run=true")).json()
    assert await ids_kept(runtime.db) == 0
    told = (await client.post("/v1/users/ann/logs/wrap")).json()
    assert told["wrapped"] is True
    assert (told["total_before"], told["total_after"], told["wrapped_events"]) == (8, 2, 6)
    assert told["trigger_reasons"] == [
        "time-based retention: 3 rows are older than 90 days",
        "count limit: 5 rows are more than 4; the newest 2 stay",
    ]
    assert [(one["billing_period"], one["calls"]) for one in told["groups"]] == [
        ("2026-08", 3),
        ("2026-11", 3),
    ]
    assert told["groups"][0]["from"] == "2026-08-12T12:29:53Z"
    assert told["groups"][0]["to"] == "2026-08-12T12:29:55Z"
    changed = {"wrapped": True, "dry_run": False, "message": told["message"]}
    assert dry | changed == told
    assert (dry["wrapped"], dry["dry_run"]) == (False, True)
    again = (await client.post("/v1/users/ann/logs/wrap")).json()
    assert again["wrapped"] is False
    assert (again["max_rows"], again["keep_rows"], again["max_age_days"]) == (4, 2, 90)
    assert again["message"] == "nothing to wrap: 2 rows, within the retention"
    nobody = (await client.post("/v1/users/nobody/logs/wrap")).json()
    assert (nobody["wrapped"], nobody["total_before"]) == (False, 0)


async def test_wrapped_rows_are_listed_as_groups_in_their_place(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    events = [call(number * 1200) for number in range(12)]
    events += [call(7, id="failed", status_code=500, team_id="red", latency_ms=40)]
    await send(client, events)
    await set_to(client, max_rows=4, keep_rows=4)
    await client.post("/v1/users/ann/logs/wrap")
    for size in (1, 2, 3, 100):
        items: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = await client.get(f"/v1/users/ann/events?limit={size}{cursor}")
            assert page.status_code == 200, page.text
            items += page.json()["items"]
            if page.json()["next_cursor"] is None:
                break
            cursor = f"&cursor={page.json()['next_cursor']}"
        times = [one["timestamp"] for one in items]
        assert times == sorted(times, reverse=True)
        kinds = [one["kind"] for one in items]
        assert kinds == ["event"] * 4 + ["wrapped"] * 4
        assert len({one["id"] for one in items}) == 8
        groups = items[4:]
        assert sum(one["calls"] for one in groups) == 9
        sent = sum(one["usage"]["input_tokens"] for one in events)
        assert sum(one["usage"]["input_tokens"] for one in items) == sent
    first = groups[0]
    assert first["hour"] <= first["first_at"] <= first["last_at"] == first["timestamp"]
    assert (first["provider"], first["model"]) == ("openai", "gpt-4o-mini")
    assert first["billing_period"] == "2026-11"


async def test_filters_apply_to_groups_too(client: httpx.AsyncClient) -> None:
    await send(client, [call(number * 1800, days=95) for number in range(4)])
    own = {"team_id": "red", "task_type": "chat", "endpoint": "/x", "status_code": 500}
    own |= {"session_id": "s", "tags": {"env": "prod"}, "latency_ms": 40}
    await send(client, [call(7, days=95, **own)])
    await client.post("/v1/users/ann/logs/wrap")

    async def found(query: str) -> int:
        answer = await client.get(f"/v1/users/ann/events?{query}")
        assert answer.status_code == 200, answer.text
        return sum(one["calls"] for one in answer.json()["items"])

    assert await found("") == 5
    for query in ("team_id=red", "task_type=chat", "endpoint=/x", "status=error"):
        assert await found(query) == 1, query
    assert await found("status=ok") == 4
    assert await found("provider=openai&model=gpt-4o-mini") == 5
    assert await found("model=other") == await found("session_id=s") == 0
    assert await found("tag.env=prod") == 0
    assert await found("from=2026-08-17T12:00:00Z") == 3
    assert await found("to=2026-08-17T12:00:00Z") == 2
    failed = (await client.get("/v1/users/ann/events?status=error")).json()["items"][0]
    assert (failed["errors"], failed["min_latency_ms"], failed["avg_latency_ms"]) == (1, 40, 40)


async def test_one_wrapped_event_is_read_from_its_archive(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await send(client, [call(1, days=95, tags={"env": "prod"})])
    before = (await client.get("/v1/users/ann/events/e1")).json()
    assert before["kind"] == "event"
    await client.post("/v1/users/ann/logs/wrap")
    found = (await client.get("/v1/users/ann/events/e1")).json()
    assert found["kind"] == "wrapped_event"
    assert found["event"] == before
    same = ("timestamp", "recorded_at", "provider", "model", "usage", "cost_usd", "cost_status")
    for name in (*same, "billing_period", "voided", "corrections"):
        assert found[name] == before[name]
    archive = (await client.get(f"/v1/archives/{found['archive_id']}")).json()
    await runtime.store.remove(archive["path"])
    left = (await client.get("/v1/users/ann/events/e1")).json()
    assert left == found | dict.fromkeys(("event", "provider", "model", "usage"))
    assert (await client.get("/v1/users/ann/events/e2")).status_code == 404


async def test_where_archives_cannot_be_kept_nothing_leaves_the_log(
    client: httpx.AsyncClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(client, [call(number, days=95) for number in range(3)])

    async def full(*_: object) -> None:
        raise Unavailable("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ArchiveStore, "write", full)
        answer = await client.post("/v1/users/ann/logs/wrap")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
    assert len(await ids_in_log(runtime.db)) == 3
    assert (await client.get("/v1/archives")).json()["items"] == []
    assert (await client.post("/v1/users/ann/logs/wrap")).json()["wrapped_events"] == 3
    await assert_accounted(runtime.db)


async def test_listing_schedules_a_look_and_wraps_nothing_itself(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await send(client, [call(number, days=95) for number in range(3)])
    await client.get("/v1/users/ann/events")
    assert len(await ids_in_log(runtime.db)) == 3
    assert runtime.jobs._woken[NAME].is_set()
    assert await runtime.watch.is_due()
    assert await runtime.watch.work() == 3
    assert await ids_in_log(runtime.db) == []
    assert not await runtime.watch.is_due()


async def test_ids_that_may_be_forgotten_are_refused_by_every_door(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    old, newer = call(1, days=95), call(2, days=40)
    await send(client, [old, newer])
    await set_to(client, max_age_days=30, keep_ids_days=60)
    assert await runtime.watch.is_due()
    await runtime.watch.work()
    assert await ids_kept(runtime.db) == 1
    assert await send(client, [old, newer]) == ["out_of_window", "duplicate"]
    one = await client.post("/v1/events?backfill=true", json=old)
    assert one.status_code == 422
    assert one.json()["type"].endswith("out-of-window")
    assert one.json()["errors"][0]["pointer"] == "/timestamp"
    whole = await client.post("/v1/events?backfill=true&atomic=true", json=[call(3), old])
    assert whole.status_code == 422
    assert whole.json()["errors"][0]["pointer"] == "/1/timestamp"
    assert not await runtime.watch.is_due()
    clock.advance(timedelta(days=1))
    assert await runtime.watch.is_due()
    await set_to(client, keep_ids_days=None)
    assert await send(client, [old]) == ["out_of_window"]
    assert await ids_in_log(runtime.db) == []
