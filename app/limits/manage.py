"""Make, change, raise and delete limits, each with its counters: what the log holds counts at once.

A limit counts from the start of the windows that run when it is made. So the transaction that makes
it sums what is recorded from there on and seeds the counters (`seed.py`): `used` is the sum of what
the limit matches in its window from the first moment on. It runs alone, with no ingest beside it,
or an event committed meanwhile would be counted twice or never.
"""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import delete, func, insert, literal, select, tuple_, update

from app.core.clock import MICROSECOND, Clock
from app.core.errors import InvalidInput, NotFound
from app.core.ids import short_id
from app.db.changes import announce
from app.db.engine import Tx
from app.limits.check import Ask, State, current_keys, judge
from app.limits.counters import Step
from app.limits.held import stands_now
from app.limits.known import Rule, Rules, rule_of, scope_keys
from app.limits.running import counters_of, held_of, standing_steps
from app.limits.seed import seed
from app.limits.tables import Counter, HoldAmount, Limit, LimitRaise
from app.plans.known import agreement_of, load
from app.plans.periods import calendar_months
from app.plans.subscriptions import default_plan, find_plan
from app.summaries.tables import WrappedUsage
from app.usage.tables import UsageCorrection, UsageEvent

COLUMNS = tuple(getattr(Limit, name) for name in Rule._fields)


class Draft(NamedTuple):
    """What somebody decides about a limit: the fields of `Rule` that are not ours to set."""

    name: str
    scope_key: str
    provider: str | None
    model: str | None
    endpoint: str | None
    metric: str
    window: str
    timezone: str
    amount: int | None
    action: str
    thresholds: tuple[int, ...]

    @property
    def counts(self) -> tuple[str | None, ...]:
        """What decides which calls are counted where, and how much."""
        return self[1:8]


def draft_of(rule: Rule) -> Draft:
    """A limit as it was decided."""
    return Draft(*rule[1:12])


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
    await seed(tx, rule, now)
    return rule, await standing_steps(tx, rule, now)


async def change_limit(tx: Tx, before: Rule, draft: Draft, now: datetime) -> Changed:
    """Decide anew about a limit.

    Another scope, match, metric, window or time zone counts other calls: all counters go, with what
    is held in them, and those of the windows running now are seeded again. Anything else leaves the
    counters as they are. A raise stays in force, unless another metric makes its amount mean
    something else.
    """
    anew = draft.counts != draft_of(before).counts
    rule = before._replace(**draft._asdict(), counts_from=now if anew else before.counts_from)
    if draft.metric != before.metric:
        ended = await _ended(tx, before, now)
        rule = rule._replace(raised_until=ended.raised_until)
    if anew:
        await _check_plan(tx, draft)
        await tx.run(delete(HoldAmount).where(*held_of(before)))
        await tx.run(delete(Counter).where(*counters_of(before)))
    await _store(tx, rule)
    for scope_key in sorted({before.scope_key, rule.scope_key}):
        await announce(tx, "limits", scope_key, now)
    if anew:
        await seed(tx, rule, now)
    asked = (rule.amount, rule.thresholds, rule.action)
    reached_may_differ = anew or asked != (before.amount, before.thresholds, before.action)
    steps = await standing_steps(tx, rule, now) if reached_may_differ else []
    return Changed(before, rule, steps, anew)


async def delete_limit(tx: Tx, rule: Rule, now: datetime) -> None:
    """Remove a limit and its counters; alerts that it raised are history and stay."""
    await tx.run(delete(HoldAmount).where(*held_of(rule)))
    await tx.run(delete(Counter).where(*counters_of(rule)))
    await tx.run(delete(Limit).where(Limit.id == rule.id))
    await announce(tx, "limits", rule.scope_key, now)


async def delete_limits_of_plan(tx: Tx, plan_id: str, now: datetime) -> None:
    """Remove the limits of a plan that goes."""
    for rule in await list_limits(tx, f"plan:{plan_id}", None, None):
        await delete_limit(tx, rule, now)


# ---- raises -----------------------------------------------------------------------------------


class RaiseRow(NamedTuple):
    """One raise of a limit, or the end of one, as it is kept."""

    number: int
    kind: str
    metric: str
    amount: int | None
    until: datetime
    reason: str | None
    created_at: datetime


async def raise_limit(
    tx: Tx, before: Rule, amount: int | None, until: datetime, reason: str | None, now: datetime
) -> tuple[Rule, list[Step]]:
    """Let another amount be in force until then, instead of any raise before; None is unlimited.

    It ends by itself: every judgement compares `until` with its own time. The steps are the running
    counters, for an amount lower than the one that was in force may be reached already.
    """
    rule = before._replace(raised_amount=amount, raised_until=until)
    await _note(tx, rule, RaiseRow(0, "raise", rule.metric, amount, until, reason, now))
    await _store(tx, rule)
    await announce(tx, "limits", rule.scope_key, now)
    return rule, await standing_steps(tx, rule, now)


async def end_raise(tx: Tx, before: Rule, now: datetime) -> tuple[Rule, list[Step]]:
    """Put the standing amount in force again; without a raise in force nothing changes."""
    rule = await _ended(tx, before, now)
    if rule == before:
        return before, []
    await _store(tx, rule)
    await announce(tx, "limits", rule.scope_key, now)
    return rule, await standing_steps(tx, rule, now)


async def list_raises(tx: Tx, limit_id: str, below: int | None, limit: int) -> list[RaiseRow]:
    """At most `limit` rows of a limit's history, newest first."""
    query = select(*(getattr(LimitRaise, name) for name in RaiseRow._fields))
    query = query.where(LimitRaise.limit_id == limit_id)
    if below is not None:
        query = query.where(LimitRaise.number < below)
    query = query.order_by(LimitRaise.number.desc()).limit(limit)
    return [RaiseRow._make(row) for row in await tx.fetch(query)]


async def _ended(tx: Tx, rule: Rule, now: datetime) -> Rule:
    """The limit with its raise, if there is one in force, ended now.

    `raised_until` stays, as now: a threshold that the standing amount has reached may have no alert
    yet, and says so.
    """
    if rule.raised_until is None or rule.raised_until <= now:
        return rule
    await _note(tx, rule, RaiseRow(0, "end", rule.metric, rule.raised_amount, now, None, now))
    return rule._replace(raised_until=now)


async def _note(tx: Tx, rule: Rule, raised: RaiseRow) -> None:
    newest = await list_raises(tx, rule.id, None, 1)
    number = newest[0].number + 1 if newest else 1
    row = {"limit_id": rule.id, **raised._replace(number=number)._asdict()}
    await tx.run(insert(LimitRaise), [row])


# ---- reads ------------------------------------------------------------------------------------


async def get_limit(tx: Tx, limit_id: str, user_id: str | None = None) -> Rule:
    """The limit of that id; with `user_id`, only if it is that user's own.

    Raises:
        NotFound: there is none.
    """
    row = await tx.first(select(*COLUMNS).where(Limit.id == limit_id))
    rule = rule_of(row) if row else None
    if rule is None or (user_id is not None and rule.scope_key != f"user:{user_id}"):
        raise NotFound("no such limit", id=limit_id)
    return rule


async def list_limits(
    tx: Tx, scope_key: str | None, after: tuple[datetime, str] | None, limit: int | None
) -> list[Rule]:
    """At most `limit` limits in the order they were made, of one scope or of all."""
    query = select(*COLUMNS).order_by(Limit.created_at, Limit.id).limit(limit)
    if scope_key is not None:
        query = query.where(Limit.scope_key == scope_key)
    if after is not None:
        last = tuple_(literal(after[0], Limit.created_at.type), literal(after[1]))
        query = query.where(tuple_(Limit.created_at, Limit.id) > last)
    return [rule_of(row) for row in await tx.fetch(query)]


async def states_now(tx: Tx, user_id: str, clock: Clock) -> list[State]:
    """Every limit that applies to a user, in the window running now.

    Reads past the caches: they belong to transactions that see the newest configuration, and this
    may be an older snapshot.
    """
    now = clock.now()
    agreement = (await load(tx, [user_id])).get(user_id)
    if agreement is None:
        agreement = agreement_of([calendar_months((await default_plan(tx)).id)])
    plan_id = agreement.terms_at(now).plan_id
    rules = Rules()
    await rules.load(tx, list(scope_keys(user_id, plan_id, None, None)))
    found = current_keys(rules.of(user_id, plan_id, None, None), agreement, user_id, now)
    counters = await stands_now(tx, sorted({key for _, key, _ in found}), clock)
    return judge(Ask(user_id, *(None,) * 8), found, counters)


async def next_start(tx: Tx, user_id: str, now: datetime) -> datetime:
    """When new terms of a user may start: now, or as soon after as every count stays exact.

    What is recorded already stays in the period it was counted in, so new terms start after the
    user's last event (its clock may have been minutes ahead), and the period that they end is still
    running for every limit that counts by billing period.
    """
    events = [
        select(func.max(last_at)).where(user == user_id)
        for user, last_at in (
            (UsageEvent.user_id, UsageEvent.timestamp),
            (UsageCorrection.user_id, UsageCorrection.timestamp),
            (WrappedUsage.user_id, WrappedUsage.last_at),
        )
    ]
    counted = select(func.max(Limit.counts_from)).where(Limit.window == "billing_period")
    found: list[datetime | None] = [(await tx.fetch(query))[0][0] for query in (*events, counted)]
    return max([now, *(moment + MICROSECOND for moment in found if moment is not None)])


async def _check_plan(tx: Tx, draft: Draft) -> None:
    kind, _, of = draft.scope_key.partition(":")
    if kind == "plan" and await find_plan(tx, of) is None:
        raise InvalidInput.at("/scope/plan_id", "no such plan")


async def _store(tx: Tx, rule: Rule) -> None:
    await tx.run(update(Limit).where(Limit.id == rule.id).values(**_row(rule)))


def _row(rule: Rule) -> dict[str, Any]:
    return rule._asdict() | {"thresholds": ",".join(map(str, rule.thresholds))}
