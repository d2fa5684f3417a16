"""Whatever is sent late, corrected, voided and rated anew: the books, now and as once known."""

import random
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.clock import FrozenClock
from app.pricing.catalog import Catalog
from app.runtime import Runtime
from app.usage.corrections import AMOUNT, CORRECT, VOID, Correction, present, shown
from app.usage.history import history_out
from tests.conftest import START
from tests.integration.corrections import WHY, assert_corrected
from tests.integration.rerates import charging, event, post, rerated, send
from tests.properties.test_rerates import entry

STEPS = st.lists(
    st.sampled_from((CORRECT, AMOUNT)).flatmap(
        lambda kind: st.tuples(st.just(kind), st.integers(0, 10**12))
    )
)


@given(STEPS, st.booleans())
def test_the_history_of_an_event_leads_to_its_present(
    steps: list[tuple[str, int]], voided: bool
) -> None:
    row = entry(7, cost_nanos=5)
    stands, made = row, list[Correction]()
    for kind, cost in steps:
        shall = stands._replace(cost_nanos=cost)
        if kind == CORRECT:
            shall = shall._replace(input_tokens=cost, model="other")
        for sign, one in ((-1, stands), (1, shall)):
            said = one._replace(body_hash=0)
            made.append(Correction(len(made) + 1, sign, kind, WHY, "k", said))
        stands = shall
    if voided:
        made.append(Correction(len(made) + 1, -1, VOID, WHY, "k", stands))
    found, told = present(row, made), shown(row, made)
    assert found == (None if voided else stands)
    assert told is not None
    assert told.recorded_at == row.recorded_at
    assert told.cost_nanos == (0 if voided else stands.cost_nanos)
    history = history_out(made)
    assert len(history) == len(steps) + voided
    assert all(one.cost_usd is not None for one in history)


def test_amounts_keep_what_the_row_used_also_when_it_could_not_be_read() -> None:
    row = entry(7, cost_nanos=5)
    blank = row._replace(input_tokens=0, body_hash=0)
    made = [
        Correction(1, -1, AMOUNT, WHY, "k", blank),
        Correction(2, 1, AMOUNT, WHY, "k", blank._replace(cost_nanos=9, cost_status="provided")),
    ]
    assert present(row, made) == row._replace(cost_nanos=9, cost_status="provided")
    unread = present(None, made)
    assert unread is not None
    assert (unread.input_tokens, unread.cost_nanos) == (0, 9)


PERIODS = ("2026-10", "2026-11", "2026-12")
FIGURES = (
    *("total_calls", "total_tokens", "input_tokens", "output_tokens", "total_cost_usd"),
    *("avg_latency_ms", "error_rate", "unpriced_calls"),
)
MODELS = ("gpt-4o-mini", "gpt-4o", "mystery")


async def figures(client: httpx.AsyncClient, query: str) -> dict[str, Any]:
    answer = await client.get(f"/v1/users/ann/usage?{query}")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    models = {
        (provider, model): used
        for provider, one in found["providers"].items()
        for model, used in one["models"].items()
        if any(value not in (0, "0") for value in used.values())
    }
    return {name: found[name] for name in FIGURES} | {"models": models}


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(3))
async def test_every_period_is_known_as_it_was_at_every_instant_p18(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock, catalog: Catalog, seed: int
) -> None:
    pick = random.Random(seed)
    known: list[tuple[datetime, dict[str, Any]]] = []
    ids: list[str] = []
    body = {"name": "l", "scope": {"user_id": "ann"}, "metric": "cost_usd", "window": "month"}
    await post(client, "/v1/limits", body | {"amount": "0.001", "thresholds": [10, 100]})

    def moment() -> str:
        return (clock.now() - timedelta(days=pick.randint(0, 34), minutes=7)).isoformat()

    async def ingest() -> None:
        sent = [
            event(
                len(ids) + place,
                model=pick.choice(MODELS),
                timestamp=moment(),
                status_code=pick.choice((200, 500)),
                team_id=pick.choice(("red", "blue")),
            )
            for place in range(pick.randint(1, 4))
        ]
        ids.extend(one["id"] for one in sent)
        await send(client, sent)
        await send(client, sent[:1])

    async def void() -> None:
        path = f"/v1/users/ann/events/{pick.choice(ids)}/void"
        await post(client, path, {"reason": WHY})

    async def correct() -> None:
        fields = pick.choice(
            (
                {"usage": {"input_tokens": pick.randint(0, 5_000)}},
                {"timestamp": moment()},
                {"model": pick.choice(MODELS), "latency_ms": pick.choice((None, 3.5))},
                {"cost_usd": pick.choice((None, "0.0007"))},
                {"team_id": None, "status_code": 404, "task_type": "chat"},
            )
        )
        path = f"/v1/users/ann/events/{pick.choice(ids)}/correct"
        answer = await client.post(path, json={"fields": fields, "reason": WHY})
        assert answer.status_code in (200, 409), answer.text

    async def credit() -> None:
        path = f"/v1/users/ann/events/{pick.choice(ids)}/correct"
        answer = await client.post(path, json={"cost_usd": "0.0000001", "reason": WHY})
        assert answer.status_code in (200, 409), answer.text

    async def rate() -> None:
        rates = {"gpt_4o_mini": pick.choice((150, 300)), "mystery": pick.choice((5, 9))}
        runtime.house.prices.catalog = charging(catalog, **rates)
        await rerated(client)

    await ingest()
    for _ in range(18):
        await pick.choice((ingest, ingest, void, correct, correct, correct, credit, rate))()
        known.append(
            (
                clock.now(),
                {key: await figures(client, f"billing_period={key}") for key in PERIODS},
            )
        )
        clock.advance(timedelta(hours=pick.choice((1, 30))))
    await assert_corrected(runtime.db)
    for at, periods in known:
        for key, then in periods.items():
            query = f"billing_period={key}&as_of={at.strftime('%Y-%m-%dT%H:%M:%S.%fZ')}"
            assert await figures(client, query) == then, (at, key)
    assert clock.now() > START
