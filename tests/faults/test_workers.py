"""Several processes on one database: jobs done once, an account exact while they change."""

import asyncio
import os
import random
import signal
import time
from collections import Counter as Tally
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta

import httpx
import psutil
import pytest

from app.core.clock import FrozenClock
from app.db.engine import Database
from app.db.lease import take
from app.jobs import LEASE, Job, Jobs
from app.pricing.catalog import Catalog
from tests.conftest import PATIENCE_S
from tests.faults.live import Live, Wire, living, request_bytes
from tests.faults.service import HEADERS, Service, Worker, Writers, event, post, serving
from tests.faults.test_webhook_crashes import made, told_of
from tests.receivers import receiving

PROCESSES = 4
CALLERS, LIMIT, EACH = 64, 1_000, 97
WITHIN_S = 120.0
"""A lease lasts one minute; the rest is a slow machine."""
PATIENT = {"TOLLGATE_DATABASE_TIMEOUT_S": "60"}


async def _until(condition: Callable[[], bool]) -> None:
    for _ in range(int(WITHIN_S / 0.05)):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it never came to that")


# ---- jobs, as four processes have them ----------------------------------------------------------


@pytest.mark.anyio
async def test_two_workers_and_two_servers_do_each_job_once_at_a_time(
    db_url: str, clock: FrozenClock
) -> None:
    running: Tally[str] = Tally()
    most: Tally[str] = Tally()
    done: Tally[str] = Tally()

    def job(name: str) -> Job:
        async def work() -> None:
            running[name] += 1
            most[name] = max(most[name], running[name])
            try:
                await asyncio.sleep(0.002)
            finally:
                running[name] -= 1
            done[name] += 1

        return Job(name, 0.001, _always, work)

    databases = [
        Database.open(db_url, pool_size=4, patience_s=PATIENCE_S) for _ in range(PROCESSES)
    ]
    processes = [Jobs(db, clock, [job("wrap"), job("send")]) for db in databases]
    for one in processes:
        one.start()
    await _until(lambda: min(done["wrap"], done["send"]) >= 20)
    for one in processes:
        await one.close()
    for db in databases:
        await db.close()
    assert most == {"wrap": 1, "send": 1}


async def _always() -> bool:
    return True


@pytest.mark.anyio
async def test_the_job_of_a_process_that_was_killed_is_taken_over(
    db: Database, clock: FrozenClock
) -> None:
    done = 0

    async def work() -> None:
        nonlocal done
        done += 1

    job = Job("wrap", 3600, _always, work)
    await db.write(lambda tx: take(tx, "wrap", "killed", clock.now(), LEASE))
    others = [Jobs(db, clock, [job]) for _ in range(3)]
    assert [await one.run(job) for one in others] == [False] * 3
    clock.advance(LEASE - timedelta(seconds=1))
    assert [await one.run(job) for one in others] == [False] * 3
    clock.advance(timedelta(seconds=1))
    assert await others[0].run(job)
    assert done == 1


@pytest.mark.fault
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_what_servers_leave_alone_a_worker_does_and_another_goes_on(url: str) -> None:
    allowed = {"TOLLGATE_WEBHOOKS_ALLOW_PRIVATE": "true", "TOLLGATE_WEBHOOKS_ALLOW_HTTP": "true"}
    with (
        serving(url, TOLLGATE_JOBS="off", **allowed, **PATIENT) as (service,),
        receiving() as receiver,
    ):
        secret = made(service, "/v1/webhooks", {"url": receiver.url})["secret"]
        limit = {"name": "one", "scope": {"all": True}, "metric": "calls", "window": "day"}
        made(service, "/v1/limits", limit | {"amount": None})
        workers = [Worker(url, **allowed, **PATIENT) for _ in range(2)]

        def crossed(user: str) -> None:
            made(service, "/v1/limits", limit | {"scope": {"user_id": user}, "amount": 1})
            assert post(service, event("e", user)).status_code == 201

        def told(users: Sequence[str]) -> bool:
            end = time.monotonic() + WITHIN_S
            while sorted(told_of(receiver, secret)) != sorted(users) and time.monotonic() < end:
                time.sleep(0.05)
            return sorted(told_of(receiver, secret)) == sorted(users)

        try:
            crossed("ann")
            time.sleep(1.5)
            assert receiver.got == []
            for worker in workers:
                worker.start()
            assert told(["ann"])
            workers[0].kill()
            crossed("bob")
            assert told(["ann", "bob"])
            code, _ = workers[1].terminate()
            assert code == 0
            assert "worker.left" in workers[1].output()
            assert "ERROR" not in workers[1].output()
        finally:
            for worker in workers:
                worker.close()


# ---- serving processes that come and go ---------------------------------------------------------


def _children(service: Service) -> set[int]:
    """The processes that serve for it; one that has just ended is none."""
    assert service.process is not None
    found = set()
    for one in psutil.Process(service.process.pid).children():
        with suppress(psutil.Error):
            if "spawn_main" in " ".join(one.cmdline()):
                found.add(one.pid)
    return found


async def _replaced(service: Service) -> None:
    """Ask for new serving processes in place of the old, and wait until there is no old one."""
    before = _children(service)
    assert service.process is not None
    os.kill(service.process.pid, signal.SIGHUP)
    await _until(lambda: not _children(service) & before)
    await _until(lambda: len(_children(service)) == len(before))


async def _restarted_one_after_another(services: list[Service], writers: Writers) -> None:
    load = asyncio.create_task(writers.run())
    await asyncio.sleep(0.5)
    await _replaced(services[0])
    await asyncio.to_thread(services[1].terminate, 60)
    await asyncio.to_thread(services[1].start)
    await asyncio.sleep(0.5)
    writers.running = False
    await load


async def _insisted(client: httpx.AsyncClient, url: str, body: object) -> httpx.Response:
    """Ask until it is not 503, which means that nothing was done."""
    for _ in range(400):
        answer = await client.post(url, json=body)
        if answer.status_code != 503:
            break
        await asyncio.sleep(0.1)
    return answer


async def _held(services: list[Service]) -> tuple[int, dict[str, int]]:
    """Callers at every process ask for the same limit; what each got, and where it stands then."""
    got = 0

    async def caller(place: int, client: httpx.AsyncClient) -> None:
        nonlocal got
        choose = random.Random(place)
        base = services[place % 2].base
        body = {"id": f"h{place}", "user_id": "hot", "usage": {"input_tokens": EACH}}
        answer = await _insisted(client, f"{base}/v1/holds", body)
        assert answer.status_code in (201, 429), answer.text
        if answer.status_code == 429:
            return
        got += 1
        settled = {"event": {"usage": {"input_tokens": EACH}}}
        path = f"{choose.choice(services).base}/v1/holds/h{place}/settle"
        answer = await _insisted(client, path, settled)
        assert answer.status_code in (200, 201), answer.text

    limits = httpx.Limits(max_connections=CALLERS)
    async with httpx.AsyncClient(
        headers=HEADERS, trust_env=False, timeout=60, limits=limits
    ) as client:
        await asyncio.gather(*(caller(place, client) for place in range(CALLERS)))
        asked = await client.post(f"{services[0].base}/v1/limits/check", json={"user_id": "hot"})
        (stands,) = asked.json()["limits"]
        proof = (await client.get(f"{services[1].base}/v1/audit/consistency")).json()
    assert proof["differences"] == []
    return got, {"used": int(stands["used"]), "held": int(stands["held"])}


@pytest.mark.fault
def test_processes_that_are_replaced_one_after_another_keep_one_exact_account(url: str) -> None:
    """A service of two processes gets new ones by SIGHUP, one of one process is started anew."""
    services = [Service(url, workers=2, **PATIENT), Service(url, **PATIENT)]
    try:
        for service in services:
            service.start()
        writers = Writers(services, count=12, pause_s=0.1)
        asyncio.run(_restarted_one_after_another(services, writers))
        assert writers.acknowledged == writers.sent.keys()
        assert set(writers.statuses) <= {200, 201, 503}
        writers.check(url)
        limit = {"name": "l", "scope": {"user_id": "hot"}, "metric": "tokens", "window": "month"}
        made(services[0], "/v1/limits", limit | {"amount": LIMIT})  # type: ignore[dict-item]
        got, stands = asyncio.run(_held(services))
        assert got == LIMIT // EACH
        assert stands == {"used": got * EACH, "held": 0}
        for service in services:
            service.terminate(60)
            assert "Traceback" not in service.output()
    finally:
        for service in services:
            service.close()


# ---- callers that keep their connection ---------------------------------------------------------

BODY = b'{"user_id": "ann", "id": "%d"}'


def _asked_to_leave(live: Live) -> None:
    async def ask() -> None:
        for server in live._servers:
            for connection in list(server.server_state.connections):
                connection.shutdown()

    asyncio.run_coroutine_threadsafe(ask(), live.loop).result(30)


@pytest.mark.parametrize("db_url", ["sqlite"], indirect=True)
def test_who_keeps_a_connection_is_answered_once_more_and_told_that_it_ends(
    db_url: str, clock: FrozenClock, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.web.server.LEAVING_SECONDS", 600)
    last = (
        request_bytes("POST", "/v1/events", BODY % 2),
        request_bytes("POST", "/v1/events?atomic=true", BODY % 3),
        request_bytes("GET", "/v1/users/ann/usage"),
    )
    with living(db_url, clock, catalog) as live:
        for number, request in enumerate(last):
            with Wire(live.swift, 60) as wire:
                wire.send(request_bytes("POST", "/v1/events", BODY % (10 + number)))
                first = wire.answer()
                assert (first.status, first.headers.get("connection")) == (201, None)
                _asked_to_leave(live)
                wire.send(request)
                answer = wire.answer()
                assert answer.status in (200, 201)
                assert answer.headers["connection"] == "close"
                assert wire.ended(60)
        assert live.logged() == 5


@pytest.mark.parametrize("db_url", ["sqlite"], indirect=True)
def test_who_keeps_a_connection_and_asks_nothing_more_does_not_hold_the_process_up(
    db_url: str, clock: FrozenClock, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.web.server.LEAVING_SECONDS", 0.01)
    with living(db_url, clock, catalog) as live, Wire(live.swift, 60) as wire:
        wire.send(request_bytes("POST", "/v1/events", BODY % 1))
        assert wire.answer().status == 201
        _asked_to_leave(live)
        assert wire.ended(60)
