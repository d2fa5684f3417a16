"""Where what was used is kept: in the log, in sums of what was wrapped, in corrections of both.

Every figure is the sum over these three. A sum may pass 64 bits where none of its parts does, and
SQLite has nothing wider: what may grow so far is added up in two halves.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Integer, case, func, literal, literal_column
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import FromClause
from sqlalchemy.sql.functions import FunctionElement

from app.db.types import Moment, table_of
from app.summaries.tables import (
    MEASURES,
    HourDimension,
    HourTotal,
    PeriodTotal,
    WrappedUsage,
)
from app.usage.tables import UsageCorrection, UsageEvent

HOUR_MICROS = 3_600_000_000
BITS = 32
_BITS: ColumnElement[int] = literal_column(str(BITS), Integer)
_LOW: ColumnElement[int] = literal_column(str((1 << BITS) - 1), Integer)
COUNTS = frozenset(name for name in MEASURES if name.endswith("calls")) | {"errors"}
"""Measures that grow by one a call, so that no sum of them passes 64 bits."""


class Source(NamedTuple):
    """Rows that add up: when each one was, in which hour, and what it adds to each measure."""

    table: FromClause
    at: ColumnElement[datetime]
    hour: ColumnElement[datetime]
    amount_of: Callable[[str], ColumnElement[int]]

    def named(self, name: str) -> ColumnElement[Any]:
        """A name of the calls; one that was not given is an empty string."""
        column = self.table.c[name]
        return column if name == "status_code" else func.coalesce(column, "")


class HourStart(FunctionElement[datetime]):
    """The start of the UTC hour that contains an instant."""

    type = Moment()
    inherit_cache = True


@compiles(HourStart, "sqlite")
def _in_micros(element: HourStart, compiler: Any, **kw: Any) -> str:
    at = compiler.process(element.clauses, **kw)
    return f"({at} - (({at} % {HOUR_MICROS}) + {HOUR_MICROS}) % {HOUR_MICROS})"


@compiles(HourStart, "postgresql")
def _truncated(element: HourStart, compiler: Any, **kw: Any) -> str:
    return f"date_trunc('hour', {compiler.process(element.clauses, **kw)}, 'UTC')"


def _of_calls(table: FromClause) -> Callable[[str], ColumnElement[int]]:
    """What one row of single calls adds; `fold.measures_of` says the same of an entry."""

    def amount_of(measure: str) -> ColumnElement[int]:
        if measure == "calls":
            return literal(1)
        if measure == "errors":
            return case((table.c.status_code >= 400, 1), else_=0)
        if measure == "unpriced_calls":
            return case((table.c.cost_nanos.is_(None), 1), else_=0)
        if measure.endswith("_calls"):
            return case((table.c[measure.replace("_calls", "_us")].is_(None), 0), else_=1)
        return func.coalesce(table.c[measure], 0)

    return amount_of


def _columns_of(table: FromClause) -> Callable[[str], ColumnElement[int]]:
    return lambda measure: table.c[measure]


def _signed(table: FromClause) -> Callable[[str], ColumnElement[int]]:
    plain = _of_calls(table)
    return lambda measure: plain(measure) * table.c.sign


_log, _wrapped = table_of(UsageEvent), table_of(WrappedUsage)
_corrected = table_of(UsageCorrection)
_hours, _periods = table_of(HourTotal), table_of(PeriodTotal)
_dimensions = table_of(HourDimension)

LOG = Source(_log, _log.c.timestamp, HourStart(_log.c.timestamp), _of_calls(_log))
WRAPPED = Source(_wrapped, _wrapped.c.first_at, _wrapped.c.hour, _columns_of(_wrapped))
CORRECTED = Source(
    _corrected, _corrected.c.timestamp, HourStart(_corrected.c.timestamp), _signed(_corrected)
)
RECORDED = (LOG, WRAPPED, CORRECTED)
"""All that was used: each figure is what these sum to together."""
HOURS = Source(_hours, _hours.c.hour, _hours.c.hour, _columns_of(_hours))
PERIODS = Source(_periods, _periods.c.period_start, _periods.c.period_start, _columns_of(_periods))

DIMENSIONS = Source(_dimensions, _dimensions.c.hour, _dimensions.c.hour, _columns_of(_dimensions))


# ---- exact sums ---------------------------------------------------------------------------------


def halves(name: str) -> tuple[str, ...]:
    """The columns that a measure is added up in."""
    return (name,) if name in COUNTS else (f"{name}_high", f"{name}_low")


HALVES = tuple(half for name in MEASURES for half in halves(name))


def exact_sums(amount_of: Callable[[str], ColumnElement[int]]) -> list[ColumnElement[int]]:
    """The sum of every measure, in the columns `HALVES`."""
    found: list[ColumnElement[int]] = []
    for name in MEASURES:
        amount = amount_of(name)
        parts = (
            [amount] if name in COUNTS else [amount.bitwise_rshift(_BITS), amount.bitwise_and(_LOW)]
        )
        found += [
            func.sum(part).label(half) for part, half in zip(parts, halves(name), strict=True)
        ]
    return found


def joined(values: Sequence[Any]) -> list[int]:
    """The sums in the order of `MEASURES`, from the columns `HALVES`. Pure."""
    left = map(int, values)
    return [
        next(left) if name in COUNTS else (next(left) << BITS) + next(left) for name in MEASURES
    ]
