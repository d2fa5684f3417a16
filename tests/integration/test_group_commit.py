"""Group commit: what arrives together is made durable together, and fails alone."""

import asyncio
from collections import Counter as Tally
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.core.clock import FrozenClock
from app.core.money import CEILING, to_usd
from app.db.engine import Lane
from app.ingest import intake
from app.main import create_asgi
from app.pricing.catalog import Catalog
from app.runtime import Runtime, build
from tests.conftest import ADMIN, settings_for
from tests.properties.books import assert_balanced, log_in
from tests.properties.dying import Turned, watch_postgres, watch_sqlite

pytestmark = pytest.mark.anyio

Event = dict[str, Any]


def event(number: int, user: str = "ann", **more: object) -> Event:
    return {"user_id": user, "id": f"e{number}", "usage": {"input_tokens": number}} | more


@pytest.fixture
def turned(monkeypatch: pytest.MonkeyPatch) -> Turned:
    """Counts commits."""
    found = Turned()
    watch_sqlite(monkeypatch, found.sqlite)
    watch_postgres(monkeypatch, found.postgres)
    return found


@pytest.fixture
async def runtime(
    turned: Turned, db_url: str, clock: FrozenClock, catalog: Catalog
) -> AsyncIterator[Runtime]:
    found = build(settings_for(db_url), clock=clock, catalog=catalog)
    await found.start()
    yield found
    await found.close()


@pytest.fixture
async def client(runtime: Runtime) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(create_asgi(runtime), raise_app_exceptions=False),
        base_url="http://test",
        headers={"Authorization": f"Bearer {ADMIN}"},
    ) as found:
        yield found


class Gate:
    """Holds every lane before its transaction until it is opened."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.open, self.waiting = asyncio.Event(), 0
        write = Lane.write

        async def held(lane: Lane, work: Any, **named: Any) -> Any:
            self.waiting += 1
            await self.open.wait()
            return await write(lane, work, **named)

        patch.setattr(Lane, "write", held)


async def settled() -> None:
    """Let everything that can move do so."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_events_that_arrive_together_share_transactions(
    client: httpx.AsyncClient, runtime: Runtime, turned: Turned
) -> None:
    await client.post("/v1/events", json=event(0))
    turned.commits = 0
    answers = await asyncio.gather(
        *(client.post("/v1/events", json=event(number)) for number in range(1, 201))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert turned.commits <= 50
    assert len(await assert_balanced(runtime.db)) == 201


async def test_each_caller_gets_the_answer_to_its_own_events_in_their_order(
    client: httpx.AsyncClient,
) -> None:
    async def one(number: int) -> None:
        told = (await client.post("/v1/events", json=event(number, user=f"u{number % 5}"))).json()
        assert told["id"] == f"e{number}"
        assert told["user_id"] == f"u{number % 5}"
        assert told["usage"]["input_tokens"] == number

    async def many(first: int) -> None:
        bodies = [event(number, user=f"u{number % 5}") for number in range(first, first + 20)]
        bodies[7] = {"user_id": "u", "usage": {"input_tokens": -1}}
        bodies[11] = bodies[3]
        answer = await client.post("/v1/events?results=all", json=bodies)
        results = answer.json()["results"]
        assert answer.status_code == 207
        assert [one["index"] for one in results] == list(range(20))
        assert [one["id"] for one in results] == [body.get("id") for body in bodies]
        wanted = Tally({"recorded": 18, "rejected": 1, "duplicate": 1})
        assert Tally(one["status"] for one in results) == wanted
        assert results[11]["status"] == "duplicate"

    await asyncio.gather(*map(one, range(40)), *map(many, range(100, 300, 20)))


async def test_a_call_that_passes_what_can_be_counted_fails_alone(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    rich = event(0, user="rich", cost_usd=to_usd(CEILING), timestamp="2026-11-19T00:00:00Z")
    assert (await client.post("/v1/events", json=rich)).status_code == 201
    bodies = [event(number) for number in range(1, 20)]
    bodies.insert(9, event(99, user="rich", cost_usd="0.000000001"))
    answers = await asyncio.gather(*(client.post("/v1/events", json=body) for body in bodies))
    codes = [answer.status_code for answer in answers]
    assert codes.pop(9) == 422
    assert set(codes) == {201}
    assert answers[9].json()["errors"][0]["detail"]
    assert len(await assert_balanced(runtime.db)) == 20


async def test_sums_beyond_the_ceiling_within_one_batch_are_refused_too(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    bodies = [event(number, user="rich", cost_usd=to_usd(CEILING)) for number in (1, 2)]
    answer = await client.post("/v1/events", json=[*bodies, event(3)])
    assert answer.status_code == 422
    assert await log_in(runtime.db) == {}
    assert (await client.post("/v1/events", json=bodies[0])).status_code == 201
    await assert_balanced(runtime.db)


async def test_a_full_queue_is_503_and_nothing_of_it_is_recorded(
    client: httpx.AsyncClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "QUEUED_CALLS", 5)
    gate = Gate(monkeypatch)
    taken = []
    for number in range(len(runtime.intake._lanes)):  # every lane has its hands full
        taken.append(asyncio.create_task(client.post("/v1/events", json=event(number))))
        await settled()
    assert gate.waiting == len(taken)
    queued = [
        asyncio.create_task(client.post("/v1/events", json=event(number)))
        for number in range(10, 14)
    ]
    await settled()
    batch = await client.post("/v1/events", json=[event(20), event(21)])
    assert batch.status_code == 503
    assert int(batch.headers["Retry-After"]) >= 1
    queued.append(asyncio.create_task(client.post("/v1/events", json=event(14))))
    await settled()
    assert (await client.post("/v1/events", json=event(22))).status_code == 503
    gate.open.set()
    answers = await asyncio.gather(*taken, *queued)
    assert {answer.status_code for answer in answers} == {201}
    log = await assert_balanced(runtime.db)
    assert {"e20", "e21", "e22"}.isdisjoint({event_id for _, event_id in log})
    assert len(log) == len(taken) + 5
    assert (await client.post("/v1/events", json=event(22))).status_code == 201


async def test_an_atomic_batch_is_alone_in_its_transaction(
    client: httpx.AsyncClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.post("/v1/events", json=event(0))
    gate = Gate(monkeypatch)
    again = event(0, endpoint="/other")
    posts = [("", event(1)), ("", event(2)), ("?atomic=true", [event(3), again]), ("", event(4))]
    posts += [("?atomic=true", [event(5), event(6)]), ("?atomic=true", [event(7), {"user_id": 1}])]
    tasks = [
        asyncio.create_task(client.post(f"/v1/events{query}", json=body)) for query, body in posts
    ]
    await settled()
    gate.open.set()
    answers = await asyncio.gather(*tasks)
    assert [answer.status_code for answer in answers] == [201, 201, 409, 201, 200, 422]
    log = await assert_balanced(runtime.db)
    assert {event_id for _, event_id in log} == {"e0", "e1", "e2", "e4", "e5", "e6"}


async def test_closing_finishes_what_was_accepted_and_refuses_what_comes_later(
    db_url: str, clock: FrozenClock, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = build(settings_for(db_url), clock=clock, catalog=catalog)
    await service.start()
    gate = Gate(monkeypatch)
    transport = httpx.ASGITransport(create_asgi(service), raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {ADMIN}"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://test", headers=headers
    ) as client:
        accepted = [
            asyncio.create_task(client.post("/v1/events", json=event(number)))
            for number in range(12)
        ]
        await settled()
        closing = asyncio.create_task(service.close())
        await settled()
        late = await client.post("/v1/events", json=event(99))
        assert late.status_code == 503
        assert late.headers["Retry-After"]
        assert not closing.done()
        gate.open.set()
        answers = await asyncio.gather(*accepted)
        await closing
    assert {answer.status_code for answer in answers} == {201}
    again = build(settings_for(db_url), clock=clock, catalog=catalog)
    assert len(await assert_balanced(again.db)) == 12
    await again.close()


async def test_a_caller_that_goes_away_takes_nobody_with_it(
    client: httpx.AsyncClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    tasks = [
        asyncio.create_task(client.post("/v1/events", json=event(number))) for number in range(6)
    ]
    await settled()
    tasks.pop(2).cancel()
    gate.open.set()
    answers = await asyncio.gather(*tasks)
    assert {answer.status_code for answer in answers} == {201}
    assert len(await assert_balanced(runtime.db)) == 6


async def test_a_bug_in_one_batch_does_not_stop_the_lane(
    client: httpx.AsyncClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(intake, "meter", lambda *_, **__: 1 / 0)
        assert (await client.post("/v1/events", json=event(1))).status_code == 500
    for number in range(1, 4):
        assert (await client.post("/v1/events", json=event(number))).status_code == 201
    assert len(await assert_balanced(runtime.db)) == 3


async def test_a_process_that_knows_more_scopes_than_it_keeps_still_answers(
    client: httpx.AsyncClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.limits.known.CAPACITY", 8)
    monkeypatch.setattr("app.plans.known.CAPACITY", 8)
    limit = {"name": "l", "metric": "calls", "window": "day", "amount": 10, "scope": {"all": True}}
    assert (await client.post("/v1/limits", json=limit)).status_code == 201
    for number in range(30):
        answer = await client.post("/v1/events", json=event(number, user=f"u{number}"))
        assert answer.status_code == 201, f"the user seen as number {number}"
        asked = await client.post("/v1/limits/check", json={"user_id": f"v{number}"})
        assert asked.status_code == 200
    many = [event(number, user=f"w{number}") for number in range(30)]
    assert (await client.post("/v1/events", json=many)).json()["recorded"] == 30
    assert len(await assert_balanced(runtime.db)) == 60
