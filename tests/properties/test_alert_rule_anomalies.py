"""What is unusual, and what made it so: properties of the judgement."""

from datetime import datetime, timedelta
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from app.alerts.anomaly import compared_spans, judged_span, median, oddity
from app.alerts.watch import judge
from tests.conftest import START

HOUR = timedelta(hours=1)
NOW = START.replace(minute=5)
WINDOWS = st.sampled_from(["hour", "day"])
MODELS = [("openai", "gpt-4o"), ("openai", "gpt-4o-mini"), ("anthropic", "claude-sonnet-4")]
Hours = list[tuple[datetime, tuple[str, str], int]]


def flat(rates: list[int], days: int) -> Hours:
    """Each model at its rate, in every full hour of so many days."""
    end = NOW.replace(minute=0)
    pairs = list(zip(MODELS, rates, strict=True))
    return [
        (end - HOUR * ago, model, rate) for ago in range(1, days * 24 + 1) for model, rate in pairs
    ]


RATES = st.lists(st.integers(10, 10**10), min_size=3, max_size=3)


@given(RATES, WINDOWS, st.integers(1, 70), st.integers(1, 100), st.integers(0, 10))
def test_flat_use_is_never_unusual(
    rates: list[int], window: str, days: int, sensitivity: int, least: int
) -> None:
    hours = flat(rates, days)
    since = min(at for at, _, _ in hours)
    assert judge(hours, judged_span(window, NOW), since, sensitivity, least) == (None, None)


@given(RATES, st.integers(0, 2), st.integers(5, 70), st.randoms())
def test_an_hour_of_ten_times_as_much_is_unusual_and_its_model_is_named(
    rates: list[int], which: int, days: int, chance: Random
) -> None:
    hours, last = flat(rates, days), NOW.replace(minute=0) - HOUR
    rates[which] = max(rates)  # what grows most must be seen above the others
    hours = flat(rates, days)
    burst = [
        (at, model, used * 10 if (at, model) == (last, MODELS[which]) else used)
        for at, model, used in hours
    ]
    chance.shuffle(burst)
    found, moved = judge(burst, judged_span("hour", NOW), last - timedelta(days=days - 1), 6, 1)
    assert found is not None
    assert found.used == sum(rates) + 9 * rates[which]
    assert found.usual == sum(rates)
    assert moved is not None
    assert moved == (MODELS[which], 10 * rates[which], rates[which])


@given(
    st.lists(st.integers(0, 10**12), min_size=3, max_size=8),
    st.integers(0, 10**13),
    st.integers(1, 100),
    st.integers(0, 10**12),
)
def test_what_is_unusual_stays_so_when_there_is_more_of_it(
    before: list[int], used: int, sensitivity: int, least: int
) -> None:
    found = oddity(used, before, sensitivity, least)
    if found is not None:
        assert used - median(before) >= max(least, 1)
        assert oddity(used + 1, before, sensitivity, least) is not None
        assert oddity(used, before, 1, least) is not None
    assert oddity(used, list(reversed(before)), sensitivity, least) == found


@given(st.integers(0, 80), WINDOWS)
def test_the_same_hours_of_other_weeks_are_compared_and_of_other_days_while_there_are_none(
    days: int, window: str
) -> None:
    span = judged_span(window, NOW)
    spans = compared_spans(span, span.start - timedelta(days=days))
    lengths = {(one.end - one.start, one.start.time()) for one in spans}
    assert lengths <= {(span.end - span.start, span.start.time())}
    assert all(one.start >= span.start - timedelta(days=days) for one in spans)
    if days >= 21:
        assert len(spans) == min(days // 7, 8)
        assert {one.start.weekday() for one in spans} == {span.start.weekday()}
    else:
        assert len(spans) == (min(days, 7) if days >= 3 else 0)
