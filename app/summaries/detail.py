"""A user's own calls, for what no total is kept by: rarer names, exact percentiles.

They are read from the log, from the sums of what was wrapped and from corrections. Only a bounded
part is read, and only where these still tell of every call: what they sum to is laid beside the
totals first, so that nothing is told from a part.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, func, literal, or_, select, union_all

from app.core.clock import hour_of
from app.db.engine import Tx
from app.db.types import table_of
from app.summaries.buckets import Names, TooManyError, hurry, summed
from app.summaries.grains import Span, whole_hours
from app.summaries.places import place_of
from app.summaries.sources import CORRECTED, HOURS, LOG, RECORDED, WRAPPED, Source
from app.summaries.sums import NONE, Sums
from app.summaries.tables import HourTotal
from app.usage.tables import UsageCorrection

MOST_READ = 50_000
"""Calls that one answer may read: some tenths of a second at most, measured on both databases."""
PERCENTS = (50, 95, 99)

Where = Callable[[Source], list[ColumnElement[bool]]]
"""Which rows of a source are meant."""

_hour = table_of(HourTotal).c
_wrapped, _corrected = WRAPPED.table.c, CORRECTED.table.c
_later = table_of(UsageCorrection).alias("later")


def all_of(_source: Source) -> list[ColumnElement[bool]]:
    """Every row of a user."""
    return []


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


async def is_readable(
    tx: Tx, user_id: str, span: Span, used: Sums, names: Collection[str] = ()
) -> bool:
    """Whether all that was `used` in these hours can be told by `names`, and without too much work.

    What was wrapped is not kept by every name, and cannot be divided where a range begins or ends.
    """
    hours = whole_hours(span)
    await hurry(tx)
    calls = 0
    for source in RECORDED:
        columns = source.table.c
        there = [columns.user_id == user_id, source.hour >= hours.start, source.hour < hours.end]
        if source is not WRAPPED:  # an index is by the instant
            there[1:] = [source.at >= hours.start, source.at < hours.end]
        amount = source.amount_of("calls").label("calls")
        some = select(amount).where(*there).limit(MOST_READ + 1).subquery()
        counted = select(func.count(), func.coalesce(func.sum(some.c.calls), 0))
        rows, found = (await tx.fetch(counted.select_from(some)))[0]
        if rows > MOST_READ:
            return False
        untold = not set(names) <= set(columns.keys())
        if source is WRAPPED and rows and (untold or await _is_cut(tx, user_id, span)):
            return False
        calls += int(found)
    return calls == used.calls


async def _is_cut(tx: Tx, user_id: str, span: Span) -> bool:
    """Whether a range begins or ends within calls that were wrapped together."""
    across = [
        (_wrapped.hour == hour_of(at)) & (_wrapped.first_at < at) & (_wrapped.last_at >= at)
        for at in span
    ]
    query = select(_wrapped.user_id).where(_wrapped.user_id == user_id, or_(*across)).limit(1)
    return await tx.first(query) is not None


async def details(
    tx: Tx,
    user_id: str,
    where: Where,
    names: Sequence[str],
    pieces: Sequence[Span],
    most: int,
) -> dict[tuple[int, Names], Sums]:
    """As `buckets.summed`, of one user's calls by any name that is kept of each of them."""
    found: dict[tuple[int, Names], Sums] = {}
    for source in RECORDED:
        columns = source.table.c
        if not set(names) <= set(columns.keys()):
            continue  # nothing was wrapped in a range that is readable by such a name
        own = [columns.user_id == user_id, *where(source)]
        named = [source.named(name) for name in names]
        for key, sums in (await summed(tx, source, own, named, pieces, most)).items():
            found[key] = found.get(key, NONE) + sums
    found = {key: sums for key, sums in found.items() if any(sums)}
    if len(found) > most:
        raise TooManyError
    return found


async def percentiles(
    tx: Tx,
    user_id: str,
    measure: str,
    where: Where,
    names: Sequence[str],
    pieces: Sequence[Span],
) -> dict[tuple[int, Names], Percentiles]:
    """The percentiles of `latency_us` or `ttft_us` in each piece of time, by the names.

    They are unknown where calls that carried the value were wrapped.
    """
    if not pieces:
        return {}
    standing = union_all(
        *(
            _values(tx.dialect, source, user_id, measure, where, names, pieces)
            for source in ((LOG, CORRECTED) if await _has_corrections(tx, user_id) else (LOG,))
        )
    ).subquery()
    keys = [standing.c[name] for name in ("place", *_labels(names))]
    ordered = func.row_number().over(partition_by=keys, order_by=standing.c.value).label("rank")
    total = func.count().over(partition_by=keys).label("total")
    ranked = select(*keys, standing.c.value, ordered, total).subquery()
    asked = [_rank(ranked.c.total, percent) for percent in PERCENTS]
    query = select(
        *(ranked.c[key.name] for key in keys),
        *(func.max(ranked.c.value).filter(ranked.c.rank == rank) for rank in asked),
    )
    query = query.where(or_(*(ranked.c.rank == rank for rank in asked)))
    await hurry(tx)
    rows = await tx.fetch(query.group_by(*(ranked.c[key.name] for key in keys)))
    width = len(keys)
    found = {(row[0], tuple(row[1:width])): Percentiles(*row[width:]) for row in rows}
    for key in await _wrapped_keys(tx, user_id, measure, where, names, pieces):
        found[key] = NO_PERCENTILES
    return found


def _labels(names: Sequence[str]) -> list[str]:
    return [f"name_{number}" for number in range(len(names))]


def _values(
    dialect: str,
    source: Source,
    user_id: str,
    measure: str,
    where: Where,
    names: Sequence[str],
    pieces: Sequence[Span],
) -> Select[Any]:
    """The value of each call as it stands, from the log or from the corrections."""
    columns = source.table.c
    named = [source.named(name) for name in names]
    value = columns[measure]
    query = select(
        place_of(dialect, source.at, pieces).label("place"),
        *(name.label(label) for name, label in zip(named, _labels(names), strict=True)),
        value.label("value"),
    ).where(
        *(columns.user_id == user_id, value.is_not(None), *where(source)),
        *(source.at >= pieces[0].start, source.at < pieces[-1].end),
    )
    later = (_later.c.user_id == columns.user_id) & (_later.c.event_id == columns.event_id)
    if source is CORRECTED:
        query = query.where(columns.sign == 1)
        later &= _later.c.revision > columns.revision
    return query.where(~select(literal(1)).where(later).exists())


async def _has_corrections(tx: Tx, user_id: str) -> bool:
    query = select(_corrected.user_id).where(_corrected.user_id == user_id).limit(1)
    return await tx.first(query) is not None


async def _wrapped_keys(
    tx: Tx,
    user_id: str,
    measure: str,
    where: Where,
    names: Sequence[str],
    pieces: Sequence[Span],
) -> Collection[tuple[int, Names]]:
    columns = WRAPPED.table.c
    if not set(names) <= set(columns.keys()):
        return ()
    carrying = columns[measure.replace("_us", "_calls")] > 0
    own = [columns.user_id == user_id, carrying, *where(WRAPPED)]
    named = [WRAPPED.named(name) for name in names]
    return await summed(tx, WRAPPED, own, named, pieces, MOST_READ)


def _rank(total: ColumnElement[int], percent: int) -> ColumnElement[int]:
    """Which value, counted from 1 upwards, has at least `percent` of all at or below it."""
    return (total * percent + 99) // 100
