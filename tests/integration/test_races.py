"""Many writers at once, in one process and in two: nothing lost, nothing twice, nothing refused."""

import asyncio
import random
from collections import Counter as Tally
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import httpx
import pytest
from sqlalchemy import text

from app.core.clock import FrozenClock
from app.db.engine import Tx
from app.main import create_asgi
from app.pricing.catalog import Catalog
from app.runtime import Runtime, build
from app.summaries.fold import Change
from app.summaries.store import apply
from app.summaries.tables import MEASURES, PeriodTotal
from tests.conftest import ADMIN, START, settings_for
from tests.properties.books import assert_balanced, rows_of
from tests.properties.dying import watch_postgres

pytestmark = pytest.mark.anyio

WRITERS = 40
USERS = ("ann", "bob", "cy")
MODELS = ("gpt-4o-mini", "gpt-4o", "mystery")
Event = dict[str, Any]


class Server(NamedTuple):
    """One process of the service, as far as one test process can be two."""

    runtime: Runtime
    client: httpx.AsyncClient


@pytest.fixture
async def servers(
    db_url: str, clock: FrozenClock, catalog: Catalog
) -> AsyncIterator[tuple[Server, Server]]:
    """Two services on one database, each with its own caches, pool, lanes and shard."""
    async with AsyncExitStack() as stack:
        found = []
        for shard in (0, 1):
            settings = settings_for(db_url).model_copy(update={"shard": shard, "pool_size": 6})
            runtime = build(settings, clock=clock, catalog=catalog)
            await runtime.start()
            stack.push_async_callback(runtime.close)
            found.append(Server(runtime, await stack.enter_async_context(client_of(runtime))))
        yield found[0], found[1]


def client_of(runtime: Runtime, token: str = ADMIN) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(create_asgi(runtime), raise_app_exceptions=False),
        base_url="http://test",
        headers={"Authorization": f"Bearer {token}"},
    )


def events(count: int, seed: int) -> list[Event]:
    """A few users, models, teams and hours, so that writers meet on every row."""
    dice = random.Random(seed)
    return [
        {
            "id": f"e{number}",
            "user_id": dice.choice(USERS),
            "timestamp": f"2026-11-{dice.choice((19, 20))}T{dice.choice((10, 11))}:00:00Z",
            "provider": "openai",
            "model": dice.choice(MODELS),
            "usage": {"input_tokens": dice.randint(1, 99), "output_tokens": dice.randint(0, 9)},
            "status_code": dice.choice((200, 500)),
            "team_id": dice.choice(("red", "blue")),
        }
        for number in range(count)
    ]


async def limits(client: httpx.AsyncClient) -> None:
    scopes: list[Event] = [{"user_id": "ann"}, {"team_id": "red"}, {"all": True}]
    scopes.append({"plan_id": "plan_default"})
    for scope in scopes:
        for metric, amount in (("calls", 30), ("tokens", 900), ("cost_usd", "0.00009")):
            body = {"name": "l", "scope": scope, "metric": metric, "amount": amount}
            body |= {"window": "billing_period", "thresholds": [1, 50, 80, 90, 100]}
            assert (await client.post("/v1/limits", json=body)).status_code == 201


async def hammer(clients: list[httpx.AsyncClient], sent: list[Event]) -> Tally[str]:
    """Every writer sends its share and a part of everybody's, in its own order and sizes."""
    outcomes: Tally[str] = Tally()

    async def writer(number: int) -> None:
        dice, client = random.Random(number), clients[number % len(clients)]
        own = sent[number::WRITERS] + dice.sample(sent, len(sent) // 8)
        dice.shuffle(own)
        while own:
            size = dice.choice((1, 1, 7))
            some, own = own[:size], own[size:]
            single = len(some) == 1
            answer = await client.post("/v1/events", json=some[0] if single else some)
            assert answer.status_code in (200, 201), answer.text
            told = answer.json()
            if single:
                outcomes[told["status"]] += 1
            else:
                assert told["rejected"] == 0
                outcomes["recorded"] += told["recorded"]
                outcomes["duplicate"] += told["duplicates"]

    await asyncio.gather(*map(writer, range(WRITERS)))
    return outcomes


async def assert_exact(runtime: Runtime, sent: list[Event], outcomes: Tally[str]) -> None:
    log = await assert_balanced(runtime.db)
    assert log.keys() == {(event["user_id"], event["id"]) for event in sent}
    assert outcomes["recorded"] == len(sent)


async def test_forty_writers_lose_nothing(client: httpx.AsyncClient, runtime: Runtime) -> None:
    await limits(client)
    sent = events(400, seed=1)
    await assert_exact(runtime, sent, await hammer([client], sent))


def failures(patch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every statement that PostgreSQL refuses from now on; another attempt would hide it."""
    found = []

    async def watched(_raw: Any, sql: str, run: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await run()
        except Exception as error:
            found.append((type(error).__name__, sql[:60]))
            raise

    watch_postgres(patch, watched)
    return found


async def test_writers_in_two_processes_lose_nothing_and_never_lock_each_other_out(
    servers: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = servers
    await limits(one.client)
    failed = failures(monkeypatch)
    sent = events(400, seed=2)
    outcomes = await hammer([one.client, other.client], sent)
    assert failed == []
    await assert_exact(one.runtime, sent, outcomes)


async def test_shared_rows_are_locked_in_one_order_whatever_order_they_come_in(
    servers: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    hour = START.replace(minute=0)
    keys = [(f"u{number}", hour, "openai", "m") for number in range(20)]
    ones = [1] * len(MEASURES)

    async def slow_rows(tx: Tx) -> None:  # so that two writers are at it at the same time
        body = "BEGIN PERFORM pg_sleep(0.001); RETURN NEW; END"
        await tx.run(
            text(f"CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $${body}$$")
        )
        for table in ("period_totals", "hour_totals"):
            when = f"BEFORE INSERT ON {table} FOR EACH ROW"
            await tx.run(text(f"CREATE TRIGGER dawdle {when} EXECUTE FUNCTION dawdle()"))

    async def write(server: Server, ordered: list[Any]) -> None:
        change = Change(
            {key: ones for key in ordered},
            {(*key, ""): ones for key in ordered},
            {(hour, "model", key[0]): ones for key in ordered},
        )
        await server.runtime.db.write(lambda tx: apply(tx, change, 0))

    one, other = servers
    if one.runtime.db.dialect == "postgresql":
        await one.runtime.db.write(slow_rows)
    failed = failures(monkeypatch)
    for _ in range(3):
        await asyncio.gather(write(one, keys), write(other, keys[::-1]))
    assert failed == []
    rows = await one.runtime.db.read(lambda tx: rows_of(tx, PeriodTotal))
    assert [row["calls"] for row in rows] == [6] * 20


async def test_limits_made_while_forty_write_count_everything(
    servers: tuple[Server, Server],
) -> None:
    one, other = servers
    sent = events(240, seed=3)
    outcomes, _ = await asyncio.gather(
        hammer([one.client, other.client], sent), limits(other.client)
    )
    await assert_exact(one.runtime, sent, outcomes)


async def test_forty_first_sights_of_one_user_make_one_agreement(
    servers: tuple[Server, Server],
) -> None:
    clients = [server.client for server in servers]

    async def first(number: int) -> None:
        body = {"user_id": "new", "id": str(number), "provider": "openai", "model": "gpt-4o"}
        answer = await clients[number % 2].post("/v1/events", json=body)
        assert answer.status_code == 201, answer.text

    await asyncio.gather(*map(first, range(WRITERS)))
    log = await assert_balanced(servers[0].runtime.db)
    assert len(log) == WRITERS
    for client in clients:
        found = (await client.get("/v1/users/new/subscription")).json()
        assert found["implicit"] is False


async def test_one_id_sent_forty_times_at_once_counts_once(servers: tuple[Server, Server]) -> None:
    clients = [server.client for server in servers]
    bodies = [{"user_id": "ann", "id": "1", "usage": {"input_tokens": n % 2}} for n in range(40)]
    answers = await asyncio.gather(
        *(clients[place % 2].post("/v1/events", json=body) for place, body in enumerate(bodies))
    )
    codes = Tally(answer.status_code for answer in answers)
    assert codes == {201: 1, 200: 19, 409: 20}
    assert len(await assert_balanced(servers[0].runtime.db)) == 1


async def new_key(client: httpx.AsyncClient, *scopes: str) -> tuple[str, str]:
    answer = await client.post("/v1/api-keys", json={"name": "k", "scopes": scopes})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"], answer.json()["key"]


async def tried(client: httpx.AsyncClient) -> list[int]:
    """What a key may do: ingest alone and in bulk, check, read."""
    event = {"user_id": "ann"}
    answers = [
        await client.post("/v1/events", json=event),
        await client.post("/v1/events", json=[event]),
        await client.post("/v1/limits/check", json=event),
        await client.get("/v1/users/ann/usage"),
    ]
    return [answer.status_code for answer in answers]


@pytest.mark.parametrize("first", range(4))
async def test_a_key_revoked_by_one_process_opens_nothing_at_another(
    servers: tuple[Server, Server], first: int
) -> None:
    one, other = servers
    key_id, token = await new_key(one.client, "ingest", "check", "read")
    async with client_of(other.runtime, token) as client:
        assert await tried(client) == [201, 200, 200, 200]
        before = len(await assert_balanced(one.runtime.db))
        assert (await one.client.post(f"/v1/api-keys/{key_id}/revoke")).status_code == 200
        asked = [
            lambda: client.post("/v1/events", json={"user_id": "ann"}),
            lambda: client.post("/v1/events", json=[{"user_id": "ann"}]),
            lambda: client.post("/v1/limits/check", json={"user_id": "ann"}),
            lambda: client.get("/v1/users/ann/usage"),
        ]
        assert (await asked[first]()).status_code == 401
        assert await tried(client) == [401] * 4
    assert len(await assert_balanced(one.runtime.db)) == before


async def test_a_limit_made_by_one_process_is_enforced_by_anothers_next_check(
    servers: tuple[Server, Server],
) -> None:
    one, other = servers
    ask = {"user_id": "ann", "provider": "openai", "model": "gpt-4o-mini"}
    assert (await other.client.post("/v1/events", json=ask)).status_code == 201
    assert (await other.client.post("/v1/limits/check", json=ask)).json()["allowed"] is True
    body = {"name": "l", "scope": {"user_id": "ann"}, "metric": "calls", "window": "day"}
    made = (await one.client.post("/v1/limits", json=body | {"amount": 1})).json()
    found = (await other.client.post("/v1/limits/check", json=ask)).json()
    assert found["allowed"] is False
    assert found["binding"]["used"] == 1
    await one.client.patch(f"/v1/limits/{made['id']}", json={"amount": 2})
    assert (await other.client.post("/v1/limits/check", json=ask)).json()["allowed"] is True
    await other.client.post("/v1/events", json=ask)
    assert (await one.client.post("/v1/limits/check", json=ask)).json()["allowed"] is False
    await one.client.delete(f"/v1/limits/{made['id']}")
    assert (await other.client.post("/v1/limits/check", json=ask)).json()["limits"] == []


async def test_reads_and_checks_at_once_are_all_answered(client: httpx.AsyncClient) -> None:
    await client.post("/v1/events", json={"user_id": "ann"})

    async def ask(number: int) -> httpx.Response:
        if number % 4 == 0:
            return await client.post("/v1/limits/check", json={"user_id": f"u{number}"})
        return await client.get(f"/v1/users/ann/{('usage', 'limits', 'events')[number % 3]}")

    answers = await asyncio.gather(*map(ask, range(120)))
    assert Tally(answer.status_code for answer in answers) == {200: 120}


async def test_configuration_may_change_while_everybody_asks(
    servers: tuple[Server, Server],
) -> None:
    one, other = servers

    async def ask(number: int) -> int:
        client = (one, other)[number % 2].client
        if number % 3 == 0:
            return (await client.post("/v1/events", json={"user_id": f"u{number}"})).status_code
        if number % 3 == 1:
            return (await client.post("/v1/limits/check", json={"user_id": "ann"})).status_code
        return (await client.get("/v1/users/ann/usage")).status_code

    async def change() -> None:
        for server in (one, other, one, other):
            await new_key(server.client, "read")
            body = {"name": "l", "scope": {"all": True}, "metric": "calls", "window": "day"}
            answer = await server.client.post("/v1/limits", json=body | {"amount": 1000})
            assert answer.status_code == 201, answer.text

    codes, _ = await asyncio.gather(asyncio.gather(*map(ask, range(150))), change())
    assert set(codes) <= {200, 201}
    await assert_balanced(one.runtime.db)


async def test_an_unknown_key_tried_by_many_is_unknown_to_each(runtime: Runtime) -> None:
    async with client_of(runtime, "tg_nobody") as client:
        answers = await asyncio.gather(
            *(client.post("/v1/events", json={"user_id": "ann"}) for _ in range(40))
        )
    assert Tally(answer.status_code for answer in answers) == {401: 40}
