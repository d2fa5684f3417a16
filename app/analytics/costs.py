"""What everyone, or one user, spent: over some days, on one day, and ever since."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import func, select

from app.analytics.everyone import first_hour, used_by, used_in
from app.core.errors import InvalidInput
from app.db.engine import Tx
from app.db.types import table_of
from app.summaries.buckets import (
    Names,
    TooManyError,
    by_names,
    by_place,
    hurry,
    summed,
    whole,
)
from app.summaries.detail import all_of, details, is_readable, used_in_hours
from app.summaries.grains import Span, cut
from app.summaries.sources import HOURS
from app.summaries.sums import Sums
from app.summaries.tables import HourTotal, PeriodTotal

MOST_SUMS = 100_000
MOST_DAYS = 3_660

_hour, _period = table_of(HourTotal).c, table_of(PeriodTotal).c
ByName = Mapping[Names, Sums]


class Costs(NamedTuple):
    """What some days came to. `models` and `days` each sum to `used`.

    `endpoints` too, or it is None where a user's log no longer holds every call.
    """

    used: Sums
    models: ByName
    days: Sequence[tuple[Span, Sums]]
    endpoints: ByName | None


async def read_costs(tx: Tx, user_id: str | None, span: Span) -> Costs:
    """The costs of one user, or of everyone, on the days of `span`.

    Raises:
        InvalidInput: there is too much to tell at once.
    """
    days = cut(span, "day", MOST_DAYS)
    assert days is not None
    if user_id is None:
        models = await used_by(tx, "model", days)
        endpoints: ByName | None = await used_in(tx, "endpoint", span)
    else:
        own = [_hour.user_id == user_id]
        try:
            names = [_hour.provider, _hour.model]
            models = await summed(tx, HOURS, own, names, days, MOST_SUMS)
            endpoints = await _endpoints_of(tx, user_id, span)
        except TooManyError:
            raise InvalidInput.at("/days", "days: too much to tell at once; take fewer") from None
    by_day = list(zip(days, by_place(models, len(days)), strict=True))
    return Costs(whole(models), by_names(models), by_day, endpoints)


async def _endpoints_of(tx: Tx, user_id: str, span: Span) -> ByName | None:
    used = await used_in_hours(tx, user_id, span)
    if not await is_readable(tx, user_id, span, used):
        return None
    return by_names(await details(tx, user_id, all_of, ("endpoint",), [span], MOST_SUMS))


async def read_totals(tx: Tx) -> tuple[Sums, datetime | None]:
    """All that everyone ever used, and the first hour of it."""
    await hurry(tx)
    sums = (func.coalesce(func.sum(_period[name]), 0) for name in Sums._fields)
    return Sums(*map(int, (await tx.fetch(select(*sums)))[0])), await first_hour(tx)
