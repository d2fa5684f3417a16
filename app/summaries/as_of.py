"""A user's period as it was known at an instant: what is there now, less what came afterwards.

Afterwards came events (by when they were recorded), corrections, and other charges for events that
were there (re-rates). Each row says when it was written, so nothing has to be kept for this.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    and_,
    case,
    func,
    literal,
    or_,
    select,
)
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from app.db.engine import Tx
from app.db.types import table_of
from app.plans.periods import Period
from app.summaries.tables import WrappedUsage
from app.summaries.trends import NONE_USED, ByModel, Used, used_in
from app.usage.ledger import Entry
from app.usage.tables import UsageAdjustment, UsageCorrection, UsageEvent, WrappedEvent
from app.usage.wrapped import find_wrapped

Model = tuple[str, str]
_log, _said = table_of(UsageEvent).c, table_of(UsageCorrection).c
_done, _left = table_of(UsageAdjustment).c, table_of(WrappedEvent).c
_group = table_of(WrappedUsage).c


class Since(NamedTuple):
    """What was recorded of a period after an instant, in calls, corrections and nano-dollars."""

    calls: int
    cost_nanos: int
    corrections: int
    corrected_nanos: int
    rerated_nanos: int


class Known(NamedTuple):
    """What was known of a period, by provider and model, and what came after that."""

    models: ByModel
    since: Since


class Missing(NamedTuple):
    """Archives that hold calls of both sides of the instant: their rows have to be read."""

    archive_ids: frozenset[str]


async def used_as_of(
    tx: Tx, user_id: str, period: Period, at: datetime, wrapped: Mapping[str, Collection[Entry]]
) -> Known | Missing:
    """What the user had used in the period as far as it was recorded until `at`.

    `wrapped` are the user's rows of archives that were read. What is missing of them comes back.
    """
    archived = await _archived_after(tx, user_id, period, at)
    parted = frozenset(name for name, whole in archived.items() if not whole)
    if parted - wrapped.keys():
        return Missing(parted)
    [now] = await used_in(tx, user_id, [period])
    late = await _logged_after(tx, user_id, period, at)
    whole = [name for name, is_whole in archived.items() if is_whole]
    late += await _groups_of(tx, user_id, period, whole)
    late += [
        ((one.provider, one.model), used_by(one))
        for name in parted
        for one in wrapped[name]
        if one.recorded_at > at and period.start <= one.timestamp < period.end
    ]
    corrections = await _corrected_after(tx, user_id, period, at)
    rated = await _rated_after(tx, user_id, period, at)
    models = dict(now)
    for model, used in (*late, *corrections, *rated):
        models[model] = models.get(model, NONE_USED) + Used(*(-value for value in used))
    added = sum((used for _, used in late), NONE_USED)
    since = Since(
        added.calls,
        added.cost_nanos,
        await _corrections_after(tx, user_id, period, at),
        sum(used.cost_nanos for _, used in corrections),
        sum(used.cost_nanos for _, used in rated),
    )
    return Known({model: used for model, used in models.items() if any(used)}, since)


def used_by(entry: Entry) -> Used:
    """What one call uses. Pure."""
    return Used(
        1,
        int(entry.status_code >= 400),
        entry.input_tokens,
        entry.output_tokens,
        entry.cost_nanos or 0,
        int(entry.cost_nanos is None),
        int(entry.latency_us is not None),
        entry.latency_us or 0,
    )


def _sums(
    of: ReadOnlyColumnCollection[str, Column[Any]], sign: ColumnElement[int]
) -> list[ColumnElement[int]]:
    """The sums of `Used` over rows like those of the log."""
    amounts = (
        literal(1),
        case((of["status_code"] >= 400, 1), else_=0),
        func.coalesce(of["input_tokens"], 0),
        func.coalesce(of["output_tokens"], 0),
        func.coalesce(of["cost_nanos"], 0),
        case((of["cost_nanos"].is_(None), 1), else_=0),
        case((of["latency_us"].is_(None), 0), else_=1),
        func.coalesce(of["latency_us"], 0),
    )
    return [func.sum(sign * amount) for amount in amounts]


def _used(rows: Iterable[Sequence[Any]]) -> list[tuple[Model, Used]]:
    return [((row[0], row[1]), Used(*map(int, row[2:]))) for row in rows]


async def _logged_after(
    tx: Tx, user_id: str, period: Period, at: datetime
) -> list[tuple[Model, Used]]:
    query = select(_log.provider, _log.model, *_sums(_log, literal(1))).where(
        *(_log.user_id == user_id, _log.timestamp >= period.start, _log.timestamp < period.end),
        _log.recorded_at > at,
    )
    return _used(await tx.fetch(query.group_by(_log.provider, _log.model)))


async def _corrected_after(
    tx: Tx, user_id: str, period: Period, at: datetime
) -> list[tuple[Model, Used]]:
    query = select(_said.provider, _said.model, *_sums(_said, _said.sign)).where(
        *_corrections(user_id, period, at)
    )
    return _used(await tx.fetch(query.group_by(_said.provider, _said.model)))


async def _corrections_after(tx: Tx, user_id: str, period: Period, at: datetime) -> int:
    """How many corrections touched the period."""
    halves = select(_said.event_id, _said.recorded_at).where(*_corrections(user_id, period, at))
    query = select(func.count()).select_from(halves.distinct().subquery())
    return int((await tx.fetch(query))[0][0])


def _corrections(user_id: str, period: Period, at: datetime) -> list[ColumnElement[bool]]:
    inside = (_said.timestamp >= period.start, _said.timestamp < period.end)
    return [_said.user_id == user_id, *inside, _said.recorded_at > at]


async def _archived_after(tx: Tx, user_id: str, period: Period, at: datetime) -> dict[str, bool]:
    """The archives with calls of the period recorded afterwards, and whether all of them were."""
    after = func.sum(case((_left.recorded_at > at, 1), else_=0))
    query = (
        select(_left.archive_id, func.count(), after)
        .where(
            *(_left.user_id == user_id, _left.timestamp >= period.start),
            _left.timestamp < period.end,
        )
        .group_by(_left.archive_id)
    )
    return {row[0]: row[1] == row[2] for row in await tx.fetch(query) if row[2]}


async def _groups_of(
    tx: Tx, user_id: str, period: Period, archive_ids: Sequence[str]
) -> list[tuple[Model, Used]]:
    """What the period's calls in these archives add up to."""
    found: list[tuple[Model, Used]] = []
    sums = [func.sum(_group[name]) for name in Used._fields]
    for archive_id in sorted(archive_ids):
        query = select(_group.provider, _group.model, *sums).where(
            *(_group.user_id == user_id, _group.archive_id == archive_id),
            *(_group.period_start >= period.start, _group.period_start < period.end),
        )
        found += _used(await tx.fetch(query.group_by(_group.provider, _group.model)))
    return found


async def _rated_after(
    tx: Tx, user_id: str, period: Period, at: datetime
) -> list[tuple[Model, Used]]:
    """By how much events that were there already were charged differently afterwards."""
    rated = table_of(UsageAdjustment).outerjoin(
        table_of(UsageEvent), and_(_log.user_id == _done.user_id, _log.event_id == _done.event_id)
    )
    cost = func.coalesce(_done.new_cost_nanos, 0) - func.coalesce(_done.old_cost_nanos, 0)
    unpriced = case((_done.new_cost_nanos.is_(None), 1), else_=0) - case(
        (_done.old_cost_nanos.is_(None), 1), else_=0
    )
    gone = _log.event_id.is_(None)
    which = case((gone, _done.event_id), else_="")
    query = (
        select(_done.provider, _done.model, which, func.sum(cost), func.sum(unpriced))
        .select_from(rated)
        .where(
            *(_done.user_id == user_id, _done.adjusted_at > at),
            *(_done.timestamp >= period.start, _done.timestamp < period.end),
            or_(gone, _log.recorded_at <= at),
        )
        .group_by(_done.provider, _done.model, which)
    )
    rows = await tx.fetch(query)
    left = await find_wrapped(tx, [(user_id, row[2]) for row in rows if row[2]])
    found = []
    for provider, model, event_id, cost_nanos, unpriced_calls in rows:
        kept = left.get((user_id, event_id)) if event_id else None
        if kept is None or kept.recorded_at <= at:
            used = NONE_USED._replace(
                cost_nanos=int(cost_nanos), unpriced_calls=int(unpriced_calls)
            )
            found.append(((provider, model), used))
    return found
