"""Kinds of unit that exclude one another, and which rate each one is charged at.

A counter that is used and has no rate leaves the call unpriced, for a parent's rate would be a
silent mistake (audio costs ten times text). Four cases follow their parent because price lists
mean it so; where an operator states a price for the whole, every part follows it:

* reasoning tokens are output tokens, unless they have a rate of their own;
* a cache write without a lifetime is a five-minute one; an hour needs its own rate;
* cached and cache-writing tokens of a model that lists no such rate have no discount: input rate;
* image input without a rate is input to every vision model found, but is marked as a guess.

`output_citation_tokens` is additive: no other counter contains it.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import gcd
from typing import NamedTuple

from app.core.counters import COUNTERS, INDEX, Usage

PER_MILLION = 1_000_000
TOKENS = frozenset(name for name in COUNTERS if name.endswith("_tokens"))
"""What is judged by the total input where a rate has steps; the rest by its own quantity."""


class Step(NamedTuple):
    """A rate that holds for calls with more than `above` input tokens; -1 is every call."""

    above: int
    nanos: int


class Rate(NamedTuple):
    """Whole nano-dollars for a block of `per` units, by size of the call, smallest first.

    For tokens the size is the total input, for other units their own quantity (seconds in whole
    seconds). A step moves the whole call, unless the rate is `graduated`: then it moves only what
    is above it, and what is counted is always the unit's own quantity.
    """

    per: int
    steps: tuple[Step, ...]
    graduated: bool = False

    def nanos_beyond(self, threshold: int) -> int:
        """The rate of a call that is just past `threshold`."""
        return [step.nanos for step in self.steps if step.above <= threshold][-1]

    def times(self, ppm: int) -> "Rate":
        """The rate multiplied by millionths, exactly; its block grows where it has to."""
        if ppm == PER_MILLION:
            return self
        amounts = [step.nanos * ppm for step in self.steps]
        shared = gcd(PER_MILLION, *amounts)
        steps = tuple(
            Step(step.above, amount // shared)
            for step, amount in zip(self.steps, amounts, strict=True)
        )
        return Rate(self.per * (PER_MILLION // shared), steps, self.graduated)


Rates = Mapping[str, Rate]
"""By the name of the counter that each one prices."""


def flat(nanos: int, per: int) -> Rate:
    """A rate that is the same for calls of every size."""
    return Rate(per, (Step(-1, nanos),))


def free_of_charge() -> Rates:
    """Rates of zero for everything: known to be free, which is not the same as unknown."""
    return {name: flat(0, 1) for name in COUNTERS if name != "requests"}


class Leaf(NamedTuple):
    """A kind of unit that overlaps no other: a counter, less its parts, and its possible rates.

    `rates` are those that price lists mean, `whole` those of what contains it, which hold only
    where an operator states a price for the whole.
    """

    unit: str
    counter: str
    rates: tuple[str, ...]
    less: tuple[str, ...] = ()
    plus: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()

    def signed(self) -> Mapping[int, int]:
        """How to count this leaf: +1 or -1 by the counter's place."""
        more = (self.counter, *self.plus)
        return {INDEX[name]: 1 for name in more} | {INDEX[name]: -1 for name in self.less}


class Rated(NamedTuple):
    """A leaf with the rate that it is charged at, and all leaves that share this rate.

    `signed` counts them together: (counter's place, how often). `name` is the counter that the
    price states the rate for; `guess` tells that the price does not mean this unit.
    """

    leaf: Leaf
    name: str
    rate: Rate
    signed: tuple[tuple[int, int], ...]
    guess: bool


class Unrated(NamedTuple):
    """A leaf without a rate: its counter's place, and how its units are counted."""

    place: int
    signed: tuple[tuple[int, int], ...]

    def used_by(self, usage: Usage) -> bool:
        """Whether a usage has some of these units, or parts that overlap so that nobody knows."""
        if not usage[self.place]:
            return False
        return bool(sum([usage[place] * times for place, times in self.signed]))


def _alone(unit: str, counter: str) -> Leaf:
    return Leaf(unit, counter, (counter,))


_INPUT, _OUTPUT = "input_tokens", "output_tokens"
_READ, _AUDIO, _IMAGE = "cache_read_tokens", "input_audio_tokens", "input_image_tokens"
_CACHED_AUDIO = "cache_audio_read_tokens"
_WRITE, _WRITE_5M, _WRITE_1H = (
    "cache_write_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
)
_REASONING, _SPOKEN, _DRAWN = (
    "output_reasoning_tokens",
    "output_audio_tokens",
    "output_image_tokens",
)
_ALIKE = ((_IMAGE, _INPUT), (_AUDIO, _INPUT))
"""A part at the very rate of its whole is counted as such: that parts overlap does not matter."""
LEAVES = (
    Leaf(
        "input_uncached_text",
        _INPUT,
        (_INPUT,),
        (_READ, _WRITE, _AUDIO, _IMAGE),
        (_CACHED_AUDIO,),
    ),
    Leaf("cache_read", _READ, (_READ, _INPUT), (_CACHED_AUDIO,)),
    Leaf("cache_write_5m", _WRITE, (_WRITE_5M, _WRITE, _INPUT), (_WRITE_1H,)),
    Leaf("cache_write_1h", _WRITE_1H, (_WRITE_1H,), whole=(_WRITE, _WRITE_5M, _INPUT)),
    Leaf("input_audio", _AUDIO, (_AUDIO,), (_CACHED_AUDIO,), whole=(_INPUT,)),
    Leaf("cache_audio_read", _CACHED_AUDIO, (_CACHED_AUDIO, _AUDIO), whole=(_READ, _INPUT)),
    Leaf("input_image", _IMAGE, (_IMAGE, _INPUT)),
    Leaf("output_text", _OUTPUT, (_OUTPUT,), (_REASONING, _SPOKEN, _DRAWN)),
    Leaf("output_reasoning", _REASONING, (_REASONING, _OUTPUT)),
    Leaf("output_audio", _SPOKEN, (_SPOKEN,), whole=(_OUTPUT,)),
    Leaf("output_image", _DRAWN, (_DRAWN,), whole=(_OUTPUT,)),
    _alone("output_citation", "output_citation_tokens"),
    _alone("request", "requests"),
    _alone("web_search", "web_searches"),
    _alone("search_unit", "rerank_searches"),
    _alone("page", "input_document_pages"),
    _alone("character", "input_characters"),
    _alone("image", "output_images"),
    _alone("audio_second", "audio_seconds"),
    _alone("video_second", "video_seconds"),
    _alone("compute_second", "compute_seconds"),
)


def rated_leaves(rates: Rates, whole: bool = False) -> list[Rated]:
    """What a price charges for, each kind of unit once; leaves at the same rate are one.

    With `whole`, parts without a rate are charged as what contains them and nothing is a guess: an
    operator who prices input means all of it.
    """
    alike = frozenset(
        part
        for part, of in _ALIKE
        if part in rates and rates[part] == rates.get(of) and not rates[part].graduated
    )
    return [
        Rated(leaf, name, rates[name], signed, guess)
        for leaf, name, signed, guess in _charged(frozenset(rates), whole, alike)
    ]


@lru_cache(maxsize=256)
def unrated(names: frozenset[str], whole: bool = False) -> tuple[Unrated, ...]:
    """What must come out as nothing for a price; that a call is a request goes without saying.

    Of a whole only what its parts leave over: where images alone have a rate, output that is all
    images has a price.
    """
    return tuple(
        Unrated(INDEX[leaf.counter], tuple(leaf.signed().items()))
        for leaf in LEAVES
        if leaf.counter != "requests" and names.isdisjoint(_names(leaf, names, whole))
    )


@lru_cache(maxsize=256)
def _charged(
    names: frozenset[str], whole: bool, alike: frozenset[str] = frozenset()
) -> tuple[tuple[Leaf, str, tuple[tuple[int, int], ...], bool], ...]:
    """The leaves, by the rate that each is charged at; worked out once for the same rates."""
    found: dict[tuple[str, bool], list[Leaf]] = {}
    for leaf in LEAVES:
        name = next((name for name in _names(leaf, names, whole) if name in names), None)
        if name in alike:
            name = dict(_ALIKE)[name]
        if name is not None:
            guess = leaf.counter == _IMAGE and _IMAGE not in names and not whole
            found.setdefault((name, guess), []).append(leaf)
    return tuple(
        (leaves[0], name, _together(leaves), guess) for (name, guess), leaves in found.items()
    )


def _names(leaf: Leaf, names: frozenset[str], whole: bool) -> tuple[str, ...]:
    """What a leaf may be charged at; cached audio is not fresh audio if cached text is told."""
    if whole:
        return leaf.rates + leaf.whole
    if leaf.counter == _CACHED_AUDIO and _READ in names:
        return leaf.rates[:1]
    return leaf.rates


def _together(leaves: Iterable[Leaf]) -> tuple[tuple[int, int], ...]:
    sums: dict[int, int] = {}
    for leaf in leaves:
        for place, sign in leaf.signed().items():
            sums[place] = sums.get(place, 0) + sign
    return tuple((place, times) for place, times in sums.items() if times)
