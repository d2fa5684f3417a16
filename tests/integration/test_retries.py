"""What another attempt can repair is repaired inside; the rest is 503, soon, and unrecorded."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import apsw
import asyncpg
import httpx
import pytest

from app.core.clock import FrozenClock
from app.db import engine
from app.db.engine import TIMEOUT_S
from app.main import create_asgi
from app.pricing.catalog import Catalog
from app.runtime import Runtime, build
from tests.conftest import ADMIN, PATIENCE_S, settings_for
from tests.properties.books import assert_balanced, everything_in, log_in
from tests.properties.dying import Turned, watch_postgres, watch_sqlite

pytestmark = pytest.mark.anyio

EVENT = {"user_id": "ann", "id": "1", "provider": "openai", "model": "gpt-4o-mini"}
LIMIT = {"name": "l", "scope": {"user_id": "ann"}, "metric": "calls", "window": "day", "amount": 2}
POSTGRES_ERRORS: dict[str, Callable[[], Exception]] = {
    "40001": lambda: asyncpg.SerializationError("could not serialize access"),
    "40P01": lambda: asyncpg.DeadlockDetectedError("deadlock detected"),
    "55P03": lambda: asyncpg.LockNotAvailableError("lock not available"),
    "57P01": lambda: asyncpg.AdminShutdownError("terminating connection"),
    "08006": lambda: asyncpg.ConnectionFailureError("connection lost"),
    "25006": lambda: asyncpg.ReadOnlySQLTransactionError("read-only transaction"),
}


def client_of(runtime: Runtime) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(create_asgi(runtime), raise_app_exceptions=False),
        base_url="http://test",
        headers={"Authorization": f"Bearer {ADMIN}"},
    )


@pytest.fixture
def turned(monkeypatch: pytest.MonkeyPatch) -> Turned:
    """The hook on every commit; nothing fails before a test says so."""
    found = Turned()
    watch_sqlite(monkeypatch, found.sqlite)
    watch_postgres(monkeypatch, found.postgres)
    return found


@pytest.fixture
async def watched(
    turned: Turned, db_url: str, clock: FrozenClock, catalog: Catalog
) -> AsyncIterator[Runtime]:
    found = build(settings_for(db_url), clock=clock, catalog=catalog)
    await found.start()
    yield found
    turned.fails = lambda _number: None
    await found.close()


def first_of_each(make: Callable[[], Exception]) -> Callable[[int], Exception | None]:
    """Fails every other commit: the first of each transaction, where one is made at a time."""
    return lambda number: make() if number % 2 else None


@pytest.mark.parametrize("sqlstate", POSTGRES_ERRORS)
async def test_a_failed_first_commit_is_not_noticed(
    watched: Runtime,
    turned: Turned,
    clock: FrozenClock,
    sqlstate: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine.random, "uniform", lambda _low, _high: 0.001)
    if watched.db.dialect == "sqlite":
        if sqlstate != "40001":
            return  # SQLite knows one of these: busy
        make: Callable[[], Exception] = lambda: apsw.BusyError("database is locked")  # noqa: E731
    else:
        make = POSTGRES_ERRORS[sqlstate]
    async with client_of(watched) as client:
        turned.commits, turned.fails = 0, first_of_each(make)
        assert (await client.post("/v1/limits", json=LIMIT)).status_code == 201
        assert (await client.post("/v1/events", json=EVENT)).status_code == 201
        clock.advance(timedelta(microseconds=1))  # what is told apart by when it was recorded
        many = [EVENT | {"id": str(number)} for number in (1, 2, 3)]
        told = (await client.post("/v1/events", json=many)).json()
        assert (told["recorded"], told["duplicates"]) == (2, 1)
        key = await client.post("/v1/api-keys", json={"name": "k", "scopes": ["read"]})
        assert key.status_code == 201
        alert = (await client.get("/v1/users/ann/alerts")).json()["items"][0]
        assert (await client.post(f"/v1/alerts/{alert['id']}/read")).status_code == 200
        assert turned.commits >= 10
    turned.fails = lambda _number: None
    assert len(await assert_balanced(watched.db)) == 3


async def test_a_database_that_never_commits_is_503_within_five_seconds_and_records_nothing(
    watched: Runtime, turned: Turned
) -> None:
    sqlite = watched.db.dialect == "sqlite"
    busy = apsw.BusyError("database is locked")
    async with client_of(watched) as client:
        assert (await client.post("/v1/events", json=EVENT)).status_code == 201
        before = await everything_in(watched.db)
        watched.db.patience_s = TIMEOUT_S
        turned.fails = lambda _number: busy if sqlite else POSTGRES_ERRORS["40001"]()
        began = time.monotonic()
        answers = await asyncio.gather(
            client.post("/v1/events", json=EVENT | {"id": "2"}),
            client.post("/v1/events", json=[EVENT | {"id": "3"}, EVENT | {"id": "1"}]),
            client.post("/v1/limits", json=LIMIT),
            client.post("/v1/api-keys", json={"name": "k", "scopes": ["read"]}),
        )
        assert time.monotonic() - began < 5
        for answer in answers:
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["Retry-After"]) >= 1
            assert answer.headers["Content-Type"] == "application/problem+json"
        turned.fails, watched.db.patience_s = lambda _number: None, PATIENCE_S
        assert await everything_in(watched.db) == before
        assert (await client.post("/v1/events", json=EVENT | {"id": "2"})).status_code == 201


async def test_a_database_that_does_not_answer_is_503_within_five_seconds(
    watched: Runtime, db_url: str
) -> None:
    async with client_of(watched) as client:
        assert (await client.post("/v1/events", json=EVENT)).status_code == 201
        watched.db.patience_s = TIMEOUT_S
        async with Blocked(db_url):
            began = time.monotonic()
            answers = await asyncio.gather(
                client.post("/v1/events", json=EVENT | {"id": "2"}),
                client.post("/v1/events", json=[EVENT | {"id": "3"}]),
                client.post("/v1/api-keys", json={"name": "k", "scopes": ["read"]}),
            )
            waited = time.monotonic() - began
        watched.db.patience_s = PATIENCE_S
        assert [answer.status_code for answer in answers] == [503] * 3
        assert all(answer.headers["Retry-After"] for answer in answers)
        assert waited < 6
        assert len(await assert_balanced(watched.db)) == 1
        assert (await client.post("/v1/events", json=EVENT | {"id": "2"})).status_code == 201
        assert len(await assert_balanced(watched.db)) == 2


class Blocked:
    """Somebody else holds what every writer needs."""

    def __init__(self, db_url: str) -> None:
        self._url = db_url
        self._postgres: asyncpg.Connection | None = None
        self._sqlite: apsw.Connection | None = None

    async def __aenter__(self) -> None:
        if self._url.startswith("sqlite"):
            self._sqlite = apsw.Connection(self._url.removeprefix("sqlite:///"))
            self._sqlite.execute("BEGIN IMMEDIATE")
            return
        self._postgres = await asyncpg.connect(self._url)
        await self._postgres.execute("BEGIN")
        await self._postgres.execute("LOCK TABLE usage_events, config_changes")

    async def __aexit__(self, *_: object) -> None:
        if self._sqlite is not None:
            self._sqlite.execute("ROLLBACK")
            self._sqlite.close()
        if self._postgres is not None:
            await self._postgres.close()


async def test_every_backend_terminated_at_once_is_not_noticed(
    watched: Runtime, db_url: str
) -> None:
    if watched.db.dialect == "sqlite":
        return
    control = await asyncpg.connect(db_url)
    async with client_of(watched) as client:
        for number in range(4):
            body = EVENT | {"id": str(number)}
            assert (await client.post("/v1/events", json=body)).status_code == 201
            assert (await client.post("/v1/limits/check", json={"user_id": "a"})).status_code == 200
            assert (await client.get("/v1/users/ann/usage")).status_code == 200
            await control.execute(
                "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
    await control.close()
    assert len(await assert_balanced(watched.db)) == 4


async def test_writers_on_a_serializable_database_are_exact(
    db_url: str, clock: FrozenClock, catalog: Catalog
) -> None:
    if db_url.startswith("sqlite"):
        return
    control = await asyncpg.connect(db_url)
    name = await control.fetchval("SELECT current_database()")
    await control.execute(
        f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = 'serializable'"
    )
    await control.close()
    runtimes = []
    for shard in (0, 1):
        settings = settings_for(db_url).model_copy(update={"shard": shard, "pool_size": 6})
        runtimes.append(build(settings, clock=clock, catalog=catalog))
        await runtimes[-1].start()
    clients = [client_of(runtime) for runtime in runtimes]

    async def send(client: httpx.AsyncClient, path: str, body: Any) -> httpx.Response:
        for _ in range(20):
            answer = await client.post(path, json=body)
            if answer.status_code != 503:
                break
            assert answer.headers["Retry-After"]
        assert answer.status_code in (200, 201), answer.text
        return answer

    async def write(number: int) -> None:
        body = EVENT | {"user_id": f"u{number % 3}", "id": str(number % 60)}
        await send(clients[number % 2], "/v1/events", body)

    async def decide(number: int) -> None:
        scope = {"user_id": f"u{number}"} if number else {"all": True}
        await send(clients[number % 2], "/v1/limits", LIMIT | {"scope": scope, "amount": 15})

    await asyncio.gather(*map(write, range(120)), *map(decide, range(4)))
    log = await assert_balanced(runtimes[0].db)
    assert len(log) == 60
    for client, runtime in zip(clients, runtimes, strict=True):
        await client.aclose()
        await runtime.close()


async def test_a_full_disk_is_503_and_leaves_nothing_behind(
    watched: Runtime, turned: Turned
) -> None:
    sqlite = watched.db.dialect == "sqlite"
    full = apsw.FullError("database or disk is full")
    async with client_of(watched) as client:
        turned.fails = lambda _number: full if sqlite else asyncpg.DiskFullError("no space left")
        answer = await client.post("/v1/events", json=EVENT)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        turned.fails = lambda _number: None
        assert await log_in(watched.db) == {}
        assert (await client.post("/v1/events", json=EVENT)).status_code == 201
        await assert_balanced(watched.db)
