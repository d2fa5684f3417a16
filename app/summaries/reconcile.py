"""Prove that the totals are what the log sums to; every comparison is one statement.

Two sides are summed by the same key in the database, laid over each other, and only what differs
comes back: a million rows of log cost the reader nothing.
"""

from collections.abc import Callable, Sequence
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
    union_all,
)

from app.core.clock import rfc3339
from app.core.money import to_usd
from app.db.engine import Tx
from app.db.types import table_of
from app.summaries.fold import SEPARATOR
from app.summaries.tables import MEASURES, HourDimension, HourTotal, PeriodTotal
from app.usage.tables import UsageEvent

MAX_DIFFERENCES = 1_000
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
_hour = table_of(HourTotal).c
_period = table_of(PeriodTotal).c
_dimension = table_of(HourDimension).c
_BY_MODEL = ("user_id", "provider", "model")
_SEPARATOR: ColumnElement[str] = literal_column("'" + SEPARATOR + "'", Text)


def _logged(measure: str) -> ColumnElement[int]:
    """What one log row adds to a measure; `fold.measures_of` says the same of an entry."""
    if measure == "calls":
        return literal(1)
    if measure == "errors":
        return case((_log.status_code >= 400, 1), else_=0)
    if measure == "unpriced_calls":
        return case((_log.cost_nanos.is_(None), 1), else_=0)
    if measure.endswith("_calls"):
        carried = _log[measure.replace("_calls", "_us")]
        return case((carried.is_(None), 0), else_=1)
    return func.coalesce(_log[measure], 0)


def _summed(
    keys: Sequence[ColumnElement[Any]],
    names: Sequence[str],
    amount_of: Callable[[str], ColumnElement[int]],
    where: ColumnElement[bool] | None = None,
) -> FromClause:
    sums = (func.sum(amount_of(name)).label(name) for name in MEASURES)
    labelled = [key.label(name) for key, name in zip(keys, names, strict=True)]
    query = select(*labelled, *sums).where(true() if where is None else where).group_by(*keys)
    return query.subquery()


def _of(columns: Any) -> Callable[[str], ColumnElement[int]]:
    return lambda name: columns[name]


def _laid_over(names: Sequence[str], expected: FromClause, found: FromClause) -> Select[Any]:
    """The keys where the sides differ, both sums of each measure beside; first the counts.

    There is a row also where nothing differs, so that the counts always come back.
    """
    sides = union_all(
        select(
            *(expected.c[name] for name in names),
            *(expected.c[name].label(f"expected_{name}") for name in MEASURES),
            *(literal(0).label(f"found_{name}") for name in MEASURES),
        ),
        select(
            *(found.c[name] for name in names),
            *(literal(0).label(f"expected_{name}") for name in MEASURES),
            *(found.c[name].label(f"found_{name}") for name in MEASURES),
        ),
    ).subquery()
    both = (
        select(
            *(sides.c[name] for name in names),
            *(func.sum(column).label(column.name) for column in list(sides.c)[len(names) :]),
        )
        .group_by(*(sides.c[name] for name in names))
        .cte("both_sides")
    )
    unequal = [both.c[f"expected_{name}"] != both.c[f"found_{name}"] for name in MEASURES]
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


async def _compared(
    tx: Tx, identity: str, names: Sequence[str], expected: FromClause, found: FromClause
) -> Verdict:
    rows = await tx.fetch(_laid_over(names, expected, found))
    compared, differing = int(rows[0].compared), int(rows[0].differing)
    differences = []
    for row in rows if differing else ():
        rest = list(row)[2:]
        key, sums = rest[: len(names)], list(map(int, rest[len(names) :]))
        middle = len(MEASURES)
        for measure, should, does in zip(MEASURES, sums[:middle], sums[middle:], strict=True):
            if should != does:
                where = place(names, key) | {"measure": _shown_as(measure)}
                differences.append(
                    Difference(identity, where, amount(measure, should), amount(measure, does))
                )
    return Verdict(identity, compared, differing, differences[:MAX_DIFFERENCES])


def place(names: Sequence[str], key: Sequence[Any]) -> Where:
    """A key as people read it."""
    found: Where = {}
    for name, value in zip(names, key, strict=True):
        if name == "value":
            found["provider"], _, found["model"] = value.partition(SEPARATOR)
        else:
            found[name] = value if isinstance(value, str) else rfc3339(value)
    return found


def _shown_as(measure: str) -> str:
    return "cost_usd" if measure == "cost_nanos" else measure


def amount(measure: str, value: int) -> int | str:
    """A sum for the wire: money as a decimal string."""
    return to_usd(value) if measure in ("cost_nanos", "cost_usd") else value


# ---- the identities -----------------------------------------------------------------------------


async def log_is_hours(tx: Tx) -> Verdict:
    """The log sums to the hourly totals, per user, provider and model."""
    log = _summed([_log[name] for name in _BY_MODEL], _BY_MODEL, _logged)
    hours = _summed([_hour[name] for name in _BY_MODEL], _BY_MODEL, _of(_hour))
    return await _compared(tx, "log_equals_hour_totals", _BY_MODEL, log, hours)


async def hours_are_periods(tx: Tx) -> Verdict:
    """The hourly totals sum to the periods' totals, per user, provider and model."""
    hours = _summed([_hour[name] for name in _BY_MODEL], _BY_MODEL, _of(_hour))
    periods = _summed([_period[name] for name in _BY_MODEL], _BY_MODEL, _of(_period))
    return await _compared(tx, "hour_totals_equal_period_totals", _BY_MODEL, hours, periods)


async def hours_are_models(tx: Tx) -> Verdict:
    """All users' totals by model are what their own totals sum to, per hour and model."""
    names = ("hour", "value")
    # the separator as a literal: grouped by a parameter, PostgreSQL takes it for another one
    value = _hour.provider.concat(_SEPARATOR).concat(_hour.model)
    hours = _summed([_hour.hour, value], names, _of(_hour))
    models = _summed(
        [_dimension.hour, _dimension.value], names, _of(_dimension), _dimension.dimension == "model"
    )
    return await _compared(tx, "hour_totals_equal_models", names, hours, models)


async def hours_are(tx: Tx, identity: str, dimension: str) -> Verdict:
    """A dimension that every call is in sums to the whole, per hour."""
    hours = _summed([_hour.hour], ("hour",), _of(_hour))
    kept = _summed([_dimension.hour], ("hour",), _of(_dimension), _dimension.dimension == dimension)
    return await _compared(tx, identity, ("hour",), hours, kept)


async def events_are_unique(tx: Tx) -> Verdict:
    """Each event of a user is in the log once."""
    identity = "events_counted_once"
    times = func.count().label("times")
    counts = select(_log.user_id, _log.event_id, times).group_by(_log.user_id, _log.event_id)
    again = counts.having(times > 1).subquery()
    total = select(func.count()).select_from(table_of(UsageEvent))
    compared = (await tx.fetch(total))[0][0]
    differing = (await tx.fetch(select(func.count()).select_from(again)))[0][0]
    differences = []
    if differing:
        for row in await tx.fetch(select(*again.c).limit(MAX_DIFFERENCES)):
            where = {"user_id": row.user_id, "event_id": row.event_id}
            differences.append(Difference(identity, where, 1, row.times))
    return Verdict(identity, compared, differing, differences)


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
