"""One price out of the rows that hold for a call, and how a quote cites them."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from app.core.counters import INDEX
from app.pricing.leaves import PER_MILLION, TOKENS, Rate
from app.pricing.rates import Price, compile_price
from app.pricing.rows import PriceRow


class Composed(NamedTuple):
    """Rates by counter, the rows that each is from, and what is charged at least.

    `filled` names rows that matter only to calls that use one of these counters.
    """

    rates: dict[str, Rate]
    origins: dict[str, str]
    least: dict[str, int]
    minimum_nanos: int
    rows: tuple[PriceRow, ...]
    filled: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def ref(self) -> str:
        """The citation: the base row, then every row that changed something about it."""
        seldom = {id for id, _ in self.filled}
        return "+".join([row.id for row in self.rows if row.id not in seldom])


def rows_of(price_ref: str) -> list[str]:
    """The ids of the rows that a quote cites, the base row first."""
    return price_ref.split(" ", 1)[0].split("+") if price_ref else []


def is_uplift(row: PriceRow) -> bool:
    """Whether a row has no rates and multiplies those of the others."""
    return not row.rates and row.multiplier_ppm != PER_MILLION


def compose(rows: Sequence[PriceRow]) -> Composed:
    """Put rows together, the base first: the others change or complete it in their order.

    Rates under conditions replace the base's, the first that names a counter winning; rates without
    fill what is still missing; a row without rates multiplies those of tokens.
    """
    rates: dict[str, Rate] = {}
    origins: dict[str, str] = {}
    least: dict[str, int] = {}
    minimum = 0
    replaced: set[str] = set()
    uplifts, used, filled = [], [], []
    for place, row in enumerate(rows):
        if is_uplift(row):
            uplifts.append(row)
            continue
        taken = {
            name: rate
            for name, rate in row.rates
            if name not in rates or (row.when and place and name not in replaced)
        }
        if row.when:
            replaced.update(taken)
        rates.update((name, rate.times(row.multiplier_ppm)) for name, rate in taken.items())
        origins.update(dict.fromkeys(taken, row.id))
        if taken or not place:
            used.append(row)
            minimum = max(minimum, row.min_charge_nanos)
            least.update(row.least)
            if place and not row.when and not row.min_charge_nanos and "requests" not in taken:
                filled.append((row.id, tuple(taken)))
    for row in uplifts if rates else ():
        used.append(row)
        for name in TOKENS.intersection(rates):
            rates[name] = rates[name].times(row.multiplier_ppm)
            origins[name] += f"+{row.id}"
    return Composed(rates, origins, least, minimum, tuple(used), tuple(filled))


def price_of(
    hold: Sequence[PriceRow], join: Sequence[PriceRow], whole: bool
) -> tuple[Price | None, tuple[PriceRow, ...]]:
    """Compile the rows that hold at an instant, and those that join them; None without rates.

    The last row without conditions is the base. One that lists no rates there says that the price
    is unknown. Of the others those with more conditions go before those with fewer.
    """
    standard = [row for row in hold if not row.when and not is_uplift(row)]
    special = _nearest_first(row for row in hold if row.when and row.rates)
    base = standard[-1:] if standard and standard[-1].rates else special[:1]
    if not base:
        return None, ()
    joined = [row for row in join if row.rates]
    rows = [
        *base,
        *_nearest_first(row for row in (*special, *joined) if row.when and row is not base[0]),
        *(row for row in joined if not row.when),
        *(row for row in (*hold, *join) if is_uplift(row)),
    ]
    found = compose(rows)
    check(found)
    return compiled_price(found, whole), found.rows


def _nearest_first(rows: Iterable[PriceRow]) -> list[PriceRow]:
    return sorted(rows, key=lambda row: -len(row.when))


def compiled_price(found: Composed, whole: bool) -> Price:
    """The price of rows put together; with `whole`, an operator's, who means all of a whole."""
    return compile_price(
        found.rates, found.ref, found.least, found.minimum_nanos, whole, found.filled
    )


def check(found: Composed) -> None:
    """Refuse rates that mean nothing.

    Raises:
        ValueError: an unknown counter, a block or steps out of order, a negative rate.
    """
    for name, rate in found.rates.items():
        above = [step.above for step in rate.steps]
        if name not in INDEX or rate.per < 1 or above[:1] != [-1] or above != sorted(set(above)):
            raise ValueError(f"{found.ref}: no rate for {name} can be {rate}")
        if min(step.nanos for step in rate.steps) < 0:
            raise ValueError(f"{found.ref}: a rate for {name} is negative")


def check_row(row: PriceRow) -> None:
    """Refuse a row that cannot be cited or that holds at no time.

    Raises:
        ValueError: says which row, and what is wrong with it.
    """
    if not row.id or "+" in row.id or row.id.split() != [row.id]:
        raise ValueError(f"a row cannot be cited as {row.id!r}")
    if any(moment is not None and moment.utcoffset() is None for moment in (row.start, row.end)):
        raise ValueError(f"{row.id}: an instant without a time zone")
    if row.start is not None and row.end is not None and row.start >= row.end:
        raise ValueError(f"{row.id}: it ends before it begins")
    if any(clock.tzinfo is not None for window in row.windows for clock in window):
        raise ValueError(f"{row.id}: windows are in UTC and say no time zone")
    if not set(row.weekdays) <= set(range(7)):
        raise ValueError(f"{row.id}: weekdays are 0 for Monday to 6 for Sunday")
    if row.multiplier_ppm < 0 or row.min_charge_nanos < 0:
        raise ValueError(f"{row.id}: a negative multiplier or minimum")
    if not {name for name, _ in row.least} <= set(INDEX):
        raise ValueError(f"{row.id}: a smallest amount of an unknown counter")
