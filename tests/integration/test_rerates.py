"""Rating events anew: nothing is lost, doubled or left behind, whoever writes or dies beside it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import apsw
import pytest
from sqlalchemy import update

from app.analytics.audit import prove
from app.core.clock import FrozenClock
from app.ingest import rerate_apply
from app.ingest.rerate_apply import apply_rerate
from app.pricing.catalog import Catalog
from app.runtime import Runtime, build
from app.usage.tables import UsageEvent
from tests.conftest import START, settings_for
from tests.integration.rerates import (
    MINI,
    RATING,
    assert_history,
    charging,
    event,
    history_of,
    parts_of,
    post,
    rerated,
    send,
)
from tests.integration.test_races import Server, client_of
from tests.properties.books import assert_balanced, books_in, log_in
from tests.properties.dying import Turned, watch_postgres, watch_sqlite

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(runtime: Runtime) -> AsyncIterator[Server]:
    async with client_of(runtime) as client:
        yield Server(runtime, client)


@pytest.fixture
async def two_servers(
    db_url: str, clock: FrozenClock, catalog: Catalog
) -> AsyncIterator[tuple[Server, Server]]:
    """Two services on one database, each with its own caches and lanes."""
    async with AsyncExitStack() as stack:
        found = []
        for shard in (0, 1):
            settings = settings_for(db_url).model_copy(update={"shard": shard, "pool_size": 6})
            runtime = build(settings, clock=clock, catalog=catalog)
            await runtime.start()
            stack.push_async_callback(runtime.close)
            found.append(Server(runtime, await stack.enter_async_context(client_of(runtime))))
        yield found[0], found[1]


async def budgets(server: Server) -> None:
    """Limits of every scope that count cost, and one that does not."""
    scopes: list[Any] = [{"user_id": "ann"}, {"team_id": "red"}, {"all": True}]
    scopes.append({"plan_id": "plan_default"})
    for number, scope in enumerate(scopes):
        for window in ("day", "billing_period", "lifetime"):
            body = {"name": f"b{number}", "scope": scope, "metric": "cost_usd", "window": window}
            body |= {"amount": "1000", "thresholds": []}
            await post(server.client, "/v1/limits", body)
    await post(
        server.client,
        "/v1/limits",
        {"name": "calls", "scope": {"all": True}, "metric": "calls", "window": "day", "amount": 9},
    )


def some(count: int, **more: Any) -> list[dict[str, Any]]:
    """Events of three users, two days and two teams."""
    return [
        event(
            number,
            ("ann", "bob", "cy")[number % 3],
            timestamp=f"2026-11-{19 + number % 2}T10:00:00Z",
            team_id=("red", "blue")[number % 2],
            **more,
        )
        for number in range(count)
    ]


async def test_a_price_that_rose_and_fell_leaves_both_changes_and_the_old_books(
    server: Server, catalog: Catalog
) -> None:
    await budgets(server)
    await send(server.client, some(40))
    before, books = await log_in(server.runtime.db), await books_in(server.runtime.db)
    prices = server.runtime.house.prices
    prices.catalog = charging(catalog, gpt_4o_mini=300)
    up = await rerated(server.client)
    assert (up["state"], up["events"], up["changed"]) == ("applied", 40, 40)
    assert up["applied"] == {"scanned": 40, "changed": 40, "delta_usd": up["delta_usd"]}
    log = await assert_history(server.runtime.db)
    assert all(log[key]["cost_nanos"] == 2 * row["cost_nanos"] > 0 for key, row in before.items())
    used = [name for name in before["ann", "ann-0"] if name not in RATING]
    assert all(
        [row[name] for name in used] == [before[key][name] for name in used]
        for key, row in log.items()
    )
    prices.catalog = catalog
    down = await rerated(server.client)
    assert down["delta_usd"] == "-" + up["delta_usd"]
    assert await assert_history(server.runtime.db) == before
    assert await books_in(server.runtime.db) == books
    history = await history_of(server.runtime.db)
    assert {len(changes) for changes in history.values()} == {2}
    for changes in history.values():
        assert [one["kind"] for one in changes] == ["rerate"] * 2
        assert [one["job_id"] for one in changes] == [up["id"], down["id"]]
        assert changes[0]["reason"] == "the list was wrong"
        assert changes[0]["actor"] == "key_environment"


async def test_applying_twice_or_at_once_is_applying_once(
    two_servers: tuple[Server, Server], catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rerate_apply, "CHUNK", 3)
    monkeypatch.setattr(rerate_apply, "PAGE", 7)
    one, other = two_servers
    await budgets(one)
    await send(one.client, some(40))
    for server in two_servers:
        server.runtime.house.prices.catalog = charging(catalog, gpt_4o_mini=300)
    planned = await post(one.client, "/v1/rerates", {"filter": {}})
    assert (planned["state"], planned["changed"]) == ("planned", 40)
    assert not await history_of(one.runtime.db)
    path = f"/v1/rerates/{planned['id']}/apply"
    told = await asyncio.gather(*(post(each.client, path) for each in (one, other, one, other)))
    again = await post(one.client, path)
    assert all(answer == again for answer in told)
    assert again["applied"] == {"scanned": 40, "changed": 40, "delta_usd": planned["delta_usd"]}
    assert {len(changes) for changes in (await history_of(one.runtime.db)).values()} == {1}
    await assert_balanced(one.runtime.db)
    await assert_history(one.runtime.db)
    nothing = await rerated(other.client)
    assert (nothing["changed"], nothing["applied"]["changed"]) == (0, 0)


async def test_books_balance_while_ten_write_and_two_rate_again(
    two_servers: tuple[Server, Server], catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rerate_apply, "CHUNK", 20)
    one, other = two_servers
    await budgets(one)
    writing = True

    async def write(number: int) -> None:
        client = two_servers[number % 2].client
        for batch in range(8):
            first = 1_000 * number + 10 * batch
            users = ("ann", "bob", f"u{number}")
            events = [event(first + place, users[place % 3], team_id="red") for place in range(10)]
            await send(client, events)
            await send(client, events[:3])

    async def rate(server: Server) -> int:
        rounds = 0
        while writing or rounds < 4:
            for each in two_servers:
                each.runtime.house.prices.catalog = charging(
                    catalog, gpt_4o_mini=(150, 700, 20)[rounds % 3]
                )
            await rerated(server.client)
            rounds += 1
        return rounds

    rating = [asyncio.create_task(rate(server)) for server in two_servers]
    await asyncio.gather(*map(write, range(10)))
    writing = False
    assert min(await asyncio.gather(*rating)) >= 4
    log = await assert_history(one.runtime.db)
    assert len(log) == 10 * 8 * 10
    for server in two_servers:
        server.runtime.house.prices.catalog = catalog
    await rerated(other.client)
    log = await assert_history(one.runtime.db)
    assert {row["cost_nanos"] for row in log.values()} == {
        150 * (row["input_tokens"] or 0) + 600 * (row["output_tokens"] or 0) for row in log.values()
    }


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_re_rate_that_died_goes_on_where_it_stopped(
    db_url: str,
    clock: FrozenClock,
    catalog: Catalog,
    moment: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each commit in turn is the one at which the process dies: before it holds, or after."""
    monkeypatch.setattr(rerate_apply, "CHUNK", 4)
    turned = Turned()

    def die(number: int, run: Callable[[], Any], error: Exception) -> Any:
        if turned.commits != number:
            return run()
        if moment == "after":
            run()
        raise error

    fatal = 0

    def on_sqlite(sql: str, run: Callable[[], Any]) -> Any:
        if sql != "COMMIT" or not fatal:
            return run()
        turned.commits += 1
        return die(fatal, run, apsw.IOError("the process is dead"))

    async def on_postgres(raw: Any, sql: str, run: Callable[[], Awaitable[Any]]) -> Any:
        if sql != "COMMIT" or not fatal:
            return await run()
        turned.commits += 1
        if turned.commits != fatal:
            return await run()
        if moment == "after":
            await run()
        raw.terminate()
        raise RuntimeError("the process is dead")

    if db_url.startswith("postgresql"):
        watch_postgres(monkeypatch, on_postgres)
    else:
        watch_sqlite(monkeypatch, on_sqlite)
    runtime = build(settings_for(db_url), clock=clock, catalog=catalog)
    await runtime.start()
    async with client_of(runtime) as client:
        server = Server(runtime, client)
        await budgets(server)
        await send(client, some(20))
        await post(client, "/v1/rerates", {"filter": {}})  # knows the way before it counts
        for number in range(2, 30):
            turned.commits = 0
            rate = 150 * (number % 2 + 1)
            runtime.house.prices.catalog = charging(catalog, gpt_4o_mini=rate)
            planned = await post(client, "/v1/rerates", {"filter": {}})
            fatal = number
            before = await log_in(runtime.db)
            try:
                turned.commits = 0
                await apply_rerate(parts_of(runtime), planned["id"])
                died = False
            except Exception:
                died = True
            reached, fatal = turned.commits >= number, 0
            await assert_history(runtime.db)
            await post(client, f"/v1/rerates/{planned['id']}/apply")
            await post(client, f"/v1/rerates/{planned['id']}/apply")
            log = await assert_history(runtime.db)
            assert await log_in(runtime.db) == log != before
            assert all(
                row["cost_nanos"] == rate * (row["input_tokens"] + 4 * (row["output_tokens"] or 0))
                for row in log.values()
            )
            if not reached:
                assert not died
                break
            assert died
        else:
            raise AssertionError("the script never came to its end")
    await runtime.close()
    assert number > 4


async def test_a_threshold_that_a_re_rate_crosses_is_told_once_and_stays_told(
    server: Server, catalog: Catalog
) -> None:
    body = {"name": "b", "scope": {"user_id": "ann"}, "metric": "cost_usd", "window": "day"}
    await post(server.client, "/v1/limits", body | {"amount": "0.01", "thresholds": [50, 100, 900]})
    await send(server.client, [event(number) for number in range(20)])
    db, prices = server.runtime.db, server.runtime.house.prices
    assert (await books_in(db)).alerts == []
    for rate in (300, 900, 150, 300, 5_000, 150, 900):
        prices.catalog = charging(catalog, gpt_4o_mini=rate)
        await rerated(server.client, user_id="ann")
        await assert_history(db)
        found = [key[-1] for key in (await books_in(db)).alerts]
        assert found == sorted(set(found))
        if rate == 300 and len(found) == 1:
            assert found == [50]
    assert found == [50, 100, 900]
    items = (await server.client.get("/v1/users/ann/alerts")).json()["items"]
    assert sorted(item["threshold"] for item in items) == [50, 100, 900]


async def test_a_stated_cost_is_never_touched_and_a_lost_price_is_kept(
    server: Server, catalog: Catalog
) -> None:
    stated = event(1, cost_usd="0.5")
    await send(server.client, [stated, event(2), event(3, model="mystery")])
    prices = server.runtime.house.prices
    prices.catalog = charging(catalog, gpt_4o_mini=300, mystery=10)
    both = await rerated(server.client)
    assert (both["events"], both["changed"], both["newly_priced"]) == (2, 2, 1)
    log = await assert_history(server.runtime.db)
    assert log["ann", "ann-1"]["cost_nanos"] == 500_000_000
    assert log["ann", "ann-1"]["cost_status"] == "provided"
    assert ("ann", "ann-1") not in await history_of(server.runtime.db)
    prices.catalog = catalog
    kept = await rerated(server.client)
    assert (kept["changed"], kept["would_be_unpriced"], kept["newly_unpriced"]) == (1, 1, 0)
    after = await assert_history(server.runtime.db)
    assert after["ann", "ann-3"] == log["ann", "ann-3"]
    assert after["ann", "ann-3"]["cost_status"] == "priced"


async def test_a_cancelled_re_rate_stays_where_it_is(
    server: Server, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rerate_apply, "CHUNK", 5)
    await send(server.client, some(20))
    server.runtime.house.prices.catalog = charging(catalog, gpt_4o_mini=300)
    planned = await post(server.client, "/v1/rerates", {"filter": {}})
    real, steps = rerate_apply._step, 0

    async def cancelled_in_between(*parts: Any) -> bool:
        nonlocal steps
        steps += 1
        if steps == 3:
            await post(server.client, f"/v1/rerates/{planned['id']}/cancel")
        return await real(*parts)

    monkeypatch.setattr(rerate_apply, "_step", cancelled_in_between)
    answer = await server.client.post(f"/v1/rerates/{planned['id']}/apply")
    assert (answer.status_code, answer.json()["state"]) == (409, "cancelled")
    assert len(await history_of(server.runtime.db)) == 10
    await assert_history(server.runtime.db)
    shown = (await server.client.get(f"/v1/rerates/{planned['id']}")).json()
    assert (shown["state"], shown["applied"]["changed"]) == ("cancelled", 10)


async def test_events_that_come_after_the_plan_are_not_forgotten(
    server: Server, catalog: Catalog, clock: FrozenClock
) -> None:
    await send(server.client, some(6))
    server.runtime.house.prices.catalog = charging(catalog, gpt_4o_mini=300)
    planned = await post(server.client, "/v1/rerates", {"filter": {"user_id": "ann"}})
    server.runtime.house.prices.catalog = catalog
    await send(server.client, [event(77)])
    clock.advance(timedelta(minutes=5))
    server.runtime.house.prices.catalog = charging(catalog, gpt_4o_mini=450)
    applied = await post(server.client, f"/v1/rerates/{planned['id']}/apply")
    assert (applied["changed"], applied["applied"]["changed"]) == (2, 3)
    log = await assert_history(server.runtime.db)
    mine = [row for row in log.values() if row["user_id"] == "ann"]
    assert {row["price_ref"] for row in mine} != {row["price_ref"] for row in log.values()}
    assert applied["finished_at"] == "2026-11-20T12:35:00Z"


async def test_the_proof_sees_a_charge_that_no_adjustment_explains(
    server: Server, catalog: Catalog
) -> None:
    await send(server.client, [event(1), event(2)])
    server.runtime.house.prices.catalog = charging(catalog, gpt_4o_mini=300)
    await rerated(server.client)
    tampered = update(UsageEvent).where(UsageEvent.event_id == "ann-1")
    await server.runtime.db.write(lambda tx: tx.run(tampered.values(price_ref="another")))
    proof = await server.runtime.db.read(lambda tx: prove(tx, START))
    (found,) = proof.differences
    assert found.identity == "adjustments_sum_to_present"
    assert found.where == {"user_id": "ann", "event_id": "ann-1", "revision": "1"}
    assert MINI not in found.expected  # type: ignore[operator]
    assert str(found.expected).endswith("another")
