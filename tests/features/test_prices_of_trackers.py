"""What usage trackers price, priced here: their tables, their defaults, their units."""

from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.anyio

PER_THOUSAND = {
    "meta/meta-llama-3-8b-instruct": ("0.0001", "0.0001"),
    "meta/meta-llama-3-70b-instruct": ("0.0006", "0.0006"),
    "anthropic/claude-3.5-haiku": ("0.001", "0.005"),
    "anthropic/claude-3-haiku": ("0.00025", "0.00125"),
    "anthropic/claude-3.5-sonnet": ("0.003", "0.015"),
    "anthropic/claude-4.5-sonnet": ("0.003", "0.015"),
    "anthropic/claude-3-opus": ("0.015", "0.075"),
}
"""USD for a thousand tokens in and out, of the tracker whose models ran on Replicate."""


async def estimate(client: httpx.AsyncClient, **call: Any) -> dict[str, Any]:
    answer = await client.post("/v1/prices/estimate", json=call)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def state(client: httpx.AsyncClient, **price: Any) -> None:
    answer = await client.post("/v1/prices", json=price)
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize("model", PER_THOUSAND)
async def test_s3_2_every_model_of_the_table_has_a_price(
    client: httpx.AsyncClient, model: str
) -> None:
    usage = {"input_tokens": 1_000_000, "output_tokens": 1_000_000}
    found = await estimate(client, provider="replicate", model=model, usage=usage)
    assert found["cost_status"] in ("priced", "estimated")
    assert found["cost_nano_usd"] > 0


@pytest.mark.parametrize("model", PER_THOUSAND)
async def test_s3_2_the_table_itself_can_be_stated(client: httpx.AsyncClient, model: str) -> None:
    into, out = PER_THOUSAND[model]
    rates = {
        "input_tokens": {"usd": into, "per": 1000},
        "output_tokens": {"usd": out, "per": 1000},
    }
    await state(client, provider="replicate", model=model, rates=rates, force=True)
    usage = {"input_tokens": 1000, "output_tokens": 1000}
    found = await estimate(client, provider="replicate", model=model, usage=usage)
    expected = round((float(into) + float(out)) * 1e9)
    assert (found["cost_nano_usd"], found["cost_status"]) == (expected, "priced")


async def test_s3_3_a_default_price_for_the_unknown_is_an_estimate_and_exact(
    client: httpx.AsyncClient,
) -> None:
    usage = {"input_tokens": 1, "output_tokens": 0}
    call = {"provider": "someone", "model": "unknown-model", "usage": usage}
    assert (await estimate(client, **call))["cost_status"] == "unpriced"
    rates = {
        "input_tokens": {"usd": "0.001", "per": 1000},
        "output_tokens": {"usd": "0.005", "per": 1000},
    }
    await state(client, provider="*", model="*", default=True, rates=rates)
    found = await estimate(client, **call)
    assert (found["cost_usd"], found["cost_status"]) == ("0.000001", "estimated")
    known = await estimate(client, provider="openai", model="gpt-4o-mini", usage=usage)
    assert known["cost_status"] == "priced"


@pytest.mark.parametrize("provider", ["gemini", "openai", "anthropic", "mistral", "huggingface"])
async def test_s1_3_a_call_without_a_model_is_priced_as_the_default_and_says_so(
    client: httpx.AsyncClient, provider: str
) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 1000}
    found = await estimate(client, provider=provider, usage=usage)
    assert found["cost_status"] == "estimated"
    assert found["cost_nano_usd"] > 0


async def test_s1_3_a_default_that_the_operator_names_is_no_guess(
    client: httpx.AsyncClient,
) -> None:
    alias = {"provider": "openai", "model": None, "resolves_to": "gpt-4o"}
    assert (await client.post("/v1/model-aliases", json=alias)).status_code == 201
    found = await estimate(client, provider="openai", usage={"input_tokens": 1000})
    assert (found["cost_usd"], found["cost_status"]) == ("0.0025", "priced")


@pytest.mark.parametrize(
    ("provider", "model", "usage"),
    [
        ("tavily", None, {"requests": 1}),
        ("serper", None, {"requests": 1}),
        ("metaphor", None, {"requests": 1}),
        ("exa", None, {"requests": 1}),
        ("firecrawl", None, {"input_document_pages": 1}),
        ("stability", None, {"output_images": 1}),
        ("video", None, {"requests": 1}),
        ("image_edit", None, {"requests": 1}),
        ("audio", None, {"input_characters": 1000}),
        ("openai", "dall-e-3", {"output_images": 1}),
        ("mistral", "mistral-ocr-2512", {"input_document_pages": 1}),
    ],
)
async def test_s1_5_searches_images_pages_and_characters_are_priced_or_visibly_estimated(
    client: httpx.AsyncClient, provider: str, model: str | None, usage: dict[str, int]
) -> None:
    found = await estimate(client, provider=provider, model=model, usage=usage)
    assert found["cost_status"] in ("priced", "estimated")
    assert found["cost_nano_usd"] > 0


async def test_s3_8_a_cost_is_estimated_before_the_call_and_a_price_can_be_looked_up(
    client: httpx.AsyncClient,
) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 500}
    found = await estimate(client, provider="openai", model="gpt-4o", usage=usage)
    assert found["cost_usd"] == "0.0075"
    where = {"provider": "openai", "model": "gpt-4o"}
    price = (await client.get("/v1/prices/resolve", params=where)).json()
    rates = {rate["counter"]: rate["tiers"][0]["usd"] for rate in price["rates"]}
    assert (rates["input_tokens"], rates["output_tokens"]) == ("2.5", "10")


async def test_d1_19_a_new_price_leaves_the_old_one_to_the_calls_of_its_time(
    client: httpx.AsyncClient,
) -> None:
    where = {"provider": "acme", "model": "house"}
    for usd, since in (("1", None), ("3", "2026-11-01T00:00:00Z")):
        rates = {"input_tokens": {"usd": usd, "per": 1_000_000}}
        await state(client, **where, rates=rates, effective_from=since)
    usage = {"input_tokens": 1_000_000}
    for timestamp, cost in (("2026-10-31T23:59:59.999999Z", "1"), ("2026-11-01T00:00:00Z", "3")):
        found = await estimate(client, **where, usage=usage, timestamp=timestamp)
        assert found["cost_usd"] == cost
