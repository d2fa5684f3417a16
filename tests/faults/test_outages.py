"""P10, P12: a fault of the database is told as 503 within seconds, and passes by itself."""

import asyncio
import resource
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import httpx
import pytest

from tests.faults.service import (
    ANSWER_S,
    HEADERS,
    Postgres,
    Service,
    Wire,
    Writers,
    event,
    post,
    refused,
    serving,
    stored,
    through,
)

pytestmark = pytest.mark.fault
PLAN = {"name": "Pro"}


async def _told(client: httpx.AsyncClient, name: str) -> None:
    """Doors of every kind say 503 in time; `/healthz` goes on."""
    took: dict[str, float] = {}

    async def ask(method: str, path: str, body: object = None, later_s: float = 0) -> None:
        await asyncio.sleep(later_s)
        began = time.monotonic()
        answer = await client.request(method, path, json=body)
        took[f"{method} {path} {type(body).__name__} {later_s}"] = round(
            time.monotonic() - began, 1
        )
        assert refused(answer), f"{name}: {path} {answer.status_code} {answer.text}"

    async with asyncio.TaskGroup() as doors:
        doors.create_task(ask("POST", "/v1/events", event(name)))
        doors.create_task(ask("POST", "/v1/events", [event(f"{name}-array")]))
        doors.create_task(ask("POST", "/v1/limits/check", {"user_id": "alice"}))
        doors.create_task(ask("POST", "/v1/plans", PLAN))
        # behind others that wait already
        doors.create_task(ask("POST", "/v1/events", event(f"{name}-later"), 1))
        doors.create_task(ask("POST", "/v1/limits/check", {"user_id": "alice"}, 1))
        doors.create_task(ask("GET", "/v1/limits"))
        doors.create_task(ask("GET", "/readyz"))
    assert max(took.values()) < ANSWER_S, f"{name}: {took}"
    assert (await client.get("/healthz")).status_code == 200


async def _recovers(client: httpx.AsyncClient, name: str, within_s: float = 8) -> None:
    """It takes events and answers questions again without being helped."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        answer = await client.post("/v1/events", json=event(name))
        if answer.status_code in (200, 201):
            break
        assert refused(answer)
        await asyncio.sleep(0.1)
    for path in ("/readyz", "/v1/limits"):
        assert (await client.get(path)).status_code == 200, path
    asked = await client.post("/v1/limits/check", json={"user_id": "alice"})
    assert asked.status_code == 200


@pytest.fixture
async def client() -> AsyncIterator[Callable[[Service], httpx.AsyncClient]]:
    made: list[httpx.AsyncClient] = []

    def make(service: Service) -> httpx.AsyncClient:
        made.append(
            httpx.AsyncClient(base_url=service.base, headers=HEADERS, trust_env=False, timeout=12)
        )
        return made[-1]

    yield make
    for one in made:
        await one.aclose()


@pytest.mark.anyio
async def test_postgresql_away_frozen_or_cut_off(
    breakable: Postgres, client: Callable[[Service], httpx.AsyncClient]
) -> None:
    """One service lives through every fault in turn, as it would in a bad night."""
    url = await asyncio.to_thread(breakable.database)
    wire = Wire(breakable.port)
    service = Service(through(url, wire.port))
    try:
        await asyncio.to_thread(service.start)
        http = client(service)
        assert (await http.post("/v1/events", json=event("before"))).status_code == 201
        load = Writers([service], count=3)
        writing = asyncio.create_task(load.run())
        try:
            for mode in ("fast", "immediate"):
                await asyncio.to_thread(breakable.stop, mode)
                await _told(http, f"stopped-{mode}")
                await asyncio.to_thread(breakable.start)
                await _recovers(http, f"started-{mode}")

            breakable.signal(signal.SIGSTOP)
            await _told(http, "frozen")
            breakable.signal(signal.SIGCONT)
            await _recovers(http, "thawed")

            wire.swallow()
            await _told(http, "swallowed")
            await _told(http, "swallowed again")  # with a pool whose connections all hang
            wire.heal()
            await _recovers(http, "healed")
        finally:
            breakable.signal(signal.SIGCONT)
            wire.heal()
            load.running = False
            await writing
    finally:
        service.close()
        wire.close()
    assert load.acknowledged == load.sent.keys()
    assert 500 not in load.statuses
    rows, _ = await asyncio.to_thread(stored, url)
    logged = [name for _, name, _, _ in rows]
    assert len(logged) == len(set(logged))
    assert load.acknowledged <= set(logged)
    assert {"before", "started-fast", "started-immediate", "thawed", "healed"} <= set(logged)


@pytest.mark.anyio
async def test_another_process_holds_the_sqlite_file(
    tmp_path: Path, client: Callable[[Service], httpx.AsyncClient]
) -> None:
    url = f"sqlite:///{tmp_path}/tollgate.db"
    service = Service(url)
    try:
        await asyncio.to_thread(service.start)
        http = client(service)
        other = apsw.Connection(f"{tmp_path}/tollgate.db")
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        answers = await asyncio.gather(
            *(http.post("/v1/events", json=event(f"e{n}")) for n in range(4)),
            http.post("/v1/plans", json=PLAN),
        )
        assert time.monotonic() - began < ANSWER_S
        assert [answer.status_code for answer in answers] == [503] * 5
        assert all(refused(answer) for answer in answers)
        check = await http.post("/v1/limits/check", json={"user_id": "alice"})
        assert check.status_code == 200  # readers do not mind a writer
        other.execute("ROLLBACK")
        other.close()
        await _recovers(http, "after")
        assert [name for _, name, _, _ in await asyncio.to_thread(_log, url)] == ["after"]
    finally:
        service.close()


def _log(url: str) -> list[tuple[str, str, int, int]]:
    return stored(url)[0]


def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """A bound on the length of files stands for the disk: it needs no privileges."""
    path = tmp_path / "tollgate.db"
    url = f"sqlite:///{path}"
    with serving(url, limit_bytes=13_000_000) as (service,):
        acknowledged, in_a_row = [], 0
        tags = {f"t{n}": "x" * 500 for n in range(16)}
        for turn in range(400):
            batch = [event(f"{turn}-{n}", tags=tags) for n in range(20)]
            answer = post(service, batch)
            in_a_row += 1
            if answer.status_code == 200:  # perhaps again, where the WAL could be folded back
                acknowledged += [one["id"] for one in batch]
                in_a_row = 0
            else:
                assert refused(answer), answer.text
            if in_a_row == 5:
                break
        assert in_a_row == 5
        assert len(acknowledged) > 100
        ready = httpx.get(f"{service.base}/readyz", trust_env=False)
        assert ready.status_code == 200  # what is there can be read

        assert service.process is not None
        _, hard = resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        assert post(service, event("space")).status_code == 201
        service.terminate()
        logged = [name for _, name, _, _ in stored(url)[0]]
        assert logged.count("space") == 1
        assert set(acknowledged) <= set(logged)
        assert len(logged) == len(set(logged))
        connection = apsw.Connection(str(path))
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()
