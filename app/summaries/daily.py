"""What a user used on one day, and in one calendar month by day; days and months are in UTC."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from app.db.engine import Tx
from app.db.types import table_of
from app.summaries.buckets import by_names, by_place, summed, whole
from app.summaries.grains import Span, cut
from app.summaries.sources import HOURS
from app.summaries.sums import NONE, Sums
from app.summaries.tables import HourTotal

UNNAMED_TASK = "general"
MOST_NAMES = 1_000_000
"""A day's or a month's names are not cut off; what takes too long is refused as such."""

_hour = table_of(HourTotal).c


class Day(NamedTuple):
    """A day's sums, and how many of its calls each kind of task made."""

    used: Sums
    calls_by_task: Mapping[str, int]


class Month(NamedTuple):
    """A month's sums, and those of each of its days."""

    used: Sums
    days: Sequence[tuple[Span, Sums]]


async def read_day(tx: Tx, user_id: str, day: Span) -> Day:
    """What the user used that day; calls without a task type count as `general`."""
    own = [_hour.user_id == user_id]
    found = by_names(await summed(tx, HOURS, own, [_hour.task_type], [day], MOST_NAMES))
    tasks: dict[str, int] = {}
    for (task,), sums in sorted(found.items()):
        name = task or UNNAMED_TASK
        tasks[name] = tasks.get(name, 0) + sums.calls
    return Day(sum(found.values(), NONE), tasks)


async def read_month(tx: Tx, user_id: str, month: Span) -> Month:
    """What the user used in the month; it is the sum of its days, and no day is left out."""
    days = cut(month, "day", 31)
    assert days is not None
    own = [_hour.user_id == user_id]
    found = await summed(tx, HOURS, own, [], days, len(days))
    return Month(whole(found), list(zip(days, by_place(found, len(days)), strict=True)))
