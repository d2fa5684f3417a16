"""Work totals out again from all that was recorded, and put right what differs.

What a total should be and what it is are read on one snapshot. The difference is added to the row
later, as every writer adds: what is counted in between stays counted, and ingest goes on.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from operator import add, sub
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, case, delete, func, literal, select, tuple_

from app.db.engine import Tx
from app.db.types import table_of
from app.db.upsert import AddTo
from app.plans.known import agreement_of, load
from app.plans.periods import calendar_months
from app.summaries.fold import (
    BUCKETS,
    KIND,
    LATENCY_BOUNDS_US,
    dimensions_of_kind,
    fold,
)
from app.summaries.reconcile import Difference, difference
from app.summaries.sources import CORRECTED, LOG, RECORDED, WRAPPED, Source, exact_sums, joined
from app.summaries.store import add_dimensions, add_hours, add_periods
from app.summaries.tables import MEASURES, HourDimension, HourTotal, PeriodTotal
from app.usage.ledger import Entry

PAGE = 5_000
Key = tuple[Any, ...]
Sums = dict[Key, list[int]]
_ZEROS = [0] * len(MEASURES)


class Kept(NamedTuple):
    """A table of totals: by which key, how a row grows, and what it is called where it is wrong."""

    identity: str
    names: tuple[str, ...]
    columns: Any
    add: AddTo


PERIODS = Kept(
    "log_equals_period_totals",
    ("user_id", "period_start", "provider", "model"),
    table_of(PeriodTotal).c,
    add_periods,
)
HOURS = Kept(
    "log_equals_hour_totals",
    ("user_id", "hour", "provider", "model", "task_type"),
    table_of(HourTotal).c,
    add_hours,
)
DIMENSIONS = Kept(
    "log_equals_hour_dimensions",
    ("shard", "hour", "dimension", "value"),
    table_of(HourDimension).c,
    add_dimensions,
)


class Wrong(NamedTuple):
    """A row that is not what it should be; a `stray` one should not be there at all."""

    kept: Kept
    key: Key
    expected: Sequence[int]
    found: Sequence[int]
    stray: bool

    def differences(self) -> list[Difference]:
        """Each value of it that differs."""
        names, key = self.kept.names, self.key
        if self.kept is DIMENSIONS:
            names, key = names[1:], (*key[1:-1], key[-1].replace("\x1f", " "))
        shown = tuple("of" if name == "value" else name for name in names)
        return [
            difference(self.kept.identity, shown, key, measure, should, does)
            for measure, should, does in zip(MEASURES, self.expected, self.found, strict=True)
            if should != does
        ]


class Judged(NamedTuple):
    """How many rows were worked out again, and those that are wrong."""

    checked: int
    wrong: list[Wrong]


async def repair(tx: Tx, wrong: Sequence[Wrong]) -> None:
    """Add to each row what it lacks; stray rows that then say nothing go."""
    for kept in (PERIODS, HOURS, DIMENSIONS):
        rows = [one for one in wrong if one.kept is kept]
        await kept.add(tx, [(*one.key, *map(sub, one.expected, one.found)) for one in rows])
        if stray := [one.key for one in rows if one.stray]:
            await _remove_empty(tx, kept, stray)


async def _remove_empty(tx: Tx, kept: Kept, keys: Sequence[Key]) -> None:
    table = next(iter(kept.columns)).table
    empty = and_(*(kept.columns[name] == 0 for name in MEASURES))
    for key in keys:
        own = [kept.columns[name] == value for name, value in zip(kept.names, key, strict=True)]
        await tx.run(delete(table).where(*own, empty))


# ---- the totals of users ------------------------------------------------------------------------

_FOLDED = (
    *("user_id", "event_id", "timestamp", "provider", "model", "status_code", "cost_nanos"),
    *("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"),
    *("output_reasoning_tokens", "input_audio_tokens", "output_audio_tokens"),
    *("input_image_tokens", "output_image_tokens", "requests"),
    *("endpoint", "latency_us", "ttft_us", "team_id", "api_key_id", "task_type"),
    *("backend", "pool"),
)
_TAKEN = tuple(_FOLDED.index(name) if name in _FOLDED else None for name in Entry._fields)


async def users_hours(tx: Tx) -> list[tuple[str, int]]:
    """Every user of whom anything is kept, in order, and of how many hours there are totals."""
    hours = table_of(HourTotal).c
    counts: dict[str, int] = dict.fromkeys(await _users(tx), 0)
    query = select(hours.user_id, func.count()).group_by(hours.user_id)
    counts.update({row[0]: row[1] for row in await tx.fetch(query)})
    return sorted(counts.items())


async def _users(tx: Tx) -> list[str]:
    tables = [source.table.c.user_id for source in RECORDED] + [table_of(PeriodTotal).c.user_id]
    found: set[str] = set()
    for column in tables:
        found.update(row[0] for row in await tx.fetch(select(column).distinct()))
    return sorted(found)


async def judge_users(tx: Tx, user_ids: Sequence[str]) -> Judged:
    """Which totals of these users are wrong, by period and by hour."""
    stored = await load(tx, user_ids)
    unseen = agreement_of([calendar_months("")])
    agreements = {user_id: stored.get(user_id, unseen) for user_id in user_ids}
    periods: Sums = {}
    hours: Sums = {}
    for source in (LOG, CORRECTED):
        async for sign, entries in _entries(tx, source, user_ids):
            change = fold(entries, agreements)
            _grow(periods, change.periods, sign)
            _grow(hours, change.hours, sign)
    columns = WRAPPED.table.c
    groups = select(
        *(columns.user_id, columns.period_start, columns.hour, columns.provider, columns.model),
        WRAPPED.named("task_type"),
        *(columns[name] for name in MEASURES),
    ).where(columns.user_id.in_(user_ids))
    for row in await tx.fetch(groups):
        user_id, start, hour, provider, model, task, *amounts = row
        _grow(periods, {(user_id, start, provider, model): amounts}, 1)
        _grow(hours, {(user_id, hour, provider, model, task): amounts}, 1)
    judged = [
        _laid_beside(kept, expected, await _found(tx, kept, kept.columns.user_id.in_(user_ids)))
        for kept, expected in ((PERIODS, periods), (HOURS, hours))
    ]
    return _together(judged)


def _grow(totals: Sums, more: Mapping[Any, Sequence[int]], sign: int) -> None:
    for key, amounts in more.items():
        total = totals.get(key, _ZEROS)
        totals[key] = list(map(add if sign > 0 else sub, total, amounts))


async def _entries(
    tx: Tx, source: Source, user_ids: Sequence[str]
) -> AsyncIterator[tuple[int, list[Entry]]]:
    """The calls of these users as far as totals look at them, apart those that are taken back."""
    columns = source.table.c
    order = [columns.user_id, columns.timestamp, columns.event_id]
    sign: ColumnElement[int] = literal(1)
    if source is CORRECTED:
        order.append(columns.revision)
        sign = columns.sign
    query = select(*order, sign, *(columns[name] for name in _FOLDED))
    query = query.where(columns.user_id.in_(user_ids)).order_by(*order).limit(PAGE)
    rows = await tx.fetch(query)
    width = len(order)
    while rows:
        for counted in (1, -1):
            entries = [_entry(row[width + 1 :]) for row in rows if row[width] == counted]
            if entries:
                yield counted, entries
        if len(rows) < PAGE:
            return
        last = (literal(value, one.type) for value, one in zip(rows[-1], order, strict=False))
        rows = await tx.fetch(query.where(tuple_(*order) > tuple_(*last)))


def _entry(row: Sequence[Any]) -> Entry:
    return Entry._make(None if place is None else row[place] for place in _TAKEN)


async def _found(tx: Tx, kept: Kept, *where: ColumnElement[bool]) -> Sums:
    keys = [kept.columns[name] for name in kept.names]
    query = select(*keys, *(kept.columns[name] for name in MEASURES)).where(*where)
    width = len(keys)
    return {tuple(row[:width]): list(row[width:]) for row in await tx.fetch(query)}


def _laid_beside(kept: Kept, expected: Sums, found: Sums) -> Judged:
    wrong = []
    for key in expected.keys() | found.keys():
        should, does = expected.get(key, _ZEROS), found.get(key, _ZEROS)
        if should != does:
            wrong.append(Wrong(kept, key, should, does, key not in expected))
    return Judged(len(expected.keys() | found.keys()), sorted(wrong, key=lambda one: one.key))


def _together(judged: Sequence[Judged]) -> Judged:
    return Judged(
        sum(one.checked for one in judged), [wrong for one in judged for wrong in one.wrong]
    )


# ---- the totals across users --------------------------------------------------------------------

Hours = tuple[datetime | None, datetime | None]


async def dimension_hours(tx: Tx, most: int) -> list[Hours]:
    """All of time, cut so that in each range there are about `most` totals across users."""
    hour = DIMENSIONS.columns.hour
    found: list[Hours] = []
    start: datetime | None = None
    rows = 0
    for row in await tx.fetch(select(hour, func.count()).group_by(hour).order_by(hour)):
        if rows and rows + row[1] > most:
            found.append((start, row[0]))
            start, rows = row[0], 0
        rows += row[1]
    return [*found, (start, None)]


def _within(at: ColumnElement[datetime], hours: Hours) -> list[ColumnElement[bool]]:
    start, end = hours
    return [
        *([] if start is None else [at >= start]),
        *([] if end is None else [at < end]),
    ]


async def judge_dimensions(tx: Tx, hours: Hours) -> Judged:
    """Which totals across users are wrong.

    Latency buckets are not judged in hours of which calls were wrapped: their places are not kept.
    """
    expected: Sums = {}
    for source in RECORDED:
        async for hour, kind, amounts in _kinds(tx, source, hours):
            for dimension, value in dimensions_of_kind(kind):
                _grow(expected, {(hour, dimension, value): amounts}, 1)
    for source in (LOG, CORRECTED):
        for dimension in ("latency", "ttft"):
            for hour, bucket, calls in await _buckets(tx, source, dimension, hours):
                amounts = [int(calls), *_ZEROS[1:]]
                _grow(expected, {(hour, dimension, bucket): amounts}, 1)
    wrapped = select(WRAPPED.hour).where(*_within(WRAPPED.hour, hours)).distinct()
    blurred = {row[0] for row in await tx.fetch(wrapped)}
    stored = await _found(tx, DIMENSIONS, *_within(DIMENSIONS.columns.hour, hours))
    expected = {key: sums for key, sums in expected.items() if not _is_blurred(key, blurred)}
    stored = {key: sums for key, sums in stored.items() if not _is_blurred(key[1:], blurred)}
    return _spread(expected, stored)


def _is_blurred(key: Key, blurred: set[datetime]) -> bool:
    return key[0] in blurred and key[1] in ("latency", "ttft")


def _spread(expected: Sums, stored: Sums) -> Judged:
    """A total that is wrong is put right in one of its writers' rows; a stray one in each. Pure."""
    shards: defaultdict[Key, list[int]] = defaultdict(list)
    found: Sums = {}
    for key, sums in stored.items():
        shards[key[1:]].append(key[0])
        _grow(found, {key[1:]: sums}, 1)
    wrong: list[Wrong] = []
    for key in expected.keys() | found.keys():
        should, does = expected.get(key, _ZEROS), found.get(key, _ZEROS)
        if should == does:
            continue
        if key in expected:
            one = min(shards[key], default=0)
            wrong.append(Wrong(DIMENSIONS, (one, *key), should, does, stray=False))
            continue
        for one in shards[key]:
            wrong.append(Wrong(DIMENSIONS, (one, *key), _ZEROS, stored[one, *key], stray=True))
    return Judged(len(expected.keys() | found.keys()), sorted(wrong, key=lambda one: one.key))


async def _kinds(
    tx: Tx, source: Source, hours: Hours
) -> AsyncIterator[tuple[datetime, Key, list[int]]]:
    """What calls of one hour and with the same names add up to."""
    columns = source.table.c
    kind = [columns[name] for name in KIND]
    query = select(source.hour, *kind, *exact_sums(source.amount_of))
    query = query.where(*_within(source.hour if source is WRAPPED else source.at, hours))
    for row in await tx.fetch(query.group_by(source.hour, *kind)):
        yield row[0], tuple(row[1 : 1 + len(kind)]), joined(row[1 + len(kind) :])


async def _buckets(
    tx: Tx, source: Source, dimension: str, hours: Hours
) -> Sequence[tuple[datetime, str, int]]:
    value = source.table.c[f"{dimension}_us"]
    bucket = _bucket_of(value, 0, len(BUCKETS)).label("bucket")
    calls = source.amount_of("calls").label("calls")
    inner = select(source.hour.label("hour"), bucket, calls).where(
        value.is_not(None), *_within(source.at, hours)
    )
    seen = inner.subquery().c
    query = select(seen.hour, seen.bucket, func.sum(seen.calls))
    return [tuple(row) for row in await tx.fetch(query.group_by(seen.hour, seen.bucket))]


def _bucket_of(value: ColumnElement[int], low: int, high: int) -> ColumnElement[str]:
    """The name of the bucket, found by halving; `fold.bucket_of` says the same of a number."""
    if high - low == 1:
        return literal(BUCKETS[low])
    middle = (low + high) // 2
    below, above = _bucket_of(value, low, middle), _bucket_of(value, middle, high)
    return case((value <= LATENCY_BOUNDS_US[middle - 1], below), else_=above)
