"""Prove on one snapshot that the log, the totals, the limits and the alerts agree.

What limits count is computed again from the log by the very functions that counted it. The log is
read a page at a time, so that what is in memory are counters and never the log.

The proof reads its own configuration: an old snapshot must not fill this process's caches.
"""

from collections import Counter as Tally
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Column, exists, func, literal, select, tuple_
from sqlalchemy.engine import Row

from app.alerts.tables import Alert
from app.analytics.history import adjustments_sum_to_present, highest_costs
from app.core.clock import EPOCH, rfc3339
from app.core.money import CEILING
from app.db.changes import ConfigChange
from app.db.engine import Tx
from app.db.types import table_of
from app.limits.counters import CounterKey, growths, percent_reached
from app.limits.known import Rule, Rules, rule_of, scope_keys
from app.limits.tables import Counter, Hold, HoldAmount, Limit
from app.limits.windows import window_of
from app.plans.known import Agreements, agreement_of, load
from app.plans.periods import FAR, Period, calendar_months
from app.summaries.reconcile import (
    MAX_DIFFERENCES,
    Difference,
    Verdict,
    Where,
    amount,
    reconcile,
)
from app.usage.ledger import Entry
from app.usage.tables import UsageEvent

PROOF_S = 300.0
"""How long a proof may take; a million events take some seconds."""
PAGE = 5_000


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
    rules = {rule.id: rule for rule in map(rule_of, await tx.fetch(select(*_RULE)))}
    standing_since = unchanged_since(rules.values(), await _changes(tx), now)
    matched = await match_log(tx, standing_since) if rules else {}
    verdicts.append(await counters_are_log(tx, rules, matched))
    in_force = {rule.id: rule.in_force(now) for rule in rules.values()}
    verdicts.append(await alerts_are_counters(tx, in_force, matched, standing_since))
    verdicts.append(await held_is_open_holds(tx))
    verdicts.append(await adjustments_sum_to_present(tx))
    return Proof(now, verdicts)


_limit, _counter, _alert = table_of(Limit).c, table_of(Counter).c, table_of(Alert).c
_hold, _part = table_of(Hold).c, table_of(HoldAmount).c
_log, _change = table_of(UsageEvent).c, table_of(ConfigChange).c
_RULE = [_limit[name] for name in Rule._fields]
_COUNTER = [_counter.scope_key, _counter.limit_id, _counter.window_start, _counter.used]
_ALERT = [
    *(_alert.scope_key, _alert.limit_id, _alert.window_start, _alert.threshold),
    _alert.created_at,
]
_COUNTED = (
    *("user_id", "event_id", "timestamp", "recorded_at", "provider", "model", "endpoint"),
    *("input_tokens", "output_tokens", "cost_nanos", "team_id", "api_key_id"),
)
"""The columns that decide what a limit counts, and since when."""
_LOGGED = [_log[name] for name in _COUNTED]
_TAKEN = tuple(_COUNTED.index(name) if name in _COUNTED else None for name in Entry._fields)


# ---- what the log says --------------------------------------------------------------------------


class Matched(NamedTuple):
    """What of the log falls under one counter, and how much of that is older than the limit.

    `most` is what the counter may once have held: every event at the most it was ever charged.
    `before` too takes the older events so.
    """

    used: int
    before: int
    most: int


async def match_log(tx: Tx, standing_since: Mapping[str, datetime]) -> dict[CounterKey, Matched]:
    """What every counter should stand at, from the whole log."""
    found: dict[CounterKey, Matched] = {}
    agreements = Agreements()
    await agreements.reload_plans(tx, set())
    unseen = agreement_of([calendar_months(agreements.default_plan)])
    async for page in _pages(tx, _LOGGED, key=2):
        entries = [_entry(row) for row in page]
        stored = await load(tx, {entry.user_id for entry in entries})
        agreed = {entry.user_id: stored.get(entry.user_id, unseen) for entry in entries}
        scopes: set[str] = set()
        for entry in entries:
            plan_id = agreed[entry.user_id].terms_at(entry.timestamp).plan_id
            scopes.update(scope_keys(entry.user_id, plan_id, entry.team_id, entry.api_key_id))
        rules = Rules()
        await rules.load(tx, scopes)
        highest = await highest_costs(tx, [(entry.user_id, entry.event_id) for entry in entries])
        for entry in entries:
            peak = highest.get((entry.user_id, entry.event_id), 0)
            for key, growth in growths((entry,), agreed, rules).items():
                used, before, most = found.get(key, _NOTHING)
                early = entry.recorded_at <= standing_since[growth.rule.id]
                more = growth.amount
                once = max(more, peak) if growth.rule.metric == "cost_usd" else more
                found[key] = Matched(used + more, before + once if early else before, most + once)
    return found


_NOTHING = Matched(0, 0, 0)


def _entry(row: Sequence[Any]) -> Entry:
    found = Entry._make(None if place is None else row[place] for place in _TAKEN)
    return found._replace(
        input_tokens=found.input_tokens or 0, output_tokens=found.output_tokens or 0
    )


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


async def counters_are_log(
    tx: Tx, rules: Mapping[str, Rule], matched: Mapping[CounterKey, Matched]
) -> Verdict:
    """Each counter stands at what its limit matches of the log in that window, and none is missing.

    The counter of a limit that is gone proves nothing, nor does one whose window was over before
    its limit began to count.
    """
    found = _Findings("limit_counters_equal_log")
    seen = set()
    async for page in _pages(tx, _COUNTER, key=3):
        for row in page:
            key, rule = _key(row), rules.get(row.limit_id)
            if rule is None or (key not in matched and await _over(tx, rule, key)):
                continue
            seen.add(key)
            used = min(matched.get(key, _NOTHING).used, CEILING)  # a counter stays there
            found.compare(_at(key), rule.metric, used, row.used)
    for key in sorted(matched.keys() - seen):
        found.compare(_at(key), rules[key[1]].metric, matched[key].used, 0)
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
    async for page in _pages(tx, [*_COUNTER[:3], _counter.held], key=3):
        for row in page:
            expected = of_open.pop(_key(row), 0)
            if expected or row.held:
                found.compare(_at(_key(row)), "held", expected, row.held)
    for key in sorted(of_open):
        found.compare(_at(key), "held", of_open[key], 0)
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
    async for page in _pages(tx, _ALERT, key=4):
        for row in page:
            if row.limit_id in rules and row.threshold > 0:  # others are what a job saw
                raised[*_key(row), row.threshold] = row.created_at
    async for page in _pages(tx, _COUNTER, key=3):
        for row in page:
            counter, rule = _key(row), rules.get(row.limit_id)
            if rule is None or rule.amount is None or rule.action == "shadow":
                continue
            before = matched.get(counter, _NOTHING).before
            for threshold in rule.thresholds:
                if not percent_reached(row.used, rule.amount, threshold):
                    continue
                alert = (*counter, threshold)
                there = raised.pop(alert, None) is not None
                if there or not percent_reached(before, rule.amount, threshold):
                    where = _at(counter) | {"threshold": str(threshold)}
                    found.compare(where, "alerts", 1, int(there))
    for alert in sorted(raised):
        log, limit = matched.get(alert[:3], _NOTHING), rules[alert[1]]
        once = log.most > log.used and percent_reached(log.most, limit.amount or 0, alert[3])
        if raised[alert] > standing_since[limit.id] and not once:
            where = _at(alert[:3]) | {"threshold": str(alert[3])}
            found.compare(where, "alerts", 0, 1)
    return found.verdict()


def _at(key: CounterKey) -> Where:
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


async def _pages(
    tx: Tx, columns: Sequence[Column[Any]], *, key: int
) -> AsyncIterator[Sequence[Row[Any]]]:
    """Every row of a table in the order of its key, the first `key` of the columns, in pages."""
    by = columns[:key]
    query = select(*columns).order_by(*by).limit(PAGE)
    page = await tx.fetch(query)
    while page:
        yield page
        if len(page) < PAGE:
            return
        last = (literal(value, column.type) for value, column in zip(page[-1], by, strict=False))
        page = await tx.fetch(query.where(tuple_(*by) > tuple_(*last)))
