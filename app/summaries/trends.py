"""A user's totals over billing periods: which periods, and what was used in each."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple

from sqlalchemy import func, select

from app.core.clock import EPOCH, MICROSECOND
from app.db.engine import Tx
from app.db.types import table_of
from app.plans.known import Agreement
from app.plans.periods import Period, zone
from app.summaries.tables import PeriodTotal

LAST_YEAR = 2999


class Used(NamedTuple):
    """What was used of one model, or of several together."""

    calls: int
    errors: int
    input_tokens: int
    output_tokens: int
    cost_nanos: int
    unpriced_calls: int
    latency_calls: int
    latency_us: int

    def __add__(self, other: "Used") -> "Used":  # type: ignore[override]
        return Used(*map(int.__add__, self, other))

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def error_rate(self) -> float:
        """Failed calls in percent, with two decimals."""
        return round(self.errors * 100 / self.calls, 2) if self.calls else 0.0

    @property
    def avg_latency_ms(self) -> float | None:
        """The mean over the calls that carry a latency."""
        if not self.latency_calls:
            return None
        return round(self.latency_us / self.latency_calls / 1000, 3)


NONE_USED = Used(0, 0, 0, 0, 0, 0, 0, 0)
ByModel = Mapping[tuple[str, str], Used]
"""What was used, by provider and model."""

_total = table_of(PeriodTotal).c
_SUMS = tuple(func.sum(_total[name]) for name in Used._fields)


async def used_in(tx: Tx, user_id: str, periods: Sequence[Period]) -> list[ByModel]:
    """What the user used in each of these periods, which follow one another, oldest first."""
    query = (
        select(_total.period_start, _total.provider, _total.model, *_SUMS)
        .where(
            _total.user_id == user_id,
            _total.period_start >= periods[0].start,
            _total.period_start < periods[-1].end,
        )
        .group_by(_total.period_start, _total.provider, _total.model)
    )
    return spread(periods, map(_total_of, await tx.fetch(query)))


def _total_of(row: Sequence[Any]) -> tuple[datetime, str, str, Used]:
    start, provider, model, *sums = row
    return start, provider, model, Used(*map(int, sums))  # PostgreSQL sums to numeric


def spread(
    periods: Sequence[Period], totals: Iterable[tuple[datetime, str, str, Used]]
) -> list[ByModel]:
    """Give each total to the period it starts in; a period without one has used nothing. Pure."""
    starts = [period.start for period in periods]
    found: list[dict[tuple[str, str], Used]] = [{} for _ in periods]
    for start, provider, model, used in totals:
        models = found[bisect_right(starts, start) - 1]
        key = (provider, model)
        models[key] = models.get(key, NONE_USED) + used
    return list(found)


def last_periods(agreement: Agreement, now: datetime, count: int) -> list[Period]:
    """The last `count` periods up to the one at `now`, oldest first; none is before 1970."""
    found = [agreement.period_at(now)]
    while len(found) < count and found[-1].start > EPOCH:
        found.append(agreement.period_at(found[-1].start - MICROSECOND))
    return found[::-1]


def periods_until(
    agreement: Agreement, moment: datetime, first: datetime, count: int
) -> list[Period]:
    """At most `count` periods, newest first: from the one at `moment` to the one at `first`."""
    found = [agreement.period_at(moment)]
    while len(found) < count and found[-1].start > max(first, EPOCH):
        found.append(agreement.period_at(found[-1].start - MICROSECOND))
    return found


async def first_used(tx: Tx, user_id: str) -> datetime | None:
    """When the first period began in which the user used anything."""
    row = await tx.first(select(func.min(_total.period_start)).where(_total.user_id == user_id))
    return None if row is None else row[0]


def find_period(agreement: Agreement, text: str) -> Period | None:
    """The period with this key, else the one that begins on this day; of several the last.

    An instant means the period that begins then, which tells those apart that share a key.
    """
    begins = _instant(text)
    if begins is not None:
        found = agreement.period_at(begins)
        return found if found.start == begins else None
    day = _day(text)
    if day is None:
        return None
    noon = datetime.combine(day, time(12), UTC)
    at, until = max(EPOCH, noon - timedelta(days=2)), noon + timedelta(days=2)
    named = begun = None
    while at < until:
        period = agreement.period_at(at)
        local = period.start.astimezone(zone(agreement.terms_at(at).timezone))
        if period.key == text:
            named = period
        elif local.date().isoformat() == text:
            begun = period
        at = period.end
    return named or begun


def _instant(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text.replace(" ", "+"))  # a plus that came unescaped
        moment = None if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment if moment is not None and EPOCH.year <= moment.year <= LAST_YEAR else None


def _day(text: str) -> date | None:
    if not text.isascii() or len(text) not in (7, 10):
        return None
    try:
        day = date.fromisoformat(text if len(text) == 10 else f"{text}-01")
    except ValueError:
        return None
    return day if EPOCH.year <= day.year <= LAST_YEAR and day.isoformat().startswith(text) else None
