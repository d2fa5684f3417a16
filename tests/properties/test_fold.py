"""Folding: sums do not depend on how the calls were cut into batches, nor on their order."""

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.clock import hour_of
from app.plans.known import Agreement, agreement_of
from app.plans.periods import calendar_months
from app.summaries.fold import LATENCY_BOUNDS_US, Change, bucket_of, fold
from app.summaries.tables import MEASURES
from app.usage.ledger import Entry
from tests.properties.books import books_of, bucket

START = datetime(2026, 11, 30, 22, tzinfo=UTC)
NOTHING = Entry(*(0,) * len(Entry._fields))
AGREED = {user: agreement_of([calendar_months("plan")]) for user in ("a", "b")}
MAYBE = st.one_of(st.none(), st.integers(0, 3 * 10**9))
ENTRIES = st.builds(
    lambda minutes, **said: NOTHING._replace(timestamp=START + timedelta(minutes=minutes), **said),
    st.integers(0, 300),
    user_id=st.sampled_from(("a", "b")),
    provider=st.sampled_from(("openai", "")),
    model=st.sampled_from(("m", "")),
    status_code=st.sampled_from((200, 399, 400, 500)),
    cost_nanos=MAYBE,
    input_tokens=st.integers(0, 2**53 - 1),
    cache_read_tokens=st.integers(0, 9),
    output_tokens=st.integers(0, 9),
    output_image_tokens=st.integers(0, 9),
    requests=st.integers(0, 2),
    latency_us=MAYBE,
    ttft_us=MAYBE,
    endpoint=st.sampled_from((None, "", "/chat")),
    team_id=st.sampled_from((None, "red")),
    api_key_id=st.sampled_from((None, "k")),
    backend=st.sampled_from((None, "gpu")),
    pool=st.none(),
    task_type=st.sampled_from((None, "", "chat")),
)


def merged(changes: Sequence[Change]) -> Change:
    total = Change({}, {}, {})
    for change in changes:
        for into, more in zip(total, change, strict=True):
            for key, measures in more.items():
                known = into.setdefault(key, [0] * len(MEASURES))
                into[key] = [a + b for a, b in zip(known, measures, strict=True)]
    return total


@given(st.lists(ENTRIES, max_size=12), st.lists(st.integers(0, 12), max_size=3), st.randoms())
def test_a_fold_is_the_sum_of_the_folds_of_any_cut_in_any_order(
    entries: list[Entry], cuts: list[int], dice: random.Random
) -> None:
    shuffled = list(entries)
    dice.shuffle(shuffled)
    edges = [0, *sorted(cuts), len(entries)]
    parts = [shuffled[a:b] for a, b in pairwise(edges)]
    assert merged([fold(part, AGREED) for part in parts]) == fold(entries, AGREED)


@settings(max_examples=60)
@given(st.lists(ENTRIES, max_size=12))
def test_a_fold_is_what_a_loop_over_the_calls_sums_to(entries: list[Entry]) -> None:
    found, by_hand = fold(entries, AGREED), books_of([entry._asdict() for entry in entries], ())
    assert _tidy(found.periods) == by_hand.periods
    assert _tidy(found.hours) == by_hand.hours
    assert _tidy(found.dimensions) == by_hand.dimensions


@given(st.lists(ENTRIES, max_size=12))
def test_every_dimension_that_each_call_is_in_sums_to_the_whole(entries: list[Entry]) -> None:
    change = fold(entries, AGREED)
    whole = [sum(column) for column in zip(*change.hours.values(), strict=True)]
    assert whole == [sum(column) for column in zip(*change.periods.values(), strict=True)]
    for dimension in ("model", "endpoint", "status_code"):
        own = [total for key, total in change.dimensions.items() if key[1] == dimension]
        assert whole == [sum(column) for column in zip(*own, strict=True)]
    assert all(hour == hour_of(hour) for hour, *_ in change.dimensions)


@given(st.integers(0, 10**10))
def test_a_bucket_contains_its_latency_and_its_name_sorts(latency_us: int) -> None:
    name = bucket_of(latency_us)
    assert name == bucket(latency_us)
    place = int(name)
    assert place == len(LATENCY_BOUNDS_US) or latency_us <= LATENCY_BOUNDS_US[place]
    assert place == 0 or latency_us > LATENCY_BOUNDS_US[place - 1]
    assert bucket_of(latency_us + 1) >= name


def _tidy(totals: Mapping[Any, Sequence[int]]) -> dict[Any, dict[str, int]]:
    return {
        key: {name: value for name, value in sorted(zip(MEASURES, total, strict=True)) if value}
        for key, total in totals.items()
    }


def test_an_entry_without_an_agreement_is_a_bug() -> None:
    nobody: dict[str, Agreement] = {}
    try:
        fold([NOTHING._replace(timestamp=START, user_id="c")], nobody)
    except KeyError:
        return
    raise AssertionError("a call was counted into no period")
