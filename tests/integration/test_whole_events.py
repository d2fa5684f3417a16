"""What an event of several rows becomes when some of them are there already."""

from datetime import timedelta

import pytest

from app.core.counters import NOTHING
from app.db.engine import Database, Tx
from app.ingest.whole import append_whole
from app.usage.ledger import Entry, Logged
from tests.conftest import START

pytestmark = pytest.mark.anyio


def entry(event_id: str, body_hash: int, later: int = 0) -> Entry:
    at = START + timedelta(seconds=later)
    outcome = (body_hash, "", "", 200, None, "unpriced", "")
    left = len(Entry._fields) - 4 - len(outcome) - len(NOTHING)
    return Entry._make(("ann", event_id, START, at, *outcome, *NOTHING, *[None] * left))


def rows(name: str, number: int, body_hash: int, later: int = 0) -> list[Entry]:
    names = [name, *(f"{name}#{place}" for place in range(2, number + 1))]
    return [entry(one, body_hash, later) for one in names]


async def append(
    db: Database, *events: list[Entry], again: bool = False
) -> tuple[list[str], list[Logged]]:
    entries = [one for event in events for one in event]
    places = [place for event in events for place, _ in enumerate(event)]

    async def work(tx: Tx) -> tuple[list[str], list[Logged]]:
        fresh, logged = await append_whole(tx, entries, places, again=again)
        return [one.event_id for one in fresh], logged

    return await db.write(work)


async def test_an_event_that_was_read_as_fewer_calls_before_stays_as_it_was(db: Database) -> None:
    await append(db, rows("a", 1, 7))
    fresh, (logged,) = await append(db, rows("a", 3, 7, later=1))
    assert fresh == []
    assert (logged.status, logged.entry.event_id, logged.others) == ("duplicate", "a", ())
    fresh, (logged,) = await append(db, [entry("a#2", 9)])
    assert (fresh, logged.status) == (["a#2"], "recorded")
    fresh, (logged,) = await append(db, rows("a", 2, 7, later=1))
    assert (fresh, logged.status, logged.others) == ([], "duplicate", ())


async def test_a_row_is_not_the_event_whose_further_call_it_is(db: Database) -> None:
    await append(db, rows("a", 2, 7))
    fresh, (logged,) = await append(db, rows("a#2", 2, 9))
    assert (fresh, logged.status) == ([], "conflict")
    fresh, (logged,) = await append(db, rows("a", 3, 8))
    assert (fresh, logged.status) == ([], "conflict")
    assert [one.event_id for one in logged.others] == ["a", "a#2"]


async def test_what_a_lost_answer_left_is_recorded_still(db: Database) -> None:
    await append(db, rows("a", 2, 7), rows("b", 1, 8))
    fresh, logged = await append(db, rows("a", 2, 7), rows("b", 1, 8), again=True)
    assert fresh == []
    assert [one.status for one in logged] == ["recorded", "recorded"]
    assert [one.event_id for one in logged[0].others] == ["a#2"]
    _, logged = await append(db, rows("a", 2, 7, later=1), again=True)
    assert [one.status for one in logged] == ["duplicate"]


async def test_a_refused_event_leaves_its_ids_to_others(db: Database) -> None:
    await append(db, [entry("a#2", 1)])
    fresh, logged = await append(db, rows("a", 2, 7), [entry("a", 9)], rows("a", 2, 7))
    assert fresh == ["a"]
    assert [one.status for one in logged] == ["conflict", "recorded", "conflict"]
    assert [one.entry.body_hash for one in logged] == [7, 9, 7]
