"""What a limit that is made now counts already: from totals, where they can tell.

Totals have a row where the log may have thousands. They can tell where each of them lies in one
window of the limit, and where nothing is asked that they are not kept by: those across users
answer for all, a team or a key, those by user for users and plans, by billing period or by hour.
What they cannot tell is read from the log, from what was wrapped and from corrections, if need be
of some users only. Every way counts with the functions that ingest counts with.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Select, func, literal, select, tuple_

from app.core.clock import EPOCH, hour_of
from app.core.errors import Conflict
from app.core.money import CEILING
from app.db.engine import Tx
from app.limits.counters import CounterKey, Growth, count, growths, measured
from app.limits.grouped import GROUP_COLUMNS, GROUP_KEY, Group, shares_of
from app.limits.known import Rule, scope_keys
from app.limits.running import LONGEST, earliest, may_match, on_plan
from app.limits.windows import window_of
from app.plans.known import Agreement, agreement_of, load
from app.plans.periods import FAR, Period, calendar_months
from app.summaries.fold import SEPARATOR
from app.summaries.sources import CORRECTED, LOG, WRAPPED, Source
from app.summaries.tables import HourDimension, HourTotal, PeriodTotal

CHUNK = 20_000
USERS_AT_ONCE = 500
HOUR = timedelta(hours=1)
Grown = dict[CounterKey, Growth]


class Seen(NamedTuple):
    """The columns of a call that counting needs."""

    user_id: str
    timestamp: datetime
    event_id: str
    provider: str
    model: str
    endpoint: str | None
    team_id: str | None
    api_key_id: str | None
    input_tokens: int
    output_tokens: int
    cost_nanos: int | None


class Total(NamedTuple):
    """What a total says, in the shape of a call at its start; what it is not kept by is None."""

    user_id: str
    timestamp: datetime
    provider: str
    model: str
    endpoint: str | None
    team_id: str | None
    api_key_id: str | None
    calls: int
    input_tokens: int
    output_tokens: int
    cost_nanos: int


class Only:
    """A rule book with one rule in it."""

    def __init__(self, rule: Rule) -> None:
        self._rules, self._scope_key = (rule,), rule.scope_key

    def of(
        self, user_id: str, plan_id: str, team_id: str | None, api_key_id: str | None
    ) -> tuple[Rule, ...]:
        """The rule, if the call is in its scope."""
        in_scope = self._scope_key in scope_keys(user_id, plan_id, team_id, api_key_id)
        return self._rules if in_scope else ()


async def seed(tx: Tx, rule: Rule, now: datetime) -> None:
    """Count what is recorded for the windows that end after `counts_from`.

    Raises:
        Conflict: that passes what can be counted.
    """
    since = await earliest(tx, rule, now)
    grown = await _from_everyones_hours(tx, rule, since)
    if grown is None:
        grown = await _from_users_periods(tx, rule, since)
    if grown is None:
        grown = await _from_calls(tx, rule, since)
    if any(growth.amount > CEILING for growth in grown.values()):
        raise Conflict("what is recorded already passes what a limit can count (2^63-1)")
    await count(tx, grown)


def _join(grown: Grown, more: Mapping[CounterKey, Growth]) -> None:
    for key, growth in more.items():
        known = grown.setdefault(key, growth)
        if known is not growth:
            known.amount += growth.amount


def _total_measured(metric: str, total: Total) -> int:
    return total.calls if metric == "calls" else measured(metric, total)


def _is_whole(rule: Rule, hour: datetime, period: Period) -> bool:
    """Whether all of an hour lies in one window of the rule, and in one billing period."""
    ends = window_of(rule.window, hour, period, rule.timezone)[1]
    return min(ends, period.end) - hour >= HOUR


# ---- totals across users ------------------------------------------------------------------------


async def _from_everyones_hours(tx: Tx, rule: Rule, since: datetime) -> Grown | None:
    """From the totals across users; None where they cannot tell."""
    dimension = _dimension_for(rule)
    if dimension is None:
        return None
    kept, total = dimension, HourDimension
    query = select(
        *(total.hour, total.value, total.calls),
        *(total.input_tokens, total.output_tokens, total.cost_nanos),
    ).where(total.dimension == kept, total.hour >= hour_of(since))
    kind, _, of = rule.scope_key.partition(":")
    if kind != "all":
        query = query.where(total.value == of)
    elif kept == "endpoint":
        query = query.where(total.value == rule.endpoint)
    hours = [_everyones(kept, *row) for row in await tx.fetch(query)]
    ever = Period(since, FAR, "")
    if not all(_is_whole(rule, at, ever) for at in {hour.timestamp for hour in hours}):
        return None
    nobody = {"": agreement_of([calendar_months("")])}
    return growths(hours, nobody, Only(rule), _total_measured)


def _dimension_for(rule: Rule) -> str | None:
    if rule.window in ("minute", "billing_period"):
        return None
    kind = rule.scope_key.partition(":")[0]
    named = rule.provider is not None or rule.model is not None
    if kind == "all":
        if rule.endpoint is None:
            return "model"
        return None if named else "endpoint"
    anything = not named and rule.endpoint is None
    return kind if kind in ("team", "key") and anything else None


def _everyones(dimension: str, hour: datetime, value: str, *amounts: int) -> Total:
    provider, _, model = value.partition(SEPARATOR) if dimension == "model" else ("", "", "")
    endpoint, team_id, api_key_id = (
        value if dimension == kind else None for kind in ("endpoint", "team", "key")
    )
    return Total("", hour, provider, model, endpoint, team_id, api_key_id, *amounts)


# ---- totals by user -----------------------------------------------------------------------------


async def _from_users_periods(tx: Tx, rule: Rule, since: datetime) -> Grown | None:
    """From what each user used by billing period, where such a period lies in one window.

    Of users with one that does not, from their hours. None where neither can tell.
    """
    if not _told_by_user(rule):
        return None
    if rule.window not in ("month", "billing_period", "lifetime"):
        return await _from_users_hours(tx, rule, since)
    total = PeriodTotal
    order = (total.user_id, total.period_start, total.provider, total.model)
    reaching = max(EPOCH, since - max(LONGEST.values()))
    query = select(*order, *_sums(total)).where(
        total.period_start >= reaching, *_in_scope(rule, total)
    )

    def whole(start: datetime, period: Period) -> bool:
        return window_of(rule.window, start, period, rule.timezone)[1] >= period.end

    grown, odd = await _from_totals(tx, rule, _pages(tx, query, order), whole)
    for start in range(0, len(odd), USERS_AT_ONCE):
        _join(grown, await _from_users_hours(tx, rule, since, odd[start : start + USERS_AT_ONCE]))
    return grown


async def _from_users_hours(
    tx: Tx, rule: Rule, since: datetime, user_ids: Collection[str] | None = None
) -> Grown:
    """From the totals of each hour, and the calls of users whose windows change within one."""
    total = HourTotal
    order = (total.user_id, total.hour, total.provider, total.model, total.task_type)
    query = select(*order, *_sums(total)).where(
        total.hour >= hour_of(since), *_in_scope(rule, total)
    )
    if user_ids is not None:
        query = query.where(total.user_id.in_(user_ids))

    def whole(start: datetime, period: Period) -> bool:
        return _is_whole(rule, start, period)

    grown, odd = await _from_totals(tx, rule, _pages(tx, query, order), whole)
    for start in range(0, len(odd), USERS_AT_ONCE):
        _join(grown, await _from_calls(tx, rule, since, odd[start : start + USERS_AT_ONCE]))
    return grown


def _told_by_user(rule: Rule) -> bool:
    kind = rule.scope_key.partition(":")[0]
    return kind not in ("team", "key") and rule.endpoint is None and rule.window != "minute"


def _in_scope(rule: Rule, total: type[HourTotal] | type[PeriodTotal]) -> list[Any]:
    kind, _, of = rule.scope_key.partition(":")
    if kind == "user":
        return [total.user_id == of]
    return [total.user_id.in_(on_plan(of))] if kind == "plan" else []


def _sums(total: type[HourTotal] | type[PeriodTotal]) -> tuple[Any, ...]:
    return (total.calls, total.input_tokens, total.output_tokens, total.cost_nanos)


async def _from_totals(
    tx: Tx,
    rule: Rule,
    pages: AsyncIterator[list[Any]],
    whole: Callable[[datetime, Period], bool],
) -> tuple[Grown, list[str]]:
    """What totals say of the users whose every total is in one window; and the other users."""
    grown: Grown = {}
    odd: list[str] = []
    async for rows in _whole_users(pages):
        totals = [Total._make((*row[:4], None, None, None, *row[-4:])) for row in rows]
        agreements = await load(tx, {total.user_id for total in totals})
        cut = set()
        for total in totals:
            period = agreements[total.user_id].period_at(total.timestamp)
            if not whole(total.timestamp, period):
                cut.add(total.user_id)
        odd += sorted(cut)
        kept = [total for total in totals if total.user_id not in cut]
        _join(grown, growths(kept, agreements, Only(rule), _total_measured))
    return grown, odd


async def _whole_users(pages: AsyncIterator[list[Any]]) -> AsyncIterator[list[Any]]:
    """The same rows, so cut that all of a user's are together."""
    held: list[Any] = []
    async for page in pages:
        rows = held + page
        last = rows[-1].user_id
        held = [row for row in rows if row.user_id == last]
        if len(held) < len(rows):
            yield rows[: -len(held)]
    if held:
        yield held


# ---- calls --------------------------------------------------------------------------------------


async def _from_calls(
    tx: Tx, rule: Rule, since: datetime, user_ids: Collection[str] | None = None
) -> Grown:
    """From the log, what was wrapped and corrections."""
    grown: Grown = {}
    for source in (LOG, CORRECTED):
        async for sign, entries in _seen(tx, rule, since, user_ids, source):
            agreements = await load(tx, {entry.user_id for entry in entries})
            measure = measured if sign > 0 else _taken_back
            _join(grown, growths(entries, agreements, Only(rule), measure))
    async for groups in _wrapped(tx, rule, since, user_ids):
        agreements = await load(tx, {group.user_id for group in groups})
        for group in groups:
            _join(grown, _newest_share(group, agreements[group.user_id], rule))
    return grown


def _taken_back(metric: str, seen: Seen) -> int:
    return -measured(metric, seen)


def _newest_share(group: Group, agreement: Agreement, rule: Rule) -> Grown:
    """All of a group in one window, the latest that it may be in: no limit is passed unseen."""
    found: Grown = {}
    for share in shares_of(group, agreement, Only(rule)):
        found = {share.key: Growth(rule, share.billing_period)}
        found[share.key].amount = share.amount
    return found


async def _seen(
    tx: Tx, rule: Rule, since: datetime, user_ids: Collection[str] | None, source: Source
) -> AsyncIterator[tuple[int, list[Seen]]]:
    """The calls that the rule may match since then, in chunks: those that count, those that are
    taken back (-1)."""
    events = source.table.c
    order = [events.user_id, events.timestamp, events.event_id]
    if source is CORRECTED:
        order.append(events.revision)
    query = select(
        *order,
        *(events.provider, events.model, events.endpoint, events.team_id, events.api_key_id),
        func.coalesce(events.input_tokens, 0),
        func.coalesce(events.output_tokens, 0),
        events.cost_nanos,
        events.sign if source is CORRECTED else literal(1),
    ).where(*await may_match(tx, rule, since, source))
    if user_ids is not None:
        query = query.where(events.user_id.in_(user_ids))
    async for rows in _pages(tx, query, order):
        for sign in (1, -1):
            seen = [(*row[:3], *row[len(order) : -1]) for row in rows if row[-1] == sign]
            if seen:
                yield sign, [Seen._make(row) for row in seen]


async def _wrapped(
    tx: Tx, rule: Rule, since: datetime, user_ids: Collection[str] | None
) -> AsyncIterator[list[Group]]:
    query = select(*GROUP_COLUMNS).where(*await may_match(tx, rule, since, WRAPPED))
    if user_ids is not None:
        query = query.where(GROUP_KEY[0].in_(user_ids))
    async for rows in _pages(tx, query, GROUP_KEY):
        yield [Group._make(row) for row in rows]


async def _pages(
    tx: Tx, query: Select[*tuple[Any, ...]], order: Iterable[Any]
) -> AsyncIterator[list[Any]]:
    """Every row of a query in the order of these, its first columns, which no two rows share."""
    by = tuple(order)
    query = query.order_by(*by).limit(CHUNK)
    rows = list(await tx.fetch(query))
    while rows:
        yield rows
        if len(rows) < CHUNK:
            return
        last = tuple_(
            *(literal(value, column.type) for value, column in zip(rows[-1], by, strict=False))
        )
        rows = list(await tx.fetch(query.where(tuple_(*by) > last)))
