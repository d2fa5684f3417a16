"""What must hold of every price and every usage."""

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import genai_prices
from genai_prices.data import providers
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.counters import COUNTERS, INDEX, Usage, part_beyond_whole
from app.core.money import divide_half_even
from app.pricing.catalog import Catalog
from app.pricing.entries import free_of_charge
from app.pricing.leaves import Rate, Step, flat
from app.pricing.quote import explain, split_by_remainder
from app.pricing.rates import compile_price

CATALOG = Catalog.from_genai()
AT = datetime(2026, 11, 18, 12, tzinfo=UTC)

COUNT = st.integers(0, 10**7)
RATES = st.dictionaries(
    st.sampled_from([name for name in COUNTERS if name != "requests"]),
    st.builds(flat, st.integers(0, 10**11), st.sampled_from([1, 1_000, 3_600, 1_000_000])),
).map(lambda rates: {**free_of_charge(), **rates})


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Counts in which every part fits into its whole and no token is in two parts unsaid."""
    text, read, five, hour, audio, cached_audio, image = (draw(COUNT) for _ in range(7))
    said, reasoning, spoken, drawn = (draw(COUNT) for _ in range(4))
    values = dict.fromkeys(COUNTERS, 0)
    values["cache_audio_read_tokens"] = cached_audio
    values["cache_read_tokens"] = read + cached_audio
    values["input_audio_tokens"] = audio + cached_audio
    values["cache_write_5m_tokens"] = five
    values["cache_write_1h_tokens"] = hour
    values["cache_write_tokens"] = five + hour
    values["input_image_tokens"] = image
    values["input_tokens"] = text + read + cached_audio + audio + five + hour + image
    values["output_reasoning_tokens"] = reasoning
    values["output_audio_tokens"] = spoken
    values["output_image_tokens"] = drawn
    values["output_tokens"] = said + reasoning + spoken + drawn
    for name in COUNTERS[INDEX["output_citation_tokens"] :]:
        values[name] = draw(st.integers(0, 1_000))
    usage = tuple(values[name] for name in COUNTERS)
    assert part_beyond_whole(usage) is None
    return usage


@given(RATES, usages())
def test_coefficients_and_lines_are_the_same_sum(rates: dict[str, Rate], usage: Usage) -> None:
    price = compile_price(rates, "here")
    shares, sure = price.shares(usage)
    total = sum(share.numerator for share in shares)
    assert sure
    assert price.cost(usage)[0] == divide_half_even(total, price.denominator)
    by_terms = sum(usage[place] * value for place, value in price.tiers[0].terms)
    assert by_terms == total


@given(RATES, usages(), usages())
def test_the_cost_of_a_sum_is_the_sum_of_the_costs(
    rates: dict[str, Rate], one: Usage, other: Usage
) -> None:
    price = compile_price(rates, "here")
    both = tuple(a + b for a, b in zip(one, other, strict=True))
    exact = [sum(share.numerator for share in price.shares(usage)[0]) for usage in (one, other)]
    assert sum(share.numerator for share in price.shares(both)[0]) == sum(exact)
    parts = [price.cost(usage)[0] for usage in (one, other)]
    whole = price.cost(both)[0]
    assert None not in (*parts, whole)
    assert abs(sum(part or 0 for part in parts) - (whole or 0)) <= 1


@given(st.lists(st.integers(0, 10**30), max_size=20), st.integers(1, 10**12))
def test_rounded_parts_sum_to_the_rounded_whole(numerators: list[int], denominator: int) -> None:
    total = divide_half_even(sum(numerators), denominator)
    parts = split_by_remainder(numerators, denominator, total)
    assert sum(parts) == total
    for part, numerator in zip(parts, numerators, strict=True):
        assert abs(Fraction(numerator, denominator) - part) < 1


@given(usages(), st.sampled_from([m for m in CATALOG.models() if m[0] in ("openai", "google")]))
@settings(max_examples=300)
def test_lines_of_an_explanation_sum_to_the_cost(usage: Usage, listed: tuple[str, ...]) -> None:
    explanation = explain(CATALOG, listed[0], listed[1], AT, usage, None)
    cost = explanation.quote.cost_nanos
    assert cost is not None or not explanation.lines
    assert sum(line.amount_nanos for line in explanation.lines) == (cost or 0)


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.integers(0, 100), st.integers(0, 100))
def test_a_tier_moves_the_whole_call_beyond_its_threshold(
    above: int, tokens: int, low: int, high: int
) -> None:
    rate = Rate(1, (Step(-1, low), Step(above, high)))
    usage = list(NOTHING_BUT_INPUT)
    usage[INDEX["input_tokens"]] = tokens
    cost = compile_price({"input_tokens": rate}, "here").cost(tuple(usage))[0]
    assert cost == tokens * (high if tokens > above else low)


NOTHING_BUT_INPUT = (0,) * len(COUNTERS)


def test_thousands_of_random_calls_cost_what_the_source_says() -> None:
    """Rates with more than nine places are repeating decimals in the source; they may differ."""
    chance = random.Random(20261118)
    contexts = [None, None, {"processing": "batch"}, {"service_tier": "flex"}, {"speed": "fast"}]
    listed = [(provider.id, model) for provider in providers for model in provider.models]
    compared, rounded = 0, 0
    for provider, model in chance.choices(listed, k=4_000):
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=chance.randrange(525_600))
        context = chance.choice(contexts)
        counts = _some_counts(chance)
        usage = tuple(counts.get(name, 0) for name in COUNTERS)
        quote = CATALOG.quote(provider, model.id, at, usage, context)
        try:
            theirs = _their_nanos(provider, model.id, at, counts, context)
        except LookupError:
            continue
        if quote.cost_nanos is None:
            continue
        compared += 1
        if quote.cost_nanos != theirs:
            rounded += 1
            assert _has_long_rates(model), (provider, model.id, at, counts, context)
            assert abs(quote.cost_nanos - theirs) <= 1
    assert compared > 2_500
    assert rounded < compared / 100


def _some_counts(chance: random.Random) -> dict[str, int]:
    scale = chance.choice([1_000, 100_000, 1_000_000])
    read, write, text = (chance.randint(0, scale) for _ in range(3))
    hour = chance.choice([0, 0, 0, write])
    output = chance.randint(0, scale)
    return {
        "input_tokens": text + read + write,
        "cache_read_tokens": read,
        "cache_write_tokens": write,
        "cache_write_1h_tokens": hour,
        "output_tokens": output,
        "output_reasoning_tokens": chance.randint(0, output),
    }


def _their_nanos(
    provider: str, model: str, at: datetime, counts: dict[str, int], context: Any
) -> int:
    price = genai_prices.calc_price(
        genai_prices.Usage(**counts),
        model,
        provider_id=provider,
        genai_request_timestamp=at,
        price_context=context,
    )
    exact = Fraction(price.total_price) * 10**9
    return divide_half_even(exact.numerator, exact.denominator)


def _has_long_rates(model: Any) -> bool:
    prices = model.prices if isinstance(model.prices, list) else [model]
    rates = [rate for price in prices for rate in price.prices.__dict__.values()]
    found = [
        amount
        for rate in rates
        for amount in ([rate] if isinstance(rate, Decimal) else [getattr(rate, "base", None)])
        if amount is not None
    ]
    return any(amount.as_tuple().exponent < -9 for amount in found)
