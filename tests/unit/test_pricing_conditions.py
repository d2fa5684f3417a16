"""Conditions that meet in one call, and units that are all of one kind: prices by hand."""

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest

from app.core.money import from_usd
from app.pricing.catalog import Catalog
from app.pricing.leaves import Rates, flat
from app.pricing.quote import explain
from app.pricing.rates import compile_price
from tests.unit.priced import MTOK, usage

CATALOG = Catalog.from_packages()
AT = datetime(2026, 11, 18, 12, tzinfo=UTC)
WRITTEN = {
    "input_tokens": 20_000,
    "cache_read_tokens": 8_000,
    "cache_write_tokens": 5_000,
    "cache_write_5m_tokens": 2_000,
    "cache_write_1h_tokens": 3_000,
    "output_tokens": 1_000,
}


def nanos(usd: Fraction | Decimal) -> int:
    """Dollars as whole nano-dollars, half to even."""
    return round(usd * 10**9)


def written(fresh: str, read: str, output: str, times: str) -> Fraction:
    """`WRITTEN` at Anthropic's list prices: five minutes are 1.25 of the input, an hour is 2."""
    price, cached, out = Fraction(fresh), Fraction(read), Fraction(output)
    tokens = 7_000 * price + 8_000 * cached + 1_000 * out
    tokens += 2_000 * price * Fraction(5, 4) + 3_000 * price * 2
    return tokens * Fraction(times) / MTOK


def tokens(*parts: tuple[int, str], times: str = "1") -> Fraction:
    """Counts at dollars per million, multiplied."""
    return sum((Fraction(usd) * count for count, usd in parts), Fraction()) * Fraction(times) / MTOK


@pytest.mark.parametrize(
    ("model", "context", "usd"),
    [
        (
            "claude-opus-4-8",
            {"processing": "batch", "inference_geo": "us"},
            written("5", "0.5", "25", "0.55"),
        ),
        (
            "claude-sonnet-5",
            {"service_tier": "batch", "inference_geo": "us"},
            written("2", "0.2", "10", "0.55"),
        ),
        (
            "claude-opus-4-8",
            {"speed": "fast", "inference_geo": "us"},
            written("10", "1", "50", "1.1"),
        ),
        ("claude-haiku-4-5", {"inference_geo": "us"}, written("1", "0.1", "5", "1")),
        ("claude-fable-5-1", {"inference_geo": "us"}, written("10", "0.25", "50", "1.1")),
    ],
)
def test_lifetimes_of_a_cache_meet_batches_speed_and_places(
    model: str, context: dict[str, str], usd: Fraction
) -> None:
    quote = CATALOG.quote("anthropic", model, AT, usage(**WRITTEN), context)
    assert (quote.cost_nanos, quote.status) == (nanos(usd), "priced")


@pytest.mark.parametrize(
    ("provider", "model", "counts", "context", "usd"),
    [
        (
            "anthropic",
            "claude-haiku-5-5",
            {"input_tokens": 100_001, "output_tokens": 1_000},
            {"processing": "batch", "inference_geo": "us"},
            tokens((100_001, "0.5"), (1_000, "2.5"), times="0.55"),
        ),
        (
            "xai",
            "grok-4.7",
            {"input_tokens": 200_000, "output_tokens": 1_000},
            {"processing": "batch", "region": "us"},
            tokens((200_000, "4"), (1_000, "12"), times="0.88"),
        ),
        (
            "openai",
            "gpt-5.4",
            {"input_tokens": 272_001, "cache_read_tokens": 10_000, "output_tokens": 1_000},
            {"region": "eu"},
            tokens((262_001, "5"), (10_000, "0.5"), (1_000, "22.5"), times="1.1"),
        ),
        (
            "openai",
            "gpt-5.4",
            {"input_tokens": 272_001, "output_tokens": 1_000},
            {"service_tier": "flex", "region": "us"},
            tokens((272_001, "2.5"), (1_000, "11.25"), times="1.1"),
        ),
        (
            "google",
            "gemini-2.5-pro",
            {"input_tokens": 200_001, "cache_read_tokens": 100_000, "output_tokens": 1_000},
            {"processing": "batch"},
            tokens((100_001, "1.25"), (100_000, "0.25"), (1_000, "7.5")),
        ),
        (
            "azure",
            "gpt-6-sol",
            {"input_tokens": 272_001, "cache_read_tokens": 1, "output_tokens": 1_000},
            {"region": "us"},
            tokens((272_000, "4"), (1, "0.4"), (1_000, "15"), times="1.1"),
        ),
    ],
)
def test_long_calls_meet_batches_tiers_and_regions(
    provider: str, model: str, counts: dict[str, int], context: dict[str, str], usd: Fraction
) -> None:
    quote = CATALOG.quote(provider, model, AT, usage(**counts), context)
    assert (quote.cost_nanos, quote.status) == (nanos(usd), "priced")


@pytest.mark.parametrize(
    ("traffic", "like"),
    [
        ("ON_DEMAND", {}),
        ("TRAFFIC_TYPE_UNSPECIFIED", {}),
        ("ON_DEMAND_PRIORITY", {"service_tier": "priority"}),
        ("ON_DEMAND_FLEX", {"service_tier": "flex"}),
    ],
)
def test_vertex_names_the_tier_in_the_type_of_its_traffic(
    traffic: str, like: dict[str, str]
) -> None:
    used = usage(input_tokens=1_000, output_tokens=100)
    named = CATALOG.quote("vertex_ai", "gemini-2.5-pro", AT, used, {"traffic_type": traffic})
    assert named == CATALOG.quote("vertex_ai", "gemini-2.5-pro", AT, used, like)
    assert named.status == "priced"


def test_tokens_of_provisioned_throughput_are_paid_for_and_its_searches_are_not() -> None:
    context = {"traffic_type": "PROVISIONED_THROUGHPUT"}
    used = usage(input_tokens=200_001, cache_read_tokens=7, output_tokens=1_000)
    quote = CATALOG.quote("vertex_ai", "gemini-2.5-pro", AT, used, context)
    assert (quote.cost_nanos, quote.status) == (0, "priced")
    searched = usage(input_tokens=9, output_tokens=9, web_searches=1)
    quote = CATALOG.quote("vertex_ai", "gemini-2.5-pro", AT, searched, context)
    assert (quote.cost_nanos, quote.status) == (35_000_000, "priced")


def test_flex_costs_what_on_demand_does_at_groq_alone() -> None:
    used = usage(input_tokens=20_000, output_tokens=1_000)
    flex = CATALOG.quote("groq", "openai/gpt-oss-120b", AT, used, {"service_tier": "flex"})
    assert (flex.cost_nanos, flex.status) == (3_600_000, "priced")
    other = CATALOG.quote("groq", "openai/gpt-oss-120b", AT, used, {"service_tier": "performance"})
    assert other.status == "estimated"


@pytest.mark.parametrize(
    ("provider", "model", "counts", "usd"),
    [
        (
            "openai",
            "gpt-image-1",
            {"input_tokens": 1_000, "input_image_tokens": 800, "output_image_tokens": 4_160},
            tokens((200, "5"), (800, "10"), (4_160, "40")),
        ),
        ("openai", "gpt-image-1-mini", {"output_image_tokens": 1_056}, tokens((1_056, "8"))),
        ("azure", "gpt-image-2", {"output_image_tokens": 1_056}, tokens((1_056, "30"))),
        ("openai", "gpt-image-1.5", {"output_image_tokens": 1_056}, tokens((1_056, "32"))),
        ("azure", "MAI-Image-2.6", {"output_image_tokens": 1_056}, tokens((1_056, "38"))),
    ],
)
def test_an_image_is_priced_though_its_model_writes_no_text(
    provider: str, model: str, counts: dict[str, int], usd: Fraction
) -> None:
    drawn = usage(output_tokens=counts["output_image_tokens"], **counts)
    quote = CATALOG.quote(provider, model, AT, drawn)
    assert (quote.cost_nanos, quote.status) == (nanos(usd), "priced")
    assert explain(CATALOG, provider, model, AT, drawn).quote == quote


def test_a_batch_of_images_is_half_the_price() -> None:
    drawn = usage(input_tokens=1_000, output_tokens=4_160, output_image_tokens=4_160)
    quote = CATALOG.quote("openai", "gpt-image-2", AT, drawn, {"processing": "batch"})
    half = tokens((1_000, "5"), (4_160, "30"), times="0.5")
    assert (quote.cost_nanos, quote.status) == (nanos(half), "priced")


def test_tokens_of_a_transcription_are_inside_the_price_of_its_minutes() -> None:
    heard = usage(input_tokens=13, output_tokens=151, audio_seconds=36)
    for model, usd in (("voxtral-mini-2602", "0.0018"), ("voxtral-mini-transcribe-3", "0.0021")):
        quote = CATALOG.quote("mistral", model, AT, heard)
        assert (quote.cost_nanos, quote.status) == (nanos(Decimal(usd)), "priced")
    spoken = CATALOG.quote("mistral", "voxtral-small-latest", AT, heard)
    assert spoken.cost_nanos == 36 * 240_000_000 // 3_600 + 13 * 100 + 151 * 400


ONLY_IMAGES: Rates = {
    "input_tokens": flat(from_usd("5"), MTOK),
    "output_image_tokens": flat(from_usd("38"), MTOK),
}


def test_of_a_whole_only_what_its_parts_leave_over_needs_a_rate() -> None:
    price = compile_price(ONLY_IMAGES, "x")
    drawn = usage(input_tokens=10, output_tokens=100, output_image_tokens=100)
    assert price.cost(drawn)[0] == 10 * 5_000 + 100 * 38_000
    assert price.missing(drawn) == ()
    for more, lacking in (
        ({"output_tokens": 101}, ("output_tokens",)),
        ({"output_tokens": 101, "output_reasoning_tokens": 1}, ("output_reasoning_tokens",)),
        ({"output_reasoning_tokens": 1}, ("output_tokens", "output_reasoning_tokens")),
        ({"output_audio_tokens": 5}, ("output_tokens", "output_audio_tokens")),
    ):
        counts = {"output_tokens": 100, "output_image_tokens": 100, **more}
        assert price.cost(usage(**counts)) == (None, "", False)
        assert price.missing(usage(**counts)) == lacking
