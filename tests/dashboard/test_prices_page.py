"""Pages of prices: found, stated, retired, and what a call would cost."""

import csv
import io
import re
from html import unescape
from typing import Any

import httpx
import pytest

from app.runtime import Runtime
from tests.conftest import ADMIN
from tests.dashboard.conftest import SignIn, call, csrf_of, send
from tests.dashboard.test_user_page import api, words

pytestmark = pytest.mark.anyio

PRICES = "/dashboard/prices"


async def shown(browser: httpx.AsyncClient, path: str) -> str:
    answer = await browser.get(path)
    assert answer.status_code == 200, answer.text
    return answer.text


async def state(browser: httpx.AsyncClient, **said: str) -> httpx.Response:
    """Post the form of a price."""
    token = await csrf_of(browser)
    return await browser.post(PRICES, data={"csrf": token, "match": "exact", **said})


HOUSE = {"provider": "acme", "model": "house-1", "rate_input_tokens": "0.20"}
HOUSE |= {"rate_output_tokens": "$0.80", "source": "contract 4711"}


async def test_the_book_is_found_by_words_of_its_names(signed_in: httpx.AsyncClient) -> None:
    said = words(await shown(signed_in, f"{PRICES}?q=OPENAI+gpt-4o-mini"))
    assert "gpt-4o-mini genai $0.15 $0.075 $0.60" in said
    assert "exact" in said
    assert "No price matches" in words(await shown(signed_in, f"{PRICES}?q=no-such-model-at-all"))
    table = (await signed_in.get(f"{PRICES}?q=claude&origin=genai&format=csv")).text
    found = list(csv.DictReader(io.StringIO(table)))
    assert found
    assert {row["Origin"] for row in found} == {"genai"}
    everything = await shown(signed_in, PRICES)
    assert 'rel="next"' in everything


async def test_a_price_tells_its_tiers_conditions_and_names(signed_in: httpx.AsyncClient) -> None:
    price = {
        "provider": "acme",
        "model": "tiered",
        "context": {"service_tier": "flex"},
        "effective_from": "2026-12-01T00:00:00Z",
        "rates": {
            "input_tokens": {
                "mode": "graduated",
                "tiers": [
                    {"up_to": 200_000, "usd": "1", "per": 1_000_000},
                    {"up_to": None, "usd": "2.5", "per": 1_000_000},
                ],
            },
            "web_searches": {"usd": "10", "per": 1_000},
        },
        "min_charge_usd": "0.01",
    }
    made = await api(signed_in, "POST", "/v1/prices", price)
    said = words(await shown(signed_in, f"{PRICES}/entry?id={made['id']}"))
    assert "$1 up to 200k; $2.50 above / M (part by part)" in said
    assert "$0.01 each" in said
    assert "at least $0.01 a call" in said
    assert "service_tier: flex" in said
    assert "since 2026-12-01" in said
    assert (await signed_in.get(f"{PRICES}/entry?id=nothing")).status_code == 404
    assert (await signed_in.get(f"{PRICES}/entry")).status_code == 404


async def test_what_was_used_without_a_price_is_priced_from_its_row(
    signed_in: httpx.AsyncClient,
) -> None:
    unknown = {"provider": "acme", "model": "house-1"}
    await send(signed_in, call("ann", id="1", **unknown), call("bob", id="2", **unknown))
    page = await shown(signed_in, PRICES)
    assert "acme house-1 2 2" in words(page)
    table = (await signed_in.get(f"{PRICES}/unpriced?format=csv")).text
    assert table.splitlines()[1].startswith("acme,house-1,2,2,")
    button = re.search(r'href="(/dashboard/prices/new\?[^"]+)"[^>]*>State a price</a>', page)
    assert button is not None
    form = await shown(signed_in, unescape(button[1]))
    assert 'value="house-1"' in form
    answer = await state(signed_in, **HOUSE)
    assert answer.status_code == 303, answer.text
    assert "house-1" in words(await shown(signed_in, answer.headers["location"]))
    [made] = (await api(signed_in, "GET", "/v1/prices?provider=acme"))["items"]
    assert made["rates"]["input_tokens"] == {"usd": "0.2", "per": 1_000_000}
    await send(signed_in, call("ann", id="3", **unknown))
    event = await api(signed_in, "GET", "/v1/users/ann/events/3")
    assert event["cost_usd"] == "0.00128"
    changes = (await api(signed_in, "GET", "/v1/audit/changes?kind=price"))["items"]
    assert [(one["action"], one["via"], one["ref"]) for one in changes] == [
        ("create", "dashboard", made["id"])
    ]


async def test_a_price_off_by_a_thousand_is_asked_about_before_it_is_taken(
    signed_in: httpx.AsyncClient,
) -> None:
    wrong = {"provider": "openai", "model": "gpt-4o-mini", "rate_input_tokens": "150"}
    wrong |= {"rate_output_tokens": "0.6"}
    answer = await state(signed_in, **wrong)
    assert answer.status_code == 422
    said = words(answer.text)
    assert "1,000 times this model's price in force" in said
    assert "send force" not in said
    assert 'name="force"' in answer.text
    assert (await api(signed_in, "GET", "/v1/prices?provider=openai&limit=1"))["items"][0][
        "origin"
    ] != "override"
    assert (await state(signed_in, **wrong, force="on")).status_code == 303


async def test_what_is_wrong_with_a_price_stands_beside_its_field(
    signed_in: httpx.AsyncClient,
) -> None:
    for said, told in (
        ({"rate_input_tokens": "much"}, "money is a decimal string"),
        ({"rate_input_tokens": "-1"}, "a price is not negative"),
        ({"rate_input_tokens": "", "rate_output_tokens": ""}, "at least one rate"),
        ({"user_id": "ann", "team_id": "t"}, "for one user, for one team"),
        ({"effective_from": "2026-12-01T00:00", "effective_to": "2026-11-01T00:00"}, "after"),
        ({"context": "flex"}, "one condition on each line"),
        ({"model": ""}, "Field required"),
        ({"match": "regex", "model": "("}, "not a regular expression"),
        ({"multiplier": "x"}, "decimal string"),
    ):
        answer = await state(signed_in, **HOUSE | said)
        assert answer.status_code == 422, said
        assert told in words(answer.text), said
        assert 'role="alert"' in answer.text
    assert (await api(signed_in, "GET", "/v1/prices?provider=acme"))["items"] == []


async def test_a_stated_price_is_retired_and_a_listed_one_is_not(
    signed_in: httpx.AsyncClient,
) -> None:
    await state(signed_in, **HOUSE)
    [made] = (await api(signed_in, "GET", "/v1/prices?provider=acme"))["items"]
    assert "Retire this price" in await shown(signed_in, f"{PRICES}/entry?id={made['id']}")
    token = await csrf_of(signed_in)
    body = {"csrf": token, "id": made["id"]}
    answer = await signed_in.post(f"{PRICES}/retire", data=body)
    assert answer.headers["location"] == f"{PRICES}?done=retired"
    retired = words(await shown(signed_in, f"{PRICES}/entry?id={made['id']}"))
    assert "Retired: it applies to no call any more" in retired
    assert (await signed_in.post(f"{PRICES}/retire", data=body)).status_code == 404


async def test_an_estimate_shows_its_lines_and_stores_nothing(
    signed_in: httpx.AsyncClient,
) -> None:
    query = "provider=openai&model=gpt-4o-mini&usage_input_tokens=4,000&usage_output_tokens=600"
    said = words(await shown(signed_in, f"{PRICES}/estimate?{query}&usage_cache_read_tokens=1000"))
    assert "$0.000885 priced" in said
    assert "cache read 1,000 $0.075 1,000,000 $0.000075" in said
    unknown = words(
        await shown(signed_in, f"{PRICES}/estimate?provider=x&model=y&usage_input_tokens=1")
    )
    assert "unknown unpriced" in unknown
    assert "State a price" in unknown
    for query, told in (
        ("usage_input_tokens=lots", "a whole number is expected"),
        ("usage_input_tokens=1&usage_cache_read_tokens=2", "cache_read_tokens"),
        ("usage_audio_seconds=nan", "number"),
        ("usage_requests=1&at=soon", "an instant"),
    ):
        answer = await signed_in.get(f"{PRICES}/estimate?{query}")
        assert answer.status_code == 200, answer.text
        assert told in words(answer.text), query
    usage = await api(signed_in, "GET", "/v1/analytics/costs?days=1")
    assert usage["total_calls"] == 0


async def test_who_may_only_read_states_nothing_and_a_bound_key_sees_no_prices(
    signed_in_with: SignIn, runtime: Runtime
) -> None:
    browser = await signed_in_with("read")
    assert "State a price" not in await shown(browser, PRICES)
    assert (await state(browser, **HOUSE)).status_code == 403
    assert (await browser.post(f"{PRICES}/retire", data={"id": "x"})).status_code == 403
    bound = await signed_in_with("read", user_id="ann")
    for path in ("", "/new", "/entry?id=x", "/estimate", "/unpriced?format=csv"):
        answer = await bound.get(f"{PRICES}{path}")
        assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/users/ann")


async def test_a_form_without_its_token_changes_nothing(signed_in: httpx.AsyncClient) -> None:
    answer = await signed_in.post(PRICES, data=HOUSE | {"csrf": "x" * 20})
    assert answer.status_code == 403
    headers = {"Authorization": f"Bearer {ADMIN}"}
    found: Any = (await signed_in.get("/v1/prices?provider=acme", headers=headers)).json()
    assert found["items"] == []
