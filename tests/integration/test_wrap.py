"""Wrapping a log: the oldest rows leave it, and nothing that was counted moves."""

from datetime import timedelta

import httpx
import pytest

from app.core.clock import FrozenClock
from app.core.errors import Conflict
from app.db.lease import take
from app.retention.chunk import LEASE, LEASE_NAME
from app.retention.wrap import foresee, wrap
from app.runtime import Runtime
from app.summaries.tables import WrappedUsage
from tests.integration.wraps import (
    assert_accounted,
    call,
    ids_in_log,
    ids_kept,
    keep,
    parts_of,
    send,
)
from tests.properties.books import rows_of

pytestmark = pytest.mark.anyio


async def test_the_newest_rows_stay_and_the_sums_of_the_others(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await send(client, [call(number) for number in range(30)])
    before = (await client.get("/v1/users/ann/usage")).json()
    await keep(runtime.db, clock.now(), rows=10)
    (result,) = await wrap(parts_of(runtime), ["ann"])
    assert (result.wrapped_events, result.total_after) == (20, 10)
    assert await ids_in_log(runtime.db) == sorted(f"e{number}" for number in range(10))
    assert await ids_kept(runtime.db) == 20
    await assert_accounted(runtime.db)
    assert (await client.get("/v1/users/ann/usage")).json() == before


async def test_what_is_wrapped_is_known_when_it_is_sent_again(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    events = [call(number) for number in range(5)]
    assert await send(client, events) == ["recorded"] * 5
    receipt = (await client.post("/v1/events", json=events[4])).json()
    await keep(runtime.db, clock.now(), rows=2)
    await wrap(parts_of(runtime), ["ann"])
    assert await send(client, events) == ["duplicate"] * 5
    again = await client.post("/v1/events", json=events[4])
    assert again.status_code == 200
    assert again.json() == receipt
    other = await client.post("/v1/events", json=events[4] | {"usage": {"input_tokens": 1}})
    assert other.status_code == 409
    assert other.json()["type"].endswith("id-reused")
    assert len(await ids_in_log(runtime.db)) == 2
    await assert_accounted(runtime.db)


async def test_an_event_of_several_calls_is_known_wherever_its_rows_lie(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    usage = {"input_tokens": 10, "output_tokens": 1}
    said = {
        "type": "message",
        "model": "claude-sonnet-4-6",
        "usage": usage
        | {
            "iterations": [
                {"type": "message"} | usage,
                {"type": "advisor_message", "model": "claude-opus-4-6"} | usage,
            ]
        },
    }
    event = {"user_id": "ann", "id": "m", "provider": "anthropic", "response": said}
    first = await client.post("/v1/events", json=event)
    assert first.status_code == 201
    assert len(await ids_in_log(runtime.db)) == 2
    for rows in (1, 0):
        await keep(runtime.db, clock.now(), rows=rows)
        await wrap(parts_of(runtime), ["ann"])
        assert len(await ids_in_log(runtime.db)) == rows
        again = await client.post("/v1/events", json=event)
        assert again.status_code == 200
        assert again.json() == first.json() | {"status": "duplicate"}
        own = call(1) | {"id": "m#2"}
        assert (await client.post("/v1/events", json=own)).status_code == 409
    await assert_accounted(runtime.db)


async def test_a_late_event_of_a_wrapped_hour_is_wrapped_by_a_later_run(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await keep(runtime.db, clock.now(), rows=None, days=30)
    await send(client, [call(number, days=40) for number in range(3)])
    await wrap(parts_of(runtime), ["ann"])
    assert await send(client, [call(9, days=40)]) == ["recorded"]
    assert await ids_in_log(runtime.db) == ["e9"]
    await assert_accounted(runtime.db)
    await wrap(parts_of(runtime), ["ann"])
    assert await ids_in_log(runtime.db) == []
    groups = await runtime.db.read(lambda tx: rows_of(tx, WrappedUsage))
    assert sorted(group["calls"] for group in groups) == [1, 3]
    await assert_accounted(runtime.db)


async def test_rows_of_many_users_share_archives_by_month(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    users = [f"user-{number}" for number in range(5)]
    for days in (40, 80):
        await send(client, [call(2, user=user, days=days, id=f"d{days}") for user in users])
    await keep(runtime.db, clock.now(), rows=None, days=30)
    results = await wrap(parts_of(runtime), users)
    assert [one.wrapped_events for one in results] == [2] * 5
    groups = await runtime.db.read(lambda tx: rows_of(tx, WrappedUsage))
    assert len({group["archive_id"] for group in groups}) == 2
    await assert_accounted(runtime.db)


async def test_an_unpriced_row_is_wrapped_by_age_and_not_by_count(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await send(client, [call(number, model="nobody-knows") for number in range(3)])
    await send(client, [call(number) for number in range(3, 6)])
    await keep(runtime.db, clock.now(), rows=1, days=30)
    (result,) = await wrap(parts_of(runtime), ["ann"])
    assert result.wrapped_events == 3
    assert await ids_in_log(runtime.db) == ["e0", "e1", "e2"]
    clock.advance(timedelta(days=31))
    (result,) = await wrap(parts_of(runtime), ["ann"])
    assert result.wrapped_events == 3
    assert result.groups[0].unpriced_calls == 3
    await assert_accounted(runtime.db)


async def test_a_dry_run_says_the_same_and_writes_nothing(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await send(client, [call(number) for number in range(9)])
    await keep(runtime.db, clock.now(), rows=4)
    told = await foresee(parts_of(runtime), "ann")
    assert (told.wrapped_events, told.total_after, told.dry_run) == (5, 4, True)
    assert len(await ids_in_log(runtime.db)) == 9
    (done,) = await wrap(parts_of(runtime), ["ann"])
    assert done.groups == told.groups


async def test_while_another_process_wraps_nobody_else_does(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await send(client, [call(number) for number in range(3)])
    await keep(runtime.db, clock.now(), rows=1)
    held = await runtime.db.write(lambda tx: take(tx, LEASE_NAME, "them", clock.now(), LEASE))
    assert held
    with pytest.raises(Conflict):
        await wrap(parts_of(runtime), ["ann"], wait_s=0.2)
    clock.advance(LEASE)
    (result,) = await wrap(parts_of(runtime), ["ann"])
    assert result.wrapped_events == 2


async def test_sums_beyond_63_bits_go_to_several_archives(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    most = {"input_characters": 2**53 - 1, "requests": 1}
    rows = 2**10 + 2
    for start in range(0, rows, 500):
        numbers = range(start, min(rows, start + 500))
        await send(client, [call(number, days=40, usage=most) for number in numbers])
    await keep(runtime.db, clock.now(), rows=None, days=30)
    (result,) = await wrap(parts_of(runtime), ["ann"])
    assert result.wrapped_events == rows
    groups = await runtime.db.read(lambda tx: rows_of(tx, WrappedUsage))
    assert sum(group["input_characters"] for group in groups) == rows * (2**53 - 1) > 2**63
    await assert_accounted(runtime.db)
