"""Which piece of a range an instant is in, as SQL that is the same however many pieces there are.

A statement that names each piece would grow with them, and so would what is kept of every
statement that was ever compiled: thousands of hours are some megabytes.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Integer, func, literal
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from app.core.clock import MICROSECOND
from app.db.types import Moment, Whole
from app.summaries.grains import Span, next_of
from app.summaries.sources import HourStart

_MOMENTS: postgresql.ARRAY[datetime] = postgresql.ARRAY(postgresql.TIMESTAMP(timezone=True))


class _Steps(FunctionElement[int]):
    """How many whole steps of so many microseconds lie between an instant and an earlier one."""

    type = Integer()
    inherit_cache = True


@compiles(_Steps, "sqlite")
def _steps(element: _Steps, compiler: Any, **kw: Any) -> str:
    at, origin, step = (compiler.process(one, **kw) for one in element.clauses)
    return f"(({at} - {origin}) / {step})"


class _Months(FunctionElement[int]):
    """How many months lie between the month of an hour and an earlier one, counted from year 0."""

    type = Integer()
    inherit_cache = True


@compiles(_Months, "sqlite")
def _months(element: _Months, compiler: Any, **kw: Any) -> str:
    hour, first = element.clauses
    year, month = (
        f"strftime('%{part}', {compiler.process(hour, **kw)} / 1000000, 'unixepoch')"
        for part in "Ym"
    )
    return f"({year} * 12 + {month} - {compiler.process(first, **kw)})"


def place_of(
    dialect: str, at: ColumnElement[datetime], pieces: Sequence[Span]
) -> ColumnElement[int]:
    """Which of the pieces an instant within them is in; they follow one another.

    Raises:
        ValueError: on SQLite, pieces that are neither of one length nor months.
    """
    if len(pieces) == 1:
        return literal(0)
    if dialect == "postgresql":
        starts = literal([piece.start for piece in pieces], _MOMENTS)
        return func.width_bucket(at, starts, type_=Integer()) - 1
    step = _step_of(pieces)
    if step is not None:
        origin = literal(pieces[1].start - step, Moment())
        return _Steps(at, origin, literal(step // MICROSECOND, Whole))
    if any(next_of(one.start, "month") != one.end for one in pieces[1:-1]):
        raise ValueError("pieces of a range are of one length, or months")
    first = pieces[0].start
    return _Months(HourStart(at), literal(first.year * 12 + first.month, Whole))


def _step_of(pieces: Sequence[Span]) -> timedelta | None:
    """How long each piece is; the first may have begun and the last may end within its own."""
    lengths = [piece.end - piece.start for piece in pieces]
    step = max(lengths[1:-1], default=max(lengths))
    same = all(length == step for length in lengths[1:-1])
    return step if same and lengths[0] <= step and lengths[-1] <= step else None
