"""How a range of time is cut: into hours, UTC days or calendar months, without gaps. Pure."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Literal, NamedTuple

from app.core.clock import EPOCH, hour_of

Grain = Literal["hour", "day", "month"]
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LAST_YEAR = 2999


class Span(NamedTuple):
    """A half-open range of time."""

    start: datetime
    end: datetime


def floor_of(moment: datetime, grain: Grain) -> datetime:
    """The start of the hour, day or month that contains an instant in UTC."""
    if grain == "hour":
        return hour_of(moment)
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return day if grain == "day" else day.replace(day=1)


def next_of(start: datetime, grain: Grain) -> datetime:
    """The start of what follows the hour, day or month that begins at `start`."""
    if grain == "month":
        return (start + timedelta(days=32)).replace(day=1)
    return start + (HOUR if grain == "hour" else DAY)


def cut(span: Span, grain: Grain | None, most: int) -> list[Span] | None:
    """The pieces of a range, oldest first; the first and the last may be shorter than the others.

    None says that there are more than `most`. Without a grain the range is one piece.
    """
    if grain is None:
        return [span]
    found: list[Span] = []
    start = span.start
    while start < span.end:
        if len(found) == most:
            return None
        end = min(next_of(floor_of(start, grain), grain), span.end)
        found.append(Span(start, end))
        start = end
    return found


def whole_hours(span: Span) -> Span:
    """The hours that a range touches."""
    start, end = hour_of(span.start), hour_of(span.end)
    return Span(start, end if end == span.end else end + HOUR)


def day_of(day: date) -> Span:
    """A day in UTC."""
    start = datetime.combine(day, time(), UTC)
    return Span(start, start + DAY)


def month_of(year: int, month: int) -> Span:
    """A calendar month in UTC."""
    start = datetime(year, month, 1, tzinfo=UTC)
    return Span(start, next_of(start, "month"))


def last_days(now: datetime, days: int) -> Span:
    """That many days in UTC, of which the last is today; none is before 1970."""
    today = floor_of(now, "day")
    return Span(max(EPOCH, today - (days - 1) * DAY), today + DAY)


def last_hours(now: datetime, hours: int) -> Span:
    """The whole hours that hold the last `hours` hours, and the one that runs now."""
    this = hour_of(now)
    return Span(max(EPOCH, this - hours * HOUR), this + HOUR)
