"""Which window of a limit an instant falls in. Half-open, without gaps; billing periods as agreed.

In a time zone a day begins when its date is first on the clock there, so one may have 23 or 25
hours, or begin at 01:00; a date that a zone skipped has no window. Minutes and hours follow the
zone's offset: where that moves by half an hour, an hour is cut short.
"""

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache

from app.core.clock import EPOCH, MICROSECOND
from app.plans.periods import FAR, Period, zone

WINDOWS = ("minute", "hour", "day", "week", "month", "billing_period", "lifetime")
_SECOND, _MINUTE, _HOUR, _DAY, _WEEK = (
    timedelta(seconds=1),
    timedelta(minutes=1),
    timedelta(hours=1),
    timedelta(days=1),
    timedelta(days=7),
)


def window_of(
    window: str, moment: datetime, period: Period, timezone: str = "UTC"
) -> tuple[datetime, datetime]:
    """Start and end of the window that contains `moment`; `period` is the user's at `moment`.

    The time zone decides about minutes to months; a billing period has its own, a lifetime none.

    Raises:
        KeyError: no such IANA time zone.
    """
    if window == "billing_period":
        return period.start, period.end
    if window == "lifetime":
        return EPOCH, FAR
    if timezone != "UTC":
        return _zoned(window, moment, timezone)
    if window == "minute":
        start = moment.replace(second=0, microsecond=0)
        return start, start + _MINUTE
    if window == "hour":
        start = moment.replace(minute=0, second=0, microsecond=0)
        return start, start + _HOUR
    day = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
    if window == "day":
        return day, day + _DAY
    if window == "week":
        start = day - timedelta(days=day.weekday())
        return start, start + _WEEK
    if window == "month":
        start = day.replace(day=1)
        return start, (start + timedelta(days=32)).replace(day=1)
    raise ValueError(f"no such window: {window}")


def shown_end(end: datetime) -> datetime | None:
    """When a window ends, as it is shown; None for one that never does."""
    return None if end >= FAR else end


def _zoned(window: str, moment: datetime, timezone: str) -> tuple[datetime, datetime]:
    if window == "minute":
        return _clocked(moment, _MINUTE, timezone)
    if window == "hour":
        return _clocked(moment, _HOUR, timezone)
    day = moment.astimezone(zone(timezone)).date()
    while _begins(timezone, day + _DAY) <= moment:  # set back over midnight: that date began
        day += _DAY
    if window == "week":
        day -= timedelta(days=day.weekday())
        after = day + _WEEK
    elif window == "month":
        day = day.replace(day=1)
        after = (day + timedelta(days=32)).replace(day=1)
    elif window == "day":
        after = day + _DAY
    else:
        raise ValueError(f"no such window: {window}")
    return _begins(timezone, day), _begins(timezone, after)


@lru_cache(maxsize=65_536)
def _begins(timezone: str, day: date) -> datetime:
    """The first instant at which the clocks of a zone show this date, or one after it."""
    midnight = datetime.combine(day, time(), zone(timezone))
    latest = midnight.astimezone(UTC)
    earliest = midnight.replace(fold=1).astimezone(UTC)
    if earliest >= latest:  # midnight exists; where it is shown twice, the first one counts
        return latest
    while latest - earliest > _SECOND:
        middle = _halfway(earliest, latest)
        if middle.astimezone(zone(timezone)).date() >= day:
            latest = middle
        else:
            earliest = middle
    return latest


def _clocked(moment: datetime, length: timedelta, timezone: str) -> tuple[datetime, datetime]:
    """The minute or hour on the clock, cut where the zone moves by less than a whole one."""
    phase = _phase(moment, length, timezone)
    start = moment - (moment - EPOCH + phase) % length
    end = start + length
    if _phase(start, length, timezone) != phase:
        start = _change(start, moment, length, timezone)
    if _phase(end - MICROSECOND, length, timezone) != phase:
        end = _change(moment, end - MICROSECOND, length, timezone)
    return start, end


def _phase(moment: datetime, length: timedelta, timezone: str) -> timedelta:
    offset = moment.astimezone(zone(timezone)).utcoffset()
    assert offset is not None
    return offset % length


def _change(before: datetime, after: datetime, length: timedelta, timezone: str) -> datetime:
    """When the phase moves from what it is at `before`; zones move at whole seconds."""
    phase = _phase(before, length, timezone)
    before = before.replace(microsecond=0)
    after = after.replace(microsecond=0)
    while after - before > _SECOND:
        middle = _halfway(before, after)
        if _phase(middle, length, timezone) == phase:
            before = middle
        else:
            after = middle
    return after


def _halfway(earlier: datetime, later: datetime) -> datetime:
    return earlier + (later - earlier) // _SECOND // 2 * _SECOND
