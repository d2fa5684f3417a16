"""Limits as people look at them: found by what they are called, each with its fullest counter."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import literal, or_, select, tuple_

from app.core.clock import Clock
from app.dashboard.limit_fills import Fill, fills, reset_of
from app.db.engine import Tx
from app.limits.counters import percent_of
from app.limits.known import ACTIONS, Rule, rule_of
from app.limits.manage import COLUMNS
from app.limits.tables import Limit

SCOPES = {"user": "user", "team": "team", "key": "API key", "plan": "plan", "all": "everyone"}


class Asked(NamedTuple):
    """Which limits somebody looks for; what is empty asks for nothing in particular."""

    text: str = ""
    action: str = ""
    scope: str = ""


class Shown(NamedTuple):
    """A limit as it is in force, as it stands without a raise, and its fullest counters.

    Those of a plan's limit may be as many as there are users: with `is_later` they are read apart.
    """

    rule: Rule
    standing: Rule
    fills: Sequence[Fill]
    next_reset: datetime | None = None
    is_later: bool = False

    @property
    def used(self) -> int:
        return self.fills[0].used if self.fills else 0

    @property
    def held(self) -> int:
        return self.fills[0].held if self.fills else 0

    @property
    def percent(self) -> float:
        return percent_of(self.used, self.rule.amount)

    @property
    def filled(self) -> float:
        """How much of the amount is used and held."""
        return percent_of(self.used + self.held, self.rule.amount)

    @property
    def beyond(self) -> int:
        """By how much the fullest counter is past the amount: what a blocking one had refused."""
        return 0 if self.rule.amount is None else max(0, self.used - self.rule.amount)

    @property
    def is_reached(self) -> bool:
        """Whether a blocking limit refuses what asks for any more."""
        return self.rule.amount is not None and self.used + self.held >= self.rule.amount

    @property
    def resets_at(self) -> datetime | None:
        return self.fills[0].resets_at if self.fills else self.next_reset

    @property
    def is_raised(self) -> bool:
        return self.rule.raised_until is not None


async def find_limits(
    tx: Tx, asked: Asked, before: tuple[datetime, str] | None, limit: int
) -> list[Rule]:
    """At most `limit` limits, newest first, whose name, scope or match contains the text."""
    query = select(*COLUMNS).order_by(Limit.created_at.desc(), Limit.id.desc()).limit(limit)
    if asked.text:
        columns = (Limit.name, Limit.scope_key, Limit.provider, Limit.model, Limit.id)
        query = query.where(or_(*(one.icontains(asked.text, autoescape=True) for one in columns)))
    if asked.action in ACTIONS:
        query = query.where(Limit.action == asked.action)
    if asked.scope in SCOPES:
        named = Limit.scope_key == "all"
        if asked.scope != "all":
            named = Limit.scope_key.startswith(f"{asked.scope}:", autoescape=True)
        query = query.where(named)
    if before is not None:
        last = tuple_(literal(before[0], Limit.created_at.type), literal(before[1]))
        query = query.where(tuple_(Limit.created_at, Limit.id) < last)
    return [rule_of(row) for row in await tx.fetch(query)]


async def shown_limits(
    tx: Tx, rules: Sequence[Rule], clock: Clock, most: int = 1, *, plans_later: bool = False
) -> list[Shown]:
    """The limits with at most `most` of their counters in running windows, the fullest first.

    With `plans_later` nothing is read of the counters of plans' limits.
    """
    now = clock.now()
    later = {rule.id for rule in rules if plans_later and rule.scope_key.startswith("plan:")}
    filled = await fills(tx, [rule for rule in rules if rule.id not in later], clock, most)
    return [
        Shown(
            rule.in_force(now), rule, filled.get(rule.id, []), reset_of(rule, now), rule.id in later
        )
        for rule in rules
    ]
