"""Forecasts: what has to hold of every one, whatever the history."""

from datetime import datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.alerts.forecast import History, Projection, forecast
from app.core.clock import EPOCH, hour_of
from tests.conftest import START

HOUR = timedelta(hours=1)
DAYS = st.integers(0, 40)
AMOUNTS = st.integers(0, 10**12)
MOMENTS = st.integers(0, 3600 * 24 * 28 - 1).map(lambda s: START + timedelta(seconds=s))
SPARSE = st.dictionaries(st.integers(1, 24 * 40), AMOUNTS, max_size=60)
Case = tuple[History, int, int, tuple[datetime, datetime], datetime]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A history, a window around now, what is used in it and what may be."""
    now = draw(MOMENTS)
    full = hour_of(now)
    hours = {full - HOUR * ago: used for ago, used in draw(SPARSE).items()}
    history = History(full - timedelta(days=draw(DAYS)), hours)
    start = now - timedelta(hours=draw(st.integers(0, 24 * 31)))
    end = now + timedelta(minutes=draw(st.integers(1, 60 * 24 * 366)))
    return history, draw(AMOUNTS), draw(st.integers(1, 10**14)), (start, end), now


@given(cases())
def test_a_limit_is_never_passed_before_now_or_after_its_window(case: Case) -> None:
    _, used, amount, (_, end), now = case
    found = forecast(*case)
    assert found.total_at_end is None or found.total_at_end >= used
    if found.passes_at is not None:
        assert now <= found.passes_at < end or used >= amount


@given(cases())
def test_a_limit_is_passed_just_where_the_total_exceeds_it(case: Case) -> None:
    amount, found = case[2], forecast(*case)
    if found.total_at_end is None:
        assert found == Projection(None, None, "too_little")
    elif found.passes_at is None:
        assert found.total_at_end <= amount
    else:
        assert found.total_at_end >= amount


@given(cases(), st.integers(1, 24 * 40), st.integers(1, 10**12))
def test_more_use_in_the_past_never_forecasts_less(case: Case, ago: int, more: int) -> None:
    history, used, amount, window, now = case
    hour = hour_of(now) - HOUR * ago
    grown = History(history.since, history.hours | {hour: history.hours.get(hour, 0) + more})
    less, found = forecast(*case), forecast(grown, used, amount, window, now)
    assert less.basis == found.basis
    assert (less.total_at_end or 0) <= (found.total_at_end or 0)
    if less.passes_at is not None:
        assert found.passes_at is not None
        assert found.passes_at <= less.passes_at


@given(cases(), st.randoms())
def test_the_order_of_the_history_is_of_no_account(case: Case, chance: Random) -> None:
    history = case[0]
    items = list(history.hours.items())
    chance.shuffle(items)
    assert forecast(History(history.since, dict(items)), *case[1:]) == forecast(*case)


@given(
    st.integers(1, 28),
    st.integers(1, 10**10),
    st.integers(0, 24 * 27),
    st.integers(1, 24 * 300),
    st.integers(1, 10**4),
)
def test_a_constant_rate_goes_on_exactly(
    days: int, rate: int, gone: int, left: int, hours: int
) -> None:
    full = hour_of(START)
    since = full - timedelta(days=days)
    history = History(since, {since + HOUR * n: rate for n in range(days * 24)})
    window = (full - HOUR * gone, full + HOUR * left)
    used = rate * min(gone, days * 24)
    amount = used + rate * hours
    found = forecast(history, used, amount, window, full)
    assert found.total_at_end == used + rate * left
    assert found.passes_at == (full + HOUR * hours if hours < left else None)
    assert found.basis == (
        "weekday_hours"
        if days >= 14
        else "window_mean"
        if min(gone, days * 24) >= 24
        else "recent_mean"
    )


@pytest.mark.parametrize("minutes", [0, 1, 29, 59])
def test_work_by_the_clock_is_forecast_by_the_clock(minutes: int) -> None:
    """Ten an hour from nine to five on weekdays, and nothing else."""
    monday = datetime(2026, 11, 2, tzinfo=EPOCH.tzinfo)
    at_work = [
        at
        for at in (monday + HOUR * n for n in range(24 * 21))
        if at.weekday() < 5 and 9 <= at.hour < 17
    ]
    friday = datetime(2026, 11, 20, 17, minutes, tzinfo=EPOCH.tzinfo)
    used = 10 * len([at for at in at_work if at < friday])
    history = History(monday, {at: 10 for at in at_work if at < friday})
    window = (
        datetime(2026, 11, 1, tzinfo=EPOCH.tzinfo),
        datetime(2026, 12, 1, tzinfo=EPOCH.tzinfo),
    )
    found = forecast(history, used, used + 5, window, friday)
    assert found.passes_at == datetime(2026, 11, 23, 9, 30, tzinfo=EPOCH.tzinfo)
    assert found.total_at_end == used + 6 * 80
    assert found.basis == "weekday_hours"


def test_a_day_of_use_is_needed_to_say_anything() -> None:
    now, month = START, (START - timedelta(days=19), START + timedelta(days=10))
    assert forecast(History(now - 23 * HOUR, {}), 50, 100, month, now).basis == "too_little"
    assert forecast(History(now - 24 * HOUR, {}), 50, 100, month, now).basis == "window_mean"
    assert forecast(None, 50, 100, (now - 23 * HOUR, month[1]), now).basis == "too_little"
    mean = forecast(None, 240, None, (now - 24 * HOUR, now + HOUR), now)
    assert mean == Projection(250, None, "window_mean")
