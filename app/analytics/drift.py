"""How far the costs that callers stated are from ours, by the door they came through and the model.

A table of additive totals answers, one row a day, door and model: what it takes does not grow with
the number of calls. It moves in the transaction that records, corrects or re-rates a call.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import func, select

from app.core.errors import InvalidInput
from app.db.engine import Tx
from app.db.types import table_of
from app.summaries.buckets import hurry
from app.summaries.tables import DriftTotal

MOST = 10_000
_drift = table_of(DriftTotal).c
_SUMS = (_drift.calls, _drift.calls_apart, _drift.stated_nanos, _drift.priced_nanos)


class Drift(NamedTuple):
    """The calls of one door and model that have both costs, of which `events_apart` are more than
    5 % apart, and what both come to in nano-dollars.
    """

    source: str
    provider: str
    model: str
    events: int
    events_apart: int
    stated_nanos: int
    priced_nanos: int

    @property
    def percent(self) -> float | None:
        """How much more was stated than we would charge, with two decimals; None of nothing."""
        if not self.priced_nanos:
            return None
        return round((self.stated_nanos - self.priced_nanos) * 100 / self.priced_nanos, 2)


async def drift(tx: Tx, start: datetime, end: datetime) -> list[Drift]:
    """What was compared on the days in UTC that begin in `start <= t < end`, by names.

    Raises:
        InvalidInput: more than 10,000 doors and models together.
    """
    names = (_drift.source, _drift.provider, _drift.model)
    query = (
        select(*names, *(func.sum(one) for one in _SUMS))
        .where(_drift.day >= start, _drift.day < end)
        .group_by(*names)
        .having(func.sum(_drift.calls) > 0)
        .order_by(*names)
    )
    await hurry(tx)
    rows = await tx.fetch(query.limit(MOST + 1))
    if len(rows) > MOST:
        raise InvalidInput.at("/days", f"days: more than {MOST:,} models; take fewer days")
    return [Drift(*row[:3], *map(int, row[3:])) for row in rows]


def together(drifts: Sequence[Drift]) -> Drift:
    """All of them as one, without names. Pure."""
    return Drift(
        *("", "", ""),
        sum(one.events for one in drifts),
        sum(one.events_apart for one in drifts),
        sum(one.stated_nanos for one in drifts),
        sum(one.priced_nanos for one in drifts),
    )
