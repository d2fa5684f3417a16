"""Images and audio that cost what text does, conditions that change nothing, and what is free."""

from datetime import UTC, datetime

import pytest

from app.pricing.catalog import Catalog
from app.pricing.quote import explain
from app.pricing.rows import Override
from tests.unit.priced import row, usage

CATALOG = Catalog.from_packages()
AT = datetime(2026, 11, 18, 12, tzinfo=UTC)
PLAIN = usage(input_tokens=1_000, cache_read_tokens=950, output_tokens=100)
SEEN = usage(input_tokens=1_000, cache_read_tokens=950, input_image_tokens=900, output_tokens=100)
HEARD = usage(input_tokens=1_000, cache_read_tokens=950, input_audio_tokens=900, output_tokens=100)
TIERS: tuple[dict[str, str], ...] = (
    {},
    {"processing": "batch"},
    {"service_tier": "flex"},
    {"service_tier": "priority"},
    {"region": "us"},
)


@pytest.mark.parametrize("context", TIERS)
@pytest.mark.parametrize("model", ["gemini-3.1-pro-preview", "gemini-3.8-flash", "gemini-4-argon"])
def test_gemini_sees_and_hears_at_the_rate_of_text_under_every_condition(
    model: str, context: dict[str, str]
) -> None:
    plain = CATALOG.quote("google", model, AT, PLAIN, context)
    for mixed in (SEEN, HEARD):
        quote = CATALOG.quote("google", model, AT, mixed, context)
        assert (quote.cost_nanos, quote.status) == (plain.cost_nanos, plain.status)
        assert explain(CATALOG, "google", model, AT, mixed, context).quote == quote


def test_a_long_call_of_images_is_in_the_long_tier() -> None:
    seen = usage(input_tokens=200_001, input_image_tokens=200_000, output_tokens=0)
    quote = CATALOG.quote("google", "gemini-2.5-pro", AT, seen)
    assert (quote.cost_nanos, quote.status) == (500_002_500, "priced")


def test_a_dearer_rate_for_audio_stays_and_a_missing_one_is_not_made_up() -> None:
    heard = usage(input_tokens=1_000_000, input_audio_tokens=1_000_000)
    assert CATALOG.quote("google", "gemini-2.5-flash", AT, heard).cost_nanos == 1_000_000_000
    assert CATALOG.quote("openai", "gpt-5", AT, heard).status == "unpriced"
    assert CATALOG.quote("google", "gemini-3-pro-image-preview", AT, heard).status == "unpriced"


def test_a_part_at_the_rate_of_its_whole_may_overlap_another() -> None:
    stated = {"input_tokens": "2", "cache_read_tokens": "1", "output_tokens": "8"}
    alike, apart = (
        Override(row("x", stated | {"input_image_tokens": usd}), "acme", "chat")
        for usd in ("2", "3")
    )
    quote = CATALOG.with_changes([alike], []).quote("acme", "chat", AT, SEEN)
    assert (quote.cost_nanos, quote.status) == (50 * 2_000 + 950 * 1_000 + 100 * 8_000, "priced")
    assert CATALOG.with_changes([apart], []).quote("acme", "chat", AT, SEEN).status == "estimated"


@pytest.mark.parametrize(
    ("provider", "model", "context", "like"),
    [
        ("anthropic", "claude-haiku-4-5", {"inference_geo": "us"}, {}),
        ("anthropic", "claude-opus-4-5-20251101", {"inference_geo": "us"}, {}),
        ("anthropic", "claude-opus-4-8", {"service_tier": "standard_only"}, {}),
        ("azure", "gpt-4o-2024-08-06", {"region": "global-standard"}, {}),
        (
            "bedrock",
            "us-gov.anthropic.claude-sonnet-5",
            {"region": "us-gov-west-1"},
            {},
        ),
        ("xai", "grok-4.5", {"region": "us-east-1"}, {"region": "us"}),
    ],
)
def test_what_a_provider_says_of_a_condition_is_no_guess(
    provider: str, model: str, context: dict[str, str], like: dict[str, str]
) -> None:
    quote = CATALOG.quote(provider, model, AT, PLAIN, context)
    assert quote.status == "priced"
    assert quote.cost_nanos == CATALOG.quote(provider, model, AT, PLAIN, like).cost_nanos


@pytest.mark.parametrize("model", ["claude-opus-4-1", "claude-mythos-preview", "claude-opus-4-8"])
def test_a_batch_of_claude_is_half_the_price_once(model: str) -> None:
    whole = CATALOG.quote("anthropic", model, AT, PLAIN)
    half = CATALOG.quote("anthropic", model, AT, PLAIN, {"processing": "batch"})
    assert half.status == "priced"
    assert half.cost_nanos is not None
    assert half.cost_nanos * 2 == whole.cost_nanos


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "omni-moderation-latest"),
        ("google", "gemma-3-27b-it"),
        ("zai", "glm-4.7-flash"),
        ("openrouter", "google/gemma-3-27b-it:free"),
    ],
)
def test_free_is_a_price(provider: str, model: str) -> None:
    quote = CATALOG.quote(provider, model, AT, usage(input_tokens=500, output_tokens=5))
    assert (quote.cost_nanos, quote.status) == (0, "priced")


def test_a_search_preview_costs_more_a_search_than_its_model() -> None:
    searched = usage(input_tokens=0, web_searches=1)
    for model, nanos in (("gpt-4o-mini-search-preview", 25_000_000), ("gpt-4o-mini", 10_000_000)):
        assert CATALOG.quote("openai", model, AT, searched).cost_nanos == nanos
