"""Alerts, written with the usage that caused them; webhooks, and what is on its way to them."""

from datetime import datetime

from sqlalchemy import Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.types import Base, table_options


class Alert(Base):
    """One threshold of one limit, crossed in one window. The key makes a second one impossible.

    A `threshold` that is not above 0 is another kind of alert (`notices.py`); of an anomaly,
    `limit_id` is that of its rule. `settled_at` is when a limit that was reached no longer was.
    """

    __tablename__ = "alerts"
    __table_args__ = (
        Index(None, "id"),
        Index(None, "scope_key", "created_at"),
        Index(None, "created_at", "id"),
        Index(
            "ix_alerts_unread",
            *("created_at", "id"),
            sqlite_where=text("read_at IS NULL"),
            postgresql_where=text("read_at IS NULL"),
        ),
        Index(
            None,
            *("scope_key", "limit_id", "window_start"),
            sqlite_where=text("settled_at IS NULL AND type = 'limit_reached'"),
            postgresql_where=text("settled_at IS NULL AND type = 'limit_reached'"),
        ),
        table_options("scope_key"),
    )

    scope_key: Mapped[str] = mapped_column(primary_key=True)
    limit_id: Mapped[str] = mapped_column(primary_key=True)
    window_start: Mapped[datetime] = mapped_column(primary_key=True)
    threshold: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str]
    type: Mapped[str]
    severity: Mapped[str]
    title: Mapped[str]
    message: Mapped[str]
    billing_period: Mapped[str]
    created_at: Mapped[datetime]
    read_at: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
    settled_at: Mapped[datetime | None]


class Webhook(Base):
    """One receiver of messages: where it is, which messages it gets, what they are signed with.

    `event_types` is separated by commas, and empty for all of them. `older_secrets` still sign
    beside the present one, each until the instant it is mapped to.
    """

    __tablename__ = "webhooks"
    __table_args__ = (table_options("reference"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    url: Mapped[str]
    secret: Mapped[str | None]
    older_secrets: Mapped[dict[str, str]]
    event_types: Mapped[str]
    scope_key: Mapped[str]
    enabled: Mapped[bool]
    disabled_reason: Mapped[str | None]
    description: Mapped[str]
    created_at: Mapped[datetime]


class Message(Base):
    """What the alerts of one scope in one commit say: the body, byte for byte as it is signed."""

    __tablename__ = "outbox"
    __table_args__ = (Index(None, "created_at"), table_options("local"))

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    type: Mapped[str]
    scope_key: Mapped[str]
    payload: Mapped[str]


class Delivery(Base):
    """One message on its way to one webhook.

    `next_attempt_at` is null once nothing is due any more. A sender claims a delivery by moving it
    ahead and leaving its mark in `claim`; a claim that nobody finished becomes due again by itself.
    `attempts` counts all of them, `failures` those since it was last queued.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("message_id", "webhook_id"),
        Index(None, "webhook_id", "next_attempt_at"),
        Index(None, "webhook_id", "created_at"),
        table_options("local"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    message_id: Mapped[str]
    webhook_id: Mapped[str]
    created_at: Mapped[datetime]
    state: Mapped[str]
    next_attempt_at: Mapped[datetime | None]
    claim: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    last_status: Mapped[int | None]
    last_response: Mapped[str | None]
    last_error: Mapped[str | None]
    delivered_at: Mapped[datetime | None]


class DeliveryAttempt(Base):
    """What came of one attempt; the last twenty of a delivery are kept."""

    __tablename__ = "delivery_attempts"
    __table_args__ = (table_options("local", clustered=True),)

    delivery_id: Mapped[str] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    attempted_at: Mapped[datetime]
    took_ms: Mapped[int]
    status: Mapped[int | None]
    response: Mapped[str | None]
    error: Mapped[str | None]


class AlertRule(Base):
    """What somebody wants to be told of, or with `enabled` false not to be.

    `limit_id` is the limit that a rule of type `threshold` is, else the only limit it is about.
    `metric` and `window` of None are any. `min_amount` is in the metric's own unit.
    """

    __tablename__ = "alert_rules"
    __table_args__ = (Index(None, "scope_key"), table_options("reference"))

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    type: Mapped[str]
    scope_key: Mapped[str]
    limit_id: Mapped[str | None]
    metric: Mapped[str | None]
    window: Mapped[str | None]
    amount: Mapped[int | None]
    thresholds: Mapped[str]
    sensitivity: Mapped[int | None]
    min_amount: Mapped[int | None]
    enabled: Mapped[bool]
    created_at: Mapped[datetime]
