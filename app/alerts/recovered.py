"""Tell once that a limit which was reached no longer is: a new window, a raise, another amount."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from typing import NamedTuple

from sqlalchemy import Text, bindparam, literal, literal_column, select, tuple_, update

from app.alerts.crossings import amount_text
from app.alerts.notices import RECOVERED, Notice, said
from app.alerts.outbox import raise_notices
from app.alerts.rules import AlertRuleRow, forget_orphans, is_wanted, list_rules
from app.alerts.standing import windows_at
from app.alerts.tables import Alert
from app.core.clock import EPOCH
from app.db.engine import Database, Tx
from app.limits.counters import percent_reached, stands
from app.limits.known import Rule, rule_of
from app.limits.manage import COLUMNS
from app.limits.tables import Limit

NAME = "notice-recovered"
EVERY_S = 60.0
AT_ONCE = 200
STALE = timedelta(days=7)
"""When a window is over for so long, its end is no news any more."""
_OPEN = (Alert.settled_at.is_(None), Alert.type == literal_column("'limit_reached'", Text))
_KEY = (Alert.scope_key, Alert.limit_id, Alert.window_start)

Reached = tuple[str, str, datetime, str]
"""Scope, limit, window and billing period of a limit that was reached."""
_FIRST: Reached = ("", "", EPOCH, "")


class Settled(NamedTuple):
    """A window in which a limit was reached and no longer is; without a notice nobody is told."""

    scope_key: str
    limit_id: str
    window_start: datetime
    notice: Notice | None


class _Page(NamedTuple):
    settled: list[Settled]
    last: Reached | None


async def is_due(db: Database, now: datetime, *, by_default: bool) -> bool:
    """Whether anything is no longer reached; only reads."""
    async for _ in _pages(db, now, by_default):
        return True
    return False


async def tell_recovered(db: Database, now: datetime, *, by_default: bool) -> int:
    """Settle what is no longer reached, a page at a time; how many notices were raised."""
    raised = 0
    async for settled in _pages(db, now, by_default):
        raised += await db.write(partial(_settle, settled=settled, now=now))
    await db.write(forget_orphans)
    return raised


async def _pages(db: Database, now: datetime, by_default: bool) -> AsyncIterator[list[Settled]]:
    page = _Page([], _FIRST)
    while page.last is not None:
        page = await db.read(partial(_look, after=page.last, now=now, by_default=by_default))
        if page.settled:
            yield page.settled


async def _settle(tx: Tx, settled: Sequence[Settled], now: datetime) -> int:
    same = (
        Alert.scope_key == bindparam("scope"),
        Alert.limit_id == bindparam("limit"),
        Alert.window_start == bindparam("start", type_=Alert.window_start.type),
    )
    places = [
        {"scope": one[0], "limit": one[1], "start": one[2]} for one in sorted(settled, key=_place)
    ]
    await tx.run(update(Alert).where(*same, *_OPEN).values(settled_at=now), places)
    return await raise_notices(tx, [one.notice for one in settled if one.notice is not None], now)


def _place(one: Settled) -> tuple[str, str, datetime]:
    return one[:3]


async def _look(tx: Tx, after: Reached, now: datetime, by_default: bool) -> _Page:
    """One page of what was reached, and what of it is over."""
    last = (literal(after[0]), literal(after[1]), literal(after[2], Alert.window_start.type))
    query = select(*_KEY, Alert.billing_period).distinct()
    query = query.where(*_OPEN, tuple_(*_KEY) > tuple_(*last)).order_by(*_KEY).limit(AT_ONCE)
    rows: list[Reached] = [(row[0], row[1], row[2], row[3]) for row in await tx.fetch(query)]
    if not rows:
        return _Page([], None)
    more = len(rows) == AT_ONCE
    places = [list(found) for _, found in groupby(rows, key=lambda row: row[:2])]
    if more and len(places) > 1:  # the last one may go on after this page
        places.pop()
    found = await _over(tx, places, now, by_default)
    return _Page(found, places[-1][-1] if more else None)


async def _over(
    tx: Tx, places: Sequence[Sequence[Reached]], now: datetime, by_default: bool
) -> list[Settled]:
    rules = await list_rules(tx, kind="recovered")
    ids = {reached[0][1] for reached in places}
    rows = await tx.fetch(select(*COLUMNS).where(Limit.id.in_(sorted(ids))))
    limits = {limit.id: limit.in_force(now) for limit in map(rule_of, rows)}
    found = [Settled(*one[:3], None) for place in places for one in place if one[1] not in limits]
    known = [place for place in places if place[0][1] in limits]
    asked = [
        (limits[one[1]], one[0], at) for place in known for one in place for at in (one[2], now)
    ]
    windows = await windows_at(tx, asked)
    current = {
        (place[0][0], place[0][1]): windows[place[0][1], place[0][0], now].start for place in known
    }
    counters = await stands(tx, sorted((*place, start) for place, start in current.items()))
    for place in known:
        scope, limit_id, newest, billing_period = place[-1]
        limit, start = limits[limit_id], current[scope, limit_id]
        ended_at = windows[limit_id, scope, newest].end
        judged = newest if ended_at > now else start
        used = counters.get((scope, limit_id, judged), (0, 0))[0]
        if judged != start:  # a window of its own that began before its terms changed
            used = (await stands(tx, [(scope, limit_id, judged)])).get(
                (scope, limit_id, judged), (0, 0)
            )[0]
        below = limit.amount is None or not percent_reached(used, limit.amount, 100)
        for one in place if below else place[:-1]:
            told = (
                one[2] == newest
                and ended_at > now - STALE
                and _wanted(rules, limit, scope, by_default)
            )
            notice = _notice(limit, scope, newest, billing_period, used) if told else None
            found.append(Settled(*one[:3], notice))
    return found


def _wanted(rules: Sequence[AlertRuleRow], limit: Rule, scope: str, by_default: bool) -> bool:
    return is_wanted(rules, limit, scope, otherwise=by_default and limit.action == "block")


def _notice(limit: Rule, scope: str, start: datetime, billing_period: str, used: int) -> Notice:
    if limit.amount is None:
        standing = f"You have used {said(limit.metric, used)}, and the limit is lifted."
    else:
        standing = (
            f"You have used {amount_text(limit.metric, used)} of "
            f"{said(limit.metric, limit.amount)}."
        )
    allowed = " Calls are allowed again." if limit.action == "block" else ""
    return Notice(
        *(scope, limit.id, start, RECOVERED),
        type="limit_recovered",
        severity="info",
        title=f"Below the limit again: {limit.name}",
        message=standing + allowed,
        billing_period=billing_period,
        limit_name=limit.name,
        metric=limit.metric,
        used=used,
        limit=limit.amount,
    )
