"""Which windows of a limit run now, and where its counters in them stand."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, or_, select, tuple_, union

from app.core.clock import EPOCH, hour_of
from app.db.engine import Tx
from app.limits.counters import Step
from app.limits.known import Rule
from app.limits.tables import Counter, HoldAmount
from app.limits.windows import window_of
from app.plans.known import Agreement, load
from app.plans.periods import Period, calendar_months, period_of
from app.plans.tables import Subscription
from app.summaries.fold import SEPARATOR
from app.summaries.sources import LOG, RECORDED, WRAPPED, Source
from app.summaries.tables import HourDimension

MOST_SPELLINGS = 500
LONGEST = {
    "day": timedelta(days=2),
    "week": timedelta(days=9),
    "month": timedelta(days=33),
    "quarter": timedelta(days=94),
    "year": timedelta(days=368),
}
"""No period of an interval is longer, whatever the clocks do: where reading the log may begin."""


async def earliest(tx: Tx, rule: Rule, now: datetime) -> datetime:
    """No window of this rule that ends after `now` starts before."""
    if rule.window != "billing_period":
        return window_of(rule.window, now, calendar(now), rule.timezone)[0]
    query = select(Subscription.interval).distinct()
    kind, _, of = rule.scope_key.partition(":")
    if kind == "user":
        query = query.where(Subscription.user_id == of)
    lengths = [LONGEST["month"], *(LONGEST[row[0]] for row in await tx.fetch(query))]
    return max(EPOCH, now - max(lengths))


async def may_match(
    tx: Tx, rule: Rule, since: datetime, source: Source = LOG
) -> list[ColumnElement[bool]]:
    """The part of what was recorded to look at; who was on a plan when, `growths` judges."""
    events = source.table.c
    kind, _, of = rule.scope_key.partition(":")
    found: list[ColumnElement[bool]] = [source.at >= since]
    if source is WRAPPED:
        found = [events.hour >= hour_of(since), events.last_at >= since]
    if kind == "user":
        found.append(events.user_id == of)
    elif kind == "plan":
        found.append(events.user_id.in_(on_plan(of)))
    elif kind == "team":
        found.append(events.team_id == of)
    elif kind == "key":
        found.append(events.api_key_id == of)
    if rule.endpoint is not None:
        found.append(events.endpoint == rule.endpoint)
    if rule.provider is not None or rule.model is not None:
        spellings = await _spellings(tx, rule, since)
        if len(spellings) <= MOST_SPELLINGS:
            found.append(tuple_(events.provider, events.model).in_(spellings))
    return found


def on_plan(plan_id: str) -> Select[str]:
    """Who is, was, or by falling back will be on a plan: a query for use with `in_`."""
    return select(Subscription.user_id).where(
        or_(Subscription.plan_id == plan_id, Subscription.fallback_plan_id == plan_id)
    )


async def _spellings(tx: Tx, rule: Rule, since: datetime) -> list[tuple[str, str]]:
    """The names that a rule means, as callers have written them since then."""
    query = select(HourDimension.value).distinct()
    query = query.where(HourDimension.dimension == "model", HourDimension.hour >= hour_of(since))
    seen = (row[0].partition(SEPARATOR) for row in await tx.fetch(query))
    anywhere = rule._replace(endpoint=None)
    return [
        (provider, model) for provider, _, model in seen if anywhere.matches(provider, model, None)
    ]


async def running(
    tx: Tx, rule: Rule, scopes: Collection[str], now: datetime
) -> Mapping[str, list[Period]]:
    """The windows of a rule that run now, for each of these counter scopes.

    A window's `key` is the billing period it is reported under. Only a limit that several users
    share and that counts by billing period has more than one: each user's own.
    """
    users = {scope[5:] for scope in scopes if scope.startswith("user:")}
    agreements = await load(tx, users)
    shared = [calendar(now)]
    if rule.window == "billing_period" and len(users) < len(scopes):
        since = await earliest(tx, rule, now)
        found_in = [
            select(source.table.c.user_id).where(*await may_match(tx, rule, since, source))
            for source in RECORDED
        ]
        sharing = await load(tx, {row[0] for row in await tx.fetch(union(*found_in))})
        shared = sorted({agreement.period_at(now) for agreement in sharing.values()})
    found = {}
    for scope in scopes:
        periods = [period_for(scope, agreements, now)] if scope.startswith("user:") else shared
        windows = (
            Period(*window_of(rule.window, now, one, rule.timezone), one.key) for one in periods
        )
        found[scope] = sorted(set(windows))
    return found


async def standing_steps(tx: Tx, rule: Rule, now: datetime) -> list[Step]:
    """The counters of the windows that run now or later, each as one step from zero."""
    query = select(Counter.scope_key, Counter.window_start, Counter.used, Counter.held)
    since = await earliest(tx, rule, now)
    rows = await tx.fetch(query.where(*counters_of(rule), Counter.window_start >= since))
    windows = await running(tx, rule, {row.scope_key for row in rows}, now)
    steps = []
    for row in rows:
        scope_key, window_start = row.scope_key, row.window_start
        keys = {window.start: window.key for window in windows[scope_key]}
        if window_start in keys or window_start > now:
            billing_period = keys.get(window_start, calendar(window_start).key)
            known = (scope_key, window_start, billing_period)
            steps.append(Step(rule, *known, before=0, after=row.used, held=row.held))
    return steps


def calendar(moment: datetime) -> Period:
    """The calendar month in UTC, for what is nobody's billing period."""
    return period_of(moment, calendar_months(""))


def period_for(scope_key: str, agreements: Mapping[str, Agreement], moment: datetime) -> Period:
    """The billing period of whom a counter counts for: a user's own, else the calendar month."""
    own = agreements.get(scope_key[5:]) if scope_key.startswith("user:") else None
    return calendar(moment) if own is None else own.period_at(moment)


def counters_of(rule: Rule) -> list[ColumnElement[bool]]:
    """The counters of a limit, by key where it is known: a plan's are its users'."""
    found: list[ColumnElement[bool]] = [Counter.limit_id == rule.id]
    if not rule.scope_key.startswith("plan:"):
        found.append(Counter.scope_key == rule.scope_key)
    return found


def held_of(rule: Rule) -> list[ColumnElement[bool]]:
    """What open holds hold of a limit."""
    found: list[ColumnElement[bool]] = [HoldAmount.limit_id == rule.id]
    if not rule.scope_key.startswith("plan:"):
        found.append(HoldAmount.scope_key == rule.scope_key)
    return found
