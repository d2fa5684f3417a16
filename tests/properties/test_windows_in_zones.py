"""Windows of limits in any time zone, against a model that walks along the clock."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.clock import EPOCH, MICROSECOND, from_micros, to_micros
from app.limits.windows import window_of
from app.plans.periods import FAR, Period

MINUTE = timedelta(minutes=1)
EVER = Period(EPOCH, FAR, "")
ODD = (
    *("America/Sao_Paulo", "Asia/Beirut", "Pacific/Apia", "Pacific/Kwajalein", "Asia/Kathmandu"),
    *("America/St_Johns", "Australia/Lord_Howe", "America/Havana", "Africa/Cairo", "Asia/Gaza"),
    *("Pacific/Kiritimati", "America/Scoresbysund", "Antarctica/Casey", "Asia/Pyongyang"),
)
ZONES = st.one_of(st.sampled_from(ODD), st.sampled_from(sorted(available_timezones() - {"UTC"})))
SINCE, UNTIL = (to_micros(datetime(year, 1, 1, tzinfo=UTC)) for year in (1973, 2037))
WINDOWS = st.sampled_from(("minute", "hour", "day", "week", "month"))


def changes(name: str) -> list[datetime]:
    """When the offset of a zone moved, to the minute."""
    found, at = [], datetime(1973, 1, 1, tzinfo=UTC)
    place, step = ZoneInfo(name), timedelta(days=3)
    while at.year < 2037:
        if at.astimezone(place).utcoffset() != (at + step).astimezone(place).utcoffset():
            low, high = at, at + step
            while high - low > MINUTE:
                middle = low + (high - low) // 2
                middle = middle.replace(second=0, microsecond=0)
                same = middle.astimezone(place).utcoffset() == at.astimezone(place).utcoffset()
                low, high = (middle, high) if same else (low, middle)
            found.append(high)
        at += step
    return found


@st.composite
def places(draw: st.DrawFn) -> tuple[str, datetime]:
    """A zone and an instant, mostly near one where its clocks were moved."""
    name = draw(ZONES)
    known = changes(name)
    if not known or draw(st.integers(0, 3)) == 0:
        return name, from_micros(draw(st.integers(SINCE, UNTIL)))
    return name, draw(st.sampled_from(known)) + timedelta(
        minutes=draw(st.integers(-3_000, 3_000)), microseconds=draw(st.sampled_from((0, 1, -1)))
    )


def at(window: str, moment: datetime, name: str) -> tuple[datetime, datetime]:
    return window_of(window, moment, EVER, name)


@settings(max_examples=300)
@given(WINDOWS, places())
def test_windows_touch_and_never_overlap(window: str, place: tuple[str, datetime]) -> None:
    name, moment = place
    start, end = at(window, moment, name)
    assert start <= moment < end
    assert at(window, start, name) == at(window, end - MICROSECOND, name) == (start, end)
    assert at(window, end, name)[0] == end
    assert at(window, start - MICROSECOND, name)[1] == start


def shown(moment: datetime, name: str) -> date:
    return moment.astimezone(ZoneInfo(name)).date()


def first_shown(day: date, name: str) -> datetime:
    """Walk to the first minute that shows the date, or one after it."""
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=40)
    while shown(moment, name) < day:
        moment += MINUTE
    return moment


@settings(max_examples=150)
@given(places())
def test_a_day_is_the_newest_date_that_a_clock_has_shown(place: tuple[str, datetime]) -> None:
    name, moment = place
    newest = max(shown(moment - count * MINUTE, name) for count in range(1600))
    start, end = at("day", moment, name)
    assert start == first_shown(newest, name)
    assert end == first_shown(newest + timedelta(days=1), name)
    monday = newest - timedelta(days=newest.weekday())
    assert at("week", moment, name)[0] == first_shown(monday, name)
    assert at("month", moment, name)[0] == first_shown(newest.replace(day=1), name)


@settings(max_examples=150)
@given(places())
def test_an_hour_is_that_of_the_clock_and_cut_where_its_minutes_jump(
    place: tuple[str, datetime],
) -> None:
    name, moment = place

    def offset(instant: datetime) -> timedelta:
        return (instant.astimezone(ZoneInfo(name)).utcoffset() or timedelta()) % timedelta(hours=1)

    minute = moment.replace(second=0, microsecond=0)
    start = minute
    while start.astimezone(ZoneInfo(name)).minute and offset(start - MINUTE) == offset(moment):
        start -= MINUTE
    end = minute + MINUTE
    while end.astimezone(ZoneInfo(name)).minute and offset(end) == offset(moment):
        end += MINUTE
    assert at("hour", moment, name) == (start, end)
    assert at("minute", moment, name) == (minute, minute + MINUTE)


@settings(max_examples=100)
@given(WINDOWS, st.integers(SINCE, UNTIL).map(from_micros))
def test_a_zone_at_utc_has_the_windows_of_utc(window: str, moment: datetime) -> None:
    assert at(window, moment, "Etc/UTC") == at(window, moment, "UTC")


@pytest.mark.parametrize(
    ("name", "moment", "start", "end"),
    [
        ("Europe/Berlin", "2026-03-29T12:00", "2026-03-28T23:00", "2026-03-29T22:00"),
        ("Europe/Berlin", "2026-10-25T12:00", "2026-10-24T22:00", "2026-10-25T23:00"),
        ("Asia/Kathmandu", "2026-11-20T12:00", "2026-11-19T18:15", "2026-11-20T18:15"),
        ("America/Sao_Paulo", "2018-11-04T12:00", "2018-11-04T03:00", "2018-11-05T02:00"),
        ("America/Sao_Paulo", "2018-02-18T02:30", "2018-02-17T02:00", "2018-02-18T03:00"),
        ("Asia/Beirut", "2026-03-29T12:00", "2026-03-28T22:00", "2026-03-29T21:00"),
        ("Pacific/Apia", "2011-12-30T09:59", "2011-12-29T10:00", "2011-12-30T10:00"),
        ("Pacific/Apia", "2011-12-30T10:00", "2011-12-30T10:00", "2011-12-31T10:00"),
        ("America/St_Johns", "2009-11-01T03:00", "2009-11-01T02:30", "2009-11-02T03:30"),
    ],
)
def test_days_of_other_lengths(name: str, moment: str, start: str, end: str) -> None:
    instants = [datetime.fromisoformat(f"{text}+00:00") for text in (moment, start, end)]
    assert at("day", instants[0], name) == (instants[1], instants[2])
