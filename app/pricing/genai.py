"""Read the pinned `genai-prices` package into our own values, once; nothing here is asked later."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, time
from decimal import Decimal
from functools import lru_cache
from importlib.metadata import version

from genai_prices import types as genai
from genai_prices.data import providers as _PROVIDERS

from app.core.money import divide_half_even
from app.pricing.conditions import SEARCH_CONTEXT
from app.pricing.leaves import Rate, Step, free_of_charge
from app.pricing.rows import Condition, Listing, PriceRow, Provider

SOURCE = f"genai-prices {version('genai-prices')}"

_MILLION, _THOUSAND, _HOUR = 1_000_000, 1_000, 3_600
_UNITS = {
    "input_mtok": ("input_tokens", _MILLION),
    "cache_read_mtok": ("cache_read_tokens", _MILLION),
    "cache_write_mtok": ("cache_write_tokens", _MILLION),
    "cache_write_5m_mtok": ("cache_write_5m_tokens", _MILLION),
    "cache_write_1h_mtok": ("cache_write_1h_tokens", _MILLION),
    "input_audio_mtok": ("input_audio_tokens", _MILLION),
    "cache_audio_read_mtok": ("cache_audio_read_tokens", _MILLION),
    "input_image_mtok": ("input_image_tokens", _MILLION),
    "output_mtok": ("output_tokens", _MILLION),
    "output_reasoning_mtok": ("output_reasoning_tokens", _MILLION),
    "output_audio_mtok": ("output_audio_tokens", _MILLION),
    "output_image_mtok": ("output_image_tokens", _MILLION),
    "output_citation_mtok": ("output_citation_tokens", _MILLION),
    "requests_kcount": ("requests", _THOUSAND),
    "web_searches_kcount": ("web_searches", _THOUSAND),
    "rerank_searches_kcount": ("rerank_searches", _THOUSAND),
    "input_document_kpages": ("input_document_pages", _THOUSAND),
    "input_mchars": ("input_characters", _MILLION),
    "audio_hours": ("audio_seconds", _HOUR),
    "input_audio_hours": ("audio_seconds", _HOUR),
    "output_audio_hours": ("audio_seconds", _HOUR),
}
"""The package's rates for what we count; the others (pixels, video tokens) have no counter."""
_TEN_SECONDS = (("audio_seconds", 10_000_000),)
LEAST = {
    ("groq", "whisper-large-v3"): _TEN_SECONDS,
    ("groq", "whisper-large-v3-turbo"): _TEN_SECONDS,
}
"""The smallest billed amount, which the package keeps in code instead of in its data."""
_FREE = tuple(free_of_charge().items())
_FREE_WORDS = ("(free)", "free of charge", "included in the subscription")


def read_genai() -> tuple[tuple[Provider, ...], tuple[Listing, ...]]:
    """Every provider of the package and every model it prices, in its order."""
    shops, listings = [], []
    for provider in _PROVIDERS:
        names, patterns = _spelled(provider.model_match)
        lends = tuple(provider.fallback_model_providers or ())
        shops.append(Provider(provider.id, lends, names, patterns))
        listings += [_listing(provider.id, model) for model in provider.models]
    return tuple(shops), tuple(listings)


def _listing(provider: str, model: genai.ModelInfo) -> Listing:
    names, patterns = _spelled(model.match)
    prices = model.prices
    if isinstance(prices, genai.ModelPrice):
        prices = [genai.ConditionalPrice(prices=prices)]
    free = _is_free(provider, model)
    least = LEAST.get((provider, model.id), ())
    stem = "_".join(f"{provider}/{model.id}".replace("+", "_plus").split())
    rows = [_row(stem, price.prices, price.constraint, free=free) for price in prices]
    if any(name == "requests" for row in rows for name, _ in row.rates):
        rows += [_highest_context(row) for row in rows]
    for variant in model.price_variants or ():
        row = _row(stem, variant.prices, variant.constraint, tuple(variant.when.items()))
        rows.append(row)
    return Listing(
        "genai",
        provider,
        model.id,
        model.name or model.id,
        names,
        patterns,
        tuple(
            row._replace(id=stem if place == 0 else f"{stem}#{place + 1}", least=least)
            for place, row in enumerate(rows)
        ),
    )


def _highest_context(row: PriceRow) -> PriceRow:
    """The package has one fee per request where there are three by search context: the highest."""
    fee = tuple((name, rate) for name, rate in row.rates if name == "requests")
    return row._replace(when=((SEARCH_CONTEXT, "high"),), rates=fee)


def _is_free(provider: str, model: genai.ModelInfo) -> bool:
    """Whether an entry without rates is stated to be free; otherwise its price is unknown."""
    told = f"{model.name or ''} {model.price_comments or ''}".lower()
    return (
        model.id.endswith(":free")
        or any(words in told for words in _FREE_WORDS)
        or (provider, model.id) == ("openai", "moderation")
    )


def _row(
    id: str,
    prices: genai.ModelPrice,
    constraint: genai.StartDateConstraint | genai.TimeOfDateConstraint | None,
    when: tuple[Condition, ...] = (),
    free: bool = False,
) -> PriceRow:
    row = PriceRow(id, _rates(prices), when, source=SOURCE)
    if free and not row.rates:
        row = row._replace(rates=_FREE)
    if isinstance(constraint, genai.StartDateConstraint):
        day = constraint.start_date
        return row._replace(start=datetime(day.year, day.month, day.day, tzinfo=UTC))
    if isinstance(constraint, genai.TimeOfDateConstraint):
        window = _utc_time(constraint.start_time), _utc_time(constraint.end_time)
        return row._replace(windows=(window,))
    return row


def _utc_time(clock: time) -> time:
    if clock.tzinfo is None:
        return clock
    return datetime.combine(datetime(1970, 1, 1), clock).astimezone(UTC).time()  # noqa: DTZ001


def _rates(prices: genai.ModelPrice) -> tuple[tuple[str, Rate], ...]:
    rates: dict[str, Rate] = {}
    for key, (counter, per) in _UNITS.items():
        price = prices.__dict__.get(key)
        if price is None or counter in rates:
            continue
        if isinstance(price, genai.TieredPrices):
            steps = [Step(-1, rate_nanos(price.base))]
            steps += [Step(tier.start, rate_nanos(tier.price)) for tier in price.tiers]
        else:
            steps = [Step(-1, rate_nanos(price))]
        rates[counter] = _rate(per, tuple(steps))
    return tuple(rates.items())


@lru_cache(maxsize=4_096)
def _rate(per: int, steps: tuple[Step, ...]) -> Rate:
    """One object for the same rate: most are listed many times."""
    return Rate(per, steps)


def rate_nanos(usd: Decimal) -> int:
    """A rate in whole nano-dollars per block, without the thread's decimal context.

    28 listed rates are repeating decimals (0.041666...) and round to the ninth place.
    """
    _, digits, exponent = usd.as_tuple()
    if not isinstance(exponent, int):
        raise ValueError(f"a rate is not a number: {usd}")
    value = int("".join(map(str, digits)))
    shift = exponent + 9
    return value * 10**shift if shift >= 0 else divide_half_even(value, 10**-shift)


def _spelled(
    match: genai.MatchLogic | None,
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Split a match rule into the fixed names and the looser patterns."""
    names: dict[str, None] = {}
    patterns: list[tuple[str, ...]] = []
    for clause in _alternatives(match):
        if isinstance(clause, genai.ClauseEquals):
            names[clause.equals.lower()] = None
        else:
            parts = clause.and_ if isinstance(clause, genai.ClauseAnd) else [clause]
            patterns.append(tuple(_expression(part) for part in parts))
    return tuple(names), tuple(patterns)


def _alternatives(match: genai.MatchLogic | None) -> Iterator[genai.MatchLogic]:
    if isinstance(match, genai.ClauseOr):
        for clause in match.or_:
            yield from _alternatives(clause)
    elif match is not None:
        yield match


def _expression(clause: genai.MatchLogic) -> str:
    """A clause as a regular expression over a name in lower case."""
    match clause:
        case genai.ClauseStartsWith(starts_with=text):
            return "^" + re.escape(text.lower())
        case genai.ClauseEndsWith(ends_with=text):
            return re.escape(text.lower()) + "$"
        case genai.ClauseContains(contains=text):
            return re.escape(text.lower())
        case genai.ClauseRegex(regex=text):
            return text
        case genai.ClauseEquals(equals=text):
            return "^" + re.escape(text.lower()) + "$"
    raise ValueError(f"a match rule nested deeper than expected: {clause!r}")
