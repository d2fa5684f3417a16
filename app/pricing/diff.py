"""What a newer price list would change, and whether that is too much to take unseen. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from fractions import Fraction
from typing import NamedTuple

from app.pricing.carry import Key, carried, keyed, within
from app.pricing.rows import PER_MILLION, Condition, Listing, PriceList, PriceRow

MOST_MOVED_PERCENT = 5
LARGEST_FACTOR = 10
_MULTIPLIER = "multiplier"

Place = tuple[tuple[Condition, ...], object, str, int]
"""Conditions, hours, unit and threshold: where in a listing a rate stands."""


class Move(NamedTuple):
    """One rate that would change, in dollars per million units; None where there is none."""

    layer: str
    provider: str
    model: str
    conditions: str
    unit: str
    above: int
    old_usd: Fraction | None
    new_usd: Fraction | None

    @property
    def percent(self) -> Fraction | None:
        """By how much it would change; None where there is nothing to compare with."""
        if not self.old_usd or self.new_usd is None:
            return None
        return (self.new_usd / self.old_usd - 1) * 100

    @property
    def is_leap(self) -> bool:
        """Whether it would be more than ten times, or less than a tenth of, what it is."""
        if self.old_usd is None or self.new_usd is None:
            return False
        low, high = sorted((self.old_usd, self.new_usd))
        return high > LARGEST_FACTOR * low


class Difference(NamedTuple):
    """What would change: rates of models in both lists, models only in one; `compared` rates."""

    moves: tuple[Move, ...]
    new: tuple[Key, ...]
    vanished: tuple[Key, ...]
    compared: int
    lost: int

    @property
    def objections(self) -> tuple[str, ...]:
        """Why this should not be taken over unseen; nothing where it may."""
        found = []
        moved = len(self.moves) + self.lost
        if moved * 100 > MOST_MOVED_PERCENT * self.compared:
            found.append(f"{moved} of {self.compared} prices change or vanish, more than 5 %")
        leaps = [move for move in self.moves if move.is_leap]
        if leaps:
            one = leaps[0]
            found.append(
                f"{len(leaps)} prices change more than tenfold, such as {one.unit} of "
                f"{one.provider}/{one.model}"
            )
        return tuple(found)


def difference(
    old: PriceList, new: PriceList, at: datetime, since: datetime | None = None
) -> Difference:
    """Compare what two lists charge at `at`; `since` as for `carried`."""
    taken = carried(old, new, at, since)
    before, after = keyed(old.listings), keyed(new.listings)
    moves: list[Move] = []
    for key in taken.changed:
        moves += _moves(before[key], after[key], at)
    compared = sum(_count(listing.rows, at) for listing in before.values())
    lost = sum(_count(before[key].rows, at) for key in taken.vanished)
    return Difference(tuple(moves), taken.new, taken.vanished, compared, lost)


def _moves(old: Listing, new: Listing, at: datetime) -> Iterable[Move]:
    before, after = _standing(old.rows, at), _standing(new.rows, at)
    for place in dict.fromkeys((*before, *after)):
        was, becomes = before.get(place), after.get(place)
        if was == becomes:
            continue
        when, _, unit, above = place
        said = " ".join(f"{key}={value}" for key, value in when)
        yield Move(new.layer, new.provider, new.model, said, unit, above, was, becomes)


def _count(rows: Iterable[PriceRow], at: datetime) -> int:
    """How many rates stand at `at`, without working them out."""
    holding = (row for row in within(rows, at, None) if row.start == at)
    return sum(sum(len(rate.steps) for _, rate in row.rates) or 1 for row in holding)


def _standing(rows: Iterable[PriceRow], at: datetime) -> Mapping[Place, Fraction]:
    """Dollars per million units (a bare multiplier: its factor) by place, as they are at `at`."""
    found: dict[Place, Fraction] = {}
    for row in within(rows, at, None):
        if row.start != at:
            continue
        factor = Fraction(row.multiplier_ppm, PER_MILLION)
        hours = (row.windows, row.weekdays)
        if not row.rates:
            found[row.when, hours, _MULTIPLIER, -1] = factor
        for unit, rate in row.rates:
            for step in rate.steps:
                usd = Fraction(step.nanos * PER_MILLION, rate.per * 10**9)
                found[row.when, hours, unit, step.above] = usd * factor
    return found
