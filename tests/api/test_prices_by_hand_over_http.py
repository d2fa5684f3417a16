"""Prices computed by hand, asked for as a client would: estimated, recorded and explained."""

import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.core.clock import FrozenClock

pytestmark = pytest.mark.anyio

FIXTURE = Path(__file__).parents[1] / "fixtures" / "pricing" / "by_hand.json"
CASES: dict[str, dict[str, Any]] = {
    case["id"]: case for case in json.loads(FIXTURE.read_text())["cases"]
}
STATED = [name for name, case in CASES.items() if "overrides" in case]
LISTED = [name for name, case in CASES.items() if "overrides" not in case]


async def state(client: httpx.AsyncClient, said: dict[str, Any]) -> None:
    """Put in force what the operator of a case says."""
    for price in said.get("prices", ()):
        answer = await client.post("/v1/prices", json=price)
        assert answer.status_code == 201, answer.text
    aliases = list(said.get("model_aliases", ()))
    for provider, model in said.get("default_models", {}).items():
        aliases.append({"provider": provider, "model": None, "resolves_to": model})
    for alias in aliases:
        answer = await client.post("/v1/model-aliases", json=alias)
        assert answer.status_code == 201, answer.text


def usd(expected: dict[str, Any]) -> Decimal | None:
    nanos = expected.get("cost_nano_usd")
    return None if nanos is None else Decimal(nanos).scaleb(-9)


def decimal(told: str | None) -> Decimal | None:
    return None if told is None else Decimal(told)


async def check(client: httpx.AsyncClient, name: str) -> None:
    """The case costs the same estimated, recorded, read again and explained line by line."""
    case = CASES[name]
    expected = case["expected"]
    call = {
        key: case[key]
        for key in ("provider", "model", "usage", "timestamp", "context")
        if case.get(key) is not None
    }
    event = call | {"user_id": "alice", "id": name}
    if expected["status"] == "invalid":
        for path, body in (("/v1/prices/estimate", call), ("/v1/events?backfill=true", event)):
            answer = await client.post(path, json=body)
            assert answer.status_code == 422, (name, answer.text)
            assert answer.json()["errors"][0]["pointer"].startswith("/usage/")
        return
    cost, status = usd(expected), expected["status"]
    estimate = await client.post("/v1/prices/estimate", json=call)
    assert estimate.status_code == 200, (name, estimate.text)
    found = estimate.json()
    assert (decimal(found["cost_usd"]), found["cost_status"]) == (cost, status), name
    assert found["cost_nano_usd"] == expected.get("cost_nano_usd")
    receipt = await client.post("/v1/events?backfill=true", json=event)
    assert receipt.status_code == 201, (name, receipt.text)
    recorded = receipt.json()
    told = await client.get(f"/v1/users/alice/events/{name}/explain")
    assert told.status_code == 200, (name, told.text)
    explained = told.json()
    for one in (recorded, explained):
        assert (decimal(one["cost_usd"]), one["cost_status"]) == (cost, status), name
    for lines in (found["lines"], explained["lines"]):
        paid = sum((Decimal(line["amount_usd"]) for line in lines), Decimal())
        assert paid == (cost or 0), name


@pytest.mark.parametrize("name", STATED)
async def test_what_an_operator_states_over_http_is_charged(
    client: httpx.AsyncClient, name: str
) -> None:
    await state(client, CASES[name]["overrides"])
    await check(client, name)


async def test_every_listed_price_is_charged_as_computed_by_hand(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    clock.advance(timedelta(days=5))
    for name in LISTED:
        await check(client, name)
