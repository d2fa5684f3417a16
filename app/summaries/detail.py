"""A user's own log, for what no total is kept by: rarer names, exact percentiles.

Only a bounded part of it is read, and only where the log still holds every call: what it sums to is
laid beside the totals first, so that nothing is told from a part.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, func, or_, select

from app.db.engine import Tx
from app.db.types import table_of
from app.summaries.buckets import HOURS, LOG, Names, hurry, place_of, summed
from app.summaries.grains import Span, whole_hours
from app.summaries.sums import NONE, Sums
from app.summaries.tables import HourTotal
from app.usage.tables import UsageEvent

MOST_READ = 50_000
"""Calls that one answer may read: some tenths of a second at most, measured on both databases."""
PERCENTS = (50, 95, 99)

_log, _hour = table_of(UsageEvent).c, table_of(HourTotal).c


class Percentiles(NamedTuple):
    """Nearest-rank percentiles in microseconds; None where no call carries the value."""

    p50: int | None = None
    p95: int | None = None
    p99: int | None = None


NO_PERCENTILES = Percentiles()


async def used_in_hours(tx: Tx, user_id: str, span: Span) -> Sums:
    """What the totals say of the hours that a range touches."""
    hours = whole_hours(span)
    found = await summed(tx, HOURS, [_hour.user_id == user_id], [], [hours], 1)
    return found.get((0, ()), NONE)


async def is_readable(tx: Tx, user_id: str, span: Span, used: Sums) -> bool:
    """Whether the log holds all that was `used` in these hours, and not too much to be read."""
    if used.calls > MOST_READ:
        return False
    hours = whole_hours(span)
    await hurry(tx)
    query = select(func.count()).where(
        _log.user_id == user_id, _log.timestamp >= hours.start, _log.timestamp < hours.end
    )
    return bool((await tx.fetch(query))[0][0] == used.calls)


def logged_name(name: str) -> ColumnElement[Any]:
    """A name as the log has it; one that was not given is an empty string."""
    return _log[name] if name == "status_code" else func.coalesce(_log[name], "")


async def details(
    tx: Tx,
    user_id: str,
    where: Sequence[ColumnElement[bool]],
    names: Sequence[str],
    pieces: Sequence[Span],
    most: int,
) -> dict[tuple[int, Names], Sums]:
    """As `buckets.summed`, of one user's log by any of its names."""
    columns = [logged_name(name) for name in names]
    return await summed(tx, LOG, [_log.user_id == user_id, *where], columns, pieces, most)


async def percentiles(
    tx: Tx,
    user_id: str,
    measure: str,
    where: Sequence[ColumnElement[bool]],
    names: Sequence[str],
    pieces: Sequence[Span],
) -> dict[tuple[int, Names], Percentiles]:
    """The percentiles of `latency_us` or `ttft_us` in each piece of time, by the names."""
    if not pieces:
        return {}
    labelled = [logged_name(name).label(f"name_{number}") for number, name in enumerate(names)]
    value = _log[measure]
    inner = (
        select(
            place_of(_log.timestamp, pieces).label("place"), *labelled, value.label("value")
        ).where(
            *(_log.user_id == user_id, value.is_not(None), *where),
            *(_log.timestamp >= pieces[0].start, _log.timestamp < pieces[-1].end),
        )
    ).subquery()
    keys = [inner.c.place, *(inner.c[label.name] for label in labelled)]
    ordered = func.row_number().over(partition_by=keys, order_by=inner.c.value).label("rank")
    total = func.count().over(partition_by=keys).label("total")
    ranked = select(*keys, inner.c.value, ordered, total).subquery()
    asked = [_rank(ranked.c.total, percent) for percent in PERCENTS]
    query = select(
        *(ranked.c[key.name] for key in keys),
        *(func.max(ranked.c.value).filter(ranked.c.rank == rank) for rank in asked),
    )
    query = query.where(or_(*(ranked.c.rank == rank for rank in asked)))
    await hurry(tx)
    rows = await tx.fetch(query.group_by(*(ranked.c[key.name] for key in keys)))
    width = len(keys)
    return {(row[0], tuple(row[1:width])): Percentiles(*row[width:]) for row in rows}


def _rank(total: ColumnElement[int], percent: int) -> ColumnElement[int]:
    """Which value, counted from 1 upwards, has at least `percent` of all at or below it."""
    return (total * percent + 99) // 100
