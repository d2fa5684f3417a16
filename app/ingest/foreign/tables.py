"""What other programs tell of one call in several requests."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from app.db.types import Base, table_options


class ForeignPart(Base):
    """A part of what a program told of a call (`call:ID`) or of what surrounds it (`trace:ID`).

    `owner` is the user that the sender's key is bound to, else empty; `part_id` tells a repeat.
    `said_at` orders the parts of one subject. `waiting` is true until the call is recorded,
    which is for `user_id`, empty before. Parts go after a day.
    """

    __tablename__ = "foreign_parts"
    __table_args__ = (
        Index(None, "owner", "trace_id"),
        Index(None, "waiting", "received_at"),
        table_options("local"),
    )

    owner: Mapped[str] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True)
    part_id: Mapped[str] = mapped_column(primary_key=True)
    trace_id: Mapped[str]
    said_at: Mapped[datetime]
    received_at: Mapped[datetime]
    waiting: Mapped[bool]
    body: Mapped[dict[str, Any]]
    user_id: Mapped[str]
