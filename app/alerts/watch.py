"""Tell once a day of a use that is not usual, and which model or user made it so.

Totals by the hour are all that is read: of one user, of each user of a plan, of a team, or of all.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, func, or_, select

from app.alerts.anomaly import (
    DAY,
    DAYS,
    HOUR,
    WEEK,
    WEEKS,
    Mover,
    Oddity,
    Span,
    compared_spans,
    judged_span,
    mover,
    oddity,
)
from app.alerts.crossings import amount_text
from app.alerts.notices import ANOMALY, Notice, said, shown
from app.alerts.outbox import raise_notices
from app.alerts.rules import AlertRuleRow, list_rules
from app.alerts.standing import Spent, everyones, first_seen, newest_hour, sums_of
from app.core.clock import from_micros, hour_of, to_micros
from app.db.engine import Database, Tx
from app.db.lease import mark_of, note
from app.limits.running import on_plan, period_for
from app.plans.known import load
from app.summaries.fold import SEPARATOR
from app.summaries.tables import HourDimension, HourTotal

NAME = "watch-usage"
EVERY_S = 300.0
USERS_AT_ONCE = 100
MOST_MOVERS = 20
"""So many users who used most are compared with themselves."""
WHO_S = 60.0
"""Finding who moved most reads the totals of all users, at most once a day for each rule."""

Model = tuple[str, str]
Hours = Sequence[tuple[datetime, Model, int]]
"""What was used: hour, provider and model, amount."""


class Unusual(NamedTuple):
    """A scope whose use is not usual; the movers are why, as far as totals can tell."""

    scope_key: str
    span: Span
    oddity: Oddity
    model: Mover | None
    user: Mover | None


async def is_due(db: Database, now: datetime) -> bool:
    """Whether an hour is full that was not looked at, with use in it, and a rule asks."""

    async def work(tx: Tx) -> bool:
        last = from_micros(int(await mark_of(tx, NAME) or 0))
        newest = await newest_hour(tx)
        if newest is None or hour_of(now) <= last or newest < last:
            return False
        return any(rule.enabled for rule in await list_rules(tx, kind="anomaly"))

    return await db.read(work)


async def watch(db: Database, now: datetime) -> int:
    """Judge the last full hours by every rule; how many alerts were raised."""
    raised = 0
    for rule in await db.read(lambda tx: list_rules(tx, kind="anomaly")):
        if not rule.enabled:
            continue
        span = judged_span(rule.window or "day", now)
        async for scopes in _scopes(db, rule, span, now):
            found = await db.read(
                lambda tx: _unusual(tx, rule, scopes, span),  # noqa: B023
                within_s=WHO_S,
            )
            notices = await db.read(lambda tx: _notices(tx, rule, found))  # noqa: B023
            if notices:
                raised += await db.write(lambda tx: raise_notices(tx, notices, now))  # noqa: B023
    await db.write(lambda tx: note(tx, NAME, str(to_micros(hour_of(now))), now))
    return raised


async def _scopes(
    db: Database, rule: AlertRuleRow, span: Span, now: datetime
) -> AsyncIterator[list[str]]:
    """Whose use is judged, in pages: of a plan, each user who used enough to be unusual."""
    kind, _, of = rule.scope_key.partition(":")
    if kind != "plan":
        yield [rule.scope_key]
        return
    last = ""
    while users := await db.read(lambda tx: _on_plan(tx, of, last)):  # noqa: B023
        last = users[-1]
        busy = await db.read(lambda tx: _busy(tx, rule, of, users, span, now))
        if busy:
            yield [f"user:{user_id}" for user_id in busy]


async def _on_plan(tx: Tx, plan_id: str, after: str) -> list[str]:
    found = on_plan(plan_id).distinct()
    user_id = found.selected_columns[0]
    rows = await tx.fetch(found.where(user_id > after).order_by(user_id).limit(USERS_AT_ONCE))
    return [row[0] for row in rows]


async def _busy(
    tx: Tx, rule: AlertRuleRow, plan_id: str, users: Sequence[str], span: Span, now: datetime
) -> list[str]:
    query = select(HourTotal.user_id, *sums_of(HourTotal)).where(
        HourTotal.user_id.in_(users), HourTotal.hour >= span.start, HourTotal.hour < span.end
    )
    rows = await tx.fetch(query.group_by(HourTotal.user_id).order_by(HourTotal.user_id))
    busy = [row[0] for row in rows if _amount(rule, row[1:]) >= max(rule.min_amount or 0, 1)]
    agreed = await load(tx, busy)
    return [user_id for user_id in busy if agreed[user_id].terms_at(now).plan_id == plan_id]


def _amount(rule: AlertRuleRow, sums: Sequence[Any]) -> int:
    return Spent(*map(int, sums)).of(rule.metric or "cost_usd")


# ---- judging ----------------------------------------------------------------------------------


async def _unusual(tx: Tx, rule: AlertRuleRow, scopes: Sequence[str], span: Span) -> list[Unusual]:
    known = await first_seen(tx, [scope[5:] for scope in scopes if scope.startswith("user:")])
    found = []
    for scope in scopes:
        hours = await _hours(tx, rule, scope, _every_span(span))
        since = min([at for at, _, _ in hours] + [hour_of(known.get(scope[5:], span.end))])
        odd, moved = judge(hours, span, since, rule.sensitivity or 1, rule.min_amount or 0)
        if odd is not None:
            before = compared_spans(span, since)
            who = await _who(tx, rule, span, before) if scope == "all" else None
            found.append(Unusual(scope, span, odd, moved, who))
    return found


def judge(
    hours: Hours, span: Span, since: datetime, sensitivity: int, least: int
) -> tuple[Oddity | None, Mover | None]:
    """Whether the use in `span` is unusual against the same hours before, and by which model. Pure.

    `since` is when there was any use at all.
    """
    before = compared_spans(span, since)
    used = _by_model(hours, span)
    parts = [_by_model(hours, one) for one in before]
    found = oddity(sum(used.values()), [sum(one.values()) for one in parts], sensitivity, least)
    if found is None:
        return None, None
    moved = mover(used, parts)
    return found, None if moved is None or moved.part == ("", "") else moved


def _by_model(hours: Hours, span: Span) -> Mapping[Model, int]:
    found: dict[Model, int] = {}
    for at, model, amount in hours:
        if span.start <= at < span.end:
            found[model] = found.get(model, 0) + amount
    return found


def _every_span(span: Span) -> list[Span]:
    weeks = [span.before(WEEK * ago) for ago in range(WEEKS + 1)]
    return weeks + [span.before(DAY * ago) for ago in range(1, DAYS)]


def _within(column: Any, spans: Sequence[Span]) -> ColumnElement[bool]:
    return or_(*(and_(column >= span.start, column < span.end) for span in spans))


async def _hours(tx: Tx, rule: AlertRuleRow, scope: str, spans: Sequence[Span]) -> Hours:
    kind, _, of = scope.partition(":")
    if kind == "user":
        total = HourTotal
        by = (total.hour, total.provider, total.model)
        query = select(*by, *sums_of(total)).where(total.user_id == of, _within(total.hour, spans))
        rows = await tx.fetch(query.group_by(*by))
        return [(row[0], (row[1], row[2]), _amount(rule, row[3:])) for row in rows]
    dimension = "model" if kind == "all" else kind
    query = await everyones(tx, dimension, None if kind == "all" else of)
    found = []
    for row in await tx.fetch(query.where(_within(HourDimension.hour, spans))):
        provider, _, model = row[1].partition(SEPARATOR) if kind == "all" else ("", "", "")
        found.append((row[0], (provider, model), _amount(rule, row[2:])))
    return found


async def _who(tx: Tx, rule: AlertRuleRow, span: Span, before: Sequence[Span]) -> Mover | None:
    """The user who moved most, of those who used most."""
    total = HourTotal
    query = select(total.user_id, *sums_of(total)).where(_within(total.hour, [span]))
    query = query.group_by(total.user_id).order_by(_most(rule).desc(), total.user_id)
    used = {row[0]: _amount(rule, row[1:]) for row in await tx.fetch(query.limit(MOST_MOVERS))}
    query = select(total.user_id, total.hour, *sums_of(total)).group_by(total.user_id, total.hour)
    query = query.where(total.user_id.in_(sorted(used)), _within(total.hour, before))
    spans: list[dict[str, int]] = [{} for _ in before]
    for user_id, hour, *sums in await tx.fetch(query):
        for place, one in enumerate(before):
            if one.start <= hour < one.end:
                spans[place][user_id] = spans[place].get(user_id, 0) + _amount(rule, sums)
    return mover(used, spans)


def _most(rule: AlertRuleRow) -> ColumnElement[Any]:
    if rule.metric == "tokens":
        return func.sum(HourTotal.input_tokens) + func.sum(HourTotal.output_tokens)
    return func.sum(HourTotal.calls if rule.metric == "calls" else HourTotal.cost_nanos)


# ---- telling ----------------------------------------------------------------------------------


async def _notices(tx: Tx, rule: AlertRuleRow, found: Sequence[Unusual]) -> list[Notice]:
    agreed = await load(tx, {one.scope_key[5:] for one in found if _is_user(one.scope_key)})
    notices = []
    for one in found:
        period = period_for(one.scope_key, agreed, one.span.start)
        notices.append(_notice(rule, one, period.key))
    return notices


def _is_user(scope_key: str) -> bool:
    return scope_key.startswith("user:")


def _notice(rule: AlertRuleRow, one: Unusual, billing_period: str) -> Notice:
    metric, odd, span = rule.metric or "cost_usd", one.oddity, one.span
    when = f"{span.start:%Y-%m-%d} from {span.start:%H:%M} to {span.end:%H:%M} UTC"
    sentences = [f"{said(metric, odd.used)} on {when}; usual is {amount_text(metric, odd.usual)}."]
    more = {
        "usual": str(shown(metric, odd.usual)),
        "span_hours": str((span.end - span.start) // HOUR),
    }
    for what, moved in (("model", one.model), ("user", one.user)):
        if moved is None:
            continue
        named = moved.part if isinstance(moved.part, str) else " ".join(filter(None, moved.part))
        figures = f"{amount_text(metric, moved.used)}, usually {amount_text(metric, moved.usual)}"
        sentences.append(f"The {what} that moved most is {named}: {figures}.")
        more[f"{what}_moved"] = named
        more[f"{what}_used"] = str(shown(metric, moved.used))
        more[f"{what}_usual"] = str(shown(metric, moved.usual))
    return Notice(
        *(one.scope_key, rule.id, span.day, ANOMALY),
        type="usage_anomaly",
        severity="warning",
        title=f"Unusual use: {rule.name}",
        message=" ".join(sentences),
        billing_period=billing_period,
        limit_name=rule.name,
        metric=metric,
        used=odd.used,
        limit=None,
        more=more,
    )
