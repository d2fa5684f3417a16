"""Plans as people look at them: how many limits each has, how many users are on it, and who."""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, case, func, select
from sqlalchemy.orm import aliased

from app.db.engine import Tx
from app.limits.tables import Limit
from app.plans.subscriptions import PlanRow, list_plans
from app.plans.tables import Subscription

MOST_PLANS = 200


class PlanShown(NamedTuple):
    """A plan, the number of its limits, and of the users who are on it now."""

    plan: PlanRow
    limits: int
    users: int


class Member(NamedTuple):
    """A user on a plan, since when, and in which periods."""

    user_id: str
    starts_at: datetime
    interval: str
    timezone: str
    expires_at: datetime | None
    on_expiry: str


async def shown_plans(tx: Tx, now: datetime) -> list[PlanShown]:
    """The first plans in the order they were made."""
    plans = await list_plans(tx, None, MOST_PLANS)
    counted = select(Limit.scope_key, func.count()).where(Limit.scope_key.startswith("plan:"))
    limits = {row[0]: row[1] for row in await tx.fetch(counted.group_by(Limit.scope_key))}
    in_force = _in_force(now).subquery()
    users = select(in_force.c.plan_id, func.count()).group_by(in_force.c.plan_id)
    on_plan = {row[0]: row[1] for row in await tx.fetch(users)}
    return [
        PlanShown(plan, limits.get(f"plan:{plan.id}", 0), on_plan.get(plan.id, 0)) for plan in plans
    ]


async def plan_names(tx: Tx) -> dict[str, str]:
    """What the first plans are called, by id."""
    return {plan.id: plan.name for plan in await list_plans(tx, None, MOST_PLANS)}


async def members(tx: Tx, plan_id: str, after: str, limit: int, now: datetime) -> list[Member]:
    """At most `limit` users who are on a plan now, by their ids."""
    terms = _in_force(now).subquery()
    query = select(*(terms.c[name] for name in Member._fields))
    query = query.where(terms.c.plan_id == plan_id, terms.c.user_id > after)
    rows = await tx.fetch(query.order_by(terms.c.user_id).limit(limit))
    return [Member._make(row) for row in rows]


def _in_force(now: datetime) -> Select[Any]:
    """The terms that each user is on, and of whoever fell back the plan that they fell back to."""
    later = aliased(Subscription)
    newest = (
        select(func.max(later.starts_at))
        .where(later.user_id == Subscription.user_id, later.starts_at <= now)
        .scalar_subquery()
    )
    fell_back: ColumnElement[bool] = and_(
        Subscription.expires_at <= now,
        Subscription.on_expiry == "fallback",
        Subscription.fallback_plan_id.is_not(None),
    )
    plan = case((fell_back, Subscription.fallback_plan_id), else_=Subscription.plan_id)
    return select(
        *(getattr(Subscription, name) for name in Member._fields), plan.label("plan_id")
    ).where(Subscription.starts_at == newest)
