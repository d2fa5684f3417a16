"""Prove on one snapshot that the log, the totals, the limits and the alerts agree.

The log stands for all that was recorded: what is in it, what was wrapped, and corrections of both.
"""

from collections import Counter as Tally
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import exists, func, select
from sqlalchemy.engine import Row

from app.alerts.tables import Alert
from app.analytics.corrected import corrections_sum_to_present
from app.analytics.history import adjustments_sum_to_present
from app.analytics.matched import NOTHING, Matched, match_recorded, pages
from app.core.clock import EPOCH, rfc3339
from app.core.money import CEILING
from app.db.changes import ConfigChange
from app.db.engine import Tx
from app.db.types import table_of
from app.limits.counters import CounterKey, percent_reached
from app.limits.known import Rule, rule_of
from app.limits.tables import Counter, Hold, HoldAmount, Limit
from app.limits.windows import window_of
from app.plans.known import load
from app.plans.periods import FAR, Period
from app.retention.verify import archives_equal_wrapped
from app.summaries.reconcile import (
    MAX_DIFFERENCES,
    Difference,
    Verdict,
    Where,
    amount,
    reconcile,
)

PROOF_S = 300.0
"""How long a proof may take; a million events take some seconds."""


class Proof(NamedTuple):
    """Whether everything agrees, and where it does not."""

    checked_at: datetime
    verdicts: Sequence[Verdict]

    @property
    def consistent(self) -> bool:
        return not self.differing

    @property
    def differing(self) -> int:
        """How many values differ, also those beyond what `differences` shows."""
        return sum(verdict.differing for verdict in self.verdicts)

    @property
    def differences(self) -> list[Difference]:
        found = [one for verdict in self.verdicts for one in verdict.differences]
        return found[:MAX_DIFFERENCES]


async def prove(tx: Tx, now: datetime) -> Proof:
    """Judge every identity on the snapshot of `tx`. Takes long: `db.read(…, within_s=PROOF_S)`."""
    verdicts = await reconcile(tx)
    rules, standing_since = await all_rules(tx, now)
    matched = await match_recorded(tx, standing_since) if rules else {}
    verdicts.append(await counters_are_log(tx, rules, matched))
    in_force = {rule.id: rule.in_force(now) for rule in rules.values()}
    verdicts.append(await alerts_are_counters(tx, in_force, matched, standing_since))
    verdicts.append(await held_is_open_holds(tx))
    verdicts.append(await adjustments_sum_to_present(tx))
    verdicts.append(await corrections_sum_to_present(tx))
    verdicts.append(await archives_equal_wrapped(tx))
    return Proof(now, verdicts)


_limit, _counter, _alert = table_of(Limit).c, table_of(Counter).c, table_of(Alert).c
_hold, _part = table_of(Hold).c, table_of(HoldAmount).c
_change = table_of(ConfigChange).c
_RULE = [_limit[name] for name in Rule._fields]
_COUNTER = [_counter.scope_key, _counter.limit_id, _counter.window_start, _counter.used]
_ALERT = [
    *(_alert.scope_key, _alert.limit_id, _alert.window_start, _alert.threshold),
    _alert.created_at,
]


async def all_rules(tx: Tx, now: datetime) -> tuple[dict[str, Rule], dict[str, datetime]]:
    """Every limit by its id, and since when each is as it is."""
    rules = {rule.id: rule for rule in map(rule_of, await tx.fetch(select(*_RULE)))}
    return rules, unchanged_since(rules.values(), await _changes(tx), now)


async def _changes(tx: Tx) -> list[tuple[str, datetime]]:
    query = select(_change.ref, _change.changed_at).where(_change.kind == "limits")
    return [(row.ref, row.changed_at) for row in await tx.fetch(query)]


def unchanged_since(
    rules: Iterable[Rule], changes: Iterable[tuple[str, datetime]], now: datetime
) -> dict[str, datetime]:
    """Since when each limit is as it is: its creation, a change in its scope, a raise's end. Pure.

    A change is told by its scope alone; one that made another limit which still stands is not one
    of this limit.
    """
    rules = list(rules)
    made = Tally((rule.scope_key, rule.created_at) for rule in rules)
    changed: dict[str, datetime] = {}
    for scope_key, at in Tally(changes) - made:
        changed[scope_key] = max(at, changed.get(scope_key, at))
    return {
        rule.id: max(rule.created_at, changed.get(rule.scope_key, EPOCH), _fell_back(rule, now))
        for rule in rules
    }


def _fell_back(rule: Rule, now: datetime) -> datetime:
    """When the last raise ended by itself; what was reached by then is told by the next call."""
    until = rule.raised_until
    return until if until is not None and until <= now else EPOCH


# ---- limits and alerts --------------------------------------------------------------------------


class Standing(NamedTuple):
    """A counter that was judged: where it should stand, and where it does."""

    key: CounterKey
    rule: Rule
    expected: int
    found: int


async def judged_counters(
    tx: Tx,
    rules: Mapping[str, Rule],
    matched: Mapping[CounterKey, Matched],
    scope_key: str | None = None,
) -> AsyncIterator[Standing]:
    """Every counter, or those of one scope, beside what its limit matches; also those missing.

    The counter of a limit that is gone proves nothing, nor does one whose window was over before
    its limit began to count.
    """
    query = select(*_COUNTER)
    if scope_key is not None:
        query = query.where(_counter.scope_key == scope_key)
        matched = {key: value for key, value in matched.items() if key[0] == scope_key}
    seen = set()
    async for page in pages(tx, query, _COUNTER[:3]):
        for row in page:
            key, rule = _key(row), rules.get(row.limit_id)
            if rule is None or (key not in matched and await _over(tx, rule, key)):
                continue
            seen.add(key)
            expected = matched.get(key, NOTHING).nearest(row.used)
            yield Standing(key, rule, min(expected, CEILING), row.used)  # a counter stays there
    for key in sorted(matched.keys() - seen):
        yield Standing(key, rules[key[1]], min(matched[key].nearest(0), CEILING), 0)


async def counters_are_log(
    tx: Tx, rules: Mapping[str, Rule], matched: Mapping[CounterKey, Matched]
) -> Verdict:
    """Each counter stands at what its limit matches in that window, and none is missing."""
    found = _Findings("limit_counters_equal_log")
    async for one in judged_counters(tx, rules, matched):
        found.compare(at_counter(one.key), one.rule.metric, one.expected, one.found)
    return found.verdict()


def _key(row: Row[Any]) -> CounterKey:
    return row.scope_key, row.limit_id, row.window_start


async def _over(tx: Tx, rule: Rule, key: CounterKey) -> bool:
    """Whether a window had ended when its limit began to count, or nobody can say when it ends."""
    scope_key, _, start = key
    if start >= rule.counts_from:
        return False
    period = Period(EPOCH, FAR, "")
    if rule.window == "billing_period":
        user_id = scope_key.removeprefix("user:")
        agreement = (await load(tx, [user_id])).get(user_id)
        if agreement is None or user_id == scope_key:
            return True
        period = agreement.period_at(start)
    return window_of(rule.window, start, period, rule.timezone)[1] <= rule.counts_from


async def held_is_open_holds(tx: Tx) -> Verdict:
    """What each counter says is held is the sum of what open holds have in it, and of nothing else.

    A hold that expired counts until somebody has swept it: readers leave it out by its time.
    """
    found = _Findings("held_equals_open_holds")
    of_open = {key: amount async for key, amount in _open_holds(tx)}
    async for page in pages(tx, select(*_COUNTER[:3], _counter.held), _COUNTER[:3]):
        for row in page:
            expected = of_open.pop(_key(row), 0)
            if expected or row.held:
                found.compare(at_counter(_key(row)), "held", expected, row.held)
    for key in sorted(of_open):
        found.compare(at_counter(key), "held", of_open[key], 0)
    return found.verdict()


async def _open_holds(tx: Tx) -> AsyncIterator[tuple[CounterKey, int]]:
    counters = (_part.scope_key, _part.limit_id, _part.window_start)
    query = select(*counters, func.sum(_part.amount)).group_by(*counters)
    whose = (_hold.id == _part.hold_id) & (_hold.user_id == _part.user_id)
    for row in await tx.fetch(query.where(exists().where(whose, _hold.state == "open"))):
        yield (row[0], row[1], row[2]), int(row[3])


async def alerts_are_counters(
    tx: Tx,
    rules: Mapping[str, Rule],
    matched: Mapping[CounterKey, Matched],
    standing_since: Mapping[str, datetime],
) -> Verdict:
    """Each threshold that a counter reached has its alert, and no other one has; shadows have none.

    A threshold that was reached before the limit became what it is may have one or not, and an
    alert from before that is not judged by the limit of today. Nor is one of a threshold that was
    reached while events were charged more than now: what was told once stays told.
    """
    found = _Findings("alerts_equal_thresholds_reached")
    raised: dict[tuple[str, str, datetime, int], datetime] = {}
    async for page in pages(tx, select(*_ALERT), _ALERT[:4]):
        for row in page:
            if row.limit_id in rules and row.threshold > 0:  # others are what a job saw
                raised[*_key(row), row.threshold] = row.created_at
    async for page in pages(tx, select(*_COUNTER), _COUNTER[:3]):
        for row in page:
            counter, rule = _key(row), rules.get(row.limit_id)
            if rule is None or rule.amount is None or rule.action == "shadow":
                continue
            before = matched.get(counter, NOTHING).before
            for threshold in rule.thresholds:
                if not percent_reached(row.used, rule.amount, threshold):
                    continue
                alert = (*counter, threshold)
                there = raised.pop(alert, None) is not None
                if there or not percent_reached(before, rule.amount, threshold):
                    where = at_counter(counter) | {"threshold": str(threshold)}
                    found.compare(where, "alerts", 1, int(there))
    for alert in sorted(raised):
        log, limit = matched.get(alert[:3], NOTHING), rules[alert[1]]
        once = log.most > log.used and percent_reached(log.most, limit.amount or 0, alert[3])
        if raised[alert] > standing_since[limit.id] and not once:
            where = at_counter(alert[:3]) | {"threshold": str(alert[3])}
            found.compare(where, "alerts", 0, 1)
    return found.verdict()


def at_counter(key: CounterKey) -> Where:
    """A counter as people read it."""
    return {"scope": key[0], "limit_id": key[1], "window_start": rfc3339(key[2])}


class _Findings:
    """What was compared so far under one identity."""

    def __init__(self, identity: str) -> None:
        self._identity = identity
        self._compared = self._differing = 0
        self._differences: list[Difference] = []

    def compare(self, where: Where, measure: str, expected: int, found: int) -> None:
        self._compared += 1
        if expected == found:
            return
        self._differing += 1
        if len(self._differences) < MAX_DIFFERENCES:
            sides = (amount(measure, expected), amount(measure, found))
            where = where | {"measure": measure}
            self._differences.append(Difference(self._identity, where, *sides))

    def verdict(self) -> Verdict:
        return Verdict(self._identity, self._compared, self._differing, self._differences)
