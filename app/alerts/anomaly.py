"""Is that much unusual, and what made it so? Pure, in integers."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, TypeVar

from app.core.clock import hour_of

Part = TypeVar("Part", bound="str | tuple[str, str]")

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
WEEK = timedelta(days=7)
WEEKS, DAYS = 8, 7
FEWEST = 3
"""So many spans before are needed to know what is usual."""
STEADY = 10
"""Use is never taken to be steadier than to a tenth of what is usual."""


class Span(NamedTuple):
    """Some full hours: `start <= hour < end`."""

    start: datetime
    end: datetime

    def before(self, by: timedelta) -> "Span":
        """The same hours so much earlier."""
        return Span(self.start - by, self.end - by)

    @property
    def day(self) -> datetime:
        """The UTC day that it lies in."""
        return self.start.replace(hour=0)


class Oddity(NamedTuple):
    """A use that is not usual."""

    used: int
    usual: int
    compared: int


class Mover(NamedTuple):
    """The part that moved most, and what it is usually."""

    part: str | tuple[str, str]
    used: int
    usual: int


def judged_span(window: str, now: datetime) -> Span:
    """The last full hour, or with window `day` its UTC day up to its end."""
    end = hour_of(now)
    start = end - HOUR
    return Span(start.replace(hour=0) if window == "day" else start, end)


def compared_spans(span: Span, since: datetime) -> list[Span]:
    """The same hours of the same weekday in weeks past, as far as there was any use since then.

    Of the days before where those are fewer than `FEWEST`; none where those are too few as well.
    """
    weeks = [span.before(WEEK * ago) for ago in range(1, WEEKS + 1)]
    days = [span.before(DAY * ago) for ago in range(1, DAYS + 1)]
    for spans in (weeks, days):
        known = [one for one in spans if one.start >= since]
        if len(known) >= FEWEST:
            return known
    return []


def oddity(used: int, before: Sequence[int], sensitivity: int, least: int) -> Oddity | None:
    """What is unusual about `used`, or None: not enough to compare with, or nothing is.

    Unusual is what exceeds the median by more than `sensitivity` times the median deviation from
    it, and by `least` or more.
    """
    if len(before) < FEWEST:
        return None
    usual = median(before)
    deviation = median([abs(one - usual) for one in before])
    more = used - usual
    if more < max(least, 1) or more <= sensitivity * max(deviation, usual // STEADY):
        return None
    return Oddity(used, usual, len(before))


def mover(now: Mapping[Part, int], before: Sequence[Mapping[Part, int]]) -> Mover | None:
    """The part of a use that grew most against its own median; None of nothing."""
    movers = [
        Mover(part, used, median([one.get(part, 0) for one in before]))
        for part, used in sorted(now.items())
    ]
    return max(movers, key=lambda one: one.used - one.usual, default=None)


def median(values: Sequence[int]) -> int:
    """The middle value, or half way between the two in the middle, rounded down."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) // 2
