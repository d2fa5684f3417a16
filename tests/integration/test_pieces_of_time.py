"""Which piece of a range an instant is in: as a search says, by one statement for any number."""

import random
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from sqlalchemy import literal, select, union_all

from app.core.clock import EPOCH
from app.db.engine import Database, Tx
from app.db.types import Moment
from app.summaries.grains import Grain, Span, cut
from app.summaries.places import place_of

pytestmark = pytest.mark.anyio

MICRO = timedelta(microseconds=1)
RANGES = [
    Span(EPOCH, EPOCH + timedelta(hours=1)),
    Span(EPOCH, datetime(1971, 6, 3, 4, 5, tzinfo=UTC)),
    Span(datetime(2023, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)),
    Span(datetime(2024, 1, 31, 22, 30, tzinfo=UTC), datetime(2024, 2, 1, 0, 30, tzinfo=UTC)),
    Span(datetime(2026, 2, 14, 12, 30, tzinfo=UTC), datetime(2026, 5, 17, 1, 15, tzinfo=UTC)),
    Span(datetime(2026, 6, 5, tzinfo=UTC), datetime(2026, 9, 28, 7, tzinfo=UTC)),
]


def instants_in(span: Span, pieces: list[Span]) -> list[datetime]:
    """Instants of the range, the first and the last of pieces among them."""
    dice = random.Random(len(pieces))
    found = [span.start + dice.random() * (span.end - span.start) for _ in range(40)]
    for piece in dice.sample(pieces, min(len(pieces), 30)):
        found += [piece.start, piece.end - MICRO]
    return [at for at in found if span.start <= at < span.end]


@pytest.mark.parametrize("grain", ["hour", "day", "month", None])
@pytest.mark.parametrize("span", RANGES, ids=lambda span: f"{span.start:%Y-%m-%d}")
async def test_an_instant_is_in_the_piece_that_holds_it(
    db: Database, span: Span, grain: Grain | None
) -> None:
    pieces = cut(span, grain, 100_000)
    assert pieces is not None
    instants = instants_in(span, pieces)
    each = union_all(*(select(literal(at, Moment()).label("at")) for at in instants)).subquery()

    async def places(tx: Tx) -> list[tuple[datetime, int]]:
        place = place_of(tx.dialect, each.c.at, pieces)
        return [(row[0], row[1]) for row in await tx.fetch(select(each.c.at, place))]

    starts = [piece.start for piece in pieces]
    found = await db.read(places)
    assert sorted(at for at, _ in found) == sorted(instants)
    assert found == [(at, bisect_right(starts, at) - 1) for at, _ in found]


@pytest.mark.parametrize("grain", ["hour", "day", "month"])
def test_a_statement_does_not_grow_with_the_pieces(grain: Grain) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    few = cut(Span(start, start + timedelta(days=120)), grain, 10_000)
    many = cut(Span(start, start + timedelta(days=366)), grain, 10_000)
    assert few is not None
    assert many is not None
    at = literal(start, Moment())
    for dialect in ("sqlite", "postgresql"):
        one, other = (
            select(place_of(dialect, at, pieces))._generate_cache_key() for pieces in (few, many)
        )
        assert one is not None
        assert other is not None
        assert one.key == other.key


def test_pieces_that_nothing_could_have_cut_are_refused() -> None:
    starts = [EPOCH + timedelta(hours=hours) for hours in (0, 1, 4, 6, 9)]
    pieces = [Span(*ends) for ends in pairwise(starts)]
    with pytest.raises(ValueError, match="of one length, or months"):
        place_of("sqlite", literal(EPOCH, Moment()), pieces)
