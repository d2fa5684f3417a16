"""Sums that pass 64 bits are told exactly, by every question, though no row passes them."""

from datetime import timedelta

import httpx
import pytest

from app.core.clock import rfc3339
from tests.conftest import START

pytestmark = pytest.mark.anyio

DOLLARS = 9_000_000_000
DAY = timedelta(days=1)


@pytest.fixture
async def spender(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """Two users who spent nine billion dollars on each of three models."""
    for user in ("ann", "bob"):
        for model in ("m0", "m1", "m2"):
            event = {"user_id": user, "model": model, "cost_usd": str(DOLLARS), "endpoint": "/v1"}
            answer = await client.post("/v1/events", json=event)
            assert answer.status_code == 201, answer.text
    return client


@pytest.mark.parametrize(
    ("path", "field", "users"),
    [
        ("/v1/users/ann/usage", "total_cost_usd", 1),
        ("/v1/users/ann/usage/daily", "total_cost_usd", 1),
        ("/v1/users/ann/usage/monthly", "total_cost_usd", 1),
        ("/v1/analytics/totals", "total_cost_usd", 2),
        ("/v1/analytics/daily-cost", "total_cost_usd", 2),
        ("/v1/analytics/costs", "total_cost_usd", 2),
        ("/v1/analytics/costs?user_id=ann", "total_cost_usd", 1),
        ("/v1/analytics/metrics", "total_cost_usd", 2),
    ],
)
async def test_a_figure_may_pass_64_bits(
    spender: httpx.AsyncClient, path: str, field: str, users: int
) -> None:
    answer = await spender.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.json()[field] == str(3 * users * DOLLARS)


async def test_series_trends_questions_and_the_audit_may_too(spender: httpx.AsyncClient) -> None:
    today = START.replace(hour=0, minute=0, second=0, microsecond=0)
    span = {"from": rfc3339(today - DAY), "to": rfc3339(today + DAY)}
    series = await spender.get("/v1/users/ann/usage/series", params={"grain": "month", **span})
    assert series.status_code == 200, series.text
    assert series.json()["items"][-1]["total_cost_usd"] == str(3 * DOLLARS)
    trends = await spender.get("/v1/users/ann/usage/trends")
    assert trends.json()["items"][-1]["total_cost_usd"] == str(3 * DOLLARS)
    asked = {"measures": ["cost_usd"], "group_by": [], **span}
    found = await spender.post("/v1/analytics/query", json=asked)
    assert found.status_code == 200, found.text
    assert found.json()["items"][0]["measures"]["cost_usd"] == str(6 * DOLLARS)
    audit = (await spender.get("/v1/audit/consistency")).json()
    assert audit["consistent"], audit["differences"]
