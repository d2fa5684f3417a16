"""What is to be rated again."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.money import Nanos
from app.db.types import Base, table_options


class Rerate(Base):
    """A re-rate: which events, what it would change, and how far it has come.

    `state` is `planned`, `applying`, `applied` or `cancelled`. `diff` is what the plan found.
    `step` counts the transactions that carried it on: each one moves `cursor` (null at the start)
    behind the last event it looked at, and adds what it changed to the counts.
    """

    __tablename__ = "rerates"
    __table_args__ = (Index(None, "created_at", "id"), table_options("local"))

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    reason: Mapped[str]
    state: Mapped[str]
    filter: Mapped[dict[str, Any]]
    diff: Mapped[dict[str, Any]]
    step: Mapped[int] = mapped_column(server_default=text("0"))
    cursor: Mapped[str | None]
    scanned_count: Mapped[int] = mapped_column(server_default=text("0"))
    changed_count: Mapped[int] = mapped_column(server_default=text("0"))
    delta_nanos: Mapped[Nanos] = mapped_column(server_default=text("0"))
    finished_at: Mapped[datetime | None]
