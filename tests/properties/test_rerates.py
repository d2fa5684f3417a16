"""Rating again moves every total by exactly what changed, and walking the log misses nothing."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.counters import COLUMNS
from app.db.engine import Database
from app.ingest.rerate_plan import Tally
from app.plans.known import agreement_of
from app.plans.periods import calendar_months
from app.summaries.fold import fold, recost
from app.summaries.tables import MEASURES
from app.usage.ledger import Entry, append
from app.usage.sweep import (
    RATED,
    Filter,
    key_from_text,
    key_to_text,
    next_page,
    place_in,
)
from tests.conftest import START

COSTS = st.none() | st.integers(0, 10**12)
USERS = ("ann", "bob", "cy")
AGREED = {user: agreement_of([calendar_months("plan_default")]) for user in USERS}


def entry(number: int, **more: Any) -> Entry:
    blank: dict[str, Any] = dict.fromkeys(Entry._fields)
    blank |= dict.fromkeys(COLUMNS, 0)
    cost = more.get("cost_nanos")
    return Entry(
        **blank
        | {
            "user_id": USERS[number % 3],
            "event_id": f"e{number * 7 % 100:02d}",
            "timestamp": START - timedelta(minutes=number * 13 % 600),
            "recorded_at": START,
            "body_hash": number,
            "provider": ("openai", "nobody")[number % 2],
            "model": ("a", "b", "c")[number % 5 % 3],
            "status_code": 200,
            "cost_status": "unpriced" if cost is None else "priced",
            "price_ref": "",
            "latency_us": number,
            "input_tokens": number,
        }
        | more
    )


ENTRIES = st.lists(st.tuples(COSTS, COSTS, st.sampled_from((None, "red"))), max_size=12)


@given(ENTRIES)
def test_what_is_added_when_a_cost_changes_is_what_is_missing(drawn: list[Any]) -> None:
    before = [
        entry(number, cost_nanos=old, team_id=team) for number, (old, _, team) in enumerate(drawn)
    ]
    costs = {one[:2]: new for one, (_, new, _) in zip(before, drawn, strict=True)}
    after = [one._replace(cost_nanos=costs[one[:2]]) for one in before]
    change = fold(before, AGREED, lambda one: recost(one, costs[one[:2]]), calls=0)
    for old, more, new in zip(fold(before, AGREED), change, fold(after, AGREED), strict=True):
        zeros = [0] * len(MEASURES)
        summed = {
            key: [a + b for a, b in zip(old[key], more.get(key, zeros), strict=True)] for key in old
        }
        assert summed == new
        assert more.keys() <= old.keys()
    touched = {MEASURES.index(name) for name in ("cost_nanos", "unpriced_calls")}
    for totals in change:
        for total in totals.values():
            assert {place for place, value in enumerate(total) if value} <= touched


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9), st.integers(0, 9))))
def test_the_largest_changes_are_kept_exactly_while_there_is_room(
    shifts: list[tuple[int, int, int]],
) -> None:
    tally, sums = Tally(), dict[str, int]()
    for user, old, new in shifts:
        tally.add((str(user),), old, new)
        sums[str(user)] = sums.get(str(user), 0) + new - old
    assert {key[0]: shift.delta_nanos for key, shift in tally.most(100)} == sums
    assert tally.count == len(sums)


def test_memory_is_bounded_whatever_comes() -> None:
    tally = Tally(kept=10)
    tally.add(("large",), 0, 10**9)
    for number in range(1_000):
        tally.add((str(number),), 0, 1)
    assert len(tally.most(10_000)) <= 20
    assert tally.most(1)[0][0] == ("large",)
    assert tally.count == 1_001


FILTERS = (
    Filter(),
    Filter(user_id="ann"),
    Filter(user_id="bob", start=START - timedelta(minutes=200), end=START),
    Filter(start=START - timedelta(minutes=300), end=START - timedelta(minutes=20)),
    Filter(provider="openai", model="a"),
    Filter(team_id="red"),
    Filter(cost_status=("unpriced",)),
    Filter(cost_status=("unpriced",), provider="nobody"),
    Filter(cost_status=("unpriced",), model="b", team_id="red"),
    Filter(cost_status=("unpriced",), user_id="cy"),
    Filter(cost_status=("priced", "estimated")),
    Filter(event_ids=("e07", "e14", "e99", "none")),
    Filter(event_ids=("e07", "e14", "e35"), user_id="bob"),
)


def meant(wanted: Filter, one: Entry) -> bool:
    return (
        all(
            getattr(wanted, name) in (None, getattr(one, name))
            for name in ("user_id", "team_id", "provider", "model")
        )
        and (wanted.start is None or one.timestamp >= wanted.start)
        and (wanted.end is None or one.timestamp < wanted.end)
        and one.cost_status in wanted.cost_status
        and (not wanted.event_ids or one.event_id in wanted.event_ids)
    )


@pytest.mark.anyio
async def test_every_walk_meets_every_event_that_is_meant_once(db: Database) -> None:
    logged = [
        entry(
            number,
            cost_nanos=(None, 5)[number % 3 % 2],
            team_id=("red", None)[number % 7 % 2],
        )
        for number in range(90)
    ]
    logged[::11] = [one._replace(cost_nanos=9, cost_status="provided") for one in logged[::11]]
    await db.write(lambda tx: append(tx, logged))
    for wanted in FILTERS:
        expected = {one[:2] for one in logged if meant(wanted, one)}
        for rows in (1, 7, 90, 1_000):
            found, after = [], None
            while True:
                page = await db.read(
                    lambda tx, to=wanted, at=after, n=rows: next_page(tx, to, at, n)  # type: ignore[misc]
                )
                assert len(page.entries) <= rows
                found += page.entries
                after = page.after
                if after is None:
                    break
                assert key_from_text(wanted, key_to_text(after)) == after
            assert len(found) == len(expected)
            assert {one[:2] for one in found} == expected
        places = [place_in(wanted, one) for one in found]
        assert places == sorted(places)
    assert "provided" not in RATED
