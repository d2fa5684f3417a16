"""What all users used, from the totals across them: by one dimension, over whole hours."""

import json
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, column, func, select

from app.alerts.standing import shards
from app.core.clock import hour_of, to_micros
from app.core.errors import InvalidInput
from app.db.engine import Tx
from app.db.types import Moment, table_of
from app.summaries.buckets import Names, Table, TooManyError, by_names, renamed, summed
from app.summaries.fold import SEPARATOR
from app.summaries.grains import HOUR, Span
from app.summaries.sources import DIMENSIONS
from app.summaries.sums import Sums
from app.summaries.tables import HourDimension

MOST_SUMS = 100_000
MOST_SOUGHT = 5_000
PARTS = {"model": 2, "pool_backend": 2, "team_calls": 5, "key_calls": 5}
"""How many names make up the value of a dimension; one where it is not here."""

_dimension = table_of(HourDimension).c


async def used_by(
    tx: Tx, dimension: str, pieces: Sequence[Span], first: str | None = None
) -> Table:
    """What was used in each piece of time, by the names that the dimension is made of.

    `first` asks for one value alone: of a value of several names, for its first one.

    Raises:
        InvalidInput: there is too much to tell at once.
    """
    where: list[ColumnElement[bool]] = [
        _dimension.shard.in_(await shards(tx)),
        _dimension.dimension == dimension,
        *_hours(tx, pieces),
    ]
    parts = PARTS.get(dimension, 1)
    if first is not None and parts == 1:
        where.append(_dimension.value == first)
    elif first is not None:
        begins = first + SEPARATOR
        where.append(func.substr(_dimension.value, 1, len(begins)) == begins)
    try:
        found = await summed(tx, DIMENSIONS, where, [_dimension.value], pieces, MOST_SUMS)
    except TooManyError:
        detail = f"from: more than {MOST_SUMS:,} sums; take a shorter range or a longer grain"
        raise InvalidInput.at("/from", detail) from None
    return found if parts == 1 else renamed(found, _split)


def _hours(tx: Tx, pieces: Sequence[Span]) -> list[ColumnElement[bool]]:
    """Every hour by name, so that SQLite seeks each by the key, which has the dimension behind it.

    It reads all that was kept in a range otherwise: five times as long.
    """
    if tx.dialect != "sqlite" or not pieces:
        return []
    first = hour_of(pieces[0].start)
    count = -(-(pieces[-1].end - first) // HOUR)
    if count > MOST_SOUGHT:
        return []
    hours = [to_micros(first + place * HOUR) for place in range(count)]
    each = func.json_each(json.dumps(hours)).table_valued(column("value", Moment()))
    return [_dimension.hour.in_(select(each.c.value))]


def _split(names: Names) -> Names:
    return tuple(names[0].split(SEPARATOR))


async def used_in(
    tx: Tx, dimension: str, span: Span, first: str | None = None
) -> dict[Names, Sums]:
    """As `used_by`, of one piece of time."""
    return by_names(await used_by(tx, dimension, [span], first))


async def first_hour(tx: Tx) -> datetime | None:
    """The first hour in which anything was used."""
    hours = []
    for shard in await shards(tx):
        query = select(func.min(_dimension.hour)).where(_dimension.shard == shard)
        hours += [row[0] for row in await tx.fetch(query)]
    return min(hours, default=None)
