"""Re-rates as they are kept: made, listed, begun, carried on by one writer at a time, ended."""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import insert, literal, select, tuple_, update

from app.core.clock import rfc3339
from app.core.errors import Conflict, NotFound
from app.core.ids import short_id
from app.db.engine import Tx
from app.db.types import table_of
from app.ingest.tables import Rerate
from app.usage.sweep import Filter


class RerateRow(NamedTuple):
    """A re-rate as it stands; the columns of its table."""

    id: str
    created_at: datetime
    created_by: str
    reason: str
    state: str
    filter: dict[str, Any]
    diff: dict[str, Any]
    step: int
    cursor: str | None
    scanned_count: int
    changed_count: int
    delta_nanos: int
    finished_at: datetime | None

    @property
    def wanted(self) -> Filter:
        """Which events it is about."""
        return filter_from_json(self.filter)


_rerate = table_of(Rerate).c
_columns = tuple(_rerate[name] for name in RerateRow._fields)


def filter_to_json(wanted: Filter) -> dict[str, Any]:
    """A filter to be kept: only what it asks for."""
    found: dict[str, Any] = {}
    for (name, value), usual in zip(wanted._asdict().items(), Filter(), strict=True):
        if value == usual:
            continue
        if isinstance(value, datetime):
            found[name] = rfc3339(value)
        else:
            found[name] = list(value) if isinstance(value, tuple) else value
    return found


def filter_from_json(kept: dict[str, Any]) -> Filter:
    """The filter that was kept."""
    found = dict(kept)
    for name in ("start", "end"):
        if name in found:
            found[name] = datetime.fromisoformat(found[name])
    for name in ("cost_status", "event_ids"):
        if name in found:
            found[name] = tuple(found[name])
    return Filter(**found)


async def add_rerate(
    tx: Tx, wanted: Filter, diff: dict[str, Any], *, by: str, reason: str, now: datetime
) -> RerateRow:
    """Keep a plan."""
    row = RerateRow(
        short_id("rer"),
        now,
        by,
        reason,
        "planned",
        filter_to_json(wanted),
        diff,
        *(0, None, 0, 0, 0, None),
    )
    await tx.run(insert(Rerate), [row._asdict()])
    return row


async def get_rerate(tx: Tx, rerate_id: str) -> RerateRow:
    """The re-rate of that id.

    Raises:
        NotFound: there is none.
    """
    row = await tx.first(select(*_columns).where(_rerate.id == rerate_id))
    if row is None:
        raise NotFound("no such re-rate", id=rerate_id)
    return RerateRow._make(row)


async def list_rerates(tx: Tx, before: tuple[datetime, str] | None, limit: int) -> list[RerateRow]:
    """At most `limit` re-rates, newest first."""
    order = (_rerate.created_at, _rerate.id)
    query = select(*_columns).order_by(*(one.desc() for one in order)).limit(limit)
    if before is not None:
        last = tuple_(literal(before[0], _rerate.created_at.type), literal(before[1]))
        query = query.where(tuple_(*order) < last)
    return [RerateRow._make(row) for row in await tx.fetch(query)]


async def set_going(tx: Tx, rerate_id: str) -> RerateRow:
    """Have it applied from here on; one that is being applied, or was, stays as it is.

    Raises:
        NotFound: there is none.
        Conflict: it was cancelled.
    """
    planned = (_rerate.id == rerate_id, _rerate.state == "planned")
    await tx.run(update(Rerate).where(*planned).values(state="applying"))
    found = await get_rerate(tx, rerate_id)
    if found.state == "cancelled":
        raise Conflict("this re-rate was cancelled; plan another one", state=found.state)
    return found


async def cancel(tx: Tx, rerate_id: str, now: datetime) -> RerateRow:
    """Change nothing more for it; what it changed so far stays.

    Raises:
        NotFound: there is none.
        Conflict: it was applied to the end.
    """
    open_ = (_rerate.id == rerate_id, _rerate.state.in_(("planned", "applying")))
    await tx.run(update(Rerate).where(*open_).values(state="cancelled", finished_at=now))
    found = await get_rerate(tx, rerate_id)
    if found.state == "applied":
        raise Conflict("this re-rate was applied already", state=found.state)
    return found


async def claim(tx: Tx, row: RerateRow) -> bool:
    """Take the next step of a re-rate; False if somebody else did, or it was cancelled.

    Until the transaction ends nobody else can take a step of it.
    """
    same = (_rerate.id == row.id, _rerate.step == row.step, _rerate.state == "applying")
    return await tx.run(update(Rerate).where(*same).values(step=row.step + 1)) == 1


async def advance(
    tx: Tx,
    row: RerateRow,
    *,
    cursor: str | None,
    scanned: int,
    changed: int,
    delta_nanos: int,
    now: datetime,
) -> None:
    """Note how far the step taken has come; without a cursor that is the end."""
    values: dict[str, Any] = {
        "cursor": cursor,
        "scanned_count": row.scanned_count + scanned,
        "changed_count": row.changed_count + changed,
        "delta_nanos": row.delta_nanos + delta_nanos,
    }
    if cursor is None:
        values |= {"state": "applied", "finished_at": now}
    await tx.run(update(Rerate).where(_rerate.id == row.id).values(**values))
