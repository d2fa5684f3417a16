"""What every user is charged, hour by hour, a page at a time: read from the totals."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Text, cast, literal, select, tuple_

from app.analytics.exports import users_after
from app.analytics.focus import Charge, Kind, Late, charges_of
from app.db.engine import Database, Tx
from app.db.types import table_of
from app.plans.known import Agreement, agreement_of, load
from app.plans.periods import calendar_months
from app.summaries.buckets import hurry
from app.summaries.grains import HOUR, Span
from app.summaries.sums import Sums
from app.summaries.tables import HourTotal
from app.usage.export import Slice
from app.usage.ledger import Entry, entry_of
from app.usage.tables import UsageCorrection

PAGE = 2_000
USERS_A_PAGE = 200

_hour, _correction = table_of(HourTotal).c, table_of(UsageCorrection).c
_KEY = (_hour.hour, _hour.provider, _hour.model, _hour.task_type)
_columns = tuple(
    cast(_correction[name], Text).label(name) if name in ("tags", "context") else _correction[name]
    for name in Entry._fields
)


class Place(NamedTuple):
    """How far the totals have been read; without `kind` this user is done."""

    user_id: str
    kind: Kind | None = None


async def charges(db: Database, user_id: str | None, span: Span) -> AsyncIterator[list[Charge]]:
    """The charges of one user, or of all, in the hours of `span`, in pages.

    Each page is one consistent read; usage that arrives meanwhile may be in it or not.
    """
    wanted = Slice(span.start, span.end)

    async def more(last: str | None) -> list[str]:
        return await db.read(lambda tx: users_after(tx, last, wanted))

    users = [user_id] if user_id is not None else await more(None)
    while users:
        place: Place | None = None
        while True:
            page, place = await db.read(
                lambda tx, users=users, at=place: _page(tx, users, span, at)  # type: ignore[misc]
            )
            yield page
            if place is None:
                break
        users = [] if user_id is not None else await more(users[-1])


async def _page(
    tx: Tx, users: Sequence[str], span: Span, after: Place | None
) -> tuple[list[Charge], Place | None]:
    await hurry(tx)
    found: list[Charge] = []
    left, begin = PAGE, 0
    if after is not None:
        begin = users.index(after.user_id) + (after.kind is None)
    asked = users[begin : begin + USERS_A_PAGE]
    agreements = await load(tx, asked)
    for user_id in asked:
        begun = after.kind if after is not None and after.user_id == user_id else None
        totals = await _totals(tx, user_id, span, begun, left)
        agreement = agreements.get(user_id) or agreement_of([calendar_months("")])
        found += await _charges_of(tx, user_id, totals, agreement)
        if len(totals) == left:
            return found, Place(user_id, list(totals)[-1])
        after, left = Place(user_id), left - len(totals)
    return found, None if after == Place(users[-1]) else after


async def _totals(
    tx: Tx, user_id: str, span: Span, after: Kind | None, rows: int
) -> dict[Kind, Sums]:
    where = [_hour.user_id == user_id, _hour.hour >= span.start, _hour.hour < span.end]
    if after is not None:
        values = (literal(value, one.type) for value, one in zip(after, _KEY, strict=True))
        where += [_hour.hour >= after.hour, tuple_(*_KEY) > tuple_(*values)]
    measures = (_hour[name] for name in Sums._fields)
    query = select(*_KEY, *measures).where(*where).order_by(*_KEY).limit(rows)
    width = len(_KEY)
    return {Kind(*row[:width]): Sums(*map(int, row[width:])) for row in await tx.fetch(query)}


async def _charges_of(
    tx: Tx, user_id: str, totals: dict[Kind, Sums], agreement: Agreement
) -> list[Charge]:
    if not totals:
        return []
    hours = [kind.hour for kind in totals]
    changes = await _changes(tx, user_id, min(hours), max(hours) + HOUR)
    return charges_of(user_id, totals, changes, agreement)


async def _changes(tx: Tx, user_id: str, start: datetime, end: datetime) -> list[Late]:
    query = select(_correction.sign, *_columns).where(
        _correction.user_id == user_id,
        _correction.timestamp >= start,
        _correction.timestamp < end,
    )
    rows: Sequence[Any] = await tx.fetch(query)
    return [Late(row[0], entry_of(row[1:])) for row in rows]
