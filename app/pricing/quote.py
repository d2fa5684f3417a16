"""Explain a quote line by line, so that the lines sum to the cost to the last nano-dollar."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from typing import NamedTuple

from app.core.counters import MICROS_PER_SECOND, SECONDS, Usage
from app.core.money import divide_half_even, to_usd
from app.pricing.catalog import UNPRICED, Catalog, Quote
from app.pricing.compose import compiled_price, compose, rows_of
from app.pricing.plan import Plan
from app.pricing.rows import PriceRow

__all__ = ["Breakdown", "Explanation", "Line", "explain", "explain_rows", "rows_of"]
MINIMUM = "minimum_charge"


class Line(NamedTuple):
    """One kind of unit: how many, at what rate, for how much, and the ids of the rows it is from.

    `amount_nanos` is whole and the lines sum to the cost; `exact_nanos` is the share before that.
    A graduated rate has a line for each part. What a minimum adds is a line `minimum_charge`.
    """

    unit: str
    quantity: int | float
    usd: str
    block: int
    amount_nanos: int
    exact_nanos: Fraction
    row: str = ""


class Breakdown(NamedTuple):
    """A cost with the lines that it is made of, or None and the counters that have no rate."""

    cost_nanos: int | None
    lines: tuple[Line, ...]
    tier: str
    missing: tuple[str, ...]
    sure: bool


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
    user_id: str | None = None,
    team_id: str | None = None,
) -> Explanation:
    """Price a usage as `Catalog.quote` does, and say how every part of it came about.

    Raises:
        OverflowError: the cost passes $9.2 billion.
    """
    plan = catalog.plan(provider, model, context, user_id, team_id)
    chosen = plan.chosen(at, usage)
    if chosen is not None:
        link, period, good = chosen
        found = explain_rows(period.rows, usage, override=link.layer == "override")
        price = period.price
        if price is not None and found.cost_nanos is not None:
            status = "priced" if good and found.sure else "estimated"
            _, ref, _ = price.cost(usage)
            why = link.rule
            if status == "estimated" and link.sure:
                why += ", but not every condition and unit of the call is in this price"
            quote = Quote(found.cost_nanos, status, ref)
            return Explanation(quote, found.lines, found.tier, why)
    return Explanation(UNPRICED, (), "", _why_not(plan, at, usage))


def explain_rows(rows: Sequence[PriceRow], usage: Usage, *, override: bool = False) -> Breakdown:
    """Price a usage by exactly these rows, the base first, whatever prices are in force.

    The rows are those that a quote cites (`rows_of`), when they hold does not matter. `override`
    tells that they are an operator's, who means all of a whole.

    Raises:
        ValueError: the rows have no rates.
        OverflowError: the cost passes $9.2 billion.
    """
    found = compose(rows)
    if not found.rates:
        raise ValueError(f"{found.ref} lists no rate")
    price = compiled_price(found, override)
    cost, _, sure = price.cost(usage)
    if cost is None:
        return Breakdown(None, (), "", price.missing(usage), False)
    above = price.tier_of(usage).above
    tier = "" if above < 0 else f"more than {above} input tokens"
    shares, _ = price.shares(usage)
    numerators = [share.numerator for share in shares]
    rounded = divide_half_even(sum(numerators), price.denominator)
    amounts = split_by_remainder(numerators, price.denominator, rounded)
    lines = [
        Line(
            share.unit,
            share.quantity / MICROS_PER_SECOND if share.counter in SECONDS else share.quantity,
            to_usd(share.nanos),
            share.per,
            amount,
            Fraction(share.numerator, price.denominator),
            found.origins[share.name],
        )
        for share, amount in zip(shares, amounts, strict=True)
    ]
    if cost > rounded:
        more = cost - rounded
        lines.append(Line(MINIMUM, 1, to_usd(more), 1, more, Fraction(more), found.rows[0].id))
    return Breakdown(cost, tuple(lines), tier, (), sure)


def _why_not(plan: Plan, at: datetime, usage: Usage) -> str:
    nearest = plan.first(at)
    if nearest is None:
        known = (*plan.links, *plan.guesses, *plan.defaults)
        if not known:
            return "not in the catalogue"
        return f"{known[0].provider}/{known[0].model} lists no rate"
    missing = explain_rows(nearest[1].rows, usage, override=nearest[0].layer == "override").missing
    return f"no rate for {', '.join(missing)}"


def split_by_remainder(numerators: Sequence[int], denominator: int, total: int) -> list[int]:
    """Round each part down, and give what is missing to the largest remainders."""
    amounts = [numerator // denominator for numerator in numerators]
    order = sorted(range(len(numerators)), key=lambda place: -(numerators[place] % denominator))
    for place in order[: total - sum(amounts)]:
        amounts[place] += 1
    return amounts
