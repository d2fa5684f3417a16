"""What was archived, and how long detailed rows are kept."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from app.db.types import Base, table_options


class Archive(Base):
    """One file of rows that left the log, all of one month in UTC.

    It is `writing` until the transaction that takes its rows out of the log, which makes it
    `sealed`; a file that never gets so far is removed, and its row (`dropping`) after it. A
    `restored` one is back in the log. `path`
    is relative to where archives are kept; `sums` holds what its rows add up to, by measure.
    """

    __tablename__ = "archives"
    __table_args__ = (Index(None, "state", "created_at"), table_options("local"))

    id: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]
    month: Mapped[datetime]
    path: Mapped[str]
    trigger: Mapped[str]
    users: Mapped[int]
    events: Mapped[int]
    bytes: Mapped[int]
    sha256: Mapped[str]
    first_at: Mapped[datetime | None]
    last_at: Mapped[datetime | None]
    last_recorded_at: Mapped[datetime | None]
    sums: Mapped[dict[str, Any]]


class Retention(Base):
    """How long detailed rows are kept: for everyone (`scope_key` is `all`) or for one user.

    A bound that is null is not set; `max_rows` and `keep_rows` go together. `keep_ids_days` is for
    everyone: how long the ids of wrapped events are known, null for ever.
    """

    __tablename__ = "retention"
    __table_args__ = (table_options("reference"),)

    scope_key: Mapped[str] = mapped_column(primary_key=True)
    max_rows: Mapped[int | None]
    keep_rows: Mapped[int | None]
    max_age_days: Mapped[int | None]
    keep_ids_days: Mapped[int | None]
    changed_at: Mapped[datetime]
