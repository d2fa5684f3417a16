"""The price files that are shipped: their form, where their figures are from, and some of them."""

import statistics
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, time
from fractions import Fraction

import pytest

from app.core.counters import COUNTERS
from app.pricing.entries import Entry
from app.pricing.extract import header, read_extract
from app.pricing.overlay import DEFAULT_LAYER, read_overlay
from app.pricing.rows import Listing, PriceRow

EXTRACT, OVERLAY = read_extract(), read_overlay()
LISTINGS = (*OVERLAY, *EXTRACT)
DEARER_THAN_A_THOUSAND_USUAL_ONES: dict[str, str] = {}
"""Rows that may be, and why."""


def rows() -> Iterator[PriceRow]:
    for each in LISTINGS:
        yield from each.rows


def listing(provider: str, name: str) -> Listing:
    return next(each for each in LISTINGS if each.provider == provider and name in each.names)


def usd(row: PriceRow, counter: str) -> list[tuple[int, str]]:
    """A rate's steps in USD for the block it is stated in."""
    rate = dict(row.rates)[counter]
    return [
        (step.above, f"{Fraction(step.nanos, 10**9).limit_denominator()}") for step in rate.steps
    ]


def row(provider: str, name: str, **when: str) -> PriceRow:
    """The first row under exactly these conditions, in any of the name's listings."""
    return next(
        each
        for found in LISTINGS
        if found.provider == provider and name in found.names
        for each in found.rows
        if dict(each.when) == when
    )


def test_every_row_says_where_it_is_from_and_can_be_cited() -> None:
    ids = [each.id for each in rows()]
    assert len(ids) == len(set(ids))
    assert all(each.source.strip() for each in rows())
    assert not [each for each in ids if "+" in each or each.split() != [each]]


def test_every_listing_makes_prices() -> None:
    for each in LISTINGS:
        Entry(each).check()


def test_no_name_means_two_models_of_one_layer() -> None:
    taken: set[tuple[str, str, str]] = set()
    for each in LISTINGS:
        for name in () if each.adds else each.names:
            assert name == name.lower().strip()
            assert (each.layer, each.provider, name) not in taken, name
            taken.add((each.layer, each.provider, name))


def test_no_rate_is_a_thousand_times_the_usual_one_without_a_reason() -> None:
    found: dict[str, list[tuple[Fraction, str]]] = defaultdict(list)
    for each in rows():
        for counter, rate in each.rates:
            assert counter in COUNTERS
            found[counter] += [(Fraction(step.nanos, rate.per), each.id) for step in rate.steps]
    dear = set()
    for prices in found.values():
        usual = statistics.median([price for price, _ in prices if price])
        dear |= {ref for price, ref in prices if price >= 1000 * usual}
    assert dear == set(DEARER_THAN_A_THOUSAND_USUAL_ONES)


def test_a_default_is_for_a_provider_and_never_for_everyone() -> None:
    defaults = [each for each in OVERLAY if each.layer == DEFAULT_LAYER]
    assert {each.provider for each in defaults} >= {"tavily", "serper", "video", "stability"}
    assert all(each.model == "*" and each.provider != "*" for each in defaults)
    assert not {each.provider for each in defaults} & {"openai", "anthropic", "google", "mistral"}


def test_the_list_says_what_it_was_made_of() -> None:
    head = header()
    assert head["version"] == "1.109.1"
    assert len(head["sha256"]) == 64
    assert 2_000 < head["entries"] <= len(EXTRACT)


@pytest.mark.parametrize(
    ("provider", "model", "when", "counter", "expected"),
    [
        ("cohere", "rerank-v3.5", {}, "rerank_searches", [(-1, "2")]),
        ("azure", "us/gpt-4o-2024-08-06", {}, "input_tokens", [(-1, "11/4")]),
        ("azure", "gpt-4o-2024-08-06", {"region": "us"}, "output_tokens", [(-1, "11")]),
        (
            "google",
            "gemini-3.1-pro-preview",
            {"service_tier": "flex"},
            "input_tokens",
            [(-1, "1"), (200_000, "2")],
        ),
        (
            "google",
            "gemini-2.5-flash",
            {"service_tier": "priority"},
            "output_tokens",
            [(-1, "9/2")],
        ),
        ("aws", "us-gov.anthropic.claude-sonnet-5", {}, "output_tokens", [(-1, "12")]),
        ("deepgram", "nova-3", {}, "audio_seconds", [(-1, "43/10000")]),
        (
            "google",
            "veo-3.1-generate-preview",
            {"resolution": "4k"},
            "video_seconds",
            [(-1, "3/5")],
        ),
        ("fal-ai", "fal-ai/nano-banana-2", {"size": "4k"}, "output_images", [(-1, "4/25")]),
        ("perplexity", "sonar", {"search_context_size": "low"}, "requests", [(-1, "5")]),
        (
            "openai",
            "dall-e-3",
            {"quality": "hd", "size": "1024x1792"},
            "output_images",
            [(-1, "3/25")],
        ),
        ("openai", "hd/1024-x-1024/dall-e-3", {}, "output_images", [(-1, "2/25")]),
        ("perplexity", "search", {}, "requests", [(-1, "5")]),
        ("tavily", "search", {"search_depth": "advanced"}, "requests", [(-1, "16")]),
        ("exa", "contents", {}, "input_document_pages", [(-1, "1")]),
        ("openai", "gpt-4o-audio-preview", {}, "input_audio_tokens", [(-1, "40")]),
        ("replicate", "meta/meta-llama-3-8b-instruct", {}, "output_tokens", [(-1, "1/10")]),
        ("video", "kling-v2.5-turbo-std-5s", {}, "requests", [(-1, "210")]),
        ("x-ai", "grok-imagine-video", {}, "video_seconds", [(-1, "1/20")]),
    ],
)
def test_a_known_price_is_listed(
    provider: str, model: str, when: dict[str, str], counter: str, expected: list[tuple[int, str]]
) -> None:
    assert usd(row(provider, model, **when), counter) == expected


def test_deepseek_changed_its_prices_to_the_hour() -> None:
    found = listing("deepseek", "deepseek-chat")
    change = datetime(2025, 9, 5, 16, tzinfo=UTC)
    before = [each for each in found.rows if each.end == change]
    after = next(each for each in found.rows if each.start == change)
    assert [each.windows for each in before] == [(), ((time(16, 30), time(0, 30)),)]
    assert [usd(after, name) for name in ("input_tokens", "output_tokens")] == [
        [(-1, "14/25")],
        [(-1, "42/25")],
    ]


def test_peak_prices_of_deepseek_leave_out_the_weekend() -> None:
    peak = listing("deepseek", "deepseek-v4-pro").rows[-1]
    assert peak.weekdays == (0, 1, 2, 3, 4)
    assert peak.windows == ((time(1), time(4)), (time(6), time(10)))
    assert usd(peak, "input_tokens") == [(-1, "33/25")]


def test_an_uplift_joins_what_others_list() -> None:
    uplift = next(each for each in OVERLAY if each.model == "claude-in-the-us")
    assert uplift.adds
    assert [(each.rates, each.when, each.multiplier_ppm) for each in uplift.rows] == [
        ((), (("inference_geo", "us"),), 1_100_000)
    ]


def test_a_price_is_bounded_by_a_change_that_is_announced() -> None:
    flex = row("google", "gemini-4-argon", service_tier="flex")
    assert flex.end == datetime(2026, 12, 1, tzinfo=UTC)
