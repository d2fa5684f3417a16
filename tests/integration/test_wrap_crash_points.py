"""A wrap dies at every database operation in turn; the next one goes on, and nothing is lost."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import apsw
import asyncpg
import fsspec
import httpx
import pytest

from app.core.clock import FrozenClock
from app.core.errors import AppError
from app.db import engine
from app.pricing.catalog import Catalog
from app.retention import wrap as wrapping
from app.retention.chunk import LEASE
from app.retention.wrap import wrap
from app.runtime import Runtime, build
from tests.conftest import ADMIN, settings_for
from tests.integration.wraps import assert_accounted, call, ids_in_log, keep, send
from tests.properties.dying import Script, watch_postgres, watch_sqlite
from tests.served import served_alone

pytestmark = pytest.mark.anyio
SENT = 6


class House:
    """A service whose wrap dies where the script says, and others that are started after it."""

    def __init__(self, start: Callable[[], Runtime], script: Script) -> None:
        self._start, self.script = start, script

    async def open(self) -> None:
        self.runtime = self._start()
        await self.runtime.start()
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(served_alone(self.runtime)),
            base_url="http://test",
            headers={"Authorization": f"Bearer {ADMIN}"},
        )

    async def close(self) -> None:
        await self.client.aclose()
        await self.runtime.close()


@pytest.fixture
async def control(db_url: str) -> AsyncIterator[asyncpg.Connection | None]:
    """A connection that ends others, on PostgreSQL."""
    found = None
    if db_url.startswith("postgresql"):
        found = await asyncpg.connect(db_url)
    yield found
    if found is not None:
        await found.close()


@pytest.fixture(params=["before", "after"])
def moment(request: pytest.FixtureRequest) -> str:
    """Whether the operation dies before it takes effect or after."""
    return str(request.param)


@pytest.fixture
async def house(
    db_url: str,
    clock: FrozenClock,
    catalog: Catalog,
    moment: str,
    control: asyncpg.Connection | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[House]:
    monkeypatch.setattr(engine.random, "uniform", lambda _low, _high: 0.001)
    monkeypatch.setattr(wrapping, "CHUNK", 4)
    script = Script()

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
        if script.dead and "BEGIN" in sql:
            raise OSError("the process is dead")
        if not script.ticks(sql):
            return await run()
        if moment == "after":
            await run()
        script.dead = True
        assert control is not None
        await control.execute("SELECT pg_terminate_backend($1, 1000)", raw.get_server_pid())
        raw.terminate()
        raise asyncpg.ConnectionDoesNotExistError("closed in the middle of operation")

    if control is not None:
        watch_postgres(monkeypatch, on_postgres)
    else:
        watch_sqlite(monkeypatch, on_sqlite)
    url = f"memory://{tmp_path}"  # outlives a service, and needs no process of its own
    settings = settings_for(db_url).model_copy(update={"archive_url": url})
    found = House(lambda: build(settings, clock=clock, catalog=catalog), script)
    await found.open()
    yield found
    script.armed = script.dead = False
    await found.close()


async def test_wherever_a_wrap_dies_the_next_one_goes_on(
    house: House, clock: FrozenClock, tmp_path: Path
) -> None:
    places: list[str] = []
    await keep(house.runtime.db, clock.now(), rows=1)
    while True:
        fatal, user = len(places) + 1, f"user-{len(places)}"
        events = [call(number, user=user) for number in range(SENT)]
        await send(house.client, events)
        house.script.arm(fatal)
        try:
            await wrap(house.runtime.wrap, [user])
        except AppError:
            assert house.script.died_at
        where = house.script.died_at
        house.script.armed = house.script.dead = False
        await house.close()
        await house.open()
        await assert_accounted(house.runtime.db)
        assert set(await send(house.client, events)) == {"duplicate"}, where
        clock.advance(LEASE + timedelta(seconds=1))
        await wrap(house.runtime.wrap, [user])
        assert await ids_in_log(house.runtime.db, user) == ["e0"], where
        await assert_accounted(house.runtime.db)
        assert set(await send(house.client, events)) == {"duplicate"}, where
        if not where:  # the wrap ends before that operation
            break
        places.append(where)
    assert sum(place == "COMMIT" for place in places) >= 5
    tables = ("wrapped_usage", "wrapped_events", "usage_events")
    if house.runtime.db.dialect == "sqlite":  # COPY passes by the hook
        assert all(any(table in place for place in places) for table in tables)
    listed = (await house.client.get("/v1/archives?limit=1000")).json()["items"]
    assert {one["state"] for one in listed} == {"sealed"}
    files = fsspec.filesystem("memory").find(str(tmp_path))
    kept = {file.removeprefix(f"{tmp_path}/") for file in files if file.endswith(".parquet")}
    assert kept == {one["path"] for one in listed}
    for one in listed[:3]:
        assert (await house.client.post(f"/v1/archives/{one['id']}/verify")).json()["ok"]
