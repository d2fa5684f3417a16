"""What the tests of re-rates share: prices by hand, events, and the books after them."""

from itertools import pairwise
from typing import Any

import httpx

from app.analytics.audit import PROOF_S, prove
from app.db.engine import Database
from app.ingest.rerate_apply import Parts
from app.pricing.catalog import Catalog
from app.pricing.leaves import PER_MILLION, Rate, Step
from app.pricing.rows import Override, PriceRow
from app.runtime import Runtime
from app.usage.tables import UsageAdjustment
from tests.conftest import START
from tests.properties.books import Key, Row, books_in, books_of, limits_in, log_in, rows_of

Event = dict[str, Any]
MINI = "gpt-4o-mini"


def charging(catalog: Catalog, **usd: int) -> Catalog:
    """The same prices, but for models whose tokens cost so many thousandths of a dollar a million.

    A name is a model's, with `_` for `-`; an output token costs four times as much.
    """
    stated = []
    for name, each in usd.items():
        model = name.replace("_", "-")
        rates = (("input_tokens", _rate(each)), ("output_tokens", _rate(4 * each)))
        row = PriceRow(f"{model}:{each}", rates)
        stated.append(Override(row, "openai", model, created_at=START))
    return catalog.with_changes(stated, ())


def _rate(thousandths: int) -> Rate:
    return Rate(PER_MILLION, (Step(-1, thousandths * 1_000_000),))


def parts_of(runtime: Runtime) -> Parts:
    return Parts(runtime.db, runtime.feed, runtime.house, runtime.clock)


def event(number: int, user: str = "ann", model: str = MINI, **more: Any) -> Event:
    usage = {"input_tokens": 1_000 + number, "output_tokens": 10 * number}
    named = {"id": f"{user}-{number}", "user_id": user, "provider": "openai", "model": model}
    return {**named, "usage": usage, "latency_ms": number, **more}


async def send(client: httpx.AsyncClient, events: list[Event]) -> None:
    answer = await client.post("/v1/events", json=events)
    assert answer.status_code == 200, answer.text
    assert answer.json()["rejected"] == 0


async def post(client: httpx.AsyncClient, path: str, body: Any = None) -> Any:
    answer = await client.post(path, json=body)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


async def rerated(client: httpx.AsyncClient, **wanted: Any) -> Any:
    """A re-rate of these events, planned and applied at once."""
    body = {"filter": wanted, "dry_run": False, "reason": "the list was wrong"}
    return await post(client, "/v1/rerates", body)


async def history_of(db: Database) -> dict[Key, list[Row]]:
    """The adjustments of each event, in their order."""
    found: dict[Key, list[Row]] = {}
    rows = await db.read(lambda tx: rows_of(tx, UsageAdjustment))
    for row in sorted(rows, key=lambda row: (row["user_id"], row["event_id"], row["revision"])):
        found.setdefault((row["user_id"], row["event_id"]), []).append(row)
    return found


RATING = ("cost_nanos", "cost_status", "price_ref")


async def assert_history(db: Database) -> dict[Key, Row]:
    """Books, proof and history agree, alerts that once were due included; the log is given back."""
    log = await log_in(db)
    expected, stored = books_of(log.values(), await limits_in(db)), await books_in(db)
    for name in ("calls", "periods", "hours", "dimensions", "counters"):
        assert getattr(stored, name) == getattr(expected, name), name
    assert set(expected.alerts) <= set(stored.alerts)
    proof = await db.read(lambda tx: prove(tx, START), within_s=PROOF_S)
    assert proof.consistent, proof.differences
    for key, changes in (await history_of(db)).items():
        assert [one["revision"] for one in changes] == list(range(1, len(changes) + 1))
        for before, after in pairwise(changes):
            assert [before[f"new_{name}"] for name in RATING] == [
                after[f"old_{name}"] for name in RATING
            ]
        assert [changes[-1][f"new_{name}"] for name in RATING] == [
            log[key][name] for name in RATING
        ]
    return log
