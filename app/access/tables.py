"""Keys are kept as digests: nothing in the database opens the door."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from app.db.types import Base, Pairs, table_options


class ApiKey(Base):
    """One key: what it may do, for whom, and until when."""

    __tablename__ = "api_keys"
    __table_args__ = (table_options("reference"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    prefix: Mapped[str]
    digest: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[str]
    user_id: Mapped[str | None]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    replaced_by: Mapped[str | None]
    requests_per_minute: Mapped[int | None]


class ManagementChange(Base):
    """One change that somebody made: who, what, what it was before and after. Append-only."""

    __tablename__ = "management_log"
    __table_args__ = (
        Index("ix_management_log_kind_ref", "kind", "ref", "at"),
        table_options("local"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    key_id: Mapped[str]
    key_name: Mapped[str]
    via: Mapped[str]
    request_id: Mapped[str | None]
    action: Mapped[str]
    kind: Mapped[str]
    ref: Mapped[str]
    before: Mapped[dict[str, Any] | None] = mapped_column(Pairs())
    after: Mapped[dict[str, Any] | None] = mapped_column(Pairs())


class DashboardSession(Base):
    """One signed-in browser. The cookie's digest is kept, never the cookie."""

    __tablename__ = "dashboard_sessions"
    __table_args__ = (table_options("local"),)

    digest: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str]
    csrf: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class SignInLink(Base):
    """A link that signs in once, for a few minutes."""

    __tablename__ = "sign_in_links"
    __table_args__ = (table_options("local"),)

    digest: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
