"""Read the pinned `genai-prices` package into our own values, once; nothing here is asked later."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, time
from decimal import Decimal
from importlib.metadata import version
from typing import NamedTuple

from genai_prices import types as genai
from genai_prices.data import providers as _PROVIDERS

from app.core.money import divide_half_even
from app.pricing.entries import Dated, Entry, Variant, free_of_charge
from app.pricing.leaves import Rate, Rates, Step

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
_TEN_SECONDS = {"audio_seconds": 10_000_000}
LEAST = {
    ("groq", "whisper-large-v3"): _TEN_SECONDS,
    ("groq", "whisper-large-v3-turbo"): _TEN_SECONDS,
}
"""The smallest billed amount, which the package keeps in code instead of in its data."""
_FREE_WORDS = ("(free)", "free of charge", "included in the subscription")


class Pattern(NamedTuple):
    """One way a model may be spelled that is not one fixed name: all parts have to be found."""

    parts: tuple[re.Pattern[str], ...]
    tuned: bool

    def span(self, name: str) -> tuple[int, int] | None:
        """What of a name the pattern accounts for."""
        found = [part.search(name) for part in self.parts]
        spans = [hit.span() for hit in found if hit and hit.end() > hit.start()]
        if not all(found) or not spans:
            return None
        return min(start for start, _ in spans), max(end for _, end in spans)


class Listed(NamedTuple):
    """An entry and the names it goes by."""

    entry: Entry
    names: frozenset[str]
    patterns: tuple[Pattern, ...]


class Shop(NamedTuple):
    """A provider, what it lists, whose models it lends, and how its models are recognised."""

    id: str
    listed: tuple[Listed, ...]
    lends: tuple[str, ...]
    names: frozenset[str]
    patterns: tuple[Pattern, ...]


def read_shops() -> Iterator[Shop]:
    """Every provider of the package, in its order."""
    for provider in _PROVIDERS:
        names, patterns = _spelled(provider.model_match)
        listed = tuple(_listed(provider.id, model) for model in provider.models)
        lends = tuple(provider.fallback_model_providers or ())
        yield Shop(provider.id, listed, lends, names, patterns)


def _listed(provider: str, model: genai.ModelInfo) -> Listed:
    names, patterns = _spelled(model.match)
    prices = model.prices
    if isinstance(prices, genai.ModelPrice):
        prices = [genai.ConditionalPrice(prices=prices)]
    free = _is_free(provider, model)
    standard = tuple(_dated(price.prices, price.constraint, free) for price in prices)
    variants = tuple(
        Variant(frozenset(variant.when.items()), _dated(variant.prices, variant.constraint))
        for variant in model.price_variants or ()
    )
    entry = Entry(
        provider,
        model.id,
        model.name or model.id,
        f"{SOURCE}/{provider}/{model.id}",
        standard or (Dated({}),),
        variants,
        LEAST.get((provider, model.id)),
    )
    return Listed(entry, names, patterns)


def _is_free(provider: str, model: genai.ModelInfo) -> bool:
    """Whether an entry without rates is stated to be free; otherwise its price is unknown."""
    told = f"{model.name or ''} {model.price_comments or ''}".lower()
    return (
        model.id.endswith(":free")
        or any(words in told for words in _FREE_WORDS)
        or (provider, model.id) == ("openai", "moderation")
    )


def _dated(
    prices: genai.ModelPrice,
    constraint: genai.StartDateConstraint | genai.TimeOfDateConstraint | None,
    free: bool = False,
) -> Dated:
    rates = _rates(prices)
    if free and not rates:
        rates = free_of_charge()
    if isinstance(constraint, genai.StartDateConstraint):
        day = constraint.start_date
        return Dated(rates, datetime(day.year, day.month, day.day, tzinfo=UTC))
    if isinstance(constraint, genai.TimeOfDateConstraint):
        return Dated(
            rates, None, (_utc_time(constraint.start_time), _utc_time(constraint.end_time))
        )
    return Dated(rates)


def _utc_time(clock: time) -> time:
    if clock.tzinfo is None:
        return clock
    return datetime.combine(datetime(1970, 1, 1), clock).astimezone(UTC).time()  # noqa: DTZ001


def _rates(prices: genai.ModelPrice) -> Rates:
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
        rates[counter] = Rate(per, tuple(steps))
    return rates


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


def _spelled(match: genai.MatchLogic | None) -> tuple[frozenset[str], tuple[Pattern, ...]]:
    """Split a match rule into the fixed names and the looser patterns."""
    names: set[str] = set()
    patterns: list[Pattern] = []
    for clause in _alternatives(match):
        if isinstance(clause, genai.ClauseEquals):
            names.add(clause.equals.lower())
        else:
            parts = clause.and_ if isinstance(clause, genai.ClauseAnd) else [clause]
            texts = tuple(_expression(part) for part in parts)
            tuned = any(text.startswith("^ft:") for text in texts)
            patterns.append(Pattern(tuple(re.compile(text) for text in texts), tuned))
    return frozenset(names), tuple(patterns)


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
