"""Prove that what events were charged, change by change, leads to what they are charged now."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import and_, literal, select, tuple_
from sqlalchemy.engine import Row

from app.core.money import to_usd
from app.db.engine import Tx
from app.db.types import table_of
from app.db.upsert import Find
from app.summaries.reconcile import MAX_DIFFERENCES, Difference, Verdict
from app.usage.tables import UsageAdjustment, UsageEvent
from app.usage.wrapped import WrappedIds, find_wrapped

PAGE = 5_000
IDENTITY = "adjustments_sum_to_present"
_done, _log = table_of(UsageAdjustment).c, table_of(UsageEvent).c
_KEY = (_done.user_id, _done.event_id, _done.revision)
_RATING = ("cost_nanos", "cost_status", "price_ref")
_read = (
    select(
        *_KEY,
        *(_done[f"old_{name}"] for name in _RATING),
        *(_done[f"new_{name}"] for name in _RATING),
        *(_log[name] for name in _RATING),
        _done.timestamp,
    )
    .select_from(
        table_of(UsageAdjustment).outerjoin(
            table_of(UsageEvent),
            and_(_log.user_id == _done.user_id, _log.event_id == _done.event_id),
        )
    )
    .order_by(*_KEY)
    .limit(PAGE)
)


class _Link(NamedTuple):
    """One change: which, from what, to what, and what stands; empty where nobody knows that."""

    key: tuple[Any, ...]
    old: tuple[Any, ...]
    new: tuple[Any, ...]
    present: tuple[Any, ...]


async def adjustments_sum_to_present(tx: Tx) -> Verdict:
    """Each change of an event begins where the one before ended, and the last is what stands.

    Of an event that was wrapped its cost stands; nothing does of one whose id is forgotten.
    """
    findings: list[Difference] = []
    differing = compared = 0
    last: _Link | None = None

    def judge(link: _Link, expected: tuple[Any, ...], found: tuple[Any, ...]) -> None:
        nonlocal compared, differing
        if not expected:
            return
        compared += 1
        if expected == found:
            return
        differing += 1
        if len(findings) < MAX_DIFFERENCES:
            user_id, event_id, revision = link.key
            where = {"user_id": user_id, "event_id": event_id, "revision": str(revision)}
            findings.append(Difference(IDENTITY, where, _shown(expected), _shown(found)))

    async for page in _pages(tx):
        for link in await _links(tx, page):
            if last is not None and last.key[:2] == link.key[:2]:
                judge(link, last.new, link.old)
            elif last is not None:
                judge(last, last.present, last.new)
            last = link
    if last is not None:
        judge(last, last.present, last.new)
    return Verdict(IDENTITY, compared, differing, findings)


async def _links(tx: Tx, page: Sequence[Any]) -> list[_Link]:
    rows: list[tuple[Any, ...]] = [tuple(row) for row in page]
    gone = {row[:2] for row in rows if row[10] is None}
    left = await find_wrapped(tx, sorted(gone)) if gone else {}
    ids = WrappedIds()
    if gone:
        await ids.reload(tx, set())
    found = []
    for row in rows:
        present = row[9:12]
        if row[:2] in left:
            one = left[row[:2]]
            present = (one.cost_nanos, one.cost_status, row[8])
        elif row[:2] in gone and ids.known_from is not None and row[12] < ids.known_from:
            present = ()
        found.append(_Link(row[:3], row[3:6], row[6:9], present))
    return found


def _shown(rating: tuple[Any, ...]) -> str:
    cost, status, price_ref = rating
    return " ".join(("-" if cost is None else to_usd(cost), status or "-", price_ref or "-"))


async def _pages(tx: Tx) -> AsyncIterator[Sequence[Row[Any]]]:
    page: Sequence[Row[Any]] = await tx.fetch(_read)
    while page:
        yield page
        if len(page) < PAGE:
            return
        last = (literal(value, one.type) for value, one in zip(page[-1], _KEY, strict=False))
        page = await tx.fetch(_read.where(tuple_(*_KEY) > tuple_(*last)))


_find = Find(
    table_of(UsageAdjustment),
    ("user_id", "event_id"),
    ("user_id", "event_id", "old_cost_nanos", "new_cost_nanos"),
)


async def highest_costs(tx: Tx, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """The most that each of these events, by user and id, was ever charged; if it was adjusted."""
    found: dict[tuple[str, str], int] = {}
    if await tx.first(select(_done.user_id).limit(1)) is None:
        return found
    for row in await _find(tx, keys):
        most = max(row[2] or 0, row[3] or 0)
        found[row[0], row[1]] = max(most, found.get((row[0], row[1]), 0))
    return found
