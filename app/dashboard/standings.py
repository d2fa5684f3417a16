"""How users stand against their limits, many at once, and who is nearest to one."""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, Float, and_, case, cast, func, or_, select

from app.analytics.budgets import LONGEST
from app.core.clock import EPOCH, Clock
from app.db.engine import Tx
from app.db.types import table_of
from app.limits.check import Ask, State, current_keys, judge
from app.limits.counters import status_of
from app.limits.held import stands_now
from app.limits.known import Rules, scope_keys
from app.limits.tables import Counter, Limit
from app.plans.known import agreement_of, load
from app.plans.periods import Period, calendar_months
from app.plans.subscriptions import default_plan

MOST_NEAR = 500
"""So many users can be put in order by their limits; those behind are far from any."""
_limit, _counter = table_of(Limit).c, table_of(Counter).c


class Standing(NamedTuple):
    """Where a user stands: the billing period, and the limit that is nearest to its amount.

    `percent` and `limit` are None where no limit applies; one in shadow is left aside. `refused`
    says that the subscription is over and calls that ask are denied.
    """

    period: Period
    status: str
    percent: float | None
    limit: str | None
    refused: bool


async def standings_of(tx: Tx, user_ids: Collection[str], clock: Clock) -> dict[str, Standing]:
    """Where each of these users stands now, read past the caches; four statements for all."""
    if not user_ids:
        return {}
    now = clock.now()
    agreements = await load(tx, user_ids)
    unseen = agreement_of([calendar_months((await default_plan(tx)).id)])
    agreed = {user_id: agreements.get(user_id, unseen) for user_id in user_ids}
    rules, plans = Rules(), {one: agreed[one].terms_at(now).plan_id for one in user_ids}
    wanted = {key for one, plan in plans.items() for key in scope_keys(one, plan, None, None)}
    await rules.load(tx, wanted)
    found = {
        one: current_keys(rules.of(one, plan, None, None), agreed[one], one, now)
        for one, plan in plans.items()
    }
    keys = sorted({key for applying in found.values() for _, key, _ in applying})
    counters = await stands_now(tx, keys, clock)
    return {
        one: standing(
            agreed[one].period_at(now),
            judge(Ask(one, *(None,) * 8), applying, counters),
            refused=agreed[one].terms_at(now).refuses_at(now),
        )
        for one, applying in found.items()
    }


def standing(period: Period, states: Collection[State], *, refused: bool) -> Standing:
    """What these limits come to. Pure."""
    counted = [one for one in states if one.rule.action != "shadow" and one.rule.amount is not None]
    nearest = max(counted, key=lambda one: one.percent, default=None)
    if nearest is None:
        return Standing(period, status_of(0), None, None, refused)
    reached = nearest.percent
    return Standing(period, status_of(reached), reached, nearest.rule.name, refused)


async def nearest_limits(tx: Tx, prefix: str, clock: Clock) -> list[str]:
    """Users by how much of a limit they used, most first; at most `MOST_NEAR`."""
    now = clock.now()
    raised = case((_limit.raised_until > now, _limit.raised_amount), else_=_limit.amount)
    part = case(
        (raised > 0, cast(_counter.used, Float) * 100 / cast(raised, Float)),
        (_counter.used > 0, 100.0),
        else_=0.0,
    )
    whose = func.substr(_counter.scope_key, 6)
    query = (
        select(whose.label("user_id"))
        .join_from(table_of(Limit), table_of(Counter), _limit.id == _counter.limit_id)
        .where(
            *(_limit.action != "shadow", raised.is_not(None), _running(now)),
            func.substr(_counter.scope_key, 1, 5 + len(prefix)) == f"user:{prefix}",
        )
        .group_by(_counter.scope_key)
        .order_by(func.max(part).desc(), _counter.scope_key)
    )
    some = [row[0] for row in await tx.fetch(query.limit(MOST_NEAR))]
    found = await standings_of(tx, some, clock)
    return sorted(some, key=lambda one: (-(found[one].percent or 0.0), one))


def _running(now: datetime) -> ColumnElement[bool]:
    """Counters that may be of a window that runs now; the exact ones are looked up afterwards."""
    recent = [
        and_(_limit.window == window, _counter.window_start >= max(EPOCH, now - longest))
        for window, longest in LONGEST.items()
    ]
    return and_(_counter.window_start <= now, or_(_limit.window == "lifetime", *recent))
