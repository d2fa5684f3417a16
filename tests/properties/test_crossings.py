"""A threshold is crossed by exactly one step, however the usage is cut into steps."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.alerts.crossings import crossings, message_of, severity_of, title_of, type_of
from app.limits.counters import Step, percent_of, percent_reached, status_of
from app.limits.known import ACTIONS, METRICS, Rule
from app.limits.windows import WINDOWS

AT = datetime(2026, 11, 1, tzinfo=UTC)
AMOUNTS = st.one_of(st.integers(0, 300), st.integers(0, 2**63 - 1))
RULES = st.builds(
    Rule,
    *(st.just("id"), st.just("name"), st.just("all"), st.none(), st.none(), st.none()),
    metric=st.sampled_from(METRICS),
    window=st.sampled_from(WINDOWS),
    amount=st.one_of(st.none(), AMOUNTS),
    action=st.sampled_from(ACTIONS),
    thresholds=st.lists(st.integers(1, 1000), unique=True, max_size=5).map(sorted).map(tuple),
    created_at=st.just(AT),
    counts_from=st.just(AT),
    timezone=st.just("UTC"),
    raised_amount=st.none(),
    raised_until=st.none(),
)


def steps_of(rule: Rule, grown: list[int]) -> list[Step]:
    found, used = [], 0
    for growth in grown:
        found.append(Step(rule, "all", AT, "2026-11", used, used + growth, 0))
        used += growth
    return found


@given(RULES, st.lists(st.one_of(st.integers(0, 60), st.integers(0, 2**60)), max_size=8))
def test_any_cut_of_the_usage_crosses_each_threshold_once(rule: Rule, grown: list[int]) -> None:
    found = [crossing.threshold for crossing in crossings(steps_of(rule, grown), AT)]
    used, amount = sum(grown), rule.amount
    silent = amount is None or not used or rule.action == "shadow"
    reached = [] if silent else rule.thresholds
    expected = [one for one in reached if used * 100 >= (amount or 0) * one]
    assert sorted(found) == expected
    assert len(set(found)) == len(found)
    whole = steps_of(rule, [used])
    assert [crossing.threshold for crossing in crossings(whole, AT)] == expected


@given(RULES, st.integers(0, 2**62))
def test_every_crossing_can_be_told(rule: Rule, used: int) -> None:
    for crossing in crossings(steps_of(rule, [used]), AT):
        assert severity_of(crossing.threshold) in ("info", "warning", "error")
        assert type_of(crossing.threshold) in ("usage_warning", "limit_reached")
        assert title_of(crossing)
        assert message_of(crossing).endswith(".")


@given(st.integers(1, 10**6), st.integers(0, 2 * 10**6))
def test_the_status_says_what_the_thresholds_say(amount: int, used: int) -> None:
    """Never `warning` below 80 % nor `limit_reached` while something is left."""
    full, most = (percent_reached(used, amount, percent) for percent in (100, 80))
    expected = "limit_reached" if full else "warning" if most else "active"
    assert status_of(percent_of(used, amount)) == expected


@given(st.integers(1, 2**62), st.integers(0, 2**62), st.integers(1, 300))
def test_a_percentage_is_shown_when_it_is_reached(amount: int, used: int, percent: int) -> None:
    assert (percent_of(used, amount) >= percent) == percent_reached(used, amount, percent)


@given(RULES, st.lists(st.integers(0, 60), min_size=1, max_size=8), st.integers(0, 300))
def test_after_a_raise_ended_the_next_step_passes_what_was_reached_meanwhile(
    rule: Rule, grown: list[int], raised: int
) -> None:
    rule = rule._replace(raised_amount=raised, raised_until=AT + timedelta(hours=1))
    for step in steps_of(rule, grown):
        during = rule._replace(amount=raised, raised_until=None)
        same = [crossing.threshold for crossing in crossings([step._replace(rule=during)], AT)]
        assert [crossing.threshold for crossing in crossings([step], AT)] == same
    last = steps_of(rule, grown)[-1]
    later = [crossing.threshold for crossing in crossings([last], AT + timedelta(hours=1))]
    moved = last.after > last.before
    amount = rule.amount if moved and rule.action != "shadow" else None
    reached = rule.thresholds if amount is not None else ()
    assert later == [one for one in reached if percent_reached(last.after, amount or 0, one)]
