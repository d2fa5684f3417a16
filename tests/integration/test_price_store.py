"""Prices in the database: imported by version, read by every process, never changed in place."""

import asyncio
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal

import httpx
import pytest
from sqlalchemy import func, select

from app.core.clock import FrozenClock
from app.db.engine import Database, Tx
from app.main import create_asgi
from app.pricing.catalog import Catalog
from app.pricing.known import Prices
from app.pricing.leaves import Rate, Step, flat
from app.pricing.rows import Listing, PriceList, PriceRow, Provider
from app.pricing.store import active_version, find_entries, load_list, versions
from app.pricing.sync import OWN, Synced, stamped, sync, tidied
from app.pricing.tables import CatalogActivation, PriceEntry
from app.runtime import Runtime, build
from tests.conftest import ADMIN, START, settings_for

pytestmark = pytest.mark.anyio
DAY = timedelta(days=1)
RICH = PriceRow(
    "acme/chat#2",
    (
        ("input_tokens", Rate(1_000_000, (Step(-1, 7), Step(200_000, 2**62)))),
        ("output_images", Rate(1, (Step(-1, 5), Step(10, 4)), graduated=True)),
    ),
    when=(("region", "eu"), ("processing", "batch")),
    start=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    end=datetime(2027, 1, 1, tzinfo=UTC),
    windows=((time(22), time(4)), (time(6, 30), time(7, 0, 1))),
    weekdays=(0, 4),
    multiplier_ppm=1_100_000,
    min_charge_nanos=3,
    least=(("audio_seconds", 10_000_000),),
    source="a contract, “quoted”",
)


def acme(usd: int, *more: PriceRow, model: str = "chat", layer: str = "genai") -> Listing:
    plain = PriceRow(f"acme/{model}", (("input_tokens", flat(usd * 10**9, 1_000_000)),))
    return Listing(layer, "acme", model, "Chat", (model,), (("^chat-", "x$"),), (plain, *more))


def listed(*listings: Listing) -> PriceList:
    many = tuple(acme(1, model=f"other-{number}") for number in range(60))
    provider = Provider("acme", ("openai",), ("acme-bare",), (("^acme-",),))
    return PriceList("", (provider,), (*listings, *many))


async def put(db: Database, price_list: PriceList, at: datetime, **more: bool) -> Synced:
    return await sync(db, price_list, "test", now=at, by="key_1", **more)  # type: ignore[arg-type]


async def loaded(db: Database) -> Prices:
    known = Prices()
    await db.read(lambda tx: known.reload(tx, set()))
    return known


def usd_of(known: Prices, at: datetime, model: str = "chat") -> str | None:
    found = known.catalog.resolve("acme", model, at)
    return None if found is None else found.rates[0].usd[0][1]


async def test_a_price_list_comes_back_as_it_was_written(db: Database) -> None:
    written = listed(acme(2, RICH), acme(3, model="ünï-漢", layer="overlay")._replace(adds=True))
    found = await put(db, written, START)
    read = await db.read(lambda tx: load_list(tx, found.version_id))
    assert read == stamped(tidied(written), found.version_id)
    assert found.version_id.startswith("cat_")
    row = read.listings[0].rows[1]
    assert row.id == f"{found.version_id}:acme/chat#2"
    stored = await db.read(lambda tx: find_entries(tx, [row.id, "no such"]))
    assert stored.keys() == {row.id}
    assert stored[row.id].row == row


async def test_the_same_list_again_writes_nothing(db: Database) -> None:
    first = await put(db, listed(acme(2)), START)
    again = await put(db, listed(acme(2)), START + DAY)
    assert (again.version_id, again.is_new) == (first.version_id, False)
    assert len(await db.read(versions)) == 1


async def test_a_refresh_leaves_what_was_charged_and_changes_what_will_be(db: Database) -> None:
    first = await put(db, listed(acme(2)), START)
    second = await put(db, listed(acme(3)), START + DAY)
    assert second.is_new
    third = await put(db, listed(), START + 2 * DAY)
    back = await put(db, listed(acme(2)), START + 3 * DAY)
    assert back.is_new
    known = await loaded(db)
    prices = {at: usd_of(known, START + at * DAY) for at in (-400, 0, 1, 2, 3, 400)}
    assert prices == {-400: "2", 0: "2", 1: "3", 2: None, 3: "2", 400: "2"}
    assert third.version_id != first.version_id
    unchanged = known.catalog.resolve("acme", "other-7", START)
    assert unchanged is not None
    assert unchanged.price_ref == f"{first.version_id}:acme/other-7"

    async def entries(tx: Tx) -> int:
        return (await tx.fetch(select(func.count()).select_from(PriceEntry)))[0][0]

    assert await db.read(entries) == 61 + 2, "an entry that did not change is the same row"


async def test_a_list_that_moves_too_much_is_left_alone_unless_it_is_meant(db: Database) -> None:
    await put(db, listed(acme(2)), START)
    refused = await put(db, listed(acme(21)), START + DAY)
    assert not refused.is_new
    assert "tenfold" in refused.objections[0]
    assert "acme/chat" in refused.objections[0]
    assert usd_of(await loaded(db), START + 2 * DAY) == "2"
    looked = await put(db, listed(acme(3)), START + DAY, dry_run=True)
    assert not looked.is_new
    assert looked.difference is not None
    assert looked.difference.moves[0].percent == 50
    forced = await put(db, listed(acme(21)), START + DAY, force=True)
    assert forced.is_new
    assert usd_of(await loaded(db), START + 2 * DAY) == "21"


async def test_a_list_that_does_not_compile_changes_nothing(db: Database) -> None:
    broken = PriceRow("acme/chat", (("input_tokens", Rate(0, (Step(-1, 1),))),))
    with pytest.raises(ValueError, match="acme/chat"):
        await put(db, listed(acme(2)._replace(rows=(broken,))), START)
    assert await db.read(active_version) is None


async def test_prices_of_ones_own_come_first_and_survive_a_refresh(db: Database) -> None:
    await put(db, listed(acme(2)), START)
    own = PriceList("", (), (acme(5, layer=OWN),))
    assert (await put(db, own, START)).is_new
    assert usd_of(await loaded(db), START + DAY) == "5"
    assert (await put(db, listed(acme(3)), START + DAY)).is_new
    known = await loaded(db)
    assert usd_of(known, START + 2 * DAY) == "5"
    assert usd_of(known, START, "other-3") == "1"
    assert not (await put(db, own, START + 2 * DAY)).is_new


async def test_two_imports_at_once_end_as_one(db_url: str) -> None:
    bases = [Database.open(db_url, pool_size=4) for _ in range(3)]
    found = await asyncio.gather(*(put(db, listed(acme(2)), START) for db in bases))
    assert sorted(one.is_new for one in found) == [False, False, True]
    assert len({one.version_id for one in found}) == 1

    async def activations(tx: Tx) -> int:
        return (await tx.fetch(select(func.count()).select_from(CatalogActivation)))[0][0]

    assert await bases[0].read(activations) == 1
    for db in bases:
        await db.close()


# ---- every process at once ----------------------------------------------------------------------

CALL = {"user_id": "alice", "provider": "acme", "model": "chat", "usage": {"input_tokens": 10**6}}


class Pair:
    """Two serving processes' parts on one database."""

    def __init__(self, runtimes: list[Runtime]) -> None:
        self.runtimes = runtimes
        self.clients = [
            httpx.AsyncClient(
                transport=httpx.ASGITransport(create_asgi(one), raise_app_exceptions=False),
                base_url="http://test",
                headers={"Authorization": f"Bearer {ADMIN}"},
            )
            for one in runtimes
        ]

    async def costs(self, **more: object) -> list[str | None]:
        """What each says that a call costs: recorded, and estimated."""
        found = []
        for client in self.clients:
            event = (await client.post("/v1/events", json=CALL | more)).json()
            ask = (await client.post("/v1/limits/check", json=CALL | more)).json()
            assert ask["estimated_cost_usd"] == event["cost_usd"]
            found.append(event["cost_usd"])
        return found


@pytest.fixture
async def pair(db_url: str, clock: FrozenClock) -> Pair:  # type: ignore[misc]
    catalog = Catalog(listed())
    runtimes = [build(settings_for(db_url), clock=clock, catalog=catalog) for _ in range(2)]
    for one in runtimes:
        await one.start()
    yield Pair(runtimes)  # type: ignore[misc]
    for one in runtimes:
        await one.close()


async def test_a_change_of_prices_is_in_the_next_batch_of_every_process(
    pair: Pair, clock: FrozenClock
) -> None:
    one, other = pair.clients
    assert await pair.costs() == [None, None]
    await put(pair.runtimes[0].db, listed(acme(2)), clock.now() - DAY)
    assert await pair.costs() == ["2", "2"]
    price = {"provider": "acme", "model": "chat"}
    rates = {"rates": {"input_tokens": {"usd": "3", "per": 1_000_000}}}
    everyone = (await one.post("/v1/prices", json=price | rates)).json()["id"]
    assert await pair.costs() == ["3", "3"]
    rates = {"rates": {"input_tokens": {"usd": "4", "per": 1_000_000}}}
    made = await other.post("/v1/prices", json=price | rates | {"team_id": "red"})
    team = made.json()["id"]
    assert await pair.costs() == ["3", "3"]
    assert await pair.costs(team_id="red") == ["4", "4"]
    rates = {"rates": {"input_tokens": {"usd": "5", "per": 1_000_000}}}
    alice = (await one.post("/v1/prices", json=price | rates | {"user_id": "alice"})).json()["id"]
    assert await pair.costs(team_id="red") == ["5", "5"]
    assert await pair.costs(user_id="bob") == ["3", "3"]
    for price_id, cost in ((alice, "4"), (team, "3"), (everyone, "2")):
        assert (await other.delete(f"/v1/prices/{price_id}")).status_code == 204
        assert await pair.costs(team_id="red") == [cost, cost]


async def test_an_event_is_explained_by_the_price_it_cites_whatever_holds_now(
    pair: Pair, clock: FrozenClock
) -> None:
    db, client = pair.runtimes[0].db, pair.clients[1]
    await put(db, listed(acme(2, RICH)), clock.now() - DAY)
    batch = {"context": {"processing": "batch", "region": "eu"}}
    sent = {"plain": {}, "dear": {"usage": {"input_tokens": 300_000}}, "batch": batch}
    costs = {}
    for name, more in sent.items():
        receipt = await client.post("/v1/events", json=CALL | more | {"id": name})
        costs[name] = receipt.json()["cost_usd"]
    assert costs["plain"] == "2"
    before = {name: await _explained(client, name) for name in sent}
    await put(db, listed(acme(9)), clock.now(), force=True)
    price = {"provider": "acme", "model": "chat", "rates": {"input_tokens": {"usd": "8", "per": 9}}}
    await client.post("/v1/prices", json=price | {"force": True})
    for name, cost in costs.items():
        found = await _explained(client, name)
        assert found == before[name]
        assert found["cost_usd"] == cost
        assert sum(Decimal(line["amount_usd"]) for line in found["lines"]) == Decimal(cost)
        for line in found["lines"]:
            cited = await client.get(f"/v1/prices/{line['price_row'].split('+')[0]}")
            assert cited.status_code == 200


async def _explained(client: httpx.AsyncClient, name: str) -> dict[str, object]:
    answer = await client.get(f"/v1/users/alice/events/{name}/explain")
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found
