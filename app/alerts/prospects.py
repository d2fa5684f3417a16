"""Where one user is heading: the cost of the billing period, and the limits that apply."""

from datetime import datetime
from typing import NamedTuple

from app.alerts.forecast import Projection, forecast
from app.alerts.outlook import FORESEEN, Outlook, outlooks
from app.alerts.standing import histories
from app.core.clock import EPOCH
from app.db.engine import Tx
from app.limits.check import current_keys
from app.limits.counters import stands
from app.limits.known import Rule, Rules, scope_keys
from app.plans.known import agreement_of, load
from app.plans.periods import Period, calendar_months
from app.plans.subscriptions import default_plan
from app.summaries.trends import NONE_USED, used_in


class Prospects(NamedTuple):
    """What a user spent in the period, what it will have come to, and the limits."""

    period: Period
    cost_nanos: int
    projection: Projection
    limits: list[Outlook]


async def prospects(tx: Tx, user_id: str, now: datetime) -> Prospects:
    """Project the period's cost and every limit with a window of a day or more that ends."""
    agreement = (await load(tx, [user_id])).get(user_id)
    if agreement is None:
        agreement = agreement_of([calendar_months((await default_plan(tx)).id)])
    period = agreement.period_at(now)
    plan_id = agreement.terms_at(now).plan_id
    known = Rules()
    await known.load(tx, list(scope_keys(user_id, plan_id, None, None)))
    applying = known.of(user_id, plan_id, None, None)
    rules = [rule for rule in applying if rule.window in FORESEEN]
    found = current_keys(rules, agreement, user_id, now)
    counters = await stands(tx, sorted({key for _, key, _ in found}))
    standing = []
    for rule, (_, key, ends_at) in zip(rules, found, strict=True):
        used = counters[key][0] if key in counters else 0
        standing.append((rule, key[0], Period(key[2], ends_at, period.key), used))
    models = (await used_in(tx, user_id, [period]))[0]
    cost = sum(models.values(), NONE_USED).cost_nanos
    spend = _spend(user_id)
    history = (await histories(tx, [(spend, spend.scope_key)], now))[spend.id, spend.scope_key]
    spent = forecast(history, cost, None, (period.start, period.end), now)
    return Prospects(period, cost, spent, await outlooks(tx, standing, now))


def _spend(user_id: str) -> Rule:
    """A limit without an amount: all that the user spends in a billing period."""
    return Rule(
        id="",
        name="",
        scope_key=f"user:{user_id}",
        provider=None,
        model=None,
        endpoint=None,
        metric="cost_usd",
        window="billing_period",
        timezone="UTC",
        amount=None,
        action="warn",
        thresholds=(),
        created_at=EPOCH,
        counts_from=EPOCH,
    )
