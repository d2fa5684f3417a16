"""Which models were seen without a price, from the totals and never from the log."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import func, select, tuple_

from app.db.engine import Tx
from app.db.types import table_of
from app.summaries.tables import HourTotal

_hours = table_of(HourTotal).c


class Unpriced(NamedTuple):
    """A model with calls that have no cost, and the first and the last hour that has any."""

    provider: str
    model: str
    calls: int
    users: int
    first_hour: datetime
    last_hour: datetime


async def list_unpriced(
    tx: Tx, after: tuple[str, str] | None, limit: int
) -> tuple[list[Unpriced], bool]:
    """Models in the order of their names, from behind `after` on, and whether there are more.

    An index holds the hours that have such calls and no others, so what is priced costs nothing.
    """
    query = select(
        _hours.provider,
        _hours.model,
        func.sum(_hours.unpriced_calls),
        func.count(_hours.user_id.distinct()),
        func.min(_hours.hour),
        func.max(_hours.hour),
    ).where(_hours.unpriced_calls != 0)
    if after is not None:
        query = query.where(tuple_(_hours.provider, _hours.model) > tuple_(*after))
    grouped = query.group_by(_hours.provider, _hours.model).order_by(_hours.provider, _hours.model)
    some = grouped.having(func.sum(_hours.unpriced_calls) > 0).limit(limit + 1)
    rows = [
        Unpriced(row[0], row[1], int(row[2]), row[3], row[4], row[5])
        for row in await tx.fetch(some)
    ]
    return rows[:limit], len(rows) > limit
