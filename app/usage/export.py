"""The log as others take it away: one row an event, as it stands, a page at a time."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Text, and_, cast, column, literal, not_, or_, select, values

from app.core.counters import COUNTERS, MICROS_PER_SECOND, SECONDS
from app.db.engine import Tx
from app.db.types import table_of
from app.usage.corrections import corrected, present
from app.usage.ledger import Entry, entry_of, usage_of
from app.usage.sheets import Column, Format
from app.usage.tables import UsageCorrection, UsageEvent

PAGE = 2_000
USERS_A_PAGE = 200
"""So many users are asked about in one read, however few events they have."""

_log, _correction = table_of(UsageEvent).c, table_of(UsageCorrection).c
_columns = tuple(
    cast(_log[name], Text).label(name) if name in ("tags", "context") else _log[name]
    for name in Entry._fields
)


class Slice(NamedTuple):
    """Which events are taken: `start <= timestamp < end`, and names that equal these."""

    start: datetime | None = None
    end: datetime | None = None
    names: Mapping[str, str] = {}

    def holds(self, entry: Entry) -> bool:
        """Whether an event belongs to it as it stands."""
        if self.start is not None and entry.timestamp < self.start:
            return False
        if self.end is not None and entry.timestamp >= self.end:
            return False
        return all((getattr(entry, name) or "") == value for name, value in self.names.items())


class Place(NamedTuple):
    """How far the log has been read, in the order of users and then of time.

    Without `at` the rows of this user have all been read.
    """

    user_id: str
    at: datetime | None = None
    event_id: str = ""

    def passed(self, entry: Entry, earlier: Collection[str]) -> bool:
        """Whether a row that was in the log has been read by now; `earlier` users come before."""
        if entry.user_id != self.user_id:
            return entry.user_id in earlier
        return self.at is None or (entry.timestamp, entry.event_id) <= (self.at, self.event_id)


class Exported(NamedTuple):
    """An event as it stands; one that was taken back keeps its names and has no amounts."""

    entry: Entry
    voided: bool
    corrections: int


async def next_rows(
    tx: Tx, users: Sequence[str], wanted: Slice, after: Place | None, rows: int = PAGE
) -> tuple[list[Entry], Place | None]:
    """The rows of these users behind `after`, in order of user and time, and how far that is.

    None says that there are no more. A row is left out only if neither it nor its corrections may
    have the names that are wanted; so many rows at most are looked at.
    """
    found: list[Entry] = []
    left, begin = rows, 0
    if after is not None and after.user_id in users:
        begin = users.index(after.user_id) + (after.at is None)
    for user_id in users[begin : begin + USERS_A_PAGE]:
        begun = after if after is not None and after.user_id == user_id else None
        entries, end, seen = await _rows_of(tx, user_id, wanted, begun, left)
        found += entries
        if end is not None:
            return found, end
        found += await _moved_in(tx, user_id, wanted)
        after, left = Place(user_id), left - seen
        if left <= 0:
            break
    return found, None if not users or after == Place(users[-1]) else after


async def _rows_of(
    tx: Tx, user_id: str, wanted: Slice, after: Place | None, rows: int
) -> tuple[list[Entry], Place | None, int]:
    """A page of one user's rows, where it ends if more may follow, and how many were looked at."""
    within = [_log.user_id == user_id, *_during(_log, wanted)]
    if after is not None and after.at is not None:
        within.append(_log.timestamp >= after.at)
        within.append(or_(_log.timestamp > after.at, _log.event_id > after.event_id))
    order = (_log.timestamp, _log.event_id)
    query = select(*_columns).where(*within).order_by(*order)
    if not wanted.names:
        entries = [entry_of(row) for row in await tx.fetch(query.limit(rows))]
        full = len(entries) == rows
        return entries, _end_of(entries[-1]) if full else None, len(entries)
    last = select(*order).where(*within).order_by(*order).offset(rows - 1).limit(1)
    end = await tx.first(last)
    if end is not None:
        query = query.where(_log.timestamp <= end[0])
        query = query.where(or_(_log.timestamp < end[0], _log.event_id <= end[1]))
    query = query.where(or_(_named(wanted), _is_corrected(user_id)))
    entries = [entry_of(row) for row in await tx.fetch(query)]
    if end is None:
        return entries, None, max(len(entries), 1)
    return entries, Place(user_id, *end), rows


async def _moved_in(tx: Tx, user_id: str, wanted: Slice) -> list[Entry]:
    """The user's rows of another time that a correction moved into this one."""
    if wanted.start is None and wanted.end is None:
        return []
    moved = select(_correction.event_id).where(
        _correction.user_id == user_id, _correction.sign > 0, *_during(_correction, wanted)
    )
    own = [_log.user_id == user_id, _log.event_id.in_(moved)]
    query = select(*_columns).where(*own, not_(and_(*_during(_log, wanted))))
    return [entry_of(row) for row in await tx.fetch(query)]


def _during(columns: Any, wanted: Slice) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.start is not None:
        found.append(columns.timestamp >= wanted.start)
    if wanted.end is not None:
        found.append(columns.timestamp < wanted.end)
    return found


async def moves_any(tx: Tx, wanted: Slice) -> bool:
    """Whether any correction put an event into this time, from wherever it was."""
    query = select(_correction.revision).where(_correction.sign > 0, *_during(_correction, wanted))
    return await tx.first(query.limit(1)) is not None


def _end_of(entry: Entry) -> Place:
    return Place(entry.user_id, entry.timestamp, entry.event_id)


def _named(wanted: Slice) -> ColumnElement[bool]:
    """The names as the log has them; one that is not given is empty or null."""
    return and_(
        *(
            or_(_log[name] == value, _log[name].is_(None)) if not value else _log[name] == value
            for name, value in wanted.names.items()
        )
    )


def _is_corrected(user_id: str) -> ColumnElement[bool]:
    corrected = select(_correction.event_id).where(_correction.user_id == user_id)
    return _log.event_id.in_(corrected)


async def earlier_users(tx: Tx, users: Collection[str], than: str) -> set[str]:
    """Which of these users come before one in the order of the log, which is the database's."""
    if not users:
        return set()
    listed = values(column("user_id", Text), name="listed")
    named = listed.data([(one,) for one in sorted(users)]).cte("named")
    query = select(named.c.user_id).where(named.c.user_id < literal(than, Text))
    return {row[0] for row in await tx.fetch(query)}


async def as_they_stand(tx: Tx, entries: Sequence[Entry], wanted: Slice) -> list[Exported]:
    """The events of these rows with all that was corrected since, as far as they are wanted."""
    corrections = await corrected(tx, [entry[:2] for entry in entries])
    found = []
    for entry in entries:
        changes = corrections.get(entry[:2], [])
        now = present(entry, changes) if changes else entry
        if wanted.holds(now or entry):
            found.append(Exported(now or entry, now is None, len(changes)))
    return found


# ---- columns ----------------------------------------------------------------------------------

_NAMES = ("endpoint", "method", "error_message")
_DIMENSIONS = (
    *("user_agent", "ip_address", "team_id", "api_key_id", "session_id", "task_type"),
    *("backend", "pool", "hold_id"),
)


def columns_of(form: Format) -> list[Column]:
    """The columns of an event; in NDJSON the counters are in `usage`, as they are sent."""
    usage = "usage." if form == "ndjson" else ""
    return [
        *(Column(name, "text") for name in ("id", "user_id")),
        *(Column(name, "instant") for name in ("timestamp", "recorded_at")),
        *(Column(name, "text") for name in ("provider", "model")),
        Column("status_code", "count"),
        Column("cost_usd", "usd"),
        *(Column(name, "text") for name in ("cost_status", "price_ref")),
        Column("voided", "flag"),
        Column("corrections", "count"),
        *(
            Column(usage + name, "micros", MICROS_PER_SECOND)
            if name in SECONDS
            else Column(usage + name, "count")
            for name in COUNTERS
        ),
        *(Column(name, "text") for name in _NAMES),
        Column("retry_count", "count"),
        *(Column(name, "micros", 1000) for name in ("latency_ms", "ttft_ms")),
        *(Column(name, "count") for name in ("request_bytes", "response_bytes")),
        *(Column(name, "text") for name in _DIMENSIONS),
        *(Column(name, "pairs") for name in ("tags", "context")),
    ]


def row_of(one: Exported) -> tuple[Any, ...]:
    """An event in the order of `columns_of`. Pure."""
    entry = one.entry
    usage = usage_of(entry)
    return (
        entry.event_id,
        entry.user_id,
        entry.timestamp,
        entry.recorded_at,
        entry.provider or None,
        entry.model or None,
        entry.status_code,
        0 if one.voided else entry.cost_nanos,
        entry.cost_status,
        entry.price_ref,
        one.voided,
        one.corrections,
        *((0,) * len(usage) if one.voided else usage),
        *(getattr(entry, name) for name in _NAMES),
        entry.retry_count,
        entry.latency_us,
        entry.ttft_us,
        entry.request_bytes,
        entry.response_bytes,
        *(getattr(entry, name) for name in _DIMENSIONS),
        entry.tags,
        entry.context,
    )
