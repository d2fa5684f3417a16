"""What the pages of one user show, read from totals, counters and a page of the log."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import func, select

from app.alerts.tables import Alert
from app.analytics.usage import agreed
from app.core.clock import MICROSECOND, Clock
from app.core.errors import InvalidInput
from app.dashboard.span import Span as Asked
from app.db.clock import database_now
from app.db.engine import Tx
from app.db.types import table_of
from app.limits.check import State
from app.limits.hold_ends import list_open
from app.limits.holds import HoldRow
from app.limits.manage import states_now
from app.plans.known import Agreement
from app.plans.periods import Period, Terms
from app.plans.subscriptions import PlanRow, find_plan, terms_of
from app.summaries.buckets import Table, TooManyError, by_names, by_place, summed, whole
from app.summaries.grains import Span, cut, whole_hours
from app.summaries.sources import HOURS
from app.summaries.sums import NONE, Sums
from app.summaries.tables import HourTotal
from app.summaries.trends import NONE_USED, Used, first_used, periods_until, used_in

MOST_SUMS, MOST_PIECES = 100_000, 2_208
Model = tuple[str, str]
_hour, _alert = table_of(HourTotal).c, table_of(Alert).c


class UserUsage(NamedTuple):
    """What a user used in a range, piece by piece and by (provider, model), and in the one before.

    `in_period` is what the running billing period came to, `states` the limits in their windows.
    """

    period: Period
    in_period: Used
    states: Sequence[State]
    pieces: Sequence[Span]
    table: Table
    before: Sums
    ever: bool

    @property
    def used(self) -> Sums:
        return whole(self.table)

    @property
    def models(self) -> Mapping[Model, Sums]:
        """Each model that was used, by (provider, model)."""
        return {(names[0], names[1]): sums for names, sums in by_names(self.table).items()}

    def series_of(self, model: Model) -> list[Sums]:
        """What one model used in each piece of the range."""
        return [self.table.get((place, model), NONE) for place in range(len(self.pieces))]

    @property
    def by_piece(self) -> list[Sums]:
        """What every model used together in each piece of the range."""
        return by_place(self.table, len(self.pieces))


async def read_user_usage(tx: Tx, user_id: str, asked: Asked, clock: Clock) -> UserUsage:
    """Where the user stands and what they used, from totals alone; a dozen short statements.

    Raises:
        InvalidInput: there is too much to tell at once.
    """
    now = clock.now()
    agreement = await agreed(tx, user_id)
    period = agreement.period_at(now)
    [in_period] = await used_in(tx, user_id, [period])
    span = whole_hours(Span(asked.start, asked.end))
    before = whole_hours(Span(asked.before_start, asked.before_end))
    pieces = cut(span, asked.grain, MOST_PIECES)
    if pieces is None:
        raise InvalidInput.at("/range", "range: too long for pieces this short")
    own = [_hour.user_id == user_id]
    try:
        names = [_hour.provider, _hour.model]
        table = await summed(tx, HOURS, own, names, pieces, MOST_SUMS)
        earlier = await summed(tx, HOURS, own, [], [before], 1)
    except TooManyError:
        raise InvalidInput.at("/range", "range: too much to show at once; take less") from None
    return UserUsage(
        period,
        sum(in_period.values(), NONE_USED),
        await states_now(tx, user_id, clock),
        pieces,
        table,
        whole(earlier),
        bool(table) or await first_used(tx, user_id) is not None,
    )


async def count_unread(tx: Tx, user_id: str) -> int:
    """How many of the user's own alerts nobody has read."""
    query = select(func.count()).where(_alert.scope_key == f"user:{user_id}")
    return int((await tx.fetch(query.where(_alert.read_at.is_(None))))[0][0])


# ---- what was agreed ----------------------------------------------------------------------------


class PeriodUsed(NamedTuple):
    """One billing period and what was used in it; `current` is the one that runs."""

    period: Period
    plan_id: str
    current: bool
    used: Used


class Agreed(NamedTuple):
    """What a user agreed to, and some of their periods, newest first.

    `terms` is None of a user nobody ever saw; `plan` and `fallback` as they are called now.
    """

    terms: Terms | None
    plan: PlanRow | None
    fallback: PlanRow | None
    period: Period
    refused: bool
    periods: Sequence[PeriodUsed]
    names: Mapping[str, str]
    next: datetime | None


async def read_agreed(
    tx: Tx, user_id: str, now: datetime, before: datetime | None, size: int
) -> Agreed:
    """The user's terms and at most `size` periods that began before `before`."""
    agreement = await agreed(tx, user_id)
    terms = await terms_of(tx, user_id, now)
    first = await first_used(tx, user_id) or now
    periods, more = await _periods(tx, user_id, agreement, first, now, before, size)
    found = [
        PeriodUsed(one, agreement.terms_at(one.start).plan_id, one.start <= now < one.end, used)
        for one, used in periods
    ]
    ids = {one.plan_id for one in found} | {agreement.terms_at(now).plan_id}
    if terms is not None:
        ids |= {terms.plan_id, terms.fallback_plan_id or terms.plan_id}
    plans = {plan_id: plan for plan_id in sorted(ids) if (plan := await find_plan(tx, plan_id))}
    return Agreed(
        terms,
        plans.get((terms or agreement.terms_at(now)).plan_id),
        None if terms is None else plans.get(terms.fallback_plan_id or ""),
        agreement.period_at(now),
        agreement.terms_at(now).refuses_at(now),
        found,
        {plan_id: plan.name for plan_id, plan in plans.items()},
        periods[-1][0].start if more else None,
    )


async def _periods(
    tx: Tx,
    user_id: str,
    agreement: Agreement,
    first: datetime,
    now: datetime,
    before: datetime | None,
    size: int,
) -> tuple[list[tuple[Period, Used]], bool]:
    if before is not None and before <= first:
        return [], False
    moment = now if before is None else min(now, before - MICROSECOND)
    found = periods_until(agreement, moment, first, size + 1)
    shown = found[:size]
    models = await used_in(tx, user_id, shown[::-1])
    used = [sum(one.values(), NONE_USED) for one in models[::-1]]
    return list(zip(shown, used, strict=True)), len(found) > size


# ---- what is held -------------------------------------------------------------------------------


async def read_holds(
    tx: Tx, user_id: str, after: tuple[datetime, str] | None, size: int, clock: Clock
) -> tuple[list[HoldRow], bool]:
    """At most `size` open holds of the user, newest first, and whether there are more."""
    rows = await list_open(tx, user_id, await database_now(tx, clock), after, size + 1)
    return rows[:size], len(rows) > size
