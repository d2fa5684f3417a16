"""How full limits are now: their fullest counters in the windows that run, many at once."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, select, union_all

from app.core.clock import EPOCH, Clock
from app.db.engine import Tx
from app.limits.counters import CounterKey, Level
from app.limits.held import without_expired
from app.limits.known import Rule
from app.limits.running import LONGEST, calendar, period_for
from app.limits.tables import Counter
from app.limits.windows import shown_end, window_of
from app.plans.known import Agreement, load

LONGEST_PERIOD = LONGEST["year"]
CANDIDATES = 20
"""So many of the fullest counters of a plan are looked at, for those whose period runs now."""

_COLUMNS = (Counter.scope_key, Counter.limit_id, Counter.window_start, Counter.used, Counter.held)


class Fill(NamedTuple):
    """One counter of a limit in the window that runs now, in the metric's own unit.

    `resets_at` is None of a lifetime.
    """

    scope_key: str
    used: int
    held: int
    resets_at: datetime | None


async def fills(
    tx: Tx, rules: Sequence[Rule], clock: Clock, most: int = 1
) -> dict[str, list[Fill]]:
    """At most `most` counters of each limit, the fullest first.

    A limit of one scope has one counter, at zero before anything was used; a plan's has one for
    each user who used something. One that users share and that counts by billing period is shown in
    the newest of their periods.
    """
    now = clock.now()
    users = {rule.scope_key[5:] for rule in rules if _is_users(rule.scope_key)}
    agreements = await load(tx, users) if users else {}
    parts = [part for rule in rules for part in _parts(rule, agreements, now, most)]
    rows = [tuple(row) for row in await tx.fetch(union_all(*parts))] if parts else []
    by_id = {rule.id: rule for rule in rules}
    theirs = {row[0][5:] for row in rows if by_id[row[1]].scope_key.startswith("plan:")}
    agreements |= await load(tx, theirs) if theirs else {}
    levels: dict[CounterKey, Level] = {}
    ends: dict[CounterKey, datetime] = {}
    for row in rows:
        key = (row[0], row[1], row[2])
        start, end = _window(by_id[row[1]], row[0], agreements, now)
        if start == row[2] or _is_shared(by_id[row[1]]):
            levels[key], ends[key] = Level(row[3], row[4]), end
    found: dict[str, list[Fill]] = {rule.id: [] for rule in rules}
    fullest = sorted(levels, key=lambda key: (-levels[key].used, key))
    shown = {key: levels[key] for key in _first(fullest, most)}
    for key, level in (await without_expired(tx, shown, clock)).items():
        found[key[1]].append(Fill(key[0], *level, shown_end(ends[key])))
    for rule in rules:
        if not found[rule.id] and not rule.scope_key.startswith("plan:"):
            end = _window(rule, rule.scope_key, agreements, now)[1]
            found[rule.id] = [Fill(rule.scope_key, 0, 0, shown_end(end))]
    return found


def reset_of(rule: Rule, now: datetime) -> datetime | None:
    """When the running window of a limit ends for whoever has calendar months; None for never."""
    return shown_end(_window(rule, "", {}, now)[1])


def _first(keys: Iterable[CounterKey], most: int) -> Iterable[CounterKey]:
    """The first `most` keys of each limit."""
    taken: dict[str, int] = {}
    for key in keys:
        taken[key[1]] = taken.get(key[1], 0) + 1
        if taken[key[1]] <= most:
            yield key


def _parts(
    rule: Rule, agreements: Mapping[str, Agreement], now: datetime, most: int
) -> list[Select[Any]]:
    """Queries for the counters of a limit that may be running."""
    if rule.window == "billing_period" and rule.scope_key.startswith("plan:"):
        month, longest = calendar(now).start, max(EPOCH, now - LONGEST_PERIOD)
        at = Counter.window_start
        room = most + CANDIDATES
        return [
            _part(rule, [at >= month, at <= now], room),
            _part(rule, [at < month, at >= longest], room),
        ]
    if _is_shared(rule):
        at = Counter.window_start
        own = [Counter.scope_key == rule.scope_key, at <= now, at >= now - LONGEST_PERIOD]
        return [_part(rule, own, 1, by=at)]
    start = _window(rule, rule.scope_key, agreements, now)[0]
    where = [Counter.window_start == start]
    if not rule.scope_key.startswith("plan:"):
        where.append(Counter.scope_key == rule.scope_key)
    return [_part(rule, where, most)]


def _part(
    rule: Rule, where: Sequence[ColumnElement[bool]], most: int, by: Any = Counter.used
) -> Select[Any]:
    query = select(*_COLUMNS).where(Counter.limit_id == rule.id, *where)
    return select(query.order_by(by.desc()).limit(most).subquery())


def _window(
    rule: Rule, scope_key: str, agreements: Mapping[str, Agreement], now: datetime
) -> tuple[datetime, datetime]:
    return window_of(rule.window, now, period_for(scope_key, agreements, now), rule.timezone)


def _is_users(scope_key: str) -> bool:
    return scope_key.startswith("user:")


def _is_shared(rule: Rule) -> bool:
    """Whether users with periods of their own count in one counter."""
    return rule.window == "billing_period" and rule.scope_key.partition(":")[0] not in (
        "user",
        "plan",
    )
