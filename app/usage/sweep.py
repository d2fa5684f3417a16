"""Walk the log from end to end, a bounded number of rows at a time, along the index that fits."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, Text, cast, literal, literal_column, select, tuple_

from app.core.clock import from_micros, to_micros
from app.db.engine import Tx
from app.db.types import Moment, table_of
from app.usage.corrections import corrected_keys
from app.usage.ledger import Entry, entry_of
from app.usage.tables import UsageEvent

RATED = ("priced", "estimated", "unpriced")
"""The statuses that our prices give; a cost that the caller stated is not ours to change."""

Key = tuple[Any, ...]
_log = table_of(UsageEvent).c
_columns = tuple(
    cast(_log[name], Text).label(name) if name in ("tags", "context") else _log[name]
    for name in Entry._fields
)
_is_unpriced = _log.cost_status == literal_column("'unpriced'", Text)  # as its index says it


class Filter(NamedTuple):
    """Which events of the log are meant; None asks for nothing in particular."""

    user_id: str | None = None
    team_id: str | None = None
    provider: str | None = None
    model: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    cost_status: tuple[str, ...] = RATED
    event_ids: tuple[str, ...] = ()


class Page(NamedTuple):
    """The events that are meant among the rows looked at, and where to go on, None at the end."""

    entries: list[Entry]
    after: Key | None


class _Road(NamedTuple):
    """An order of the log that an index has, and what that index restricts it to."""

    by: tuple[Column[Any], ...]
    within: list[ColumnElement[bool]]


def _road(wanted: Filter) -> _Road:
    if wanted.event_ids:
        return _Road((_log.event_id, _log.user_id), [_log.event_id.in_(wanted.event_ids)])
    if wanted.user_id is not None:
        by_time = (_log.timestamp, _log.event_id)
        return _Road(by_time, [_log.user_id == wanted.user_id, *_during(wanted)])
    if wanted.cost_status == ("unpriced",):
        by_model = (_log.provider, _log.model, _log.timestamp, _log.event_id, _log.user_id)
        return _Road(by_model, [_is_unpriced, *_of(wanted, "provider", "model")])
    return _Road((_log.event_id, _log.user_id), [])


def _during(wanted: Filter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.start is not None:
        found.append(_log.timestamp >= wanted.start)
    if wanted.end is not None:
        found.append(_log.timestamp < wanted.end)
    return found


def _of(wanted: Filter, *names: str) -> list[ColumnElement[bool]]:
    values = ((name, getattr(wanted, name)) for name in names)
    return [_log[name] == value for name, value in values if value is not None]


async def next_page(tx: Tx, wanted: Filter, after: Key | None, rows: int) -> Page:
    """Look at so many rows behind `after`, or at the first ones."""
    by, within = _road(wanted)
    if after is not None:
        within = [*within, tuple_(*by) > _values(by, after)]
    last = select(*by).where(*within).order_by(*by).offset(rows - 1).limit(1)
    end = await tx.first(last)
    conditions = [
        *within,
        _log.cost_status.in_(wanted.cost_status),
        *_of(wanted, "user_id", "team_id", "provider", "model"),
        *_during(wanted),
    ]
    if end is not None:
        conditions.append(tuple_(*by) <= _values(by, tuple(end)))
    query = select(*_columns).where(*conditions).order_by(*by)
    entries = [entry_of(row) for row in await tx.fetch(query)]
    return Page(entries, None if end is None else tuple(end))


async def page_to_rate(
    tx: Tx, wanted: Filter, after: Key | None, rows: int
) -> tuple[Page, set[tuple[str, str]]]:
    """As `next_page`, and which of these events were corrected: they are not rated again."""
    page = await next_page(tx, wanted, after, rows)
    return page, await corrected_keys(tx, [entry[:2] for entry in page.entries])


def _values(by: Sequence[Column[Any]], key: Key) -> ColumnElement[Any]:
    pairs = zip(key, by, strict=True)
    return tuple_(*(literal(value, column.type) for value, column in pairs))


def place_in(wanted: Filter, entry: Entry) -> Key:
    """Where an event stands in the order in which these events are walked."""
    return tuple(getattr(entry, column.name) for column in _road(wanted).by)


def key_to_text(key: Key) -> str:
    """A place in the log, to be kept."""
    return json.dumps([to_micros(one) if isinstance(one, datetime) else one for one in key])


def key_from_text(wanted: Filter, text: str) -> Key:
    """The place that was kept for these events."""
    pairs = zip(json.loads(text), _road(wanted).by, strict=True)
    return tuple(
        from_micros(value) if isinstance(column.type, Moment) else value for value, column in pairs
    )
