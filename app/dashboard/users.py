"""The list of users: what each used in a range of time, in which order, and how each one stands."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, get_args

from sqlalchemy import ColumnElement, Select, and_, func, literal, select

from app.analytics.everyone import used_in
from app.core.clock import Clock
from app.dashboard.standings import Standing, nearest_limits, standings_of
from app.db.engine import Tx
from app.db.types import table_of
from app.plans.tables import Subscription
from app.summaries.buckets import hurry
from app.summaries.grains import Span, whole_hours
from app.summaries.sums import NONE, percent
from app.summaries.tables import HourTotal, PeriodTotal

Order = Literal["spend", "calls", "tokens", "seen", "limit", "user"]
ORDERS: tuple[Order, ...] = get_args(Order)
PAGE, MOST_EXPORTED = 25, 1_000
EXACT = timedelta(hours=48)
"""Of a range this short every user's hours are read to put them in order."""
POOLED, LONG = 3 * PAGE, timedelta(days=32)
"""So many users are put in order by a range at once; in one that is longer, a page less."""

_hour, _period, _known = table_of(HourTotal).c, table_of(PeriodTotal).c, table_of(Subscription).c


class Used(NamedTuple):
    """What a user used in a range; `tokens` and the rest as in every total."""

    calls: int = 0
    errors: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cost_nanos: int = 0
    unpriced_calls: int = 0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def error_rate(self) -> float:
        """Failed calls in percent."""
        return percent(self.errors, self.calls)

    @property
    def cached(self) -> float:
        """How much of the input was read from a cache, in percent."""
        return percent(self.cache_read_tokens, self.input_tokens)

    def amount(self, order: Order) -> int:
        """What users are put in order by."""
        return {"calls": self.calls, "tokens": self.tokens}.get(order, self.cost_nanos)


NOTHING = Used()


class UserRow(NamedTuple):
    """One user of the list. `share` is of everyone's spend in the range, in percent.

    `last_hour` is the last hour that has usage, in the range or not; None where there never was.
    """

    user_id: str
    used: Used
    share: float
    standing: Standing
    last_hour: datetime | None


class Wanted(NamedTuple):
    """Which users a reader asks for: whose id begins so, in which order, from which place on."""

    span: Span
    order: Order = "spend"
    prefix: str = ""
    skip: int = 0
    size: int = PAGE


class Listed(NamedTuple):
    """A page of users, whether more follow, and how many are known at all."""

    rows: Sequence[UserRow]
    more: bool
    known: int


async def list_users(tx: Tx, wanted: Wanted, clock: Clock) -> Listed:
    """A page of users with what they used, from totals; at most a dozen short statements.

    By name every user is listed, by spend, calls and tokens those who used something in the range,
    by limit those who are nearest to one. In a range longer than two days, users are taken in the
    order of their billing periods, some dozens at a time, and put in order by the range itself.
    """
    span = whole_hours(wanted.span)
    await hurry(tx)
    if wanted.order in ("spend", "calls", "tokens"):
        found = await _by_usage(tx, wanted, span)
    elif wanted.order == "limit":
        near = await nearest_limits(tx, wanted.prefix, clock)
        found = near[wanted.skip : wanted.skip + wanted.size + 1]
    else:
        query = _by_name(wanted) if wanted.order == "user" else _by_hour(wanted)
        query = query.offset(wanted.skip).limit(wanted.size + 1)
        found = [row[0] for row in await tx.fetch(query)]
    page = found[: wanted.size]
    used = await used_by_users(tx, page, span)
    everyone = sum((await used_in(tx, "model", span)).values(), NONE)
    standings = await standings_of(tx, page, clock)
    seen = await last_hours(tx, page)
    rows = [
        UserRow(
            user_id,
            one := used.get(user_id, NOTHING),
            percent(one.cost_nanos, everyone.cost_nanos),
            standings[user_id],
            seen.get(user_id),
        )
        for user_id in page
    ]
    return Listed(rows, len(found) > wanted.size, await count_users(tx, wanted.prefix))


async def count_users(tx: Tx, prefix: str) -> int:
    """How many users are known whose id begins so."""
    query = select(func.count(_known.user_id.distinct()))
    return int((await tx.fetch(query.where(*begins(_known.user_id, prefix))))[0][0])


def begins(column: ColumnElement[str], prefix: str) -> list[ColumnElement[bool]]:
    """That a name begins so, letter by letter, whatever the database's alphabet."""
    return [func.substr(column, 1, len(prefix)) == prefix] if prefix else []


async def used_by_users(tx: Tx, user_ids: Collection[str], span: Span) -> dict[str, Used]:
    """What these users used in some whole hours; who used nothing is left out."""
    if not user_ids:
        return {}
    sums = (func.sum(_hour[name]) for name in Used._fields)
    query = select(_hour.user_id, *sums).where(_hour.user_id.in_(sorted(user_ids)), *_within(span))
    rows = await tx.fetch(query.group_by(_hour.user_id))
    return {row[0]: Used(*map(int, row[1:])) for row in rows}


async def last_hours(tx: Tx, user_ids: Collection[str]) -> dict[str, datetime]:
    """The last hour in which each of these users used anything."""
    if not user_ids:
        return {}
    some = select(_known.user_id).distinct().where(_known.user_id.in_(sorted(user_ids))).subquery()
    last = select(func.max(_hour.hour)).where(_hour.user_id == some.c.user_id)
    rows = await tx.fetch(select(some.c.user_id, last.scalar_subquery()))
    return {user_id: hour for user_id, hour in rows if hour is not None}


# ---- in which order -----------------------------------------------------------------------------


async def _by_usage(tx: Tx, wanted: Wanted, span: Span) -> list[str]:
    if span.end - span.start <= EXACT:
        query = _in_hours(wanted, span).offset(wanted.skip).limit(wanted.size + 1)
        return [row[0] for row in await tx.fetch(query)]
    pool = POOLED if span.end - span.start <= LONG else POOLED - PAGE
    if wanted.size != PAGE:
        pool = wanted.size
    first = wanted.skip // pool * pool
    query = _in_periods(wanted, span).offset(first).limit(pool + 1)
    near = [row[0] for row in await tx.fetch(query)]
    used = await used_by_users(tx, near[:pool], span)
    near[:pool] = sorted(
        near[:pool], key=lambda user_id: (-used.get(user_id, NOTHING).amount(wanted.order), user_id)
    )
    begin = wanted.skip - first
    return near[begin : begin + wanted.size + 1]


def _in_hours(wanted: Wanted, span: Span) -> Select[Any]:
    known = select(_known.user_id).distinct().where(*begins(_known.user_id, wanted.prefix))
    some = known.subquery()
    same = and_(_hour.user_id == some.c.user_id, *_within(span))
    query = select(some.c.user_id).join_from(some, table_of(HourTotal), same)
    most = func.sum(_amount(wanted.order, lambda name: _hour[name]))
    return query.group_by(some.c.user_id).order_by(most.desc(), some.c.user_id)


def _in_periods(wanted: Wanted, span: Span) -> Select[Any]:
    """Users by what their periods came to from the one on that runs where the range begins.

    That is never less than what they used in the range.
    """
    earlier = table_of(PeriodTotal).alias("earlier")
    running = select(func.max(earlier.c.period_start)).where(
        earlier.c.user_id == _period.user_id, earlier.c.period_start <= span.start
    )
    start = literal(span.start, _period.period_start.type)
    since = func.coalesce(running.scalar_subquery(), start)
    most = func.sum(_amount(wanted.order, lambda name: _period[name])).label("most")
    spent = select(_period.user_id, most).group_by(_period.user_id)
    spent = spent.where(_period.period_start < span.end, _period.period_start >= since)
    some = spent.where(*begins(_period.user_id, wanted.prefix)).subquery()
    active = select(_hour.user_id).where(_hour.user_id == some.c.user_id, *_within(span))
    query = select(some.c.user_id).where(active.limit(1).exists())
    return query.order_by(some.c.most.desc(), some.c.user_id)


def _by_name(wanted: Wanted) -> Select[Any]:
    query = select(_known.user_id).distinct().where(*begins(_known.user_id, wanted.prefix))
    return query.order_by(_known.user_id)


def _by_hour(wanted: Wanted) -> Select[Any]:
    some = _by_name(wanted).order_by(None).subquery()
    last = select(func.max(_hour.hour)).where(_hour.user_id == some.c.user_id).scalar_subquery()
    seen = select(some.c.user_id, last.label("last")).subquery()
    query = select(seen.c.user_id).where(seen.c.last.is_not(None))
    return query.order_by(seen.c.last.desc(), seen.c.user_id)


def _amount(order: Order, column: Callable[[str], ColumnElement[int]]) -> ColumnElement[int]:
    if order == "tokens":
        return column("input_tokens") + column("output_tokens")
    return column("calls" if order == "calls" else "cost_nanos")


def _within(span: Span) -> list[ColumnElement[bool]]:
    return [_hour.hour >= span.start, _hour.hour < span.end]
