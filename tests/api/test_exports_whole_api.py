"""Exports of a log that wraps and is corrected: every event once, as it stands."""

import csv
import io
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from app.analytics.exports import exported as export_pages
from app.core.clock import FrozenClock, rfc3339
from app.retention.policy import Policy
from app.retention.restore import restore
from app.retention.wrap import wrap
from app.runtime import Runtime
from app.usage import export
from app.usage.export import Slice
from tests.api.test_exports_api import EXPORT, FOCUS, calls, exported, record

pytestmark = pytest.mark.anyio
USERS = ("Zoë", "_x", "alice", "bob")


async def wrapped(runtime: Runtime, users: tuple[str, ...], keep: int) -> None:
    parts = runtime.wrap._replace(by_default=Policy(keep + 1, keep, None))
    await wrap(parts, users, wait_s=5)


async def test_archived_events_are_counted_where_they_are_left_out_and_read_where_wanted(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await record(client, calls(200, clock))
    whole = await exported(client)
    await wrapped(runtime, ("alice", "bob"), 10)
    for query in ({}, {"user_id": "alice"}, {"user_id": "alice", "model": "gpt-4o"}):
        answer = await client.get(EXPORT, params=query)
        expected = [
            row for row in whole if all(row[name] == value for name, value in query.items())
        ]
        left_out = int(answer.headers["x-tollgate-wrapped-calls"])
        assert left_out > 0
        assert answer.text.count("\r\n") == 1 + len(expected) - left_out
    for query in ({}, {"user_id": "alice"}, {"model": "gpt-4o"}):
        expected = [
            row for row in whole if all(row[name] == value for name, value in query.items())
        ]
        found = await exported(client, include_wrapped="true", **query)
        assert sorted(found, key=_id) == sorted(expected, key=_id)


def _id(row: dict[str, str]) -> str:
    return row["id"]


async def test_focus_holds_what_was_archived(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await record(client, calls(200, clock))
    before = (await client.get(FOCUS)).text
    await wrapped(runtime, USERS, 10)
    assert (await client.get(FOCUS)).text == before


async def _run(
    runtime: Runtime, between: Callable[[int], Awaitable[None]], pages: list[int]
) -> list[str]:
    ids = []
    place = 0
    async for page in export_pages(runtime.db, runtime.store, None, Slice()):
        ids += [one.entry.event_id for one in page]
        place += 1
        if place in pages:
            await between(place)
    return sorted(ids)


async def test_events_that_are_archived_and_restored_meanwhile_are_exported_once(
    client: httpx.AsyncClient,
    runtime: Runtime,
    clock: FrozenClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(export.next_rows, "__defaults__", (9,))
    await record(client, calls(200, clock))
    expected = sorted(event["id"] for event in calls(200, clock))

    async def wrap_all(page: int) -> None:
        await wrapped(runtime, USERS, 200 // page)

    assert await _run(runtime, wrap_all, [7, 10, 15]) == expected

    async def restore_one(_: int) -> None:
        listed = (await client.get("/v1/archives", params={"limit": 1000})).json()["items"]
        sealed = [one["id"] for one in listed if one["state"] == "sealed"]
        if sealed:
            await restore(runtime.db, runtime.store, sealed[0], clock.now())

    assert await _run(runtime, restore_one, [3, 5, 7, 9]) == expected
    assert await _run(runtime, wrap_all, [3, 6, 12]) == expected
    proof = (await client.get("/v1/audit/consistency")).json()
    assert proof["consistent"], proof["differences"]


async def correct(client: httpx.AsyncClient, event_id: str, verb: str, body: Any) -> None:
    answer = await client.post(f"/v1/users/alice/events/{event_id}/{verb}", json=body)
    assert answer.status_code < 300, answer.text


@pytest.mark.parametrize("is_wrapped", [False, True])
async def test_an_event_is_exported_as_it_stands_after_its_corrections(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock, is_wrapped: bool
) -> None:
    moment = rfc3339(clock.now() - timedelta(hours=1))
    names = {"user_id": "alice", "timestamp": moment, "provider": "openai", "model": "gpt-4o"}
    usage = {"usage": {"input_tokens": 1000, "output_tokens": 10}}
    await record(client, [names | usage | {"id": f"c{number}"} for number in range(4)])
    if is_wrapped:
        await wrapped(runtime, ("alice",), 0)
    await correct(client, "c1", "void", {"reason": "twice"})
    fields = {"model": "gpt-4o-mini", "usage": {"input_tokens": 7, "output_tokens": 1}}
    await correct(client, "c2", "correct", {"fields": fields, "reason": "another model"})
    rows = await exported(client, include_wrapped="true")
    shown = {row["id"]: row for row in rows}
    assert set(shown) == {"c0", "c1", "c2", "c3"}
    assert shown["c0"]["voided"] == "false"
    assert shown["c0"]["corrections"] == "0"
    assert (shown["c1"]["voided"], shown["c1"]["cost_usd"]) == ("true", "0")
    assert shown["c1"]["input_tokens"] == "0"
    assert (shown["c2"]["model"], shown["c2"]["input_tokens"]) == ("gpt-4o-mini", "7")
    by_model = await exported(client, include_wrapped="true", model="gpt-4o-mini")
    assert [row["id"] for row in by_model] == ["c2"]
    usage_now = (await client.get("/v1/users/alice/usage")).json()
    cost = Decimal(usage_now["total_cost_usd"])
    assert sum(Decimal(row["cost_usd"]) for row in rows) == cost
    text = (await client.get(FOCUS)).text
    charged = list(csv.DictReader(io.StringIO(text, newline="")))
    assert sum(Decimal(row["BilledCost"]) for row in charged) == cost
    assert sum(int(row["x_Calls"]) for row in charged) == usage_now["total_calls"] == 3


async def test_a_correction_that_moves_an_event_moves_it_between_exports(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    late, early = clock.now() - timedelta(hours=1), clock.now() - timedelta(hours=30)
    event = {"id": "m", "user_id": "alice", "timestamp": rfc3339(late)}
    await record(client, [event, event | {"id": "n"}])
    body = {"fields": {"timestamp": rfc3339(early)}, "reason": "a clock was wrong"}
    await correct(client, "m", "correct", body)
    middle = rfc3339(clock.now() - timedelta(hours=20))
    assert [row["id"] for row in await exported(client, to=middle)] == ["m"]
    assert [row["id"] for row in await exported(client, **{"from": middle})] == ["n"]
    for query in ({"to": middle}, {"from": middle}):
        found = await exported(client, include_wrapped="true", **query)
        assert len(found) == 1
