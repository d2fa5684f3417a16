"""Notice a price that is off by a factor of a thousand: a wrong block is the commonest mistake."""

from collections.abc import Mapping
from fractions import Fraction

from app.core.money import from_usd, to_usd
from app.pricing.catalog import Resolution
from app.pricing.drafts import escaped
from app.pricing.leaves import Rate
from app.pricing.rows import PER_MILLION, Override, PriceList

FACTOR = 1_000


def medians(price_list: PriceList) -> dict[str, Rate]:
    """The median rate of each unit over everything that is listed and not free."""
    found: dict[str, list[tuple[Fraction, Rate]]] = {}
    for listing in price_list.listings:
        for row in listing.rows:
            for unit, rate in row.rates if not row.when else ():
                if rate.steps[0].nanos:
                    found.setdefault(unit, []).append((_each(rate), rate))
    return {unit: _middle(rates) for unit, rates in found.items()}


def _middle(rates: list[tuple[Fraction, Rate]]) -> Rate:
    ordered = sorted(rates, key=lambda pair: pair[0])
    return ordered[len(ordered) // 2][1]


def _each(rate: Rate) -> Fraction:
    return Fraction(rate.steps[0].nanos, rate.per)


def own_rates(found: Resolution | None) -> dict[str, tuple[int, int]]:
    """(Nano-dollars, block) by counter of the price that a model has now, if it is certain."""
    if found is None or not found.sure:
        return {}
    return {rate.counter: (from_usd(rate.usd[0][1]), rate.per) for rate in found.rates if rate.usd}


def suspicions(
    override: Override, own: Mapping[str, tuple[int, int]], listed: Mapping[str, Rate]
) -> list[dict[str, str]]:
    """Rates that are a thousand times what they should be near to, or a thousandth; with places.

    That is the model's own rate in force for the unit, else the median of what is listed. Free is
    no mistake.
    """
    wrong = []
    for counter, rate in override.row.rates:
        nanos, per = own.get(counter, (0, 1))
        peer = "this model's price in force"
        if not nanos:
            if counter not in listed:
                continue
            nanos, per = listed[counter].steps[0].nanos, listed[counter].per
            peer = "the median of the catalogue"
        usual = Fraction(nanos, per)
        factor = Fraction(override.row.multiplier_ppm, PER_MILLION)
        for step in rate.steps:
            stated = Fraction(step.nanos, rate.per) * factor
            if stated and not usual / FACTOR < stated < usual * FACTOR:
                ratio = stated / usual
                times = f"{float(ratio):,.0f} times" if ratio >= 10 else f"{float(ratio):.3g} times"
                detail = f"{times} {peer}, {to_usd(nanos)} USD per {per}; if meant, send force"
                wrong.append({"pointer": f"/rates/{escaped(counter)}", "detail": detail})
                break
    return wrong
