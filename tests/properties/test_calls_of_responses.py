"""Events of several calls: whole or not at all, counted once, whatever comes between."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import httpx
import pytest

from app.core.clock import FrozenClock
from app.core.money import CEILING, to_usd
from app.db.engine import Tx
from app.pricing.catalog import Catalog
from app.runtime import Runtime, build
from app.usage.ledger import find_many
from tests.conftest import ADMIN, settings_for
from tests.properties.books import assert_balanced
from tests.served import served_alone

pytestmark = pytest.mark.anyio

USERS = ("ann", "bob")
IDS = ("1", "1#2", "1#3", "2", "2#2", "3")
MODELS = ("claude-sonnet-4-6", "claude-opus-4-6", "nobody-knows-1")
Body = dict[str, Any]
Counts = tuple[str, int, int]


class Sent(NamedTuple):
    """An event and the (model, input, output) of each call that it tells of."""

    body: Body
    calls: list[Counts]

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Under which user and id each of its rows stands."""
        user, name = self.body["user_id"], self.body["id"]
        ids = [name, *(f"{name}#{place}" for place in range(2, len(self.calls) + 1))]
        return [(user, one) for one in ids]


def event(dice: random.Random, label: str) -> Sent:
    """One event; its `session_id` tells its rows from those of any other."""
    body: Body = {
        "user_id": dice.choice(USERS),
        "id": dice.choice(IDS),
        "provider": "anthropic",
        "session_id": label,
    }
    number = dice.choice((1, 1, 1, 2, 2, 3))
    calls = [(dice.choice(MODELS), dice.randint(0, 99), dice.randint(0, 99)) for _ in range(number)]
    model, came, went = calls[0]
    passes = [{"type": "message", "input_tokens": came, "output_tokens": went}]
    for other, more, told in calls[1:]:
        step = {"type": "advisor_message", "model": other}
        passes.append(step | {"input_tokens": more, "output_tokens": told})
    if number == 1 and dice.random() < 0.5:
        body |= {"model": model, "usage": {"input_tokens": came, "output_tokens": went}}
    else:
        usage = {"input_tokens": came, "output_tokens": went, "cache_read_input_tokens": 0}
        more_of_it = {"iterations": passes} if number > 1 else {}
        body["response"] = {"type": "message", "model": model, "usage": usage | more_of_it}
    return Sent(body, calls)


def events(dice: random.Random, count: int) -> list[Sent]:
    """Events that clash with each other, some of them sent again."""
    fresh = [event(dice, f"s{number}") for number in range(count)]
    return [dice.choice(fresh) if dice.random() < 0.3 else one for one in fresh]


class Model:
    """The log as a dictionary: all ids of an event must be free, or the event changes nothing."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], tuple[str, Counts]] = {}

    def record(self, sent: Sent) -> str:
        label, first = sent.body["session_id"], self.rows.get(sent.keys[0])
        if first is not None and first[0] == label:
            return "duplicate"
        if any(key in self.rows for key in sent.keys):
            return "rejected"
        for key, call in zip(sent.keys, sent.calls, strict=True):
            self.rows[key] = (label, call)
        return "recorded"


@pytest.fixture
async def clients(
    db_url: str, clock: FrozenClock, catalog: Catalog
) -> AsyncIterator[tuple[list[httpx.AsyncClient], Runtime]]:
    """Two services on one database, each with its own lanes."""
    async with AsyncExitStack() as stack:
        found = []
        for shard in (0, 1):
            settings = settings_for(db_url).model_copy(update={"shard": shard, "pool_size": 6})
            runtime = build(settings, clock=clock, catalog=catalog)
            await runtime.start()
            stack.push_async_callback(runtime.close)
            client = httpx.AsyncClient(
                transport=httpx.ASGITransport(served_alone(runtime), raise_app_exceptions=False),
                base_url="http://test",
                headers={"Authorization": f"Bearer {ADMIN}"},
            )
            found.append(await stack.enter_async_context(client))
        yield found, runtime


def pieces(dice: random.Random, sent: list[Sent]) -> Iterator[list[Sent]]:
    """The events in requests of a few."""
    start = 0
    while start < len(sent):
        end = start + dice.randint(1, 6)
        yield sent[start:end]
        start = end


async def fates(client: httpx.AsyncClient, some: list[Sent]) -> list[str]:
    """What each event is told, sent alone or as an array."""
    if len(some) == 1:
        answer = await client.post("/v1/events", json=some[0].body)
        codes = {201: "recorded", 200: "duplicate", 409: "rejected"}
        return [codes[answer.status_code]]
    bodies = [one.body for one in some]
    answer = await client.post("/v1/events?results=all", json=bodies)
    assert answer.status_code in (200, 207, 422), answer.text
    return [one["status"] for one in answer.json()["results"]]


async def assert_log(runtime: Runtime, expected: dict[tuple[str, str], tuple[str, Counts]]) -> None:
    log = await assert_balanced(runtime.db)
    found = {
        key: (
            row["session_id"],
            (row["model"], row["input_tokens"] or 0, row["output_tokens"] or 0),
        )
        for key, row in log.items()
    }
    assert found == expected


@pytest.mark.parametrize("seed", range(6))
async def test_one_after_another_they_are_those_of_the_model(
    clients: tuple[list[httpx.AsyncClient], Runtime], seed: int
) -> None:
    dice, model = random.Random(seed), Model()
    sent = events(dice, 40)
    for some in (*pieces(dice, sent), *pieces(dice, sent)):
        expected = [model.record(one) for one in some]
        assert await fates(dice.choice(clients[0]), some) == expected
    await assert_log(clients[1], model.rows)


@pytest.mark.parametrize("seed", range(6))
async def test_racing_each_other_each_is_whole_or_absent(
    clients: tuple[list[httpx.AsyncClient], Runtime], seed: int
) -> None:
    dice = random.Random(seed)
    sent = events(dice, 60)
    both = [(dice.choice(clients[0]), some) for _ in range(3) for some in pieces(dice, sent)]
    dice.shuffle(both)
    told = await asyncio.gather(*(fates(client, some) for client, some in both))
    counted: dict[str, list[str]] = {}
    for (_, some), answers in zip(both, told, strict=True):
        for one, fate in zip(some, answers, strict=True):
            counted.setdefault(one.body["session_id"], []).append(fate)
    expected: dict[tuple[str, str], tuple[str, Counts]] = {}
    for one in sent:
        label = one.body["session_id"]
        assert counted[label].count("recorded") <= 1
        if "recorded" in counted[label]:
            rows = zip(one.keys, one.calls, strict=True)
            expected |= {key: (label, call) for key, call in rows}
        else:
            assert set(counted[label]) == {"rejected"}
    await assert_log(clients[1], expected)


async def test_a_batch_split_for_anothers_sake_splits_no_event(
    clients: tuple[list[httpx.AsyncClient], Runtime],
) -> None:
    rich = {"user_id": "rich", "timestamp": "2026-11-19T00:00:00Z"}
    (client, _), runtime = clients
    full = rich | {"id": "r", "session_id": "r", "cost_usd": to_usd(CEILING)}
    assert (await client.post("/v1/events", json=full)).status_code == 201
    dice, model = random.Random(7), Model()
    fresh = [event(dice, f"s{number}") for number in range(30)]
    sent = [Sent(one.body | {"id": f"e{n}"}, one.calls) for n, one in enumerate(fresh)]
    beyond = rich | {"id": "beyond", "cost_usd": "0.000000001"}
    answers = await asyncio.gather(
        *(client.post("/v1/events", json=one.body) for one in sent[:15]),
        client.post("/v1/events", json=beyond),
        *(client.post("/v1/events", json=one.body) for one in sent[15:]),
    )
    codes = [answer.status_code for answer in answers]
    assert codes.pop(15) == 422
    assert set(codes) == {201}
    for one in sent:
        assert model.record(one) == "recorded"
    await assert_log(runtime, model.rows | {("rich", "r"): ("r", ("", 0, 0))})


async def test_an_id_taken_at_the_last_moment_undoes_the_whole_event(
    clients: tuple[list[httpx.AsyncClient], Runtime], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On PostgreSQL the other writer commits between our look and our insert; SQLite has one."""
    (client, other), runtime = clients
    warm = {"user_id": "ann", "id": "w"}
    beside = {"user_id": "ann", "id": "1#2"}
    for one in (client, other):
        await one.post("/v1/events", json=warm)
    racing: list[asyncio.Task[httpx.Response]] = []

    async def then_raced(tx: Tx, keys: Any) -> Any:
        found = await find_many(tx, keys)
        if not racing:
            racing.append(asyncio.create_task(other.post("/v1/events", json=beside)))
            if tx.dialect == "postgresql":
                await racing[0]
        return found

    monkeypatch.setattr("app.ingest.whole.find_many", then_raced)
    dice = random.Random(0)
    drawn = (event(dice, "s") for _ in range(1000))
    body = next(one.body for one in drawn if len(one.calls) == 2) | {"user_id": "ann", "id": "1"}
    answer = await client.post("/v1/events", json=body)
    codes = [answer.status_code, (await racing[0]).status_code]
    log = await assert_balanced(runtime.db)
    if runtime.db.dialect == "postgresql":
        assert codes == [409, 201]
        assert set(log) == {("ann", "w"), ("ann", "1#2")}
    else:
        assert codes == [201, 409]
        assert set(log) == {("ann", "w"), ("ann", "1"), ("ann", "1#2")}
