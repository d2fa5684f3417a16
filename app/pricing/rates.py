"""One price, compiled to integers: what a usage costs, exactly, rounded once.

Counters contain one another (`input_tokens` holds the cached ones), prices do not. So every price
is spread over leaves that exclude one another, and folded back into one signed coefficient per
counter: `cost = sum(count * coefficient) / denominator`. Each context tier has its own
coefficients, and total input tokens *beyond* a threshold move the whole call to the next tier.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from math import lcm
from operator import itemgetter
from typing import NamedTuple

from app.core.counters import COUNTERS, INDEX, INPUT, MICROS_PER_SECOND, REQUESTS, SECONDS, Usage
from app.core.money import CEILING, divide_half_even
from app.pricing.leaves import TOKENS, Rate, Rated, Rates, Unrated, rated_leaves, unrated

_WATCHED = tuple(
    INDEX[name]
    for name in (
        "input_audio_tokens",
        "input_image_tokens",
        "output_audio_tokens",
        "output_image_tokens",
    )
)
"""Their tokens may also be cached or reasoning ones, so that leaves have to be counted singly."""
_CALLS_ARE_RATED = TOKENS | {"requests"}
"""Where one of these has a rate, a call of which nothing else is told has a price."""
_SELDOM = frozenset(_WATCHED) | {INDEX["cache_audio_read_tokens"]}
"""Cached audio is inside input audio: where that is not used, this is not."""


class Tier(NamedTuple):
    """The coefficients of calls beyond one threshold, and how to cite them.

    `common` leaves out those of counters that few calls use.
    """

    above: int
    ref: str
    terms: tuple[tuple[int, int], ...]
    common: tuple[tuple[int, int], ...]


class Share(NamedTuple):
    """What some units of one kind add to a cost, before the one rounding: nanos times denominator.

    `name` is the counter whose rate of `nanos` per `per` units it is charged at.
    """

    unit: str
    counter: str
    name: str
    quantity: int
    nanos: int
    per: int
    numerator: int


Cost = tuple[int | None, str, bool]
"""A cost or None, where it stands in the price list, and whether nothing had to be guessed."""
NO_RATE: Cost = (None, "", False)


class Price:
    """Costs of one entry; build it with `compile_price`."""

    __slots__ = (
        "_by_the_piece",
        "_careful",
        "_filled",
        "_has_unrated",
        "_least",
        "_minimum",
        "_rare",
        "_rated",
        "_starts",
        "_unrated",
        "denominator",
        "tiers",
    )

    def __init__(
        self,
        tiers: Sequence[Tier],
        denominator: int,
        rated: Sequence[Rated],
        unrated: Sequence[Unrated],
        least: Mapping[str, int],
        minimum: int,
        filled: Sequence[tuple[str, tuple[str, ...]]],
    ) -> None:
        self.tiers = tuple(tiers)
        self.denominator = denominator
        self._unrated = tuple(unrated)
        self._minimum = minimum
        self._starts = tuple(tier.above for tier in tiers)
        self._rated = tuple(rated)
        self._least = dict(least)
        without = tuple([each.place for each in unrated])
        self._has_unrated = _picker(without)
        self._filled = [
            (id, [place for each in rated if each.name in names for place, _ in each.signed])
            for id, names in filled
        ]
        seldom = {place for _, places in self._filled for place in places}
        names = {each.name for each in rated}
        self._by_the_piece = bool(names) and names.isdisjoint(_CALLS_ARE_RATED)
        counted = (REQUESTS,) if self._by_the_piece else ()
        self._rare = _picker(tuple(seldom.union(without, _WATCHED, counted)))
        self._careful = bool(least or minimum) or any(map(_by_own_quantity, rated))

    def tier_of(self, usage: Usage) -> Tier:
        """The tier that the whole call falls in: its total input passes the threshold."""
        if len(self.tiers) == 1:
            return self.tiers[0]
        return self.tiers[bisect_left(self._starts, usage[INPUT]) - 1]

    def cost(self, usage: Usage) -> Cost:
        """Price a usage exactly and round once, half to even.

        Most calls use none of a price's rare counters: one look tells, 0.1 us less than two.

        Raises:
            OverflowError: the cost passes $9.2 billion.
        """
        tier = self.tier_of(usage)
        sure, total = True, 0
        rare = any(self._rare(usage))
        if rare and (any(self._has_unrated(usage)) or self._by_the_piece) and self.missing(usage):
            return NO_RATE
        if self._careful or (rare and self._mixed(usage)):
            shares, sure = self.shares(usage)
            total = sum([share.numerator for share in shares])
            if any(usage):
                total = max(total, self._minimum * self.denominator)
        else:
            for place, coefficient in tier.terms if rare else tier.common:
                total += usage[place] * coefficient
        nanos = divide_half_even(total, self.denominator)
        if nanos > CEILING:
            raise OverflowError(f"a cost of {nanos} nano-dollars by {tier.ref} passes $9.2 billion")
        if rare and self._filled:
            return nanos, self._cited(tier, usage), sure
        return nanos, tier.ref, sure

    def missing(self, usage: Usage) -> tuple[str, ...]:
        """The counters of a usage that have no rate, so that it has no price."""
        lacking = [COUNTERS[each.place] for each in self._unrated if each.used_by(usage)]
        if not lacking and self._has_no_pieces(usage):
            lacking.append("requests")
        return tuple(lacking)

    def _has_no_pieces(self, usage: Usage) -> bool:
        """Whether images, pages or seconds are priced and the call tells of none."""
        return self._by_the_piece and 0 < usage[REQUESTS] == sum(usage)

    def _cited(self, tier: Tier, usage: Usage) -> str:
        """The citation with the rows that a usage of rare counters needs besides."""
        rows, blank, above = tier.ref.partition(" ")
        used = [id for id, places in self._filled if any([usage[place] for place in places])]
        return "+".join([rows, *used]) + blank + above

    def _mixed(self, usage: Usage) -> bool:
        """Whether some leaf is guessed or comes out negative, so that coefficients do not do."""
        for rated in self._rated:
            if rated.guess and usage[INDEX[rated.leaf.counter]]:
                return True
            if sum([usage[place] * times for place, times in rated.signed]) < 0:
                return True
        return False

    def shares(self, usage: Usage) -> tuple[list[Share], bool]:
        """Count every leaf by itself, and tell whether no rate and no count had to be guessed.

        Cached audio or images that were not told apart are in two counters at once and would make
        the text left over negative. It counts as none then: an upper bound, so not sure.
        """
        above = self.tier_of(usage).above
        shares, sure = [], True
        for leaf, name, rate, signed, guess in self._rated:
            quantity = sum([usage[place] * times for place, times in signed])
            if leaf.counter == "requests":
                quantity = quantity or 1
            if quantity < 0:
                quantity, sure = 0, False
            if not quantity:
                continue
            sure = sure and not guess
            quantity = max(quantity, self._least.get(leaf.counter, 0))
            block = self.denominator // _block(leaf.counter, rate.per)
            for part, nanos in _parts(leaf.counter, rate, quantity, above):
                amount = part * nanos * block
                shares.append(Share(leaf.unit, leaf.counter, name, part, nanos, rate.per, amount))
        return shares, sure

    def rates(self) -> tuple[Rated, ...]:
        """What each kind of unit is charged at."""
        return self._rated


def compile_price(
    rates: Rates,
    ref: str,
    least: Mapping[str, int] | None = None,
    minimum: int = 0,
    whole: bool = False,
    filled: Sequence[tuple[str, tuple[str, ...]]] = (),
) -> Price:
    """Compile rates into a price that is cited as `ref`.

    `least` holds the smallest billed amount of a counter that is used at all, `minimum` the
    nano-dollars that a call with any usage costs at least; `whole` is as for `rated_leaves`. A row
    in `filled` is cited only by calls that use one of its counters.
    """
    rated = rated_leaves(rates, whole)
    denominator = lcm(*(_block(each.leaf.counter, each.rate.per) for each in rated))
    stepped = [each.rate for each in rated if not _by_own_quantity(each)]
    starts = sorted({step.above for rate in stepped for step in rate.steps} | {-1})
    tiers = []
    for above in starts:
        coefficients = [0] * len(COUNTERS)
        for each in rated:
            nanos = each.rate.nanos_beyond(-1 if _by_own_quantity(each) else above)
            unit = nanos * (denominator // _block(each.leaf.counter, each.rate.per))
            for place, times in each.signed:
                coefficients[place] += times * unit
        terms = tuple((place, value) for place, value in enumerate(coefficients) if value)
        common = tuple((place, value) for place, value in terms if place not in _SELDOM)
        tiers.append(Tier(above, ref if above < 0 else f"{ref} input>{above}", terms, common))
    missing = unrated(frozenset(rates), whole)
    return Price(tiers, denominator, rated, missing, least or {}, minimum, filled)


def _by_own_quantity(rated: Rated) -> bool:
    """Whether coefficients do not do: every call is a request, some steps are the unit's own."""
    steps = len(rated.rate.steps) > 1
    own = rated.rate.graduated or rated.leaf.counter not in TOKENS
    return rated.leaf.counter == "requests" or (steps and own)


def _parts(counter: str, rate: Rate, quantity: int, total: int) -> list[tuple[int, int]]:
    """Cut a quantity into (units, nano-dollars per block); only a graduated rate makes several."""
    steps = rate.steps
    if len(steps) == 1:
        return [(quantity, steps[0].nanos)]
    size = MICROS_PER_SECOND if counter in SECONDS else 1
    if not rate.graduated:
        if counter in TOKENS:
            return [(quantity, rate.nanos_beyond(total))]
        own = [step.nanos for step in steps if step.above * size < quantity]
        return [(quantity, own[-1])]
    parts = []
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        begin = max(step.above, 0) * size
        end = quantity if following is None else min(following.above * size, quantity)
        if end > begin:
            parts.append((end - begin, step.nanos))
    return parts


def _block(counter: str, per: int) -> int:
    """A block in the counter's stored units: durations are kept as microseconds."""
    return per * MICROS_PER_SECOND if counter in SECONDS else per


def _picker(places: Sequence[int]) -> Callable[[Usage], tuple[int, ...]]:
    """Read several counters in one C call; `itemgetter` gives a tuple from two places on."""
    if not places:
        return _nothing
    return itemgetter(*places, *places[:1]) if len(places) == 1 else itemgetter(*places)


def _nothing(usage: Usage) -> tuple[int, ...]:
    return ()
