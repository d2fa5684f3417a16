"""What is limited, and how far along each limit is."""

from datetime import datetime

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.types import Base, table_options


class Limit(Base):
    """At most `amount` of a metric in each window, for a scope, on the calls that match.

    `scope_key` is `user:alice`, `plan:plan_…`, `team:…`, `key:…` or `all`. `amount` is in the
    metric's own unit, nano-dollars for cost; null is unlimited and 0 is none at all.
    """

    __tablename__ = "limits"
    __table_args__ = (Index(None, "scope_key"), table_options("reference"))

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    scope_key: Mapped[str]
    provider: Mapped[str | None]
    model: Mapped[str | None]
    endpoint: Mapped[str | None]
    metric: Mapped[str]
    window: Mapped[str]
    amount: Mapped[int | None]
    action: Mapped[str]
    thresholds: Mapped[str]
    created_at: Mapped[datetime]
    counts_from: Mapped[datetime]


class Counter(Base):
    """How much of one limit one scope used in one window; `held` is reserved by open holds.

    A plan's limit has one counter per user (`user:alice`), a team's one for the team.
    """

    __tablename__ = "limit_counters"
    __table_args__ = (table_options("scope_key", clustered=True),)

    scope_key: Mapped[str] = mapped_column(primary_key=True)
    limit_id: Mapped[str] = mapped_column(primary_key=True)
    window_start: Mapped[datetime] = mapped_column(primary_key=True)
    used: Mapped[int] = mapped_column(server_default=text("0"))
    held: Mapped[int] = mapped_column(server_default=text("0"))
