"""What the `genai-prices` package answers by itself, so that nothing is listed twice."""

import re
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from genai_prices import types as genai
from genai_prices.data import providers

from app.pricing.names import is_exact

_COUNTERS = {
    "input_mtok": "in",
    "cache_read_mtok": "cr",
    "cache_write_mtok": "cw",
    "cache_write_1h_mtok": "cw1h",
    "input_audio_mtok": "ain",
    "cache_audio_read_mtok": "acr",
    "input_image_mtok": "iin",
    "output_mtok": "out",
    "output_reasoning_mtok": "rs",
    "output_audio_mtok": "aout",
    "output_image_mtok": "iout",
    "output_citation_mtok": "cit",
    "requests_kcount": "req",
    "web_searches_kcount": "web",
    "rerank_searches_kcount": "rer",
    "input_document_kpages": "page",
    "input_mchars": "char",
    "audio_hours": "asec",
    "input_audio_hours": "asec",
    "output_audio_hours": "asec",
}
_SHOPS = {provider.id: provider for provider in providers}
_MUTE = re.compile(r"(?!)")


class Known(NamedTuple):
    """Whose entry it is, its present price of text in and out, what it prices, and when it changes.

    Conditions with a start do not count: calls before it are what the list is asked about.
    """

    lender: str
    text: tuple[Decimal | None, Decimal | None]
    counters: frozenset[str]
    conditions: frozenset[frozenset[tuple[str, str]]]
    changes: tuple[date, ...]

    def span(self, day: date) -> str:
        """From which change to which the prices of a day hold, as `2025-06-10/`; open if empty."""
        since = max((each for each in self.changes if each <= day), default=None)
        until = min((each for each in self.changes if each > day), default=None)
        return f"{since or ''}/{until or ''}".removesuffix("/") if since or until else ""


def known(provider: str, model: str) -> Known | None:
    """What is said about a model by exactly this name, its provider's or one that lends it."""
    shop = _SHOPS.get(provider)
    if shop is None:
        return None
    for host in (provider, *(shop.fallback_model_providers or ())):
        for entry in _SHOPS[host].models:
            if any(_means(clause, model.lower()) for clause in _clauses(entry.match)):
                return _described(entry, "" if host == provider else host)
    return None


def _described(entry: genai.ModelInfo, lender: str) -> Known:
    prices = entry.prices
    dated = prices if isinstance(prices, list) else [genai.ConditionalPrice(prices=prices)]
    counters = {
        code
        for key, code in _COUNTERS.items()
        if all(price.prices.__dict__.get(key) is not None for price in dated)
    }
    starts = [
        price.constraint.start_date
        for price in dated
        if isinstance(price.constraint, genai.StartDateConstraint)
    ]
    conditions = {
        frozenset(variant.when.items())
        for variant in entry.price_variants or ()
        if variant.constraint is None and not lender
    }
    last = dated[-1].prices
    text = (_base(last.input_mtok), _base(last.output_mtok))
    return Known(lender, text, frozenset(counters), frozenset(conditions), tuple(starts))


def _base(price: Decimal | genai.TieredPrices | None) -> Decimal | None:
    return price.base if isinstance(price, genai.TieredPrices) else price


def _clauses(match: genai.MatchLogic | None) -> Iterator[genai.MatchLogic]:
    if isinstance(match, genai.ClauseOr):
        for clause in match.or_:
            yield from _clauses(clause)
    elif match is not None:
        yield match


def _means(clause: genai.MatchLogic, name: str) -> bool:
    if isinstance(clause, genai.ClauseEquals):
        return clause.equals.lower() == name
    parts = clause.and_ if isinstance(clause, genai.ClauseAnd) else [clause]
    spans = []
    for part in parts:
        hit = _pattern(part).search(name)
        if hit is None:
            return False
        if hit.end() > hit.start():
            spans.append(hit.span())
    starts, ends = [span[0] for span in spans], [span[1] for span in spans]
    return bool(spans) and is_exact(name, min(starts), max(ends))


def _pattern(clause: genai.MatchLogic) -> re.Pattern[str]:
    match clause:
        case genai.ClauseStartsWith(starts_with=text):
            return re.compile("^" + re.escape(text.lower()))
        case genai.ClauseEndsWith(ends_with=text):
            return re.compile(re.escape(text.lower()) + "$")
        case genai.ClauseContains(contains=text):
            return re.compile(re.escape(text.lower()))
        case genai.ClauseEquals(equals=text):
            return re.compile("^" + re.escape(text.lower()) + "$")
        case genai.ClauseRegex(regex=text):
            return re.compile(text)
    return _MUTE
