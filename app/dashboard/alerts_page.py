"""Alerts and rules as people look at them; and how alerts are marked as read many at a time."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, literal, select, tuple_, update

from app.alerts.notices import TYPES
from app.alerts.read import AlertRow
from app.alerts.tables import Alert
from app.db.engine import Tx

SEVERITIES = ("error", "warning", "info")
_COLUMNS = tuple(getattr(Alert, name) for name in AlertRow._fields)


class Asked(NamedTuple):
    """Which alerts somebody looks for; what is empty asks for nothing in particular."""

    state: str = "unread"
    severity: str = ""
    type: str = ""
    scope_key: str = ""

    def where(self) -> list[ColumnElement[bool]]:
        """The same as conditions."""
        found: list[ColumnElement[bool]] = []
        if self.state == "unread":
            found.append(Alert.read_at.is_(None))
        if self.severity in SEVERITIES:
            found.append(Alert.severity == self.severity)
        if self.type in TYPES:
            found.append(Alert.type == self.type)
        if self.scope_key:
            found.append(Alert.scope_key == self.scope_key)
        return found


async def find_alerts(
    tx: Tx, asked: Asked, before: tuple[datetime, str] | None, limit: int
) -> list[AlertRow]:
    """At most `limit` alerts, newest first."""
    query = select(*_COLUMNS).where(*asked.where()).limit(limit)
    query = query.order_by(Alert.created_at.desc(), Alert.id.desc())
    if before is not None:
        last = tuple_(literal(before[0], Alert.created_at.type), literal(before[1]))
        query = query.where(tuple_(Alert.created_at, Alert.id) < last)
    return [AlertRow._make(row) for row in await tx.fetch(query)]


async def mark_all_read(tx: Tx, asked: Asked, until: datetime, now: datetime) -> int:
    """Mark what was asked for and is not younger than `until`; how many there were."""
    unread = asked._replace(state="unread").where()
    return await tx.run(update(Alert).where(*unread, Alert.created_at <= until).values(read_at=now))


def scope_of(kind: str, of: str) -> str:
    """The scope that two fields name; empty where they name none."""
    if kind == "all":
        return "all"
    return f"{kind}:{of}" if kind in ("user", "team", "plan", "key") and of else ""


def newest(alerts: Sequence[AlertRow]) -> datetime | None:
    """When the newest of the alerts was raised."""
    return max((alert.created_at for alert in alerts), default=None)
