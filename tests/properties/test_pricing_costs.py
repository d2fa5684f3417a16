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

from app.core.counters import COUNTERS, INDEX, NOTHING, Usage, part_beyond_whole
from app.core.money import divide_half_even
from app.pricing.catalog import Catalog
from app.pricing.genai import read_genai
from app.pricing.leaves import Rate, Step, flat, free_of_charge
from app.pricing.quote import explain, explain_rows, rows_of, split_by_remainder
from app.pricing.rates import compile_price
from app.pricing.rows import Listing, PriceList, PriceRow

CATALOG = Catalog.from_packages()
SOURCE_ALONE = Catalog(PriceList("", *read_genai()))
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


@given(RATES, st.integers(1, 10**7), usages())
def test_a_multiplied_rate_is_exact(rates: dict[str, Rate], ppm: int, usage: Usage) -> None:
    plain = compile_price(rates, "here")
    more = compile_price({name: rate.times(ppm) for name, rate in rates.items()}, "here")
    exact = Fraction(sum(share.numerator for share in plain.shares(usage)[0]), plain.denominator)
    exact *= Fraction(ppm, 1_000_000)
    assert more.cost(usage)[0] == divide_half_even(exact.numerator, exact.denominator)


STEPS = st.lists(st.integers(1, 10**6), min_size=1, max_size=4, unique=True).map(sorted)


@given(STEPS, st.lists(st.integers(0, 100), min_size=5, max_size=5), st.integers(0, 2 * 10**6))
def test_a_graduated_rate_charges_every_unit_once(
    bounds: list[int], amounts: list[int], tokens: int
) -> None:
    steps = tuple(Step(above, nanos) for above, nanos in zip([-1, *bounds], amounts, strict=False))
    price = compile_price({"input_tokens": Rate(1, steps, graduated=True)}, "here")
    usage = list(NOTHING)
    usage[INDEX["input_tokens"]] = tokens
    paid, begin = 0, 0
    for end, nanos in zip([*bounds, None], amounts, strict=False):
        reached = tokens if end is None else min(end, tokens)
        paid += max(reached - begin, 0) * nanos
        begin = max(reached, begin)
    assert price.cost(tuple(usage))[0] == paid
    assert sum(share.quantity for share in price.shares(tuple(usage))[0]) == tokens


ROWS = st.lists(
    st.builds(
        lambda number, usd, when, start: PriceRow(
            f"row-{number}",
            (("input_tokens", flat(usd, 1_000_000)), ("output_tokens", flat(usd, 1_000_000))),
            when,
            AT + timedelta(days=start) if start else None,
        ),
        st.integers(0, 10**6),
        st.integers(0, 10**10),
        st.sampled_from([(), (("processing", "batch"),), (("service_tier", "flex"),)]),
        st.integers(-2, 2),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda row: row.id,
)
LISTINGS = st.lists(
    st.builds(
        lambda layer, number, rows: Listing(
            layer, "acme", f"model-{number}", "", (f"model-{number}",), (), tuple(rows)
        ),
        st.sampled_from(["overlay", "genai", "extract"]),
        st.integers(0, 4),
        ROWS,
    ),
    max_size=8,
    unique_by=lambda listing: (listing.layer, listing.model),
)


@given(LISTINGS, st.randoms(use_true_random=False), usages())
@settings(max_examples=60)
def test_the_order_of_different_models_never_matters(
    listings: list[Listing], chance: random.Random, usage: Usage
) -> None:
    shuffled = list(listings)
    chance.shuffle(shuffled)
    one = Catalog(PriceList("", (), tuple(listings)))
    other = Catalog(PriceList("", (), tuple(shuffled)))
    for number in range(5):
        for context in (None, {"processing": "batch"}, {"service_tier": "flex"}):
            call = ("acme", f"model-{number}", AT, usage, context)
            quote = one.quote(*call)
            assert quote == other.quote(*call)
            assert quote == explain(one, *call).quote


@given(LISTINGS, st.integers(-3, 3), usages())
@settings(max_examples=60)
def test_a_quote_is_rebuilt_from_the_rows_that_it_cites(
    listings: list[Listing], days: int, usage: Usage
) -> None:
    listings = [
        each._replace(rows=tuple(row._replace(id=f"{each.layer}/{row.id}") for row in each.rows))
        for each in listings
    ]
    catalog = Catalog(PriceList("", (), tuple(listings)))
    for listing in listings:
        stored = {
            row.id: row for each in listings if each.model == listing.model for row in each.rows
        }
        call = ("acme", listing.model, AT + timedelta(days=days), usage, {"processing": "batch"})
        found = explain(catalog, *call)
        if found.quote.cost_nanos is not None:
            cited = [stored[id] for id in rows_of(found.quote.price_ref)]
            again = explain_rows(cited, usage)
            assert (again.cost_nanos, again.lines) == (found.quote.cost_nanos, found.lines)


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.integers(0, 100), st.integers(0, 100))
def test_a_tier_moves_the_whole_call_beyond_its_threshold(
    above: int, tokens: int, low: int, high: int
) -> None:
    rate = Rate(1, (Step(-1, low), Step(above, high)))
    usage = list(NOTHING)
    usage[INDEX["input_tokens"]] = tokens
    cost = compile_price({"input_tokens": rate}, "here").cost(tuple(usage))[0]
    assert cost == tokens * (high if tokens > above else low)


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
        quote = SOURCE_ALONE.quote(provider, model.id, at, usage, context)
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
