"""Which windows of many limits run now, and what was used in the hours before: for the jobs."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Select, func, select

from app.alerts.forecast import LOOKING_BACK, History
from app.core.clock import hour_of
from app.db.engine import Tx
from app.limits.known import Rule
from app.limits.running import period_for
from app.limits.windows import window_of
from app.plans.known import load
from app.plans.periods import Period
from app.plans.tables import Subscription
from app.summaries.fold import SEPARATOR
from app.summaries.tables import HourDimension, HourTotal

LONGEST_MONTH = timedelta(days=33)
Place = tuple[str, str]
"""A limit's id, and the scope whose counter it is."""


class Spent(NamedTuple):
    """What some hour adds to a limit, whichever metric it has."""

    calls: int
    input_tokens: int
    output_tokens: int
    cost_nanos: int

    def of(self, metric: str) -> int:
        """The amount in the metric's own unit."""
        if metric == "calls":
            return self.calls
        if metric == "cost_usd":
            return self.cost_nanos
        if metric == "tokens":
            return self.input_tokens + self.output_tokens
        return self.input_tokens if metric == "input_tokens" else self.output_tokens


# ---- windows ----------------------------------------------------------------------------------


async def windows_at(
    tx: Tx, counters: Iterable[tuple[Rule, str, datetime]]
) -> dict[tuple[str, str, datetime], Period]:
    """The window of each counter (limit, scope) at an instant; `key` is its billing period.

    A limit that users share and that counts by billing period is taken to count calendar months.
    """
    counters = list(counters)
    agreements = await load(tx, {scope[5:] for _, scope, _ in counters if _is_user(scope)})
    found = {}
    for rule, scope, at in counters:
        period = period_for(scope, agreements, at)
        window = window_of(rule.window, at, period, rule.timezone)
        found[rule.id, scope, at] = Period(*window, period.key)
    return found


def _is_user(scope_key: str) -> bool:
    return scope_key.startswith("user:")


# ---- hours ------------------------------------------------------------------------------------


async def histories(
    tx: Tx, counters: Collection[tuple[Rule, str]], now: datetime
) -> dict[Place, History]:
    """What each limit counted in each full hour of the last four weeks, where totals can tell.

    They cannot tell of an endpoint of one user, nor of a model of one team or key.
    """
    until = hour_of(now)
    users: dict[str, list[Rule]] = {}
    shared: dict[tuple[str, str | None], list[tuple[Rule, str]]] = {}
    for rule, scope in counters:
        if _is_user(scope):
            if rule.endpoint is None:
                users.setdefault(scope[5:], []).append(rule)
        elif (dimension := dimension_of(rule)) is not None:
            shared.setdefault(dimension, []).append((rule, scope))
    found = await _of_users(tx, users, until) if users else {}
    for (dimension_name, value), kept in shared.items():
        found |= await _of_everyone(tx, dimension_name, value, kept, until)
    return found


def dimension_of(rule: Rule) -> tuple[str, str | None] | None:
    """The totals across users that tell of a limit, and which value; None where none do."""
    kind, _, of = rule.scope_key.partition(":")
    named = rule.provider is not None or rule.model is not None
    if kind == "all":
        if rule.endpoint is None:
            return "model", None
        return None if named else ("endpoint", rule.endpoint)
    return None if named or rule.endpoint is not None else (kind, of)


async def _of_users(
    tx: Tx, users: Mapping[str, Sequence[Rule]], until: datetime
) -> dict[Place, History]:
    since = until - LOOKING_BACK
    first = await first_seen(tx, users)
    named = any(rule.provider or rule.model for rules in users.values() for rule in rules)
    by = [HourTotal.user_id, HourTotal.hour]
    by += [HourTotal.provider, HourTotal.model] if named else []
    query = select(*by, *sums_of(HourTotal)).where(HourTotal.user_id.in_(sorted(users)))
    query = query.where(HourTotal.hour >= since, HourTotal.hour < until).group_by(*by)
    hours: dict[Place, dict[datetime, int]] = {}
    for row in await tx.fetch(query):
        user_id, hour = row[0], row[1]
        spent = Spent(*map(int, row[-4:]))
        if hour < first.get(user_id, until):
            first[user_id] = hour
        for rule in users[user_id]:
            if named and not rule.matches(row[2], row[3], None):
                continue
            kept = hours.setdefault((rule.id, f"user:{user_id}"), {})
            kept[hour] = kept.get(hour, 0) + spent.of(rule.metric)
    return {
        (rule.id, f"user:{user_id}"): History(
            max(since, hour_of(first.get(user_id, until))),
            hours.get((rule.id, f"user:{user_id}"), {}),
        )
        for user_id, rules in users.items()
        for rule in rules
    }


async def _of_everyone(
    tx: Tx,
    dimension: str,
    value: str | None,
    counters: Sequence[tuple[Rule, str]],
    until: datetime,
) -> dict[Place, History]:
    query = await everyones(tx, dimension, value)
    query = query.where(HourDimension.hour >= until - LOOKING_BACK, HourDimension.hour < until)
    hours: dict[Place, dict[datetime, int]] = {(rule.id, scope): {} for rule, scope in counters}
    first = until
    for hour, of, *amounts in await tx.fetch(query):
        spent = Spent(*map(int, amounts))
        provider, _, model = of.partition(SEPARATOR)
        first = min(first, hour)
        for rule, scope in counters:
            if dimension != "model" or rule.matches(provider, model, None):
                kept = hours[rule.id, scope]
                kept[hour] = kept.get(hour, 0) + spent.of(rule.metric)
    return {place: History(first, kept) for place, kept in hours.items()}


async def everyones(tx: Tx, dimension: str, value: str | None) -> Select[Any]:
    """A query of what all users used by hour and value of a dimension; ranges of hours are cheap.

    The key begins with the writer's number, so the few that there are are named.
    """
    total = HourDimension
    query = select(total.hour, total.value, *sums_of(total)).group_by(total.hour, total.value)
    query = query.where(total.shard.in_(await shards(tx)), total.dimension == dimension)
    return query if value is None else query.where(total.value == value)


async def shards(tx: Tx) -> list[int]:
    """The writers' numbers in the totals across users."""
    found: list[int] = []
    query = select(func.min(HourDimension.shard))
    while (row := await tx.first(query)) is not None and row[0] is not None:
        found.append(row[0])
        query = select(func.min(HourDimension.shard)).where(HourDimension.shard > row[0])
    return found


async def newest_hour(tx: Tx) -> datetime | None:
    """The last hour in which anything was used."""
    hours = []
    for shard in await shards(tx):
        row = await tx.first(
            select(func.max(HourDimension.hour)).where(HourDimension.shard == shard)
        )
        hours += [] if row is None else [row[0]]
    return max(hours, default=None)


async def first_seen(tx: Tx, user_ids: Collection[str]) -> dict[str, datetime]:
    """When each user was first known."""
    row = Subscription
    query = select(row.user_id, func.min(row.created_at)).group_by(row.user_id)
    return {
        user_id: at
        for user_id, at in await tx.fetch(query.where(row.user_id.in_(sorted(user_ids))))
    }


def sums_of(total: type[HourTotal] | type[HourDimension]) -> tuple[Any, ...]:
    """The columns of `Spent`, summed."""
    return tuple(func.sum(getattr(total, name)) for name in Spent._fields)
