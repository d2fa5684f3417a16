"""Periods and windows cut time into pieces that neither overlap nor leave a gap."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.core.clock import EPOCH, MICROSECOND, from_micros, hour_of, to_micros
from app.limits.windows import WINDOWS, window_of
from app.plans.known import agreement_of
from app.plans.periods import FAR, INTERVALS, Period, Terms, calendar_months, period_of, zone

ZONES = (
    *("UTC", "Europe/Berlin", "America/New_York", "America/St_Johns", "Asia/Kathmandu"),
    *("Australia/Lord_Howe", "Pacific/Apia", "Pacific/Kiritimati", "Africa/Casablanca"),
    *("Asia/Gaza", "America/Havana"),
)
MOMENTS = st.integers(to_micros(datetime(1971, 1, 1, tzinfo=UTC)), 180 * 31_556_952 * 10**6).map(
    from_micros
)
NEAR_CHANGES = st.sampled_from(
    [
        datetime(2026, 3, 29, 1, tzinfo=UTC),  # Berlin springs forward
        datetime(2026, 10, 25, 1, tzinfo=UTC),  # and back
        datetime(2026, 11, 1, 6, tzinfo=UTC),  # New York back
        datetime(2011, 12, 30, 10, tzinfo=UTC),  # Apia leaves out a day
        datetime(2026, 4, 4, 15, tzinfo=UTC),  # Lord Howe, by half an hour
        datetime(2024, 2, 29, 12, tzinfo=UTC),
    ]
)
INSTANTS = st.one_of(
    MOMENTS,
    st.builds(
        lambda at, minutes: at + timedelta(minutes=minutes),
        NEAR_CHANGES,
        st.integers(-3_000, 3_000),
    ),
)
ANCHORS = st.one_of(
    INSTANTS,
    st.builds(
        lambda year, month: datetime(year, month, 31, 23, 59, 59, tzinfo=UTC),
        st.integers(1990, 2040),
        st.sampled_from((1, 3, 5, 7, 8, 10, 12)),
    ),
    st.builds(lambda year: datetime(4 * (year // 4), 2, 29, tzinfo=UTC), st.integers(1984, 2030)),
)
TERMS = st.builds(
    lambda anchor, interval, timezone: Terms(EPOCH, FAR, "plan", anchor, interval, timezone),
    ANCHORS,
    st.sampled_from(INTERVALS),
    st.sampled_from(ZONES),
)


def assert_partition(period: Period, before: Period, after: Period) -> None:
    assert period.start < period.end
    assert before.end == period.start
    assert after.start == period.end


@given(TERMS, INSTANTS)
def test_every_instant_is_in_one_period_and_its_neighbours_touch(
    terms: Terms, moment: datetime
) -> None:
    period = period_of(moment, terms)
    assert period.start <= moment < period.end
    assert period_of(period.start, terms) == period
    assert period_of(period.end - MICROSECOND, terms) == period
    if period.start > EPOCH:
        before = period_of(period.start - MICROSECOND, terms)
        assert_partition(period, before, period_of(period.end, terms))


@given(TERMS, st.lists(INSTANTS, min_size=2, max_size=6))
def test_periods_of_two_instants_are_the_same_or_apart(
    terms: Terms, moments: list[datetime]
) -> None:
    found = sorted({period_of(moment, terms) for moment in moments})
    for one, other in pairwise(found):
        assert one.end <= other.start


@given(TERMS, INSTANTS)
def test_a_month_starts_at_the_anchors_wall_clock_or_the_months_last_day(
    terms: Terms, moment: datetime
) -> None:
    assume(terms.interval in ("month", "quarter", "year"))
    start = period_of(moment, terms).start
    assume(start > EPOCH)
    place = ZoneInfo(terms.timezone)
    anchor, local = terms.anchor_at.astimezone(place), start.astimezone(place)
    last = (local.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
    skipped = anchor.replace(tzinfo=None).time() != local.replace(tzinfo=None).time()
    if skipped:  # only where that wall clock does not exist on the day
        wall = datetime.combine(local.date(), anchor.time()).replace(tzinfo=place)
        back = wall.astimezone(UTC).astimezone(place).replace(tzinfo=None)
        ahead = local.date() != wall.date() or back != wall.replace(tzinfo=None)
        assert ahead
        return
    assert local.day == min(anchor.day, last.day)


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(INSTANTS, ANCHORS, st.sampled_from(INTERVALS), st.sampled_from(ZONES)),
        min_size=1,
        max_size=4,
        unique_by=lambda row: row[0],
    ),
    st.lists(INSTANTS, min_size=1, max_size=6),
)
def test_renewals_clip_the_period_they_end_and_leave_no_gap(
    agreed: list[tuple[datetime, datetime, str, str]], moments: list[datetime]
) -> None:
    rows = [Terms(start, FAR, "plan", anchor, *rest) for start, anchor, *rest in agreed]
    rows.append(calendar_months("first"))
    agreement = agreement_of(rows)
    for moment in [*moments, *(row.starts_at for row in rows)]:
        fresh = agreement_of(rows).period_at(moment)
        period = agreement.period_at(moment)
        assert period == fresh  # whatever was asked before
        assert period.start <= moment < period.end
        terms = agreement.terms_at(moment)
        assert terms.starts_at <= period.start < period.end <= terms.ends_at
        if period.start > EPOCH:
            assert agreement.period_at(period.start - MICROSECOND).end == period.start
        assert agreement.period_at(period.end).start == period.end
    for row in rows:
        assert agreement.period_at(row.starts_at).start == row.starts_at


@given(INSTANTS, st.integers(1, 200))
def test_before_the_first_terms_there_are_calendar_months(moment: datetime, days: int) -> None:
    start = moment + timedelta(days=days)
    later = Terms(start, FAR, "plan", start, "week", "Europe/Berlin")
    period = agreement_of([later]).period_at(moment)
    assert period.start == moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    assert moment < period.end <= start


@given(INSTANTS)
def test_calendar_months_are_named_after_their_month(moment: datetime) -> None:
    period = period_of(moment, calendar_months("plan"))
    assert period.key == f"{moment:%Y-%m}"


@pytest.mark.parametrize("name", ["", "Nowhere/City", "../etc/passwd", "/etc/passwd", "x" * 65])
def test_an_unknown_zone_is_a_key_error(name: str) -> None:
    with pytest.raises(KeyError):
        zone(name)


@given(st.sampled_from(WINDOWS), INSTANTS, TERMS)
def test_windows_partition_time(window: str, moment: datetime, terms: Terms) -> None:
    def at(instant: datetime) -> tuple[datetime, datetime]:
        return window_of(window, instant, period_of(instant, terms))

    start, end = at(moment)
    assert start <= moment < end
    assert at(start) == (start, end)
    if window == "lifetime":
        return
    assert at(end - MICROSECOND) == (start, end)
    assert at(end)[0] == end
    if start > EPOCH:
        assert at(start - MICROSECOND)[1] == start


@given(INSTANTS)
def test_an_hour_contains_its_instant(moment: datetime) -> None:
    assert hour_of(moment) <= moment < hour_of(moment) + timedelta(hours=1)
    assert hour_of(hour_of(moment)) == hour_of(moment)
