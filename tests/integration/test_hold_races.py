"""Many callers at once, in one process and in two: what is used and held never passes the limit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from itertools import count
from typing import Any

import asyncpg
import httpx
import pytest
from sqlalchemy import func, select

from app.analytics.audit import prove
from app.core.clock import Clock, FrozenClock
from app.db.engine import Database, Tx
from app.limits import holds
from app.limits.tables import Counter, Hold, HoldAmount
from app.main import create_asgi
from app.pricing.catalog import Catalog
from app.runtime import Runtime, build
from tests.conftest import ADMIN, settings_for

pytestmark = pytest.mark.anyio
CALLERS, ROUNDS, LIMIT, EACH = 64, 4, 1_000, 97
Server = tuple[Runtime, httpx.AsyncClient]


async def start(stack: AsyncExitStack, url: str, clock: Clock, catalog: Catalog) -> Server:
    runtime = build(settings_for(url), clock=clock, catalog=catalog)
    await runtime.start()
    stack.push_async_callback(runtime.close)
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(create_asgi(runtime), raise_app_exceptions=False),
        base_url="http://test",
        headers={"Authorization": f"Bearer {ADMIN}"},
    )
    return runtime, await stack.enter_async_context(client)


@pytest.fixture
async def servers(
    db_url: str, clock: FrozenClock, catalog: Catalog
) -> AsyncIterator[tuple[Server, Server]]:
    """Two services on one database, each with its own caches, pool and lanes."""
    async with AsyncExitStack() as stack:
        yield (
            await start(stack, db_url, clock, catalog),
            await start(stack, db_url, clock, catalog),
        )


async def limit(client: httpx.AsyncClient, **more: Any) -> None:
    body = {"name": "l", "scope": {"user_id": "ann"}, "metric": "tokens", "window": "month"}
    answer = await client.post("/v1/limits", json=body | {"amount": LIMIT} | more)
    assert answer.status_code == 201


async def levels(db: Database) -> tuple[int, int, int]:
    """What is used, what is held, and what open holds hold, on one snapshot."""

    async def work(tx: Tx) -> tuple[int, int, int]:
        used, held = (await tx.fetch(select(func.sum(Counter.used), func.sum(Counter.held))))[0]
        parts = (await tx.fetch(select(func.sum(HoldAmount.amount))))[0][0]
        return int(used or 0), int(held or 0), int(parts or 0)

    return await db.read(work)


async def test_used_and_held_never_pass_the_limit(servers: tuple[Server, Server]) -> None:
    """Also D1.6: callers who ask at the same time do not all pass."""
    db = servers[0][0].db
    await limit(servers[0][1])
    numbers, done = count(), asyncio.Event()
    seen: list[tuple[int, int, int]] = []

    async def watch() -> None:
        while not done.is_set():
            seen.append(await levels(db))
            await asyncio.sleep(0.002)

    async def caller(place: int) -> int:
        client, settled = servers[place % 2][1], 0
        for turn in range(ROUNDS):
            hold = f"h{next(numbers)}"
            body = {"id": hold, "user_id": "ann", "usage": {"input_tokens": EACH}}
            answer = await client.post("/v1/holds", json=body)
            if answer.status_code == 429:
                continue
            assert answer.status_code == 201, answer.text
            client = servers[(place + turn) % 2][1]  # whoever it is that settles
            if turn % 2:
                assert (await client.post(f"/v1/holds/{hold}/release")).status_code == 200
                continue
            event = {"event": {"usage": {"input_tokens": EACH // 3}}}
            answers = await asyncio.gather(
                *(client.post(f"/v1/holds/{hold}/settle", json=event) for _ in range(2))
            )
            assert sorted(one.status_code for one in answers) == [200, 201]
            settled += 1
        return settled

    watching = asyncio.create_task(watch())
    settled = sum(await asyncio.gather(*(caller(place) for place in range(CALLERS))))
    done.set()
    await watching
    assert settled > 0
    assert all(used + held <= LIMIT and held == parts for used, held, parts in seen)
    assert await levels(db) == (settled * (EACH // 3), 0, 0)
    proof = await db.read(lambda tx: prove(tx, servers[0][0].clock.now()))
    assert proof.differences == []


async def test_crossing_settles_of_holds_in_many_limits_do_not_deadlock(
    servers: tuple[Server, Server],
) -> None:
    """Users share team and house limits, so every batch locks counters that others lock."""
    client = servers[0][1]
    for scope in ({"all": True}, {"team_id": "red"}, {"team_id": "blue"}):
        await limit(client, scope=scope, amount=10**6)
    before = await deadlocks(servers[0][0])

    async def caller(place: int) -> None:
        for turn in range(3):
            body = {"user_id": f"u{place % 7}", "team_id": ("red", "blue")[(place + turn) % 2]}
            one, other = servers[place % 2][1], servers[(place + turn) % 2][1]
            answer = await one.post("/v1/holds", json=body | {"usage": {"input_tokens": 5}})
            assert answer.status_code == 201
            path = f"/v1/holds/{answer.json()['id']}/settle"
            settled = await other.post(path, json={"event": {"usage": {"input_tokens": 4}}})
            assert settled.status_code == 201, settled.text

    await asyncio.gather(*(caller(place) for place in range(40)))
    assert await deadlocks(servers[0][0]) == before
    used, held, parts = await levels(servers[0][0].db)
    assert (used, held, parts) == (2 * 120 * 4, 0, 0)


async def deadlocks(runtime: Runtime) -> int:
    if runtime.db.dialect == "sqlite":
        return 0
    connection = await asyncpg.connect(runtime.settings.database_url)
    try:
        found: int = await connection.fetchval(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )
        return found
    finally:
        await connection.close()


async def test_one_id_asked_for_twice_at_once_is_held_once(
    servers: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both processes look, both find nothing, both grant: the second to write begins again."""
    await limit(servers[0][1])
    taken = 0
    real = holds.take_turn

    async def counted(*given: Any) -> holds.Turn:
        nonlocal taken
        try:
            return await real(*given)
        except holds.Taken:
            taken += 1
            raise

    monkeypatch.setattr("app.ingest.meter.take_turn", counted)
    body = {"user_id": "ann", "usage": {"input_tokens": 10}}
    for number in range(30):
        asked = body | {"id": f"h{number}"}
        answers = await asyncio.gather(
            *(client.post("/v1/holds", json=asked) for _, client in servers)
        )
        assert sorted(one.status_code for one in answers) == [200, 201]
        assert answers[0].json() == answers[1].json()
    assert await levels(servers[0][0].db) == (0, 300, 300)


async def test_a_hold_made_by_another_writer_in_between_is_found_by_the_second_attempt(
    servers: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    await limit(servers[0][1])
    ask = {"id": "h", "user_id": "ann", "usage": {"input_tokens": 10}}
    assert (await servers[1][1].post("/v1/holds", json=ask)).status_code == 201
    real, blind = holds.find_holds, [True]

    async def find(tx: Tx, keys: Any) -> Any:
        if blind:
            blind.clear()
            return {}
        return await real(tx, keys)

    monkeypatch.setattr(holds, "find_holds", find)
    answer = await servers[0][1].post("/v1/holds", json=ask)
    assert (answer.status_code, answer.json()["status"]) == (200, "open")
    assert await levels(servers[0][0].db) == (0, 10, 10)


async def test_expired_holds_of_killed_callers_leave_nothing(
    servers: tuple[Server, Server], clock: FrozenClock
) -> None:
    runtime, client = servers[0]
    await limit(client)
    for number in range(10):
        body = {"id": f"h{number}", "user_id": "ann", "usage": {"input_tokens": 100}}
        assert (await client.post("/v1/holds", json=body | {"ttl_s": 5})).status_code == 201
    clock.advance(timedelta(seconds=5))
    full = {"id": "all", "user_id": "ann", "usage": {"input_tokens": LIMIT}, "ttl_s": 5}
    assert (await servers[1][1].post("/v1/holds", json=full)).status_code == 201
    assert await levels(runtime.db) == (0, LIMIT, LIMIT)  # swept by who needed the room
    clock.advance(timedelta(seconds=5))
    job = next(one for one in runtime.jobs._jobs if one.name == "tidy-holds")
    assert await runtime.jobs.run(job)
    assert await levels(runtime.db) == (0, 0, 0)
    assert not await job.is_due()

    async def states(tx: Tx) -> set[str]:
        return {row[0] for row in await tx.fetch(select(Hold.state))}

    assert await runtime.db.read(states) == {"expired"}
    clock.advance(timedelta(days=36))
    assert await runtime.jobs.run(job)
    assert await runtime.db.read(states) == set()


async def test_a_database_that_cannot_answer_lets_nobody_in(
    servers: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3.7: a count that cannot be read is not zero; nor is the hold in the end there."""
    await limit(servers[0][1])

    async def broken(*_: Any, **__: Any) -> Any:
        raise OSError("the connection is gone")

    monkeypatch.setattr("app.db.engine.random.uniform", lambda _low, _high: 0.001)
    monkeypatch.setattr("app.limits.holds.count_and_lock", broken)
    body = {"id": "h", "user_id": "ann", "usage": {"input_tokens": 10}}
    answer = await servers[0][1].post("/v1/holds", json=body)
    assert (answer.status_code, bool(answer.headers["Retry-After"])) == (503, True)
    monkeypatch.undo()
    assert (await servers[0][1].get("/v1/holds/h")).status_code == 404
    assert await levels(servers[0][0].db) == (0, 0, 0)


async def test_settles_that_race_with_expiry_free_once(
    servers: tuple[Server, Server], clock: FrozenClock
) -> None:
    """S1.15 held a verdict for 30 s; here what is told is what is stored at that moment."""
    runtime, client = servers[0]
    await limit(client)
    for number in range(20):
        body = {"id": f"h{number}", "user_id": "ann", "usage": {"input_tokens": 50}, "ttl_s": 1}
        assert (await client.post("/v1/holds", json=body)).status_code == 201
    clock.advance(timedelta(seconds=1))
    big = {"user_id": "ann", "usage": {"input_tokens": 100}, "ttl_s": 60}
    settles = [
        servers[number % 2][1].post(
            f"/v1/holds/h{number}/settle", json={"event": {"usage": {"input_tokens": 1}}}
        )
        for number in range(20)
    ]
    asks = [servers[number % 2][1].post("/v1/holds", json=big) for number in range(5)]
    answers = await asyncio.gather(*settles, *asks)
    assert {one.status_code for one in answers} == {201}
    assert await levels(runtime.db) == (20, 500, 500)
