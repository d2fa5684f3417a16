"""Which limits are closest to their amount, of all there are, in the windows that run now."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Float, case, cast, select

from app.analytics.budgets import may_run
from app.core.clock import Clock
from app.db.engine import Tx
from app.db.types import table_of
from app.limits.counters import Level, percent_of
from app.limits.held import without_expired
from app.limits.known import Rule, rule_of
from app.limits.running import period_for
from app.limits.tables import Counter, Limit
from app.limits.windows import shown_end, window_of
from app.plans.known import load

CANDIDATES = 200
_limit, _counter = table_of(Limit).c, table_of(Counter).c


class Gauge(NamedTuple):
    """One counter of a limit, in the metric's own unit; `resets_at` is None of a lifetime."""

    rule: Rule
    scope_key: str
    used: int
    held: int
    resets_at: datetime | None

    @property
    def amount(self) -> int:
        return self.rule.amount or 0

    @property
    def percent(self) -> float:
        """How much of the amount is used and held."""
        return percent_of(self.used + self.held, self.amount)


async def fullest(tx: Tx, clock: Clock, most: int) -> list[Gauge]:
    """The counters that are closest to their amount, or furthest beyond it; shadows left aside.

    Where users with periods of their own share a limit by billing period, the newest one counts.
    """
    now = clock.now()
    raised = case((_limit.raised_until > now, _limit.raised_amount), else_=_limit.amount)
    share = (cast(_counter.used, Float) + cast(_counter.held, Float)) / cast(raised, Float)
    query = (
        select(
            *(_limit[name] for name in Rule._fields),
            *(_counter.scope_key.label("whose"), _counter.window_start),
            *(_counter.used, _counter.held),
        )
        .join_from(table_of(Limit), table_of(Counter), _limit.id == _counter.limit_id)
        .where(_limit.action != "shadow", raised > 0, may_run(now))
        .order_by(share.desc(), _counter.limit_id, _counter.scope_key)
        .limit(CANDIDATES)
    )
    rows = [tuple(row) for row in await tx.fetch(query)]
    users = {row[-4][5:] for row in rows if row[-4].startswith("user:")}
    agreements = await load(tx, users) if users else {}
    running: dict[tuple[str, str, datetime], tuple[Rule, datetime]] = {}
    levels: dict[tuple[str, str, datetime], Level] = {}
    width = len(Rule._fields)
    for row in rows:
        rule = rule_of(row[:width]).in_force(now)
        scope_key, start, used, held = row[width:]
        period = period_for(scope_key, agreements, now)
        begins, ends = window_of(rule.window, now, period, rule.timezone)
        shared = rule.window == "billing_period" and not scope_key.startswith("user:")
        if start == begins or (shared and start > begins):
            key = (scope_key, rule.id, start)
            running[key], levels[key] = (rule, ends), Level(used, held)
    present = await without_expired(tx, levels, clock)
    found = [
        Gauge(running[key][0], key[0], *level, shown_end(running[key][1]))
        for key, level in present.items()
    ]
    return _first(found, most)


def _first(found: Sequence[Gauge], most: int) -> list[Gauge]:
    return sorted(found, key=lambda one: (-one.percent, one.rule.id, one.scope_key))[:most]
