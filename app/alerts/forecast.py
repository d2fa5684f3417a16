"""Where a counter will stand when its window ends, and when it passes its amount. Pure integers.

With two weeks of history, each hour to come is taken to use what its hour of the week used on
average (UTC). With less, the mean of the window so far goes on; with less than a day, nobody knows.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from math import lcm
from typing import NamedTuple

from app.core.clock import EPOCH, MICROSECOND, hour_of
from app.core.money import divide_half_even

LOOKING_BACK = timedelta(days=28)
TWO_WEEKS = timedelta(days=14)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
WEEK_HOURS = 168
HOUR_US = HOUR // MICROSECOND
WEEK_US = WEEK_HOURS * HOUR_US
MONDAY_HOURS = 72
"""1970 began on a Thursday: so many hours after a Monday."""


class History(NamedTuple):
    """What was used in each full hour since then; an hour that is not there used nothing."""

    since: datetime
    hours: Mapping[datetime, int]


class Projection(NamedTuple):
    """Where a counter is heading.

    `basis` is `weekday_hours`, `window_mean`, `recent_mean` or `too_little`; of the last one there
    is no total. `passes_at` is the instant at which the amount is reached, if the window runs then.
    """

    total_at_end: int | None
    passes_at: datetime | None
    basis: str


class _Pace(NamedTuple):
    """How fast it goes: each hour of the week uses `per_hour[slot] / parts`."""

    per_hour: tuple[int, ...]
    parts: int
    basis: str


def forecast(
    history: History | None,
    used: int,
    amount: int | None,
    window: tuple[datetime, datetime],
    now: datetime,
) -> Projection:
    """Project a window's use to its end, and say when it reaches the amount if it does before.

    `history` is None where nobody kept it; `used` and the history are in the same unit as `amount`.
    What is reached already is reached now; of no amount nothing is.
    """
    pace = _pace(history, used, window[0], now)
    if pace is None:
        return Projection(None, None, "too_little")
    left_us = max(0, (window[1] - now) // MICROSECOND)
    total = used + divide_half_even(_grown(pace, now, left_us), pace.parts * HOUR_US)
    passes_at = None if amount is None else _passes_at(pace, amount - used, now, left_us)
    return Projection(total, passes_at, pace.basis)


# ---- how fast -----------------------------------------------------------------------------------


def _pace(history: History | None, used: int, start: datetime, now: datetime) -> _Pace | None:
    full = hour_of(now)
    since = None if history is None else max(history.since, full - LOOKING_BACK)
    if history is not None and since is not None and full - since >= TWO_WEEKS:
        return _by_hour_of_week(history, since, full)
    began = start if since is None else max(start, since)
    if now - began >= DAY:
        return _mean(used, (now - began) // MICROSECOND, "window_mean")
    if history is not None and since is not None and full - since >= DAY:
        recent = sum(_between(history, since, full).values())
        return _mean(recent, (full - since) // MICROSECOND, "recent_mean")
    return None


def _mean(used: int, lasting_us: int, basis: str) -> _Pace:
    return _Pace((max(0, used) * HOUR_US,) * WEEK_HOURS, lasting_us, basis)


def _by_hour_of_week(history: History, since: datetime, full: datetime) -> _Pace:
    """The mean of each hour of the week over as often as it came."""
    first, hours = _slot(since), (full - since) // HOUR
    came = [0] * WEEK_HOURS
    for place in range(min(hours, WEEK_HOURS)):
        came[(first + place) % WEEK_HOURS] = (hours - place - 1) // WEEK_HOURS + 1
    sums = [0] * WEEK_HOURS
    for hour, used in _between(history, since, full).items():
        sums[_slot(hour)] += used
    parts = lcm(*set(came))
    per_hour = (max(0, used) * (parts // times) for used, times in zip(sums, came, strict=True))
    return _Pace(tuple(per_hour), parts, "weekday_hours")


def _between(history: History, since: datetime, full: datetime) -> dict[datetime, int]:
    return {hour: used for hour, used in history.hours.items() if since <= hour < full}


def _slot(moment: datetime) -> int:
    """The hour of the week, from Monday midnight in UTC."""
    return ((moment - EPOCH) // HOUR + MONDAY_HOURS) % WEEK_HOURS


# ---- how far ------------------------------------------------------------------------------------


def _stretches(pace: _Pace, now: datetime) -> list[tuple[int, int]]:
    """The week from now on as (how long in microseconds, what an hour of it uses)."""
    gone_us = (now - hour_of(now)) // MICROSECOND
    first = _slot(now)
    found = [(HOUR_US - gone_us, pace.per_hour[first])]
    for place in range(1, WEEK_HOURS):
        found.append((HOUR_US, pace.per_hour[(first + place) % WEEK_HOURS]))
    found.append((gone_us, pace.per_hour[first]))
    return found


def _grown(pace: _Pace, now: datetime, lasting_us: int) -> int:
    """What is used in that time, times the parts of the pace and the microseconds of an hour."""
    weeks, rest_us = divmod(lasting_us, WEEK_US)
    grown = weeks * sum(pace.per_hour) * HOUR_US
    for long_us, per_hour in _stretches(pace, now):
        grown += min(long_us, rest_us) * per_hour
        rest_us -= min(long_us, rest_us)
    return grown


def _passes_at(pace: _Pace, missing: int, now: datetime, left_us: int) -> datetime | None:
    """When that much more has been used: the first microsecond, if there is one in time."""
    if missing <= 0:
        return now
    wanted, weekly = missing * pace.parts * HOUR_US, sum(pace.per_hour) * HOUR_US
    if not weekly:
        return None
    weeks = (wanted - 1) // weekly
    wanted -= weeks * weekly
    after_us = weeks * WEEK_US
    for long_us, per_hour in _stretches(pace, now):
        if long_us * per_hour >= wanted:
            after_us += -(-wanted // per_hour)
            break
        wanted -= long_us * per_hour
        after_us += long_us
    return now + timedelta(microseconds=after_us) if after_us < left_us else None
