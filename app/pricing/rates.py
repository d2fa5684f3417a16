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

from app.core.counters import COUNTERS, INDEX, INPUT, MICROS_PER_SECOND, SECONDS, Usage
from app.core.money import CEILING, divide_half_even
from app.pricing.leaves import Leaf, Rate, Rates, rated_leaves, unrated

_WATCHED = (
    "input_audio_tokens",
    "input_image_tokens",
    "output_audio_tokens",
    "output_image_tokens",
)
"""Their tokens may also be cached or reasoning ones, so that leaves have to be counted singly."""


class Tier(NamedTuple):
    """The coefficients of calls beyond one threshold, and how to cite them."""

    above: int
    ref: str
    terms: tuple[tuple[int, int], ...]
    leaf_nanos: tuple[int, ...]


class Share(NamedTuple):
    """What one leaf adds to a cost, before the one rounding: `numerator / denominator` nanos."""

    leaf: Leaf
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
        "_careful",
        "_least",
        "_leaves",
        "_rare",
        "_starts",
        "_unrated",
        "denominator",
        "tiers",
        "unrated",
    )

    def __init__(
        self,
        tiers: Sequence[Tier],
        denominator: int,
        leaves: Sequence[tuple[Leaf, Rate, bool]],
        unrated: Sequence[int],
        least: Mapping[str, int],
    ) -> None:
        self.tiers = tuple(tiers)
        self.denominator = denominator
        self.unrated = tuple(unrated)
        self._starts = tuple(tier.above for tier in tiers)
        self._leaves = tuple((leaf, rate, leaf.signed(), guess) for leaf, rate, guess in leaves)
        self._least = {INDEX[name]: count for name, count in least.items()}
        self._unrated = _picker(self.unrated)
        self._rare = _picker((*self.unrated, *(INDEX[name] for name in _WATCHED)))
        self._careful = bool(least) or any(leaf.counter == "requests" for leaf, _, _ in leaves)

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
        if rare and any(self._unrated(usage)):
            return NO_RATE
        if self._careful or (rare and self._mixed(usage)):
            shares, sure = self.shares(usage)
            total = sum([share.numerator for share in shares])
        else:
            for place, coefficient in tier.terms:
                total += usage[place] * coefficient
        nanos = divide_half_even(total, self.denominator)
        if nanos > CEILING:
            raise OverflowError(f"a cost of {nanos} nano-dollars by {tier.ref} passes $9.2 billion")
        return nanos, tier.ref, sure

    def _mixed(self, usage: Usage) -> bool:
        """Whether some leaf is guessed or comes out negative, so that coefficients do not do."""
        for leaf, _, signed, guess in self._leaves:
            if guess and usage[signed[0][0]]:
                return True
            if leaf.less and sum([usage[place] * sign for place, sign in signed]) < 0:
                return True
        return False

    def shares(self, usage: Usage) -> tuple[list[Share], bool]:
        """Count every leaf by itself, and tell whether no rate and no count had to be guessed.

        Cached audio or images that were not told apart are in two counters at once and would make
        the text left over negative. It counts as none then: an upper bound, so not sure.
        """
        tier = self.tier_of(usage)
        shares, sure = [], True
        for (leaf, rate, signed, guess), nanos in zip(self._leaves, tier.leaf_nanos, strict=True):
            quantity = sum([usage[place] * sign for place, sign in signed])
            if leaf.counter == "requests":
                quantity = quantity or 1
            if quantity < 0:
                quantity, sure = 0, False
            if not quantity:
                continue
            sure = sure and not guess
            least = self._least.get(INDEX[leaf.counter], 0)
            quantity = max(quantity, least)
            numerator = quantity * nanos * (self.denominator // _block(leaf.counter, rate.per))
            shares.append(Share(leaf, quantity, nanos, rate.per, numerator))
        return shares, sure

    def rates(self) -> list[tuple[Leaf, Rate]]:
        """What each kind of unit is charged at."""
        return [(leaf, rate) for leaf, rate, _, _ in self._leaves]


def compile_price(rates: Rates, ref: str, least: Mapping[str, int] | None = None) -> Price:
    """Compile rates; `least` holds the smallest billed amount of a counter that is used at all."""
    leaves = list(rated_leaves(rates))
    denominator = lcm(*(_block(leaf.counter, rate.per) for leaf, rate, _ in leaves))
    starts = sorted({step.above for _, rate, _ in leaves for step in rate.steps} | {-1})
    tiers = []
    for above in starts:
        coefficients = [0] * len(COUNTERS)
        nanos = [rate.nanos_beyond(above) for _, rate, _ in leaves]
        for (leaf, rate, _), amount in zip(leaves, nanos, strict=True):
            unit = amount * (denominator // _block(leaf.counter, rate.per))
            for place, sign in leaf.signed():
                coefficients[place] += sign * unit
        terms = tuple((place, value) for place, value in enumerate(coefficients) if value)
        where = ref if above < 0 else f"{ref} input>{above}"
        tiers.append(Tier(above, where, terms, tuple(nanos)))
    return Price(tiers, denominator, leaves, unrated(leaves), least or {})


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
