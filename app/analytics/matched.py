"""What every limit counts, computed again from all that was recorded.

The functions that counted it count again: the log a page at a time, then what was wrapped, then
corrections; what is in memory are counters and never the log.

It reads its own configuration: an old snapshot must not fill this process's caches.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, func, literal, select, tuple_
from sqlalchemy.engine import Row

from app.analytics.history import highest_costs
from app.core.clock import EPOCH, hour_of
from app.db.engine import Tx
from app.db.types import table_of
from app.limits.counters import CounterKey, growths
from app.limits.grouped import GROUP_COLUMNS, Group, plans_of, shares_of
from app.limits.known import Rules, scope_keys
from app.plans.known import Agreement, Agreements, agreement_of, load
from app.plans.periods import calendar_months
from app.summaries.sources import CORRECTED, LOG
from app.usage.ledger import Entry
from app.usage.tables import UsageAdjustment, WrappedEvent
from app.usage.wrapped import find_wrapped

PAGE = 5_000
_COUNTED = (
    *("user_id", "event_id", "timestamp", "recorded_at", "provider", "model", "endpoint"),
    *("input_tokens", "output_tokens", "cost_nanos", "team_id", "api_key_id"),
)
"""The columns that decide what a limit counts, and since when."""
_TAKEN = tuple(_COUNTED.index(name) if name in _COUNTED else None for name in Entry._fields)
_left, _done = table_of(WrappedEvent).c, table_of(UsageAdjustment).c
Hour = tuple[str, datetime, str, str]


class Matched(NamedTuple):
    """What of all that was recorded falls under one counter, and how much may.

    The counter stands between `used` and `used` + `perhaps`: of calls that were wrapped together
    nobody can say in which window of a minute each was. `before` is how much is older than the
    limit, and `most` is what the counter may once have held: every event at the most it was ever
    charged, and nothing taken back. `before` too takes the older events so.
    """

    used: int = 0
    perhaps: int = 0
    before: int = 0
    most: int = 0

    def nearest(self, found: int) -> int:
        """Where a counter that stands at `found` should stand."""
        return min(max(found, self.used), self.used + self.perhaps)


NOTHING = Matched()


async def match_recorded(
    tx: Tx, standing_since: Mapping[str, datetime], user_id: str | None = None
) -> dict[CounterKey, Matched]:
    """What every counter should stand at; with `user_id`, from the calls of that user alone."""
    match = _Match(tx, standing_since)
    await match.prepare()
    for source in (LOG, CORRECTED):
        columns = source.table.c
        key = [columns.event_id, columns.user_id] if source is LOG else _KEY_OF_CORRECTION
        taken = [columns[name] for name in _COUNTED]
        sign: ColumnElement[int] = columns.sign if source is CORRECTED else literal(1)
        query = select(*key, sign, *taken)
        if user_id is not None:
            query = query.where(columns.user_id == user_id)
        async for page in pages(tx, query, key):
            await match.count([(row[len(key)], _entry(row[len(key) + 1 :])) for row in page])
    groups = select(*GROUP_COLUMNS)
    if user_id is not None:
        groups = groups.where(GROUP_COLUMNS[0] == user_id)
    async for page in pages(tx, groups, GROUP_COLUMNS[:3]):
        await match.count_groups([Group._make(row) for row in page])
    return match.found


_KEY_OF_CORRECTION = [CORRECTED.table.c[name] for name in ("user_id", "event_id", "revision")]


def _entry(row: Sequence[Any]) -> Entry:
    found = Entry._make(None if place is None else row[place] for place in _TAKEN)
    return found._replace(
        input_tokens=found.input_tokens or 0, output_tokens=found.output_tokens or 0
    )


class _Match:
    """The counters so far."""

    def __init__(self, tx: Tx, standing_since: Mapping[str, datetime]) -> None:
        self._tx, self._since = tx, standing_since
        self.found: dict[CounterKey, Matched] = {}
        self._unseen = agreement_of([calendar_months("")])
        self._first_recorded: dict[tuple[str, str], datetime] | None = None
        self._fallen: Mapping[Hour, int] = {}

    async def prepare(self) -> None:
        """Read the default plan, which those are on whom nobody subscribed."""
        agreements = Agreements()
        await agreements.reload_plans(self._tx, set())
        self._unseen = agreement_of([calendar_months(agreements.default_plan)])

    async def _agreed(self, user_ids: set[str]) -> dict[str, Agreement]:
        stored = await load(self._tx, user_ids)
        return {user_id: stored.get(user_id, self._unseen) for user_id in user_ids}

    async def count(self, signed: Sequence[tuple[int, Entry]]) -> None:
        """Count calls, and take back those with the sign -1."""
        entries = [entry for _, entry in signed]
        agreed = await self._agreed({entry.user_id for entry in entries})
        scopes: set[str] = set()
        for entry in entries:
            plan_id = agreed[entry.user_id].terms_at(entry.timestamp).plan_id
            scopes.update(scope_keys(entry.user_id, plan_id, entry.team_id, entry.api_key_id))
        rules = Rules()
        await rules.load(self._tx, scopes)
        keys = [(entry.user_id, entry.event_id) for entry in entries]
        highest = await highest_costs(self._tx, keys)
        for sign, entry in signed:
            peak = highest.get((entry.user_id, entry.event_id), 0)
            for key, growth in growths((entry,), agreed, rules).items():
                once = growth.amount
                if growth.rule.metric == "cost_usd":
                    once = max(once, peak)
                if sign < 0:
                    once = 0
                early = entry.recorded_at <= self._since[growth.rule.id]
                self._add(key, Matched(sign * growth.amount, 0, once if early else 0, once))

    async def count_groups(self, groups: Sequence[Group]) -> None:
        """Count what was wrapped."""
        if self._first_recorded is None:
            self._first_recorded = await _first_recorded(self._tx)
            self._fallen = await _fallen(self._tx)
        agreed = await self._agreed({group.user_id for group in groups})
        scopes: set[str] = set()
        for group in groups:
            for plan_id in plans_of(group, agreed[group.user_id]):
                scopes.update(scope_keys(group.user_id, plan_id, group.team_id, group.api_key_id))
        rules = Rules()
        await rules.load(self._tx, scopes)
        for group in groups:
            recorded = self._first_recorded.get((group.user_id, group.archive_id), EPOCH)
            fallen = self._fallen.get((group.user_id, group.hour, group.provider, group.model), 0)
            for share in shares_of(group, agreed[group.user_id], rules):
                once = share.amount + (fallen if share.rule.metric == "cost_usd" else 0)
                early = once if recorded <= self._since[share.rule.id] else 0
                used, perhaps = (share.amount, 0) if share.certain else (0, share.amount)
                self._add(share.key, Matched(used, perhaps, early, once))

    def _add(self, key: CounterKey, more: Matched) -> None:
        known = self.found.get(key, NOTHING)
        self.found[key] = Matched(*(one + other for one, other in zip(known, more, strict=True)))


async def _first_recorded(tx: Tx) -> dict[tuple[str, str], datetime]:
    """When the first of a user's events in an archive was recorded."""
    key = (_left.user_id, _left.archive_id)
    query = select(*key, func.min(_left.recorded_at)).group_by(*key)
    return {(row[0], row[1]): row[2] for row in await tx.fetch(query)}


async def _fallen(tx: Tx) -> Mapping[Hour, int]:
    """How much more wrapped events were once charged than now: by user, hour and model."""
    columns = ("timestamp", "provider", "model")
    key = (_done.user_id, _done.event_id, _done.revision)
    wanted = [_done[name] for name in (*columns, "old_cost_nanos", "new_cost_nanos")]
    found: defaultdict[Hour, int] = defaultdict(int)
    async for page in pages(tx, select(*key, *wanted), key):
        adjusted: dict[tuple[str, str], list[Any]] = {}
        for row in page:
            user_id, event_id, _, *about = row
            adjusted[user_id, event_id] = about
        wrapped = await find_wrapped(tx, list(adjusted))
        for event, left in wrapped.items():
            at, provider, model, *costs = adjusted[event]
            more = max(cost or 0 for cost in costs) - (left.cost_nanos or 0)
            found[event[0], hour_of(at), provider, model] += max(0, more)
    return found


async def pages(
    tx: Tx, query: Any, key: Sequence[ColumnElement[Any]]
) -> AsyncIterator[Sequence[Row[*tuple[Any, ...]]]]:
    """Every row of a query in the order of these, its first columns, which no two rows share."""
    query = query.order_by(*key).limit(PAGE)
    page = await tx.fetch(query)
    while page:
        yield page
        if len(page) < PAGE:
            return
        last = (literal(value, column.type) for value, column in zip(page[-1], key, strict=False))
        page = await tx.fetch(query.where(tuple_(*key) > tuple_(*last)))
