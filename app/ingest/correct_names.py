"""The names of a wrapped event whose archive cannot be read: those of the calls it is one of."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select

from app.core.clock import hour_of
from app.core.counters import COLUMNS
from app.core.errors import Conflict, InvalidInput
from app.db.engine import Tx
from app.db.types import table_of
from app.summaries.tables import WrappedUsage
from app.usage.ledger import Entry
from app.usage.wrapped import WrappedRow

NAMES = (
    *("provider", "model", "task_type", "endpoint", "status_code"),
    *("team_id", "api_key_id", "backend", "pool"),
)
_group = table_of(WrappedUsage).c


async def blank_of(
    tx: Tx, key: tuple[str, str], left: WrappedRow, names: Mapping[str, Any], now: datetime
) -> Entry:
    """The event as far as it is known without its row: its names and its cost, nothing used.

    Raises:
        InvalidInput: its hour has calls of several names, and the names given fit none or several.
        Conflict: nothing is left of the calls of its hour.
    """
    user_id, event_id = key
    query = select(*(_group[name] for name in NAMES)).where(
        *(_group.user_id == user_id, _group.archive_id == left.archive_id),
        *(_group.hour == hour_of(left.timestamp),),
        *(_group.first_at <= left.timestamp, _group.last_at >= left.timestamp),
    )
    found = [tuple(row) for row in await tx.fetch(query)]
    if not found:
        raise Conflict("nothing is kept that says which call this event was")
    fitting = [group for group in found if _fits(group, names)]
    if len(fitting) != 1:
        fewer = "no" if not fitting else "several"
        detail = f"{fewer} kinds of calls in that hour have these names; name provider, model, …"
        raise InvalidInput.at("/names", detail)
    blank: dict[str, Any] = dict.fromkeys(Entry._fields) | dict.fromkeys(COLUMNS, 0)
    blank |= dict(zip(NAMES, fitting[0], strict=True))
    return Entry(
        **blank
        | {
            "user_id": user_id,
            "event_id": event_id,
            "timestamp": left.timestamp,
            "recorded_at": now,
            "body_hash": left.body_hash,
            "cost_nanos": left.cost_nanos,
            "cost_status": left.cost_status,
            "price_ref": "",
        }
    )


def _fits(group: Sequence[Any], names: Mapping[str, Any]) -> bool:
    has = dict(zip(NAMES, group, strict=True))
    return all(has[name] == value for name, value in names.items())
