"""How far along the budgets are: limits on cost, in the windows that run now."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, or_, select

from app.core.clock import EPOCH
from app.db.engine import Tx
from app.db.types import table_of
from app.limits.counters import percent_of
from app.limits.known import Rule, rule_of
from app.limits.running import period_for
from app.limits.tables import Counter, Limit
from app.limits.windows import window_of
from app.plans.known import Agreement, load

_DAY = timedelta(days=1)
LONGEST = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": 2 * _DAY,
    "week": 9 * _DAY,
    "month": 33 * _DAY,
    "billing_period": 368 * _DAY,
}
"""No window that runs now began longer ago; a lifetime began in 1970."""

_limit, _counter = table_of(Limit).c, table_of(Counter).c
_RULE = [_limit[name] for name in Rule._fields]


class Budget(NamedTuple):
    """One budget of one scope in its running window, in nano-dollars."""

    rule: Rule
    scope_key: str
    amount: int
    used: int

    @property
    def percent(self) -> float:
        return percent_of(self.used, self.amount)


class Budgets(NamedTuple):
    """Some budgets together. Nobody's budget makes up for another's: see also the highest."""

    items: Sequence[Budget]

    @property
    def total(self) -> int:
        return sum(one.amount for one in self.items)

    @property
    def used(self) -> int:
        return sum(one.used for one in self.items)

    @property
    def percent(self) -> float:
        return percent_of(self.used, self.total) if self.total else 0.0

    @property
    def exceeded(self) -> int:
        return sum(one.percent >= 100 for one in self.items)

    @property
    def highest(self) -> float:
        return max((one.percent for one in self.items), default=0.0)


async def read_budgets(tx: Tx, scope_key: str | None, now: datetime) -> Budgets:
    """The budgets of one scope (`user:…` with those of the user's plan, `team:…`, `key:…`), or all.

    A plan's budget is each user's own, and is there once that user has used something.
    """
    agreements: dict[str, Agreement] = {}
    where: list[ColumnElement[bool]] = [_limit.metric == "cost_usd", _limit.action != "shadow"]
    whose = [] if scope_key is None else [scope_key]
    if scope_key is not None and scope_key.startswith("user:"):
        agreements = await load(tx, [scope_key[5:]])
        whose += [f"plan:{one.terms_at(now).plan_id}" for one in agreements.values()]
    if scope_key is not None:
        where.append(_limit.scope_key.in_(whose))
    found = [rule_of(row).in_force(now) for row in await tx.fetch(select(*_RULE).where(*where))]
    rules = {rule.id: rule for rule in found if rule.amount is not None}
    if not rules:
        return Budgets([])
    counted = await _counters(tx, where, scope_key, now)
    users = {key[0][5:] for key in counted if key[0].startswith("user:")}
    agreements |= await load(tx, users - agreements.keys())
    return Budgets(_standing(rules, counted, agreements, now))


async def _counters(
    tx: Tx, where: Sequence[ColumnElement[bool]], scope_key: str | None, now: datetime
) -> dict[tuple[str, str, datetime], int]:
    query = (
        select(_counter.scope_key, _counter.limit_id, _counter.window_start, _counter.used)
        .join_from(table_of(Counter), table_of(Limit), _limit.id == _counter.limit_id)
        .where(*where, may_run(now))
    )
    if scope_key is not None:
        query = query.where(_counter.scope_key == scope_key)
    return {(row[0], row[1], row[2]): row[3] for row in await tx.fetch(query)}


def may_run(now: datetime) -> ColumnElement[bool]:
    """Of limits joined with their counters: those whose window may be running. Pure."""
    recent = [
        and_(_limit.window == window, _counter.window_start >= max(EPOCH, now - longest))
        for window, longest in LONGEST.items()
    ]
    return and_(_counter.window_start <= now, or_(_limit.window == "lifetime", *recent))


def _standing(
    rules: Mapping[str, Rule],
    counted: Mapping[tuple[str, str, datetime], int],
    agreements: Mapping[str, Agreement],
    now: datetime,
) -> list[Budget]:
    """Each budget in its running window; a scope that has used nothing in it stands at zero. Pure.

    Where users with periods of their own share a budget by billing period, the newest one counts.
    """
    used: dict[tuple[str, str], int] = {}
    for scope_key, limit_id, start in sorted(counted):
        rule = rules.get(limit_id)
        if rule is None:
            continue
        own = scope_key.startswith("user:") and scope_key[5:] in agreements
        shared = rule.window == "billing_period" and not own
        period = period_for(scope_key, agreements, now)
        if shared or window_of(rule.window, now, period, rule.timezone)[0] == start:
            used[scope_key, limit_id] = counted[scope_key, limit_id, start]
    for rule in rules.values():
        if not rule.scope_key.startswith("plan:"):
            used.setdefault((rule.scope_key, rule.id), 0)
    return [
        Budget(rules[limit_id], scope_key, rules[limit_id].amount or 0, amount)
        for (scope_key, limit_id), amount in sorted(used.items())
    ]
