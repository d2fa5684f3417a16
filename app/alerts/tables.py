"""Alerts: written with the usage that caused them."""

from datetime import datetime

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from app.db.types import Base, table_options


class Alert(Base):
    """One threshold of one limit, crossed in one window. The key makes a second one impossible."""

    __tablename__ = "alerts"
    __table_args__ = (
        Index(None, "id"),
        Index(None, "scope_key", "created_at"),
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
