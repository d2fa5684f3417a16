"""Read one user's log: newest first and a page at a time, or one event by its id."""

import base64
import binascii
import re
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, Text, cast, exists, func, literal, or_, select

from app.core.clock import from_micros, to_micros
from app.core.errors import InvalidInput, NotFound
from app.db.engine import Tx
from app.db.types import table_of
from app.usage.ledger import Entry, entry_of
from app.usage.tables import UsageEvent

_log = table_of(UsageEvent).c
_columns = tuple(
    cast(_log[name], Text).label(name) if name in ("tags", "context") else _log[name]
    for name in Entry._fields
)
_MARK = re.compile(r"(-?\d{1,17}):(.+)", re.DOTALL)
MAX_CURSOR = 4096


class Wanted(NamedTuple):
    """Which events a reader asks for; None asks for nothing in particular."""

    start: datetime | None = None
    end: datetime | None = None
    provider: str | None = None
    model: str | None = None
    endpoint: str | None = None
    failed: bool | None = None
    team_id: str | None = None
    session_id: str | None = None
    task_type: str | None = None
    tags: tuple[tuple[str, str], ...] = ()


class Place(NamedTuple):
    """Where in the order of a list a page ends."""

    at: datetime
    event_id: str


def cursor_of(place: Place) -> str:
    """The place as a client carries it: opaque, safe in a URL."""
    text = f"{to_micros(place.at)}:{place.event_id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def place_of(cursor: str) -> Place:
    """The place that a cursor names.

    Raises:
        InvalidInput: we did not write this cursor.
    """
    try:
        if len(cursor) > MAX_CURSOR:
            raise ValueError
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
        mark = _MARK.fullmatch(text)
        if mark is None or "\0" in mark[2]:
            raise ValueError
        return Place(from_micros(int(mark[1])), mark[2])
    except (ValueError, OverflowError, binascii.Error):
        raise InvalidInput.at("/cursor", "cursor: not one that this list gave") from None


async def list_events(
    tx: Tx, user_id: str, wanted: Wanted, after: Place | None, limit: int
) -> tuple[list[Entry], Place | None]:
    """A page of the user's events, newest first, and where it ends if more follow."""
    conditions = [_log.user_id == user_id, *_conditions(wanted, tx.dialect)]
    if after is not None:
        conditions.append(_log.timestamp <= after.at)
        conditions.append(or_(_log.timestamp < after.at, _log.event_id < after.event_id))
    query = select(*_columns).where(*conditions)
    newest_first = query.order_by(_log.timestamp.desc(), _log.event_id.desc())
    found = [entry_of(row) for row in await tx.fetch(newest_first.limit(limit + 1))]
    page = found[:limit]
    more = len(found) > limit
    return page, Place(page[-1].timestamp, page[-1].event_id) if more else None


async def get_event(tx: Tx, user_id: str, event_id: str) -> Entry:
    """One event of the user.

    Raises:
        NotFound: this user has none under that id.
    """
    query = select(*_columns).where(_log.user_id == user_id, _log.event_id == event_id)
    row = await tx.first(query)
    if row is None:
        raise NotFound("this user has no such event", id=event_id)
    return entry_of(row)


def _conditions(wanted: Wanted, dialect: str) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.start is not None:
        found.append(_log.timestamp >= wanted.start)
    if wanted.end is not None:
        found.append(_log.timestamp < wanted.end)
    if wanted.failed is not None:
        found.append(_log.status_code >= 400 if wanted.failed else _log.status_code < 400)
    for name in ("provider", "model", "endpoint", "team_id", "session_id", "task_type"):
        value = getattr(wanted, name)
        if value is not None:
            found.append(_log[name] == value)
    found.extend(_tagged(name, value, dialect) for name, value in wanted.tags)
    return found


def _tagged(name: str, value: str, dialect: str) -> ColumnElement[bool]:
    if dialect == "postgresql":
        found = _log.tags.op("->>", return_type=Text())(literal(name, Text))
        return found == literal(value, Text)
    # SQLite's ->> takes a name that begins with $ or holds a quote for a path; a key is a key here.
    pair = func.json_each(_log.tags).table_valued("key", "value", name="pair")
    return exists(
        select(literal(1)).select_from(pair).where(pair.c.key == name, pair.c.value == value)
    )
