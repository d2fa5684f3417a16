"""Write the alerts of a transaction into it."""

from collections.abc import Iterable
from datetime import datetime

from app.alerts.crossings import Crossing, message_of, severity_of, title_of, type_of
from app.alerts.tables import Alert
from app.core.ids import uuid7
from app.db.engine import Tx
from app.db.types import table_of
from app.db.upsert import Append

_KEY = ("scope_key", "limit_id", "window_start", "threshold")
_COLUMNS = (
    *_KEY,
    *("id", "type", "severity", "title", "message", "billing_period", "created_at", "read_at"),
)
_append = Append(table_of(Alert), _COLUMNS, _KEY)


async def raise_alerts(tx: Tx, found: Iterable[Crossing], now: datetime) -> None:
    """Record each crossing once; one that was alerted before stays as it was."""
    rows = [
        (
            crossing.step.scope_key,
            crossing.step.rule.id,
            crossing.step.window_start,
            crossing.threshold,
            uuid7(),
            type_of(crossing.threshold),
            severity_of(crossing.threshold),
            title_of(crossing),
            message_of(crossing),
            crossing.step.billing_period,
            now,
            None,
        )
        for crossing in found
    ]
    if rows:
        await _append(tx, sorted(rows, key=lambda row: row[:4]))
