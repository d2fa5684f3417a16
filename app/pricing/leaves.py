"""Kinds of unit that exclude one another, and which rate each one is charged at.

A counter that is used and has no rate leaves the call unpriced, for a parent's rate would be a
silent mistake (audio costs ten times text). Four cases follow their parent because price lists
mean it so:

* reasoning tokens are output tokens, unless they have a rate of their own;
* a cache write without a lifetime is a five-minute one; an hour needs its own rate;
* cached and cache-writing tokens of a model that lists no such rate have no discount: input rate;
* image input without a rate is input to every vision model found, but is marked as a guess.

`output_citation_tokens` is additive: no other counter contains it.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from app.core.counters import COUNTERS, INDEX


class Step(NamedTuple):
    """A rate that holds for calls with more than `above` input tokens; -1 is every call."""

    above: int
    nanos: int


class Rate(NamedTuple):
    """Whole nano-dollars for a block of `per` units, by size of the call, smallest first."""

    per: int
    steps: tuple[Step, ...]

    def nanos_beyond(self, threshold: int) -> int:
        """The rate of a call that is just past `threshold`."""
        return [step.nanos for step in self.steps if step.above <= threshold][-1]


Rates = Mapping[str, Rate]
"""By the name of the counter that each one prices."""


def flat(nanos: int, per: int) -> Rate:
    """A rate that is the same for calls of every size."""
    return Rate(per, (Step(-1, nanos),))


class Leaf(NamedTuple):
    """A kind of unit that overlaps no other: a counter, less its parts, and its possible rates."""

    unit: str
    counter: str
    rates: tuple[str, ...]
    less: tuple[str, ...] = ()
    plus: tuple[str, ...] = ()

    def signed(self) -> tuple[tuple[int, int], ...]:
        """How to count this leaf: (counter's place, +1 or -1)."""
        more = (self.counter, *self.plus)
        return (*((INDEX[name], 1) for name in more), *((INDEX[name], -1) for name in self.less))


def _alone(unit: str, counter: str) -> Leaf:
    return Leaf(unit, counter, (counter,))


_TEXT_PARTS = (
    "cache_read_tokens",
    "cache_write_tokens",
    "input_audio_tokens",
    "input_image_tokens",
)
_WRITE_RATES = ("cache_write_5m_tokens", "cache_write_tokens", "input_tokens")
_CACHED_AUDIO = "cache_audio_read_tokens"
_REASONING = "output_reasoning_tokens"
LEAVES = (
    Leaf("input_uncached_text", "input_tokens", ("input_tokens",), _TEXT_PARTS, (_CACHED_AUDIO,)),
    Leaf(
        "cache_read", "cache_read_tokens", ("cache_read_tokens", "input_tokens"), (_CACHED_AUDIO,)
    ),
    Leaf("cache_write_5m", "cache_write_tokens", _WRITE_RATES, ("cache_write_1h_tokens",)),
    _alone("cache_write_1h", "cache_write_1h_tokens"),
    Leaf("input_audio", "input_audio_tokens", ("input_audio_tokens",), (_CACHED_AUDIO,)),
    Leaf("cache_audio_read", _CACHED_AUDIO, (_CACHED_AUDIO, "input_audio_tokens")),
    Leaf("input_image", "input_image_tokens", ("input_image_tokens", "input_tokens")),
    Leaf(
        "output_text",
        "output_tokens",
        ("output_tokens",),
        (_REASONING, "output_audio_tokens", "output_image_tokens"),
    ),
    _alone("output_reasoning", _REASONING),
    _alone("output_audio", "output_audio_tokens"),
    _alone("output_image", "output_image_tokens"),
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


def rated_leaves(rates: Rates) -> Iterable[tuple[Leaf, Rate, bool]]:
    """The leaves that have a rate, with it, and whether that is a guess."""
    for leaf in LEAVES:
        names = leaf.rates
        if leaf.counter == _CACHED_AUDIO and "cache_read_tokens" in rates:
            names = names[:1]
        if leaf.counter == "output_tokens" and _REASONING not in rates:
            leaf = leaf._replace(less=leaf.less[1:])
        found = next((name for name in names if name in rates), None)
        if found is not None:
            guess = leaf.counter == "input_image_tokens" and found != leaf.counter
            yield leaf, rates[found], guess


def unrated(leaves: Iterable[tuple[Leaf, Rate, bool]]) -> list[int]:
    """Counters that must be zero for a price: a call is a request, the rest is inside another."""
    rated = {leaf.counter for leaf, _, _ in leaves}
    rated |= {"requests", "cache_write_5m_tokens", _REASONING}
    return [place for place, name in enumerate(COUNTERS) if name not in rated]
