"""Make, change and delete limits, each with its counters: what the log holds counts at once.

A limit counts from the start of the windows that run when it is made. So the transaction that makes
it reads the log from there on and seeds the counters, by the same pure functions that ingest counts
with: `used` is the sum of what the limit matches in its window from the first moment on. It runs
alone, with no ingest beside it, or an event committed meanwhile would be counted twice or never.
"""

from collections.abc import AsyncIterator, Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, delete, func, insert, literal, select, tuple_, update

from app.core.clock import EPOCH, MICROSECOND
from app.core.errors import Conflict, InvalidInput, NotFound
from app.core.ids import short_id
from app.core.money import CEILING
from app.db.changes import announce
from app.db.engine import Tx
from app.limits.check import Ask, State, current_keys, judge
from app.limits.counters import CounterKey, Growth, Step, count, growths, stands
from app.limits.known import Rule, Rules, rule_of, scope_keys
from app.limits.tables import Counter, Limit
from app.limits.windows import window_of
from app.plans.known import agreement_of, load
from app.plans.periods import Period, calendar_months, period_of
from app.plans.subscriptions import default_plan, find_plan
from app.plans.tables import Subscription
from app.usage.tables import UsageEvent

CHUNK = 20_000
LONGEST = {
    "day": timedelta(days=2),
    "week": timedelta(days=9),
    "month": timedelta(days=33),
    "quarter": timedelta(days=94),
    "year": timedelta(days=368),
}
"""No period of an interval is longer, whatever the clocks do: where reading the log may begin."""

_COLUMNS = tuple(getattr(Limit, name) for name in Rule._fields)


class Draft(NamedTuple):
    """What somebody decides about a limit: the fields of `Rule` that are not ours to set."""

    name: str
    scope_key: str
    provider: str | None
    model: str | None
    endpoint: str | None
    metric: str
    window: str
    amount: int | None
    action: str
    thresholds: tuple[int, ...]

    @property
    def counts(self) -> tuple[str | None, ...]:
        """What decides which calls are counted where, and how much."""
        return self[1:7]


def draft_of(rule: Rule) -> Draft:
    """A limit as it was decided."""
    return Draft(*rule[1:11])


class Changed(NamedTuple):
    """A limit before and after a change, and where its running counters stand.

    `anew` says that it counts something else now: its counters were seeded again.
    """

    before: Rule
    rule: Rule
    steps: list[Step]
    anew: bool


# ---- the verbs --------------------------------------------------------------------------------


async def create_limit(tx: Tx, draft: Draft, now: datetime) -> tuple[Rule, list[Step]]:
    """Make a limit, seeded; the steps are its running counters, each grown from zero.

    Raises:
        InvalidInput: the plan does not exist.
        Conflict: what the log holds already passes what can be counted.
    """
    await _check_plan(tx, draft)
    rule = Rule(short_id("lim"), *draft, created_at=now, counts_from=now)
    await tx.run(insert(Limit), [_row(rule)])
    await announce(tx, "limits", rule.scope_key, now)
    await _seed(tx, rule, now)
    return rule, await standing_steps(tx, rule, now)


async def change_limit(tx: Tx, before: Rule, draft: Draft, now: datetime) -> Changed:
    """Decide anew about a limit.

    Another scope, match, metric or window counts other calls: all counters go, and those of the
    windows running now are seeded again. Anything else leaves the counters as they are.
    """
    anew = draft.counts != draft_of(before).counts
    counts_from = now if anew else before.counts_from
    rule = Rule(before.id, *draft, created_at=before.created_at, counts_from=counts_from)
    if anew:
        await _check_plan(tx, draft)
        await tx.run(delete(Counter).where(*_counters_of(before)))
    await tx.run(update(Limit).where(Limit.id == rule.id).values(**_row(rule)))
    for scope_key in sorted({before.scope_key, rule.scope_key}):
        await announce(tx, "limits", scope_key, now)
    if anew:
        await _seed(tx, rule, now)
    reached_may_differ = anew or (rule.amount, rule.thresholds) != (
        before.amount,
        before.thresholds,
    )
    steps = await standing_steps(tx, rule, now) if reached_may_differ else []
    return Changed(before, rule, steps, anew)


async def delete_limit(tx: Tx, rule: Rule, now: datetime) -> None:
    """Remove a limit and its counters; alerts that it raised are history and stay."""
    await tx.run(delete(Counter).where(*_counters_of(rule)))
    await tx.run(delete(Limit).where(Limit.id == rule.id))
    await announce(tx, "limits", rule.scope_key, now)


async def delete_limits_of_plan(tx: Tx, plan_id: str, now: datetime) -> None:
    """Remove the limits of a plan that goes."""
    for rule in await list_limits(tx, f"plan:{plan_id}", None, None):
        await delete_limit(tx, rule, now)


async def get_limit(tx: Tx, limit_id: str, user_id: str | None = None) -> Rule:
    """The limit of that id; with `user_id`, only if it is that user's own.

    Raises:
        NotFound: there is none.
    """
    row = await tx.first(select(*_COLUMNS).where(Limit.id == limit_id))
    rule = rule_of(row) if row else None
    if rule is None or (user_id is not None and rule.scope_key != f"user:{user_id}"):
        raise NotFound("no such limit", id=limit_id)
    return rule


async def list_limits(
    tx: Tx, scope_key: str | None, after: tuple[datetime, str] | None, limit: int | None
) -> list[Rule]:
    """At most `limit` limits in the order they were made, of one scope or of all."""
    query = select(*_COLUMNS).order_by(Limit.created_at, Limit.id).limit(limit)
    if scope_key is not None:
        query = query.where(Limit.scope_key == scope_key)
    if after is not None:
        last = tuple_(literal(after[0], Limit.created_at.type), literal(after[1]))
        query = query.where(tuple_(Limit.created_at, Limit.id) > last)
    return [rule_of(row) for row in await tx.fetch(query)]


async def states_now(tx: Tx, user_id: str, now: datetime) -> list[State]:
    """Every limit that applies to a user, in the window running now.

    Reads past the caches: they belong to transactions that see the newest configuration, and this
    may be an older snapshot.
    """
    agreement = (await load(tx, [user_id])).get(user_id)
    if agreement is None:
        agreement = agreement_of([calendar_months((await default_plan(tx)).id)])
    plan_id = agreement.terms_at(now).plan_id
    rules = Rules()
    await rules.load(tx, list(scope_keys(user_id, plan_id, None, None)))
    found = current_keys(rules.of(user_id, plan_id, None, None), agreement, user_id, now)
    counters = await stands(tx, sorted({key for _, key, _ in found}))
    return judge(Ask(user_id, *(None,) * 8), found, counters)


async def next_start(tx: Tx, user_id: str, now: datetime) -> datetime:
    """When new terms of a user may start: now, or as soon after as every count stays exact.

    What is recorded already stays in the period it was counted in, so new terms start after the
    user's last event (its clock may have been minutes ahead), and the period that they end is still
    running for every limit that counts by billing period.
    """
    last = select(func.max(UsageEvent.timestamp)).where(UsageEvent.user_id == user_id)
    counted = select(func.max(Limit.counts_from)).where(Limit.window == "billing_period")
    found: list[datetime | None] = [(await tx.fetch(query))[0][0] for query in (last, counted)]
    return max([now, *(moment + MICROSECOND for moment in found if moment is not None)])


# ---- seeding ----------------------------------------------------------------------------------


class Seen(NamedTuple):
    """The columns of the log that counting needs."""

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


async def _seed(tx: Tx, rule: Rule, now: datetime) -> None:
    """Count what the log holds for the windows that end after `counts_from`."""
    grown: dict[CounterKey, Growth] = {}
    only = Only(rule)
    async for entries in _logged(tx, rule, await _earliest(tx, rule, now)):
        agreements = await load(tx, {entry.user_id for entry in entries})
        for key, growth in growths(entries, agreements, only).items():
            known = grown.setdefault(key, growth)
            if known is not growth:
                known.amount += growth.amount
    if any(growth.amount > CEILING for growth in grown.values()):
        raise Conflict("what is recorded already passes what a limit can count (2^63-1)")
    await count(tx, grown)


async def _logged(tx: Tx, rule: Rule, since: datetime) -> AsyncIterator[list[Seen]]:
    """What the rule may match in the log since then, in chunks, in order of user and time."""
    events = UsageEvent
    order = (events.user_id, events.timestamp, events.event_id)
    query = select(
        *order,
        *(events.provider, events.model, events.endpoint, events.team_id, events.api_key_id),
        func.coalesce(events.input_tokens, 0),
        func.coalesce(events.output_tokens, 0),
        events.cost_nanos,
    ).where(*_may_match(rule, since))
    query = query.order_by(*order).limit(CHUNK)
    rows = [Seen._make(row) for row in await tx.fetch(query)]
    while rows:
        yield rows
        if len(rows) < CHUNK:
            return
        last = tuple_(
            *(literal(value, column.type) for value, column in zip(rows[-1], order, strict=False))
        )
        rows = [Seen._make(row) for row in await tx.fetch(query.where(tuple_(*order) > last))]


def _may_match(rule: Rule, since: datetime) -> list[ColumnElement[bool]]:
    """The part of the log to look at; who was on a plan when is judged by `growths`."""
    events = UsageEvent
    kind, _, of = rule.scope_key.partition(":")
    found: list[ColumnElement[bool]] = [events.timestamp >= since]
    if kind == "user":
        found.append(events.user_id == of)
    elif kind == "plan":
        on_it = select(Subscription.user_id).where(Subscription.plan_id == of)
        found.append(events.user_id.in_(on_it))
    elif kind == "team":
        found.append(events.team_id == of)
    elif kind == "key":
        found.append(events.api_key_id == of)
    if rule.provider is not None:
        found.append(events.provider == rule.provider)
    if rule.model is not None:
        found.append(events.model == rule.model)
    if rule.endpoint is not None:
        found.append(events.endpoint == rule.endpoint)
    return found


async def _earliest(tx: Tx, rule: Rule, now: datetime) -> datetime:
    """No window of this rule that ends after `now` starts before."""
    if rule.window != "billing_period":
        return window_of(rule.window, now, _calendar(now))[0]
    query = select(Subscription.interval).distinct()
    kind, _, of = rule.scope_key.partition(":")
    if kind == "user":
        query = query.where(Subscription.user_id == of)
    longest = max((LONGEST[row[0]] for row in await tx.fetch(query)), default=LONGEST["month"])
    return max(EPOCH, now - longest)


# ---- what is running --------------------------------------------------------------------------


async def running(
    tx: Tx, rule: Rule, scopes: Collection[str], now: datetime
) -> Mapping[str, list[Period]]:
    """The windows of a rule that run now, for each of these counter scopes.

    A window's `key` is the billing period it is reported under. Only a limit that several users
    share and that counts by billing period has more than one: each user's own.
    """
    users = {scope[5:] for scope in scopes if scope.startswith("user:")}
    agreements = await load(tx, users)
    shared = [_calendar(now)]
    if rule.window == "billing_period" and len(users) < len(scopes):
        query = select(UsageEvent.user_id).distinct()
        query = query.where(*_may_match(rule, await _earliest(tx, rule, now)))
        sharing = await load(tx, {row[0] for row in await tx.fetch(query)})
        shared = sorted({agreement.period_at(now) for agreement in sharing.values()})
    found = {}
    for scope in scopes:
        periods = shared
        if scope.startswith("user:"):
            agreement = agreements.get(scope[5:])
            periods = [_calendar(now) if agreement is None else agreement.period_at(now)]
        windows = (Period(*window_of(rule.window, now, one), one.key) for one in periods)
        found[scope] = sorted(set(windows))
    return found


async def standing_steps(tx: Tx, rule: Rule, now: datetime) -> list[Step]:
    """The counters of the windows that run now or later, each as one step from zero."""
    query = select(Counter.scope_key, Counter.window_start, Counter.used, Counter.held)
    since = await _earliest(tx, rule, now)
    rows = await tx.fetch(query.where(*_counters_of(rule), Counter.window_start >= since))
    windows = await running(tx, rule, {row.scope_key for row in rows}, now)
    steps = []
    for row in rows:
        scope_key, window_start = row.scope_key, row.window_start
        keys = {window.start: window.key for window in windows[scope_key]}
        if window_start in keys or window_start > now:
            billing_period = keys.get(window_start, _calendar(window_start).key)
            known = (scope_key, window_start, billing_period)
            steps.append(Step(rule, *known, before=0, after=row.used, held=row.held))
    return steps


def _calendar(moment: datetime) -> Period:
    return period_of(moment, calendar_months(""))


def _counters_of(rule: Rule) -> list[ColumnElement[bool]]:
    """The counters of a limit, by key where it is known: a plan's are its users'."""
    found: list[ColumnElement[bool]] = [Counter.limit_id == rule.id]
    if not rule.scope_key.startswith("plan:"):
        found.append(Counter.scope_key == rule.scope_key)
    return found


async def _check_plan(tx: Tx, draft: Draft) -> None:
    kind, _, of = draft.scope_key.partition(":")
    if kind == "plan" and await find_plan(tx, of) is None:
        raise InvalidInput.at("/scope/plan_id", "no such plan")


def _row(rule: Rule) -> dict[str, Any]:
    return rule._asdict() | {"thresholds": ",".join(map(str, rule.thresholds))}
