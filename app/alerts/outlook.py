"""Tell once in each window of a limit that it will be passed before the window ends."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

from sqlalchemy import Select, literal, select, tuple_

from app.alerts.crossings import amount_text
from app.alerts.forecast import History, Projection, forecast
from app.alerts.notices import FORECAST, Notice, said, shown
from app.alerts.outbox import raise_notices
from app.alerts.rules import AlertRuleRow, is_wanted, list_rules
from app.alerts.standing import histories, newest_hour, windows_at
from app.alerts.tables import Alert
from app.core.clock import from_micros, rfc3339, to_micros
from app.db.engine import Database, Tx
from app.db.lease import mark_of, note
from app.db.types import instant, table_of
from app.db.upsert import Find
from app.limits.counters import percent_reached
from app.limits.known import Rule, rule_of
from app.limits.manage import COLUMNS
from app.limits.running import LONGEST
from app.limits.tables import Counter, Limit
from app.plans.periods import Period
from app.plans.tables import Subscription

NAME = "forecast-limits"
EVERY_S = 600.0
EVERY = timedelta(seconds=EVERY_S)
FORESEEN = ("day", "week", "month", "billing_period")
"""Windows that are long enough, and end."""
BY_DEFAULT = ("week", "month", "billing_period")
LEAST_PERCENT = 10
"""A limit is looked at when so much is used: below, a forecast says more of chance than of use."""
LIMITS_AT_ONCE = 200
COUNTERS_AT_ONCE = 50
_KEY = ("scope_key", "limit_id", "window_start", "threshold")
_find_alerts = Find(table_of(Alert), _KEY, _KEY[:3])


Standing = tuple[Rule, str, Period, int]
"""A limit, the scope of its counter, the window that runs, and what is used in it."""
Used = tuple[str, datetime, str, int]
"""A counter: its limit, window and scope, and what is used."""


class Outlook(NamedTuple):
    """One counter, and where it is heading; the rule is as it is in force now."""

    rule: Rule
    scope_key: str
    window: Period
    used: int
    projection: Projection


# ---- the job ----------------------------------------------------------------------------------


async def is_due(db: Database, now: datetime) -> bool:
    """Whether it is time again, and anything was used since the hour of the last time."""

    async def work(tx: Tx) -> bool:
        last = from_micros(int(await mark_of(tx, NAME) or 0))
        newest = await newest_hour(tx)
        return now - last >= EVERY and newest is not None and newest + timedelta(hours=1) > last

    return await db.read(work)


async def foresee(db: Database, now: datetime, *, by_default: bool) -> int:
    """Look at every limit that runs, a page at a time; how many alerts were raised."""
    rules = await db.read(lambda tx: list_rules(tx, kind="forecast"))
    raised = 0
    async for page in _running(db, rules, now, by_default):
        found = await db.read(partial(outlooks, standing=page, now=now))
        passed = [one for one in found if one.projection.passes_at is not None]
        notices = [_notice(one, now) for one in passed]
        if notices:
            raised += await db.write(partial(raise_notices, found=notices, now=now))
    await db.write(lambda tx: note(tx, NAME, str(to_micros(now)), now))
    return raised


async def _running(
    db: Database, rules: Sequence[AlertRuleRow], now: datetime, by_default: bool
) -> AsyncIterator[list[Standing]]:
    """The counters to look at: in use, neither reached nor told of before."""
    asked, by = any(rule.enabled for rule in rules), by_default
    for window in FORESEEN if asked else BY_DEFAULT if by_default else ():
        since = await db.read(partial(_since, window=window, now=now))
        last = ""
        while limits := await db.read(partial(_limits, window=window, after=last)):
            last = limits[-1].id
            kept = {limit.id: limit for limit in limits if asked or _is_default(limit)}
            async for counters in _counters(db, sorted(kept), since):
                page = await db.read(
                    partial(_open, rules=rules, limits=kept, counters=counters, now=now, by=by)
                )
                if page:
                    yield page


def _is_default(limit: Rule) -> bool:
    return limit.action == "block" and limit.window in BY_DEFAULT


async def _since(tx: Tx, window: str, now: datetime) -> datetime:
    """No window of that kind that runs now began before."""
    if window != "billing_period":
        return now - LONGEST[window]
    rows = await tx.fetch(select(Subscription.interval).distinct())
    return now - max([LONGEST["month"], *(LONGEST[row[0]] for row in rows)])


async def _limits(tx: Tx, window: str, after: str) -> list[Rule]:
    query = select(*COLUMNS).where(Limit.window == window, Limit.action != "shadow")
    query = query.where(Limit.id > after).order_by(Limit.id).limit(LIMITS_AT_ONCE)
    return [rule_of(row) for row in await tx.fetch(query)]


async def _counters(
    db: Database, limit_ids: Sequence[str], since: datetime
) -> AsyncIterator[list[Used]]:
    order = (Counter.limit_id, Counter.window_start, Counter.scope_key)
    query = select(*order, Counter.used).where(
        Counter.limit_id.in_(limit_ids), Counter.window_start >= since, Counter.used > 0
    )
    query = query.order_by(*order).limit(COUNTERS_AT_ONCE)
    page = query if limit_ids else None
    while page is not None:
        rows = await db.read(partial(_rows, query=page))
        if rows:
            yield rows
        page = None
        if len(rows) == COUNTERS_AT_ONCE:
            limit_id, start, scope, _ = rows[-1]
            last = (literal(limit_id), literal(start, Counter.window_start.type), literal(scope))
            page = query.where(tuple_(*order) > tuple_(*last))


async def _rows(tx: Tx, query: Select[str, datetime, str, int]) -> list[Used]:
    return [(row[0], row[1], row[2], row[3]) for row in await tx.fetch(query)]


async def _open(
    tx: Tx,
    rules: Sequence[AlertRuleRow],
    limits: dict[str, Rule],
    counters: Sequence[Used],
    now: datetime,
    by: bool,
) -> list[Standing]:
    wanted = []
    for limit_id, start, scope, used in counters:
        rule = limits[limit_id].in_force(now)
        amount = rule.amount
        if not amount or used >= amount or not percent_reached(used, amount, LEAST_PERCENT):
            continue
        if is_wanted(rules, rule, scope, otherwise=by and _is_default(rule)):
            wanted.append((rule, scope, start, used))
    windows = await windows_at(tx, [(rule, scope, now) for rule, scope, _, _ in wanted])
    keys = [
        (scope, rule.id, start, FORECAST)
        for rule, scope, start, _ in wanted
        if windows[rule.id, scope, now].start == start
    ]
    told = {(*place, instant(start)) for *place, start in await _find_alerts(tx, keys)}
    still = {key[:3] for key in keys} - told
    return [
        (limits[rule.id], scope, windows[rule.id, scope, now], used)
        for rule, scope, start, used in wanted
        if (scope, rule.id, start) in still
    ]


# ---- where counters are heading ---------------------------------------------------------------


async def outlooks(tx: Tx, standing: Sequence[Standing], now: datetime) -> list[Outlook]:
    """Project each counter to the end of its window."""
    known = await histories(tx, [(rule, scope) for rule, scope, _, _ in standing], now)
    return [
        Outlook(
            rule.in_force(now),
            scope,
            window,
            used,
            heading(rule, known.get((rule.id, scope)), window, used, now),
        )
        for rule, scope, window, used in standing
    ]


def heading(
    rule: Rule, history: History | None, window: Period, used: int, now: datetime
) -> Projection:
    """Where a counter is heading, by the amounts that are and will be in force. Pure.

    When a raise ends in the window, what is used by then may pass the standing amount at once.
    """
    in_force, span = rule.in_force(now), (window.start, window.end)
    found = forecast(history, used, in_force.amount, span, now)
    ends_at = in_force.raised_until
    if ends_at is None or ends_at >= window.end:
        return found
    if found.passes_at is not None and found.passes_at < ends_at:
        return found
    then = forecast(history, used, rule.amount, span, now).passes_at
    return found._replace(passes_at=None if then is None else max(then, ends_at))


def _notice(one: Outlook, now: datetime) -> Notice:
    rule, window, projection = one.rule, one.window, one.projection
    if projection.passes_at is None or projection.total_at_end is None:
        raise ValueError("a limit that is not passed is not told of")
    metric, total = rule.metric, projection.total_at_end
    passed = f"At this pace the limit “{rule.name}” will be passed"
    used = f"You have used {amount_text(metric, one.used)} of {said(metric, rule.amount or 0)}"
    then = f"it would be {amount_text(metric, total)} when the {rule.window.replace('_', ' ')} ends"
    return Notice(
        *(one.scope_key, rule.id, window.start, FORECAST),
        type="limit_forecast",
        severity="warning",
        title=f"Will be passed: {rule.name}",
        message=f"{passed} {day_of(projection.passes_at, now)}. {used}, and {then}.",
        billing_period=window.key,
        limit_name=rule.name,
        metric=metric,
        used=one.used,
        limit=rule.amount,
        more={
            "passes_at": rfc3339(projection.passes_at),
            "projected": str(shown(metric, total)),
            "basis": projection.basis,
        },
    )


def day_of(moment: datetime, now: datetime) -> str:
    """An instant to the hour as one says it: `on the 21st at about 14:00 UTC`."""
    at = (moment + timedelta(minutes=30)).replace(minute=0, second=0, microsecond=0)
    if (at.year, at.month) == (now.year, now.month):
        day = f"the {_ordinal(at.day)}"
    else:
        day = f"{at.day} {at:%B}" + ("" if at.year == now.year else f" {at.year}")
    return f"on {day} at about {at:%H}:00 UTC"


def _ordinal(day: int) -> str:
    ending = "th" if 11 <= day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{ending}"
