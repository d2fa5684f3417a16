"""Alerts once they are raised: listed, marked as read, and forgotten when a limit counts anew."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import bindparam, delete, literal, select, tuple_, update

from app.alerts.tables import Alert
from app.core.errors import NotFound
from app.db.engine import Tx
from app.limits.known import Rule
from app.limits.running import running


class AlertRow(NamedTuple):
    """One alert as it is stored."""

    id: str
    scope_key: str
    limit_id: str
    type: str
    severity: str
    threshold: int
    title: str
    message: str
    billing_period: str
    created_at: datetime
    read_at: datetime | None
    sent_at: datetime | None


_COLUMNS = tuple(getattr(Alert, name) for name in AlertRow._fields)


async def list_alerts(
    tx: Tx,
    scope_key: str | None,
    *,
    unread: bool,
    kind: str | None = None,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[AlertRow]:
    """At most `limit` alerts of a scope or of all, of one type or of all, newest first."""
    query = select(*_COLUMNS).limit(limit)
    query = query.order_by(Alert.created_at.desc(), Alert.id.desc())
    if scope_key is not None:
        query = query.where(Alert.scope_key == scope_key)
    if kind is not None:
        query = query.where(Alert.type == kind)
    if unread:
        query = query.where(Alert.read_at.is_(None))
    if before is not None:
        last = tuple_(literal(before[0], Alert.created_at.type), literal(before[1]))
        query = query.where(tuple_(Alert.created_at, Alert.id) < last)
    return [AlertRow._make(row) for row in await tx.fetch(query)]


async def mark_read(tx: Tx, alert_id: str, user_id: str | None, now: datetime) -> AlertRow:
    """Note that somebody read the alert; the first time stays.

    Raises:
        NotFound: no such alert, or with `user_id`, none of that user.
    """
    row = await tx.first(select(*_COLUMNS).where(Alert.id == alert_id))
    alert = AlertRow._make(row) if row else None
    if alert is None or (user_id is not None and alert.scope_key != f"user:{user_id}"):
        raise NotFound("no such alert", id=alert_id)
    if alert.read_at is None:
        same = (Alert.scope_key == alert.scope_key, Alert.id == alert_id)
        await tx.run(update(Alert).where(*same, Alert.read_at.is_(None)).values(read_at=now))
    return alert._replace(read_at=alert.read_at or now)


async def forget_alerts(tx: Tx, before: Rule, after: Rule, now: datetime) -> None:
    """Remove what a limit raised in the windows that it now counts anew.

    Those are the running ones by what it was and by what it is now; alerts of windows that ended
    before both began are history and stay.
    """
    raised = select(Alert.scope_key).where(Alert.limit_id == after.id).distinct()
    scopes = sorted(row[0] for row in await tx.fetch(raised))
    if not scopes:
        return
    windows = [await running(tx, rule, scopes, now) for rule in (before, after)]
    since = [
        {
            "scope": scope,
            "since": min([now, *(window.start for found in windows for window in found[scope])]),
        }
        for scope in scopes
    ]
    gone = delete(Alert).where(
        Alert.scope_key == bindparam("scope"),
        Alert.limit_id == after.id,
        Alert.window_start >= bindparam("since", type_=Alert.window_start.type),
    )
    await tx.run(gone, since)
