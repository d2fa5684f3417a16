"""The database dies at every operation in turn; whoever retries is counted once.

Every operation is tried, so the result needs no luck. A client that got no answer, or 503, sends
the same ids again. On SQLite the whole process dies with its memory; on PostgreSQL the backend is
terminated, or its answer is lost after it did the work.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import apsw
import asyncpg
import httpx
import pytest

from app.core.clock import FrozenClock
from app.db import engine
from app.pricing.catalog import Catalog
from app.runtime import Runtime, build
from tests.conftest import ADMIN, settings_for
from tests.properties.books import assert_balanced, books_in
from tests.properties.dying import Script, watch_postgres, watch_sqlite
from tests.served import served_alone

pytestmark = pytest.mark.anyio


class Service:
    """A service that can be started again on the same database."""

    def __init__(self, db_url: str, clock: FrozenClock, catalog: Catalog, script: Script) -> None:
        self._parts = (db_url, clock, catalog)
        self.script = script
        self.runtime: Runtime
        self.client: httpx.AsyncClient

    async def start(self) -> None:
        url, clock, catalog = self._parts
        self.runtime = build(settings_for(url), clock=clock, catalog=catalog)
        await self.runtime.start()
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(served_alone(self.runtime)),
            base_url="http://test",
            headers={"Authorization": f"Bearer {ADMIN}"},
        )

    async def stop(self) -> None:
        await self.client.aclose()
        await self.runtime.close()

    async def send(self, body: Any) -> list[str]:
        """Send until answered, as a client does; what became of each event."""
        for _ in range(4):
            answer = await self.client.post("/v1/events?results=all", json=body)
            if answer.status_code != 503:
                break
            assert answer.headers["Retry-After"]
            if self.script.dead:
                self.script.armed = self.script.dead = False
                await self.stop()
                await self.start()
        assert answer.status_code in (200, 201), answer.text
        told = answer.json()
        return [told["status"]] if "status" in told else [one["status"] for one in told["results"]]


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture(params=["before", "after"])
def moment(request: pytest.FixtureRequest) -> str:
    """Whether the operation dies before it takes effect or after."""
    return str(request.param)


@pytest.fixture
async def service(
    db_url: str,
    clock: FrozenClock,
    catalog: Catalog,
    script: Script,
    moment: str,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Service]:
    """A running service whose database dies where the script says."""
    monkeypatch.setattr(engine.random, "uniform", lambda _low, _high: 0.001)

    def on_sqlite(sql: str, run: Callable[[], Any]) -> Any:
        if script.dead:
            raise apsw.IOError("the process is dead")
        if script.ticks(sql):
            if moment == "after":
                run()
            script.dead = True
            raise apsw.IOError("the process is dead")
        return run()

    async def on_postgres(raw: Any, sql: str, run: Callable[[], Awaitable[Any]]) -> Any:
        if not script.ticks(sql):
            return await run()
        if moment == "after":
            await run()
        await kill(raw.get_server_pid())
        if moment == "after":
            raw.terminate()
            raise asyncpg.ConnectionDoesNotExistError("closed in the middle of operation")
        return await run()

    control: list[asyncpg.Connection] = []

    async def kill(pid: int) -> None:
        script.armed = False
        await control[0].execute("SELECT pg_terminate_backend($1, 1000)", pid)

    if db_url.startswith("postgresql"):
        control.append(await asyncpg.connect(db_url))
        watch_postgres(monkeypatch, on_postgres)
    else:
        watch_sqlite(monkeypatch, on_sqlite)
    found = Service(db_url, clock, catalog, script)
    await found.start()
    yield found
    script.armed = script.dead = False
    await found.stop()
    for connection in control:
        await connection.close()


def event(user: str, number: int) -> dict[str, Any]:
    return {
        "user_id": user,
        "id": f"e{number}",
        "provider": "openai",
        "model": "gpt-4o-mini",
        "usage": {"input_tokens": 10 * number, "output_tokens": number},
    }


async def run(service: Service, user: str, fatal: int) -> list[str]:
    """Some events of which two are known; three thresholds are passed on the way."""
    body = {"name": "l", "scope": {"user_id": user}, "metric": "calls", "window": "day"}
    body |= {"amount": 3, "thresholds": [33, 50, 100]}
    assert (await service.client.post("/v1/limits", json=body)).status_code == 201
    one, two, three = (event(user, number) for number in (1, 2, 3))
    assert await service.send(one) == ["recorded"]
    service.script.arm(fatal)
    found = await service.send([two, event(f"{user}-other", 2), two, one, three])
    service.script.armed = False
    return found


async def test_wherever_the_database_dies_a_retry_counts_once(service: Service) -> None:
    untroubled = await run(service, "user-0", fatal=0)
    assert untroubled == ["recorded"] * 2 + ["duplicate"] * 2 + ["recorded"]
    places: list[str] = []
    while True:
        fatal = len(places) + 1
        user = f"user-{fatal}"
        told = await run(service, user, fatal)
        assert set(told) <= {"recorded", "duplicate"}
        where = service.script.died_at
        answer = (await service.client.get(f"/v1/users/{user}/usage")).json()
        assert (answer["total_calls"], answer["total_tokens"]) == (3, 66), where
        assert sorted(one["threshold"] for one in answer["alerts"]) == [33, 50, 100], where
        if not where:  # the script ends before that operation
            break
        places.append(where)
    assert places.count("COMMIT") == 1
    for table in ("usage_events", "period_totals", "hour_totals", "limit_counters", "alerts"):
        assert any(table in place for place in places), table
    log = await assert_balanced(service.runtime.db)
    assert len(log) == 4 * (len(places) + 2)
    assert len((await books_in(service.runtime.db)).alerts) == 3 * (len(places) + 2)


@pytest.mark.parametrize("moment", ["after"], indirect=True)
async def test_an_event_whose_commit_went_unheard_is_not_an_error(service: Service) -> None:
    service.script.arm(fatal=0)
    service.script.fatal_statement = "COMMIT"
    told = await service.send(event("ann", 1))
    assert service.script.died_at == "COMMIT"
    sqlite = service.runtime.db.dialect == "sqlite"
    assert told == (["duplicate"] if sqlite else ["recorded"])  # PostgreSQL: retried inside
    assert await service.send(event("ann", 1)) == ["duplicate"]
    assert len(await assert_balanced(service.runtime.db)) == 1
