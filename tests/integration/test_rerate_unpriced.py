"""What was unpriced is rated when a price for it arrives, by one process, and without asking."""

import asyncio
from typing import Any

import httpx
import pytest
from loguru import logger

from app.core.clock import FrozenClock
from app.db.changes import announce
from app.db.engine import Database
from app.db.lease import mark_of, note, release, take
from app.ingest import unpriced
from app.ingest.rerate_apply import Parts
from app.ingest.unpriced import is_due, rate_unpriced
from app.jobs import LEASE, Job, Jobs
from app.pricing.catalog import Catalog
from app.runtime import Runtime
from tests.conftest import START
from tests.integration.rerates import (
    assert_history,
    charging,
    event,
    history_of,
    parts_of,
    send,
)
from tests.properties.books import assert_balanced

pytestmark = pytest.mark.anyio


async def prices_change(runtime: Runtime, catalog: Catalog) -> None:
    """Prices are others from here on, and every process is told."""
    await runtime.db.write(lambda tx: announce(tx, "prices", "test", START), alone=True)
    await runtime.db.glance(runtime.feed.catch_up)
    runtime.house.prices.catalog = catalog


async def test_an_unpriced_event_is_rated_when_a_price_arrives(
    client: httpx.AsyncClient, runtime: Runtime, catalog: Catalog
) -> None:
    limit = {"name": "b", "scope": {"all": True}, "metric": "cost_usd", "window": "day"}
    limit |= {"amount": "0.001", "thresholds": [100]}
    assert (await client.post("/v1/limits", json=limit)).status_code == 201
    priced, stated = event(1), event(2, model="mystery", cost_usd="0")
    lost = [event(number, f"u{number}", "mystery") for number in range(3, 33)]
    await send(client, [priced, stated, *lost, event(40, model="riddle")])
    parts = parts_of(runtime)
    assert await rate_unpriced(parts) == 0
    assert not await is_due(parts)
    await prices_change(runtime, charging(catalog, mystery=100))
    assert await is_due(parts)
    assert await rate_unpriced(parts) == 30
    assert not await is_due(parts)
    assert await rate_unpriced(parts) == 0
    log = await assert_balanced(runtime.db)
    await assert_history(runtime.db)
    history = await history_of(runtime.db)
    assert history.keys() == {(one["user_id"], one["id"]) for one in lost}
    for (change,) in history.values():
        assert (change["kind"], change["reason"]) == ("rerate", "a price arrived")
        assert (change["old_cost_nanos"], change["old_cost_status"]) == (None, "unpriced")
        assert change["new_cost_status"] == "priced"
        assert (change["job_id"], change["actor"]) == (None, "tollgate")
    assert log["ann", "ann-40"]["cost_nanos"] is None
    assert log["ann", "ann-2"]["cost_status"] == "provided"


async def test_the_hopeless_are_not_read_again_before_prices_change(
    client: httpx.AsyncClient, runtime: Runtime, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = parts_of(runtime)
    assert not await is_due(parts)
    await send(client, [event(1)])
    assert not await is_due(parts)
    await send(client, [event(2, model="riddle")])
    await prices_change(runtime, charging(catalog, mystery=100))
    jobs = Jobs(runtime.db, runtime.clock, [_job(parts)])
    assert await jobs.run(_job(parts))
    await send(client, [event(3, model="riddle")])
    looked_at: list[Any] = []
    monkeypatch.setattr(unpriced, "batches", looked_at.append)
    for _ in range(3):
        assert not await jobs.run(_job(parts))
    assert looked_at == []
    monkeypatch.undo()
    await prices_change(runtime, charging(catalog, riddle=100))
    assert await jobs.run(_job(parts))
    assert len(await history_of(runtime.db)) == 2


def _job(parts: Parts) -> Job:
    return Job(unpriced.NAME, 3600, lambda: is_due(parts), lambda: rate_unpriced(parts))


async def test_a_price_that_somebody_states_wakes_the_job(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await send(client, [event(1, model="mystery"), event(2, model="riddle")])
    runtime.jobs.start()
    rates = {name: {"usd": "1", "per": 1_000_000} for name in ("input_tokens", "output_tokens")}
    stated = {"provider": "openai", "model": "mystery", "rates": rates}
    stated["effective_from"] = "2026-01-01T00:00:00Z"
    answer = await client.post("/v1/prices", json=stated)
    assert answer.status_code == 201, answer.text
    for _ in range(200):
        await client.get("/v1/plans")  # whoever comes next sees the change
        if await history_of(runtime.db):
            break
        await asyncio.sleep(0.02)
    ((key, (change,)),) = (await history_of(runtime.db)).items()
    assert (key, change["new_cost_nanos"]) == (("ann", "ann-1"), 1_011_000)
    assert change["new_price_ref"] == answer.json()["id"]
    await assert_balanced(runtime.db)


# ---- leases and jobs ----------------------------------------------------------------------------


async def test_a_lease_has_one_holder_until_it_ends_or_is_let_go(
    db: Database, clock: FrozenClock
) -> None:
    async def taken(holder: str) -> bool:
        return await db.write(lambda tx: take(tx, "job", holder, clock.now(), LEASE))

    assert await taken("a")
    assert await taken("a")
    assert not await taken("b")
    clock.advance(LEASE)
    assert await taken("b")
    assert not await taken("a")
    await db.write(lambda tx: release(tx, "job", "a", clock.now()))
    assert not await taken("a")
    await db.write(lambda tx: release(tx, "job", "b", clock.now()))
    assert await taken("a")
    assert await db.read(lambda tx: mark_of(tx, "job")) == ""
    for name in ("job", "never held"):
        await db.write(lambda tx, name=name: note(tx, name, "7", clock.now()))  # type: ignore[misc]
        assert await db.read(lambda tx, name=name: mark_of(tx, name)) == "7"  # type: ignore[misc]
    assert not await taken("b")


async def test_of_many_processes_one_does_the_job(db: Database, clock: FrozenClock) -> None:
    running = most = done = 0

    async def work() -> None:
        nonlocal running, most, done
        running += 1
        most, done = max(most, running), done + 1
        await asyncio.sleep(0.05)
        running -= 1

    job = Job("job", 3600, _always, work)
    many = [Jobs(db, clock, [job]) for _ in range(5)]
    assert sum(await asyncio.gather(*(jobs.run(job) for jobs in many))) == done >= 1
    assert most == 1


async def _always() -> bool:
    return True


async def test_a_job_that_fails_is_told_once_and_tried_again(
    db: Database, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.FIRST_PAUSE_S", 0.001)
    tries, healed = 0, asyncio.Event()

    async def work() -> None:
        nonlocal tries
        tries += 1
        if tries <= 4:
            raise ValueError("not yet")
        healed.set()

    said: list[str] = []
    recovered = asyncio.Event()

    def hear(line: Any) -> None:
        said.append(line.record["message"])
        if len(said) > 1:
            recovered.set()

    sink = logger.add(hear, level="INFO")
    jobs = Jobs(db, clock, [Job("job", 3600, _always, work)])
    jobs.start()
    await asyncio.wait_for(healed.wait(), 10)
    await asyncio.wait_for(recovered.wait(), 10)
    await jobs.close()
    logger.remove(sink)
    assert said == ["job.failed", "job.recovered"]
    assert tries == 5


async def test_a_job_never_keeps_the_process_from_stopping(
    db: Database, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.jobs.STOPPING_S", 0.2)
    began, stuck = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        began.set()
        while not stuck.is_set():
            try:
                await stuck.wait()
            except asyncio.CancelledError:
                continue

    jobs = Jobs(db, clock, [Job("job", 3600, _always, work)])
    jobs.start()
    await asyncio.wait_for(began.wait(), 10)
    await asyncio.wait_for(jobs.close(), 2)
    stuck.set()
    await asyncio.sleep(0.1)


async def test_a_job_in_the_middle_of_a_transaction_stops_cleanly(
    client: httpx.AsyncClient, runtime: Runtime, catalog: Catalog
) -> None:
    await send(client, [event(number, model="mystery") for number in range(300)])
    runtime.house.prices.catalog = charging(catalog, mystery=5)
    for _ in range(5):
        jobs = Jobs(runtime.db, runtime.clock, [_job(parts_of(runtime))])
        jobs.start()
        await asyncio.sleep(0.02)
        await jobs.close()
        await assert_balanced(runtime.db)
    await rate_unpriced(parts_of(runtime))
    assert len(await history_of(runtime.db)) == 300
    await assert_history(runtime.db)
