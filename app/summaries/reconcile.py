"""Prove that the totals are what the log sums to; every comparison is one statement.

Two sides are summed by the same key in the database, laid over each other, and only what differs
comes back: a million rows of log cost the reader nothing. The side that is right is the log with
what was wrapped and what was corrected (`sources.py`).
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    Text,
    case,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    tuple_,
    union_all,
)

from app.core.clock import rfc3339
from app.core.money import to_usd
from app.db.engine import Tx
from app.db.types import table_of
from app.summaries.fold import SEPARATOR
from app.summaries.sources import (
    BITS,
    COUNTS,
    DIMENSIONS,
    HALVES,
    HOURS,
    PERIODS,
    RECORDED,
    Source,
    exact_sums,
    halves,
    joined,
)
from app.summaries.tables import MEASURES
from app.usage.tables import UsageEvent, WrappedEvent
from app.usage.wrapped import find_wrapped

MAX_DIFFERENCES = 1_000
PAGE = 5_000
Where = dict[str, str]


class Difference(NamedTuple):
    """One place where two sides of an identity disagree; `expected` is the log's side."""

    identity: str
    where: Where
    expected: int | str
    found: int | str


class Verdict(NamedTuple):
    """What came of one identity: how many keys were compared, how many values differ."""

    name: str
    compared: int
    differing: int
    differences: Sequence[Difference]

    @property
    def holds(self) -> bool:
        return not self.differing


_log = table_of(UsageEvent).c
_hour = HOURS.table.c
_dimension = DIMENSIONS.table.c
_BY_MODEL = ("user_id", "provider", "model")
_BY_HOUR = ("user_id", "hour", "provider", "model", "task_type")
_SEPARATOR: ColumnElement[str] = literal_column("'" + SEPARATOR + "'", Text)
_SIDES = ("expected", "found")


def _summed(
    source: Source,
    names: Sequence[str],
    keys: Sequence[ColumnElement[Any]],
    where: ColumnElement[bool] | None = None,
) -> Select[Any]:
    labelled = [key.label(name) for key, name in zip(keys, names, strict=True)]
    sums = exact_sums(source.amount_of)
    return select(*labelled, *sums).where(true() if where is None else where).group_by(*keys)


def _side(names: Sequence[str], sums: FromClause, side: str) -> Select[Any]:
    """The sums as one side, zeros as the other."""
    return select(
        *(sums.c[name] for name in names),
        *(
            (sums.c[half] if one == side else literal(0)).label(f"{one}_{half}")
            for one in _SIDES
            for half in HALVES
        ),
    )


def _laid_over(
    names: Sequence[str], expected: Sequence[Select[Any]], found: Select[Any]
) -> Select[Any]:
    """The keys where the sides differ, both sums of each measure beside; first the counts.

    There is a row also where nothing differs, so that the counts always come back.
    """
    sides = union_all(
        *(_side(names, one.subquery(), "expected") for one in expected),
        _side(names, found.subquery(), "found"),
    ).subquery()
    both = (
        select(
            *(sides.c[name] for name in names),
            *(func.sum(column).label(column.name) for column in list(sides.c)[len(names) :]),
        )
        .group_by(*(sides.c[name] for name in names))
        .cte("both_sides")
    )
    unequal = [_unequal(both, name) for name in MEASURES]
    differing = sum(
        (case((one, 1), else_=0) for one in unequal[1:]), case((unequal[0], 1), else_=0)
    )
    counts = select(
        func.count().label("compared"), func.coalesce(func.sum(differing), 0).label("differing")
    ).select_from(both)
    counted = counts.cte("counts")
    return (
        select(counted.c.compared, counted.c.differing, *both.c)
        .select_from(counted.outerjoin(both, or_(*unequal)))
        .order_by(*(both.c[name] for name in names))
        .limit(MAX_DIFFERENCES)
    )


def _unequal(both: FromClause, name: str) -> ColumnElement[bool]:
    """Whether the sides differ in a measure, however its sums are split into halves."""
    apart = [both.c[f"expected_{half}"] - both.c[f"found_{half}"] for half in halves(name)]
    if name in COUNTS:
        return apart[0] != 0
    return apart[0] * (1 << BITS) + apart[1] != 0


async def _compared(
    tx: Tx,
    identity: str,
    names: Sequence[str],
    expected: Sequence[Select[Any]],
    found: Select[Any],
) -> Verdict:
    rows = await tx.fetch(_laid_over(names, expected, found))
    compared, differing = int(rows[0].compared), int(rows[0].differing)
    differences = []
    for row in rows if differing else ():
        rest = list(row)[2:]
        key, sums = rest[: len(names)], rest[len(names) :]
        middle = len(HALVES)
        sides = (joined(sums[:middle]), joined(sums[middle:]))
        for measure, should, does in zip(MEASURES, *sides, strict=True):
            if should != does:
                differences.append(difference(identity, names, key, measure, should, does))
    return Verdict(identity, compared, differing, differences[:MAX_DIFFERENCES])


def difference(
    identity: str, names: Sequence[str], key: Sequence[Any], measure: str, should: int, does: int
) -> Difference:
    """One value of a total that is not what it should be, as people read it."""
    where = place(names, key) | {"measure": "cost_usd" if measure == "cost_nanos" else measure}
    return Difference(identity, where, amount(measure, should), amount(measure, does))


def place(names: Sequence[str], key: Sequence[Any]) -> Where:
    """A key as people read it."""
    found: Where = {}
    for name, value in zip(names, key, strict=True):
        if name == "value":
            found["provider"], _, found["model"] = value.partition(SEPARATOR)
        else:
            found[name] = value if isinstance(value, str) else rfc3339(value)
    return found


def amount(measure: str, value: int) -> int | str:
    """A sum for the wire: money as a decimal string."""
    return to_usd(value) if measure in ("cost_nanos", "cost_usd") else value


# ---- the identities -----------------------------------------------------------------------------


async def log_is_hours(tx: Tx) -> Verdict:
    """What was recorded sums to the hourly totals: per user, hour, model and kind of task."""
    recorded = [_summed(source, _BY_HOUR, _keys(source, _BY_HOUR)) for source in RECORDED]
    hours = _summed(HOURS, _BY_HOUR, _keys(HOURS, _BY_HOUR))
    return await _compared(tx, "log_equals_hour_totals", _BY_HOUR, recorded, hours)


def _keys(source: Source, names: Sequence[str]) -> list[ColumnElement[Any]]:
    return [
        source.hour
        if name == "hour"
        else source.named(name)
        if name == "task_type"
        else source.table.c[name]
        for name in names
    ]


async def hours_are_periods(tx: Tx) -> Verdict:
    """The hourly totals sum to the periods' totals, per user, provider and model."""
    hours = _summed(HOURS, _BY_MODEL, _keys(HOURS, _BY_MODEL))
    periods = _summed(PERIODS, _BY_MODEL, _keys(PERIODS, _BY_MODEL))
    return await _compared(tx, "hour_totals_equal_period_totals", _BY_MODEL, [hours], periods)


async def hours_are_models(tx: Tx) -> Verdict:
    """All users' totals by model are what their own totals sum to, per hour and model."""
    names = ("hour", "value")
    # the separator as a literal: grouped by a parameter, PostgreSQL takes it for another one
    value = _hour.provider.concat(_SEPARATOR).concat(_hour.model)
    hours = _summed(HOURS, names, [_hour.hour, value])
    kept = [_dimension.hour, _dimension.value]
    models = _summed(DIMENSIONS, names, kept, _dimension.dimension == "model")
    return await _compared(tx, "hour_totals_equal_models", names, [hours], models)


async def hours_are(tx: Tx, identity: str, dimension: str) -> Verdict:
    """A dimension that every call is in sums to the whole, per hour."""
    hours = _summed(HOURS, ("hour",), [_hour.hour])
    kept = _summed(DIMENSIONS, ("hour",), [_dimension.hour], _dimension.dimension == dimension)
    return await _compared(tx, identity, ("hour",), [hours], kept)


async def events_are_unique(tx: Tx) -> Verdict:
    """Each event of a user is in the log once, or among what was wrapped; never in both."""
    identity = "events_counted_once"
    times = func.count().label("times")
    counts = select(_log.user_id, _log.event_id, times).group_by(_log.user_id, _log.event_id)
    again = counts.having(times > 1).subquery()
    logged, wrapped = [
        (await tx.fetch(select(func.count()).select_from(table_of(kept))))[0][0]
        for kept in (UsageEvent, WrappedEvent)
    ]
    differing = (await tx.fetch(select(func.count()).select_from(again)))[0][0]
    found: list[tuple[str, str, int]] = []
    if differing:
        found = [tuple(row) for row in await tx.fetch(select(*again.c).limit(MAX_DIFFERENCES))]
    if wrapped:
        async for user_id, event_id in _in_both(tx):
            differing += 1
            if len(found) < MAX_DIFFERENCES:
                found.append((user_id, event_id, 2))
    differences = [
        Difference(identity, {"user_id": user_id, "event_id": event_id}, 1, often)
        for user_id, event_id, often in found
    ]
    return Verdict(identity, logged + wrapped, differing, differences)


async def _in_both(tx: Tx) -> AsyncIterator[tuple[str, str]]:
    """The events of the log that are known as wrapped too."""
    order = (_log.event_id, _log.user_id)
    page: Sequence[Any] = await tx.fetch(select(*order).order_by(*order).limit(PAGE))
    while page:
        for key in await find_wrapped(tx, [(row.user_id, row.event_id) for row in page]):
            yield key
        last = tuple_(*(literal(value) for value in page[-1]))
        later = select(*order).where(tuple_(*order) > last)
        page = await tx.fetch(later.order_by(*order).limit(PAGE))


async def reconcile(tx: Tx) -> list[Verdict]:
    """Judge every identity between the log and its totals, on the snapshot of `tx`."""
    return [
        await log_is_hours(tx),
        await hours_are_periods(tx),
        await events_are_unique(tx),
        await hours_are_models(tx),
        await hours_are(tx, "hour_totals_equal_endpoints", "endpoint"),
        await hours_are(tx, "hour_totals_equal_status_codes", "status_code"),
    ]
