"""Which window of a limit an instant falls in. Half-open, in UTC; billing periods as agreed."""

from datetime import UTC, datetime, timedelta

from app.core.clock import EPOCH
from app.plans.periods import FAR, Period

WINDOWS = ("minute", "hour", "day", "week", "month", "billing_period", "lifetime")
_MINUTE, _HOUR, _DAY, _WEEK = (
    timedelta(minutes=1),
    timedelta(hours=1),
    timedelta(days=1),
    timedelta(days=7),
)


def window_of(window: str, moment: datetime, period: Period) -> tuple[datetime, datetime]:
    """Start and end of the window that contains `moment`; `period` is the user's at `moment`."""
    if window == "billing_period":
        return period.start, period.end
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
    if window == "lifetime":
        return EPOCH, FAR
    raise ValueError(f"no such window: {window}")
