"""One user's usage as a series: by hour, day or month, and by whatever the calls were named.

Totals tell it where they are kept by these names and the range lies on whole hours. Else the
user's own log does, and percentiles always come from there: they cannot be added up.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from app.core.errors import InvalidInput
from app.db.engine import Tx
from app.db.types import table_of
from app.summaries.buckets import Names, TooManyError, summed
from app.summaries.detail import (
    MOST_READ,
    Percentiles,
    all_of,
    details,
    is_readable,
    percentiles,
    used_in_hours,
)
from app.summaries.grains import Grain, Span, cut, whole_hours
from app.summaries.sources import HOURS
from app.summaries.sums import NONE, Sums
from app.summaries.tables import HourTotal

KEPT = ("provider", "model", "task_type")
LOGGED = ("endpoint", "status_code", "team_id", "api_key_id", "session_id", "backend", "pool")
NAMES = KEPT + LOGGED
MOST_PIECES = 2_208
"""92 days of hours."""
MOST_ITEMS = 10_000

_hour = table_of(HourTotal).c


class Asked(NamedTuple):
    """Which series a reader asks for."""

    user_id: str
    span: Span
    grain: Grain
    group_by: Sequence[str]


class Series(NamedTuple):
    """The sums of each piece of time and group; percentiles are None where nothing can tell them.

    `groups` are all that occur anywhere in the range, in order.
    """

    pieces: Sequence[Span]
    groups: Sequence[Names]
    sums: Mapping[tuple[int, Names], Sums]
    latency: Mapping[tuple[int, Names], Percentiles] | None
    ttft: Mapping[tuple[int, Names], Percentiles] | None

    def at(self, place: int, group: Names) -> Sums:
        """What was used then; zeros where nothing was."""
        return self.sums.get((place, group), NONE)


async def read_series(tx: Tx, asked: Asked) -> Series:
    """The series, every gap in it filled.

    Raises:
        InvalidInput: too many pieces, groups or calls, or the log no longer holds what it takes.
    """
    pieces = cut(asked.span, asked.grain, MOST_PIECES)
    if pieces is None:
        raise InvalidInput.at("/from", f"from: at most {MOST_PIECES:,} pieces; take a longer grain")
    used = await used_in_hours(tx, asked.user_id, asked.span)
    readable = await is_readable(tx, asked.user_id, asked.span, used, asked.group_by)
    try:
        sums = await _sums(tx, asked, pieces, readable)
    except TooManyError:
        raise _too_many() from None
    groups = sorted({names for _, names in sums}) if asked.group_by else [()]
    if len(groups) * len(pieces) > MOST_ITEMS:
        raise _too_many()
    if not readable:
        return Series(pieces, groups, sums, None, None)
    latency, ttft = [
        await percentiles(tx, asked.user_id, measure, all_of, asked.group_by, pieces)
        if calls
        else {}
        for measure, calls in (("latency_us", used.latency_calls), ("ttft_us", used.ttft_calls))
    ]
    return Series(pieces, groups, sums, latency, ttft)


async def _sums(
    tx: Tx, asked: Asked, pieces: Sequence[Span], readable: bool
) -> dict[tuple[int, Names], Sums]:
    by_total = set(asked.group_by) <= set(KEPT)
    if by_total and whole_hours(asked.span) == asked.span:
        own = [_hour.user_id == asked.user_id]
        names = [_hour[name] for name in asked.group_by]
        return await summed(tx, HOURS, own, names, pieces, MOST_ITEMS)
    if not readable:
        raise not_readable("/from" if by_total else "/group_by")
    return await details(tx, asked.user_id, all_of, asked.group_by, pieces, MOST_ITEMS)


def not_readable(pointer: str) -> InvalidInput:
    """What was asked takes the single calls, and they are too many or no longer there."""
    return InvalidInput.at(
        pointer,
        "the single calls of this range decide that, and they are no longer all kept or more than "
        f"{MOST_READ:,}; ask for whole hours by {', '.join(KEPT)}, or for a shorter range",
    )


def _too_many() -> InvalidInput:
    detail = f"group_by: more than {MOST_ITEMS:,} items; take a longer grain or a shorter range"
    return InvalidInput.at("/group_by", detail)
