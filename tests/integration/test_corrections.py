"""Corrections: what is taken back is taken back once, whoever writes or dies beside it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import apsw
import pytest
from sqlalchemy import update

from app.analytics.audit import prove
from app.core.clock import FrozenClock
from app.ingest import rerate_apply
from app.ingest.api import ADVISED
from app.pricing.catalog import Catalog
from app.runtime import Runtime, build
from app.usage.tables import UsageCorrection
from tests.conftest import START, settings_for
from tests.integration.corrections import (
    WHY,
    assert_corrected,
    correct,
    corrections_in,
    void,
)
from tests.integration.rerates import charging, event, post, rerated, send
from tests.integration.test_races import Server, client_of
from tests.properties.books import books_in, log_in
from tests.properties.dying import Script, watch_sqlite

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(runtime: Runtime) -> AsyncIterator[Server]:
    async with client_of(runtime) as client:
        yield Server(runtime, client)


@pytest.fixture
async def two_servers(
    db_url: str, clock: FrozenClock, catalog: Catalog
) -> AsyncIterator[tuple[Server, Server]]:
    """Two services on one database."""
    async with AsyncExitStack() as stack:
        found = []
        for shard in (0, 1):
            settings = settings_for(db_url).model_copy(update={"shard": shard, "pool_size": 8})
            runtime = build(settings, clock=clock, catalog=catalog)
            await runtime.start()
            stack.push_async_callback(runtime.close)
            found.append(Server(runtime, await stack.enter_async_context(client_of(runtime))))
        yield found[0], found[1]


async def limit(server: Server, **more: Any) -> None:
    body = {"name": "l", "scope": {"user_id": "ann"}, "metric": "calls", "window": "day"}
    await post(server.client, "/v1/limits", body | {"amount": 100} | more)


async def test_a_void_takes_every_figure_of_the_event_and_nothing_else(server: Server) -> None:
    await limit(server)
    await limit(server, metric="cost_usd", amount="1", window="month", scope={"all": True})
    more = {"team_id": "red", "api_key_id": "k", "backend": "b", "pool": "p", "ttft_ms": 3}
    events = [event(number, **more, status_code=500) for number in range(3)]
    await send(server.client, events[:2])
    before = await books_in(server.runtime.db)
    await send(server.client, events[2:])
    await void(server.client, "ann-2")
    standing = await assert_corrected(server.runtime.db)
    assert set(standing) == {("ann", "ann-0"), ("ann", "ann-1")}
    after = await books_in(server.runtime.db)
    assert after.counters == before.counters
    assert {k: v for k, v in after.dimensions.items() if v} == before.dimensions


async def test_an_event_that_moves_to_another_period_moves_there_in_both_windows(
    server: Server,
) -> None:
    await limit(server, amount=2, thresholds=[50, 100])
    await limit(server, amount=1, window="billing_period", thresholds=[100])
    await send(server.client, [event(1), event(2)])
    alerts = (await books_in(server.runtime.db)).alerts
    assert len(alerts) == 3
    answer = await correct(server.client, "ann-1", timestamp="2026-10-31T23:59:59.999999Z")
    assert answer["billing_period"] == "2026-10"
    assert answer["late"] is True
    standing = await assert_corrected(server.runtime.db)
    assert standing["ann", "ann-1"]["timestamp"].month == 10
    october = (await server.client.get("/v1/users/ann/usage?billing_period=2026-10")).json()
    november = (await server.client.get("/v1/users/ann/usage")).json()
    assert (october["total_calls"], november["total_calls"]) == (1, 1)
    assert set(alerts) <= set((await books_in(server.runtime.db)).alerts)


async def test_a_counter_that_falls_keeps_its_alert_and_one_that_rises_raises_it(
    server: Server,
) -> None:
    await limit(server, metric="tokens", amount=2_000, thresholds=[50, 100])
    await send(server.client, [event(0)])
    assert [key[3] for key in (await books_in(server.runtime.db)).alerts] == [50]
    await correct(server.client, "ann-0", usage={"input_tokens": 10})
    await correct(server.client, "ann-0", usage={"input_tokens": 2_500})
    assert [key[3] for key in (await books_in(server.runtime.db)).alerts] == [50, 100]
    await void(server.client, "ann-0")
    assert [key[3] for key in (await books_in(server.runtime.db)).alerts] == [50, 100]
    assert await assert_corrected(server.runtime.db) == {}
    items = (await server.client.get("/v1/users/ann/alerts")).json()["items"]
    assert len(items) == 2


async def test_eight_voids_at_once_take_back_once(two_servers: tuple[Server, Server]) -> None:
    await send(two_servers[0].client, [event(number) for number in range(4)])
    for number in range(4):
        answers = await asyncio.gather(
            *(void(two_servers[place % 2].client, f"ann-{number}") for place in range(8))
        )
        assert all(answer == answers[0] for answer in answers)
        assert answers[0]["voided"] is True
    rows = await corrections_in(two_servers[0].runtime.db)
    assert {len(found) for found in rows.values()} == {1}
    assert await assert_corrected(two_servers[1].runtime.db) == {}


async def test_books_balance_while_some_write_some_rate_again_and_some_correct(
    two_servers: tuple[Server, Server], catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rerate_apply, "CHUNK", 7)
    one, other = two_servers
    await limit(one, metric="cost_usd", amount="0.01", scope={"all": True}, thresholds=[10, 100])
    await send(one.client, [event(number, team_id="red") for number in range(40)])
    writing = True

    async def write(number: int) -> None:
        for batch in range(4):
            first = 1_000 * number + 10 * batch
            events = [event(first + place, team_id="red") for place in range(10)]
            await send(two_servers[number % 2].client, events)

    async def rate(server: Server) -> None:
        rounds = 0
        while writing or rounds < 2:
            for each in two_servers:
                each.runtime.house.prices.catalog = charging(
                    catalog, gpt_4o_mini=(150, 700, 20)[rounds % 3]
                )
            await rerated(server.client)
            rounds += 1

    async def amend(number: int) -> None:
        client = two_servers[number % 2].client
        for place in range(40):
            path = f"/v1/users/ann/events/ann-{place}"
            body: dict[str, Any] = {"reason": WHY}
            if (place + number) % 3:
                body["fields"] = {"usage": {"input_tokens": 100 * number + place}}
                answer = await client.post(f"{path}/correct", json=body)
                assert answer.status_code in (200, 409), answer.text
            else:
                assert (await client.post(f"{path}/void", json=body)).status_code == 200

    rating = [asyncio.create_task(rate(server)) for server in two_servers]
    await asyncio.gather(*map(write, range(1, 4)), *map(amend, range(3)))
    writing = False
    await asyncio.gather(*rating)
    await assert_corrected(one.runtime.db)
    assert len(await corrections_in(one.runtime.db)) == 40
    again = await rerated(other.client)
    assert again["corrected"] == 40
    await assert_corrected(one.runtime.db)


async def test_a_corrected_event_is_left_out_of_re_rates(server: Server, catalog: Catalog) -> None:
    await send(server.client, [event(1), event(2), event(3)])
    await correct(server.client, "ann-1", cost_usd="0.25")
    await void(server.client, "ann-2")
    server.runtime.house.prices.catalog = charging(catalog, gpt_4o_mini=300)
    told = await rerated(server.client)
    assert (told["events"], told["changed"], told["corrected"]) == (1, 1, 2)
    standing = await assert_corrected(server.runtime.db)
    assert standing["ann", "ann-1"]["cost_nanos"] == 250_000_000


async def test_a_void_of_an_event_of_several_calls_takes_all_of_them(server: Server) -> None:
    body = ADVISED | {"user_id": "ann"}
    for name in ("one", "two"):
        answer = await post(server.client, "/v1/events", body | {"id": name})
        assert len(answer["calls"]) == 2
    await send(server.client, [event(1) | {"id": "one#3"}])
    part = await void(server.client, "two%232")
    assert part["voided_ids"] == ["two#2"]
    whole = await void(server.client, "one")
    assert whole["voided_ids"] == ["one", "one#2"]
    assert await void(server.client, "one") == whole
    standing = await assert_corrected(server.runtime.db)
    assert set(standing) == {("ann", "two"), ("ann", "one#3")}


async def test_the_log_row_stays_as_it_came(server: Server) -> None:
    await send(server.client, [event(1), event(2)])
    before = await log_in(server.runtime.db)
    await correct(server.client, "ann-1", model="gpt-4o", tags={"a": "b"}, status_code=503)
    await void(server.client, "ann-2")
    assert await log_in(server.runtime.db) == before
    rows = (await corrections_in(server.runtime.db))["ann", "ann-1"]
    assert [(row["revision"], row["sign"]) for row in rows] == [(1, -1), (2, 1)]
    await send(server.client, [event(1), event(2)])  # still known, as they were sent
    assert await assert_corrected(server.runtime.db)


async def test_the_proof_sees_a_correction_that_takes_back_something_else(server: Server) -> None:
    await send(server.client, [event(1)])
    await correct(server.client, "ann-1", usage={"input_tokens": 5})
    wrong = update(UsageCorrection).where(UsageCorrection.revision == 1)
    await server.runtime.db.write(lambda tx: tx.run(wrong.values(session_id="another")))
    proof = await server.runtime.db.read(lambda tx: prove(tx, START))
    (found,) = proof.differences
    assert found.identity == "corrections_sum_to_present"
    assert found.where == {"user_id": "ann", "event_id": "ann-1", "revision": "1"}


@pytest.mark.parametrize("db_url", ["sqlite"], indirect=True)  # where it dies with its memory
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_wherever_the_process_dies_a_correction_is_whole_or_never_was(
    db_url: str,
    clock: FrozenClock,
    catalog: Catalog,
    moment: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = Script()

    def on_sqlite(sql: str, run: Any) -> Any:
        if script.dead:
            raise apsw.IOError("the process is dead")
        if script.ticks(sql):
            if moment == "after":
                run()
            script.dead = True
            raise apsw.IOError("the process is dead")
        return run()

    watch_sqlite(monkeypatch, on_sqlite)
    fatal, headers = 0, {"Idempotency-Key": "k"}
    while True:
        fatal += 1
        runtime = build(settings_for(db_url), clock=clock, catalog=catalog)
        await runtime.start()
        name = f"ann-{fatal}"
        body = {"fields": {"usage": {"input_tokens": 7}}, "reason": WHY}
        path = f"/v1/users/ann/events/{name}/correct"
        async with client_of(runtime) as client:
            if fatal == 1:
                await limit(Server(runtime, client), amount=50)
            await send(client, [event(fatal)])
            script.arm(fatal)
            answer = await client.post(path, json=body, headers=headers)
            died = bool(script.died_at)
            assert answer.status_code == (503 if died else 200)
        script.armed = script.dead = False
        await runtime.close()
        runtime = build(settings_for(db_url), clock=clock, catalog=catalog)
        await runtime.start()
        async with client_of(runtime) as client:
            await assert_corrected(runtime.db)
            again = await client.post(path, json=body, headers=headers)
            assert again.status_code == 200
        standing = await assert_corrected(runtime.db)
        rows = (await corrections_in(runtime.db))["ann", name]
        await runtime.close()
        assert len(rows) == 2
        assert standing["ann", name]["input_tokens"] == 7
        if not died:
            break
    assert fatal > 8
    assert json.dumps(again.json())
