"""Endpoints for alerts."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from app.access.api import Cursor, Id, JsonRoute, Page, PageSize, Place, UserId, page_of, place_of
from app.access.deps import Db, Now, Reader
from app.access.guard import require_user
from app.alerts.messages import scope_out
from app.alerts.notices import threshold_out
from app.alerts.read import AlertRow, list_alerts, mark_read

router = APIRouter(route_class=JsonRoute)


Type = Literal[
    "usage_warning", "limit_reached", "limit_forecast", "limit_recovered", "usage_anomaly"
]
OfType = Annotated[Type | None, Query(alias="type", description="Alerts of this type only.")]

_ALERT: dict[str, Any] = {
    "id": "019a9f5e-0000-7000-8000-000000000000",
    "limit_id": "lim_4f0c9a1b2c3d4e5f",
    "type": "usage_warning",
    "severity": "info",
    "threshold": 80,
    "title": "80% used: monthly budget",
    "message": "You have used $81.2 of $100 openai spend this billing period, "
    "which is 80% or more of the limit.",
    "billing_period": "2026-11",
    "created_at": "2026-11-20T12:30:00Z",
    "read": False,
    "sent_at": None,
}


class AlertOut(BaseModel):
    """One alert. A threshold's severity is info below 90, warning below 100, then error.

    `threshold` is null of other types; of a `usage_anomaly`, `limit_id` is the id of its rule.
    `sent_at` is when a webhook first took it; null where none did.
    """

    id: str
    limit_id: str
    type: str
    severity: str
    threshold: int | None
    title: str
    message: str
    billing_period: str
    created_at: datetime
    read: bool
    sent_at: datetime | None

    model_config = ConfigDict(json_schema_extra={"examples": [_ALERT]})


class ScopedAlertOut(AlertOut):
    """An alert, and whose it is: a user's, a team's, a key's or everyone's."""

    scope: dict[str, str | bool]

    model_config = ConfigDict(
        json_schema_extra={"examples": [_ALERT | {"scope": {"team_id": "research"}}]}
    )


def alert_out(alert: AlertRow) -> AlertOut:
    """An alert for the wire."""
    facts = alert._asdict() | {"threshold": threshold_out(alert.threshold)}
    del facts["scope_key"], facts["read_at"]
    return AlertOut(**facts, read=alert.read_at is not None)


@router.get("/v1/alerts", tags=["alerts"])
async def list_all(
    key: Reader,
    db: Db,
    unread: bool = False,
    kind: OfType = None,
    cursor: Cursor = None,
    limit: PageSize = 100,
) -> Page[ScopedAlertOut]:
    """Alerts of every user, team and key and of limits for all, newest first.

    It needs a key that is bound to no user.
    """
    require_user(key, None)
    before = place_of(cursor)
    rows = await db.read(
        lambda tx: list_alerts(tx, None, unread=unread, kind=kind, before=before, limit=limit + 1)
    )
    shown, more = page_of(rows, limit, lambda alert: Place(alert.created_at, alert.id))
    items = [
        ScopedAlertOut(**dict(alert_out(alert)), scope=scope_out(alert.scope_key))
        for alert in shown
    ]
    return Page(items=items, next_cursor=more)


@router.get("/v1/users/{user_id:path}/alerts", tags=["alerts"])
async def list_of_user(
    user_id: UserId,
    key: Reader,
    db: Db,
    unread: bool = False,
    kind: OfType = None,
    cursor: Cursor = None,
    limit: PageSize = 100,
) -> Page[AlertOut]:
    """A user's alerts, newest first; `unread=true` leaves out those that were read."""
    require_user(key, user_id)
    before = place_of(cursor)
    scope_key = f"user:{user_id}"
    rows = await db.read(
        lambda tx: list_alerts(
            tx, scope_key, unread=unread, kind=kind, before=before, limit=limit + 1
        )
    )
    shown, more = page_of(rows, limit, lambda alert: Place(alert.created_at, alert.id))
    return Page(items=[alert_out(alert) for alert in shown], next_cursor=more)


@router.post("/v1/alerts/{alert_id}/read", tags=["alerts"])
async def read(alert_id: Id, key: Reader, db: Db, clock: Now) -> AlertOut:
    """Mark an alert as read; again changes nothing."""
    now = clock.now()
    return alert_out(await db.write(lambda tx: mark_read(tx, alert_id, key.user_id, now)))
