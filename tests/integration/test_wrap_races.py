"""Wraps beside everything else that writes: nothing is lost, doubled or left half done."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.core.clock import FrozenClock
from app.core.errors import Conflict
from app.db.engine import Database, Tx
from app.db.types import table_of
from app.main import create_asgi
from app.pricing.catalog import Catalog
from app.retention import wrap as wrapping
from app.retention.restore import restore
from app.retention.store import ArchiveStore
from app.retention.wrap import wrap
from app.runtime import Runtime, build
from app.usage import ledger
from app.usage.ledger import Entry
from app.usage.tables import UsageEvent
from tests.conftest import ADMIN
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


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many archives of few rows, so that much happens in between."""
    monkeypatch.setattr(wrapping, "CHUNK", 7)


@pytest.fixture
async def replica(runtime: Runtime, clock: FrozenClock, catalog: Catalog) -> AsyncIterator[Runtime]:
    """A second service on the same database."""
    found = build(runtime.settings, clock=clock, catalog=catalog)
    await found.start()
    yield found
    await found.close()


def client_of(runtime: Runtime) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(create_asgi(runtime), raise_app_exceptions=False),
        base_url="http://test",
        headers={"Authorization": f"Bearer {ADMIN}"},
    )


async def test_two_wraps_at_once_take_every_row_once(
    client: httpx.AsyncClient, runtime: Runtime, replica: Runtime, clock: FrozenClock
) -> None:
    await send(client, [call(number) for number in range(60)])
    await keep(runtime.db, clock.now(), rows=10)
    runs = [wrap(parts_of(one), ["ann"], wait_s=20) for one in (runtime, replica)]
    first, second = await asyncio.gather(*runs)
    assert first[0].wrapped_events + second[0].wrapped_events == 50
    assert len(await ids_in_log(runtime.db)) == 10
    await assert_accounted(runtime.db)


async def test_ids_sent_again_while_they_are_wrapped_count_once(
    client: httpx.AsyncClient, runtime: Runtime, replica: Runtime, clock: FrozenClock
) -> None:
    events = [call(number) for number in range(80)]
    await send(client, events)
    await keep(runtime.db, clock.now(), rows=0)
    done = asyncio.Event()
    told: list[str] = []

    async def resend(through: httpx.AsyncClient, turn: int) -> None:
        while not done.is_set():
            for start in range(turn, 80, 9):
                told.extend(await send(through, events[start : start + 9]))
                single = await through.post("/v1/events?backfill=true", json=events[start])
                assert single.status_code == 200, single.text

    async with client_of(replica) as other:
        sending = [resend(client, 0), resend(other, 3)]
        tasks = [asyncio.create_task(one) for one in sending]
        await wrap(parts_of(runtime), ["ann"])
        done.set()
        await asyncio.gather(*tasks)
        told += await send(other, events)
    assert set(told) == {"duplicate"}
    assert await ids_in_log(runtime.db) == []
    assert await ids_kept(runtime.db) == 80
    await assert_accounted(runtime.db)


async def test_new_and_late_events_arrive_while_a_log_is_wrapped(
    client: httpx.AsyncClient, runtime: Runtime, replica: Runtime, clock: FrozenClock
) -> None:
    await send(client, [call(number, days=40) for number in range(50)])
    await keep(runtime.db, clock.now(), rows=None, days=30)
    sent = 0

    async def more() -> None:
        nonlocal sent
        async with client_of(replica) as other:
            for number in range(100, 140):
                one = call(number % 50, days=40, id=f"late{number}")
                assert await send(other, [one, call(number)]) == ["recorded"] * 2
                sent += 2

    await asyncio.gather(more(), wrap(parts_of(runtime), ["ann"]))
    assert await ids_kept(runtime.db) + len(await ids_in_log(runtime.db)) == 50 + sent
    await assert_accounted(runtime.db)
    await wrap(parts_of(runtime), ["ann"])
    assert len(await ids_in_log(runtime.db)) == sent // 2
    await assert_accounted(runtime.db)


async def test_a_rating_that_comes_between_is_in_the_archive(
    client: httpx.AsyncClient,
    runtime: Runtime,
    clock: FrozenClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await send(client, [call(number, days=40) for number in range(5)])
    await keep(runtime.db, clock.now(), rows=None, days=30)
    each = {"input_tokens": "9", "output_tokens": "0"}
    rates = {name: {"usd": usd, "per": 1_000_000} for name, usd in each.items()}
    body = {"provider": "openai", "model": "gpt-4o-mini", "rates": rates}
    assert (await client.post("/v1/prices", json=body)).status_code == 201
    write, written = ArchiveStore.write, 0

    async def rerated(self: ArchiveStore, *rest: Any) -> Any:
        nonlocal written
        written += 1
        found = await write(self, *rest)
        if written == 1:
            again = {"filter": {"event_ids": ["e3"]}, "dry_run": False}
            answer = await client.post("/v1/rerates", json=again)
            assert answer.json()["applied"]["changed"] == 1, answer.text
        return found

    monkeypatch.setattr(ArchiveStore, "write", rerated)
    (result,) = await wrap(parts_of(runtime), ["ann"])
    assert (written, result.wrapped_events) == (2, 5)
    await assert_accounted(runtime.db)
    archives = (await client.get("/v1/archives")).json()["items"]
    assert [one["state"] for one in archives] == ["sealed"]
    verified = await client.post(f"/v1/archives/{archives[0]['id']}/verify")
    assert verified.json()["ok"], verified.text
    usage = (await client.get("/v1/users/ann/events/e3")).json()
    assert usage["cost_usd"] == usage["event"]["cost_usd"] == "0.009027"


async def test_rows_that_never_stand_still_stay_in_the_log(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(client, [call(number, days=40) for number in range(3)])
    await keep(runtime.db, clock.now(), rows=None, days=30)
    write, cost = ArchiveStore.write, 0

    async def moving(self: ArchiveStore, *rest: Any) -> Any:
        nonlocal cost
        cost += 1
        event = table_of(UsageEvent)
        change = event.update().where(event.c.event_id == "e1").values(price_ref=f"p{cost}")
        await runtime.db.write(lambda tx: tx.run(change))
        return await write(self, *rest)

    monkeypatch.setattr(ArchiveStore, "write", moving)
    (result,) = await wrap(parts_of(runtime), ["ann"])
    assert result.wrapped_events == 0
    assert len(await ids_in_log(runtime.db)) == 3
    assert (await client.get("/v1/archives")).json()["items"] == []
    await assert_accounted(runtime.db)


async def test_a_wrap_that_lost_its_lease_seals_nothing(
    client: httpx.AsyncClient,
    runtime: Runtime,
    replica: Runtime,
    clock: FrozenClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await send(client, [call(number, days=40) for number in range(5)])
    await keep(runtime.db, clock.now(), rows=None, days=30)
    write, slow = ArchiveStore.write, True

    async def overtaken(self: ArchiveStore, *rest: Any) -> Any:
        nonlocal slow
        found = await write(self, *rest)
        if slow:
            slow = False
            clock.advance(timedelta(minutes=10))
            (other,) = await wrap(parts_of(replica), ["ann"])
            assert other.wrapped_events == 5
        return found

    monkeypatch.setattr(ArchiveStore, "write", overtaken)
    with pytest.raises(Conflict):
        await wrap(parts_of(runtime), ["ann"])
    archives = (await client.get("/v1/archives")).json()["items"]
    assert [one["state"] for one in archives] == ["sealed"]
    await assert_accounted(runtime.db)


async def test_wrapping_and_restoring_while_the_ids_are_sent_again(
    client: httpx.AsyncClient, runtime: Runtime, replica: Runtime, clock: FrozenClock
) -> None:
    events = [call(number, days=40) for number in range(21)]
    await send(client, events)
    await keep(runtime.db, clock.now(), rows=None, days=30)
    done = asyncio.Event()

    async def resend() -> None:
        async with client_of(replica) as other:
            while not done.is_set():
                assert set(await send(other, events)) == {"duplicate"}

    async def move() -> None:
        for _ in range(3):
            await wrap(parts_of(runtime), ["ann"])
            for one in (await client.get("/v1/archives?state=sealed")).json()["items"]:
                await restore(runtime.db, runtime.store, one["id"], clock.now())
        done.set()

    await asyncio.gather(resend(), move())
    assert len(await ids_in_log(runtime.db)) == 21
    assert await ids_kept(runtime.db) == 0
    await assert_accounted(runtime.db)


@pytest.mark.parametrize("db_url", ["postgresql"], indirect=True)  # on SQLite writers take turns
async def test_a_row_that_moves_between_two_looks_is_not_counted_again(
    db: Database, runtime: Runtime, client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    """On PostgreSQL a statement may see a row that the next one no longer finds."""
    event = call(1, days=40)
    await send(client, [event])
    await keep(db, clock.now(), rows=None, days=30)
    find, moved = ledger.find_many, False

    async def gone(tx: Tx, keys: Any) -> list[Entry]:
        nonlocal moved
        if not moved and keys:
            moved = True
            await wrap(parts_of(runtime, db), ["ann"])
        return await find(tx, keys)

    await send(client, [call(2, days=41)])
    await wrap(parts_of(runtime, db), ["ann"])
    await send(client, [event | {"id": "e9"}])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "find_many", gone)
        assert await send(client, [event | {"id": "e9"}]) == ["duplicate"]
    assert moved
    assert len(await db.read(lambda tx: rows_of(tx, UsageEvent))) == 0
    await assert_accounted(db)
