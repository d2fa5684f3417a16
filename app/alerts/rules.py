"""Alert rules: what somebody wants to be told of, or not; made, changed, removed, and asked.

A rule of type `threshold` is a limit that only warns, kept in step with it: what it says is read
from its limit, and it is gone when that is. The others are asked by jobs.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    and_,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)

from app.alerts.crossings import crossings
from app.alerts.outbox import raise_alerts
from app.alerts.read import forget_alerts
from app.alerts.tables import AlertRule
from app.core.errors import Conflict, InvalidInput, NotFound
from app.core.ids import short_id
from app.db.changes import announce
from app.db.engine import Tx
from app.limits.known import Rule, rule_of
from app.limits.manage import (
    COLUMNS,
    Draft,
    change_limit,
    create_limit,
    delete_limit,
    draft_of,
    get_limit,
)
from app.limits.tables import Limit
from app.plans.subscriptions import find_plan

TYPES = ("threshold", "forecast", "anomaly", "recovered")
MOST_RULES = 10_000
"""Of those that jobs ask: they read all of them each time."""
_RANKS = {"all": 0, "plan": 1, "team": 2, "key": 2, "user": 3}


class AlertRuleRow(NamedTuple):
    """A rule as it is stored; amounts are in the metric's own unit."""

    id: str
    name: str
    type: str
    scope_key: str
    limit_id: str | None
    metric: str | None
    window: str | None
    amount: int | None
    thresholds: tuple[int, ...]
    sensitivity: int | None
    min_amount: int | None
    enabled: bool
    created_at: datetime


_COLUMNS = tuple(getattr(AlertRule, name) for name in AlertRuleRow._fields)


# ---- the verbs --------------------------------------------------------------------------------


async def create_rule(tx: Tx, rule: AlertRuleRow, now: datetime) -> AlertRuleRow:
    """Store a rule under a new id; what a threshold has reached already is told at once.

    Raises:
        InvalidInput: its plan or limit does not exist.
        Conflict: there are as many as may be.
    """
    made = rule._replace(id=short_id("rule"), created_at=now)
    if made.type == "threshold":
        limit, steps = await create_limit(tx, _draft(made, None), now)
        made = made._replace(limit_id=limit.id)
        await raise_alerts(tx, crossings(steps, now), now)
    else:
        asked = select(func.count()).select_from(AlertRule).where(AlertRule.type != "threshold")
        if (await tx.fetch(asked))[0][0] >= MOST_RULES:
            raise Conflict(f"there are {MOST_RULES} alert rules already", limit=MOST_RULES)
        await _check(tx, made)
    await tx.run(insert(AlertRule), [_row(made)])
    await announce(tx, "alert-rules", made.id, now)
    return made


async def change_rule(
    tx: Tx, before: AlertRuleRow, after: AlertRuleRow, now: datetime
) -> AlertRuleRow:
    """Decide anew about a rule, of the same type; a threshold's limit changes as limits do.

    Raises:
        InvalidInput: its plan or limit does not exist.
    """
    if after.type == "threshold":
        limit = await get_limit(tx, before.limit_id or "")
        changed = await change_limit(tx, limit, _draft(after, limit), now)
        if changed.anew:
            await forget_alerts(tx, limit, changed.rule, now)
        await raise_alerts(tx, crossings(changed.steps, now), now)
    else:
        await _check(tx, after)
    await tx.run(update(AlertRule).where(AlertRule.id == after.id).values(**_row(after)))
    await announce(tx, "alert-rules", after.id, now)
    return after


async def delete_rule(tx: Tx, rule: AlertRuleRow, now: datetime) -> None:
    """Remove a rule, and the limit that a threshold is; alerts that it raised stay."""
    if rule.type == "threshold":
        await delete_limit(tx, await get_limit(tx, rule.limit_id or ""), now)
    await tx.run(delete(AlertRule).where(AlertRule.id == rule.id))
    await announce(tx, "alert-rules", rule.id, now)


async def forget_orphans(tx: Tx) -> int:
    """Remove thresholds whose limit was removed by itself; how many there were."""
    stands = exists().where(Limit.id == AlertRule.limit_id)
    return await tx.run(delete(AlertRule).where(AlertRule.type == "threshold", ~stands))


async def _check(tx: Tx, rule: AlertRuleRow) -> None:
    kind, _, of = rule.scope_key.partition(":")
    if kind == "plan" and await find_plan(tx, of) is None:
        raise InvalidInput.at("/scope/plan_id", "no such plan")
    if rule.limit_id is None:
        return
    row = await tx.first(select(Limit.scope_key).where(Limit.id == rule.limit_id))
    whose = "" if row is None else row[0]
    other = kind == "user" and whose.startswith("user:") and whose != rule.scope_key
    if not whose or other:
        raise InvalidInput.at("/limit_id", "no such limit")


# ---- reads ------------------------------------------------------------------------------------


async def get_rule(tx: Tx, rule_id: str, user_id: str | None = None) -> AlertRuleRow:
    """The rule of that id; with `user_id`, only if it is about that user alone.

    Raises:
        NotFound: there is none.
    """
    found = await _fetch(tx, AlertRule.id == rule_id, None, 1)
    if not found or (user_id is not None and found[0].scope_key != f"user:{user_id}"):
        raise NotFound("no such alert rule", id=rule_id)
    return found[0]


async def list_rules(
    tx: Tx,
    *,
    scope_key: str | None = None,
    kind: str | None = None,
    after: tuple[datetime, str] | None = None,
    limit: int | None = None,
) -> list[AlertRuleRow]:
    """At most `limit` rules in the order they were made, of one scope or type or of all."""
    wanted: list[ColumnElement[bool]] = [AlertRule.id.is_not(None)]
    if scope_key is not None:
        wanted.append(AlertRule.scope_key == scope_key)
    if kind is not None:
        wanted.append(AlertRule.type == kind)
    return await _fetch(tx, and_(*wanted), after, limit)


async def _fetch(
    tx: Tx, wanted: ColumnElement[bool], after: tuple[datetime, str] | None, limit: int | None
) -> list[AlertRuleRow]:
    query = select(*_COLUMNS, *COLUMNS)
    query = query.outerjoin(
        Limit, and_(AlertRule.type == "threshold", Limit.id == AlertRule.limit_id)
    )
    query = query.where(wanted, or_(AlertRule.type != "threshold", Limit.id.is_not(None)))
    if after is not None:
        last = tuple_(literal(after[0], AlertRule.created_at.type), literal(after[1]))
        query = query.where(tuple_(AlertRule.created_at, AlertRule.id) > last)
    query = query.order_by(AlertRule.created_at, AlertRule.id).limit(limit)
    return [_joined(row) for row in await tx.fetch(query)]


def _joined(row: Any) -> AlertRuleRow:
    """A rule as stored; of a threshold, what its limit says today."""
    width = len(_COLUMNS)
    rule = AlertRuleRow._make(row[:width])
    rule = rule._replace(thresholds=tuple(map(int, filter(None, row[8].split(",")))))
    if rule.type != "threshold":
        return rule
    limit = rule_of(row[width:])
    return rule._replace(
        scope_key=limit.scope_key,
        metric=limit.metric,
        window=limit.window,
        amount=limit.amount,
        thresholds=limit.thresholds,
        enabled=limit.action != "shadow",
    )


def _row(rule: AlertRuleRow) -> dict[str, Any]:
    return rule._asdict() | {"thresholds": ",".join(map(str, rule.thresholds))}


def _draft(rule: AlertRuleRow, known: Rule | None) -> Draft:
    """The limit that a threshold is; disabled it goes on counting, and says nothing."""
    if rule.metric is None or rule.window is None:
        raise ValueError("a threshold has a metric and a window")
    decided: dict[str, Any] = {
        "name": rule.name,
        "scope_key": rule.scope_key,
        "metric": rule.metric,
        "window": rule.window,
        "amount": rule.amount,
        "action": "warn" if rule.enabled else "shadow",
        "thresholds": rule.thresholds,
    }
    if known is not None:
        return draft_of(known)._replace(**decided)
    return Draft(provider=None, model=None, endpoint=None, timezone="UTC", **decided)


# ---- asking -----------------------------------------------------------------------------------


def is_wanted(
    rules: Iterable[AlertRuleRow], limit: Rule, scope_key: str, *, otherwise: bool
) -> bool:
    """Whether the rules of one type want to hear of a limit's counter; `otherwise` if none speaks.

    The most particular one has the word: that of the limit before that of a scope, that of a user
    before that of a team, a plan and all, the younger before the older. Shadows are never told of.
    """
    speaking = [rule for rule in rules if _speaks(rule, limit, scope_key)]
    if limit.action == "shadow":
        return False
    return max(speaking, key=_weight).enabled if speaking else otherwise


def _speaks(rule: AlertRuleRow, limit: Rule, scope_key: str) -> bool:
    return (
        rule.scope_key in ("all", limit.scope_key, scope_key)
        and rule.limit_id in (None, limit.id)
        and rule.metric in (None, limit.metric)
        and rule.window in (None, limit.window)
    )


def _weight(rule: AlertRuleRow) -> tuple[bool, int, datetime, str]:
    rank = _RANKS[rule.scope_key.partition(":")[0]]
    return rule.limit_id is not None, rank, rule.created_at, rule.id
