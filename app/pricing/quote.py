"""Explain a quote line by line, so that the lines sum to the cost to the last nano-dollar."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from typing import NamedTuple

from app.core.counters import COUNTERS, MICROS_PER_SECOND, SECONDS, Usage
from app.core.money import to_usd
from app.pricing.catalog import Catalog, Quote
from app.pricing.rates import Price, Share


class Line(NamedTuple):
    """One kind of unit: how many, at what rate, for how much.

    `amount_nanos` is whole and the lines sum to the cost; `exact_nanos` is the share before that.
    """

    unit: str
    quantity: int | float
    usd: str
    block: int
    amount_nanos: int
    exact_nanos: Fraction


class Explanation(NamedTuple):
    """A quote with its lines, the tier it fell in, and why this entry was asked."""

    quote: Quote
    lines: tuple[Line, ...]
    tier: str
    why: str


def explain(
    catalog: Catalog,
    provider: str | None,
    model: str | None,
    at: datetime,
    usage: Usage,
    context: Mapping[str, str] | None = None,
) -> Explanation:
    """Price a usage as `Catalog.quote` does, and say how every part of it came about."""
    quote = catalog.quote(provider, model, at, usage, context)
    plan = catalog.plan(provider, model, context)
    price = None if plan.schedule is None else plan.schedule.at(at).price
    if price is None:
        why = plan.rule if plan.entry is None else f"{plan.entry.ref} lists no rate"
        return Explanation(quote, (), "", why)
    if quote.cost_nanos is None:
        missing = [COUNTERS[place] for place in price.unrated if usage[place]]
        return Explanation(quote, (), "", f"no rate for {', '.join(missing)}")
    above = price.tier_of(usage).above
    tier = "" if above < 0 else f"more than {above} input tokens"
    shares, _ = price.shares(usage)
    return Explanation(quote, _lines(price, shares, quote.cost_nanos), tier, plan.rule)


def _lines(price: Price, shares: Sequence[Share], cost_nanos: int) -> tuple[Line, ...]:
    amounts = split_by_remainder(
        [share.numerator for share in shares], price.denominator, cost_nanos
    )
    return tuple(
        Line(
            share.leaf.unit,
            share.quantity / MICROS_PER_SECOND if share.leaf.counter in SECONDS else share.quantity,
            to_usd(share.nanos),
            share.per,
            amount,
            Fraction(share.numerator, price.denominator),
        )
        for share, amount in zip(shares, amounts, strict=True)
    )


def split_by_remainder(numerators: Sequence[int], denominator: int, total: int) -> list[int]:
    """Round each part down, and give what is missing to the largest remainders."""
    amounts = [numerator // denominator for numerator in numerators]
    order = sorted(range(len(numerators)), key=lambda place: -(numerators[place] % denominator))
    for place in order[: total - sum(amounts)]:
        amounts[place] += 1
    return amounts
