"""What is limited, and how far along each limit is."""

from datetime import datetime

from sqlalchemy import Index, PrimaryKeyConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.money import Nanos
from app.db.types import Base, table_options


class Limit(Base):
    """At most `amount` of a metric in each window, for a scope, on the calls that match.

    `scope_key` is `user:alice`, `plan:plan_…`, `team:…`, `key:…` or `all`. `amount` is in the
    metric's own unit, nano-dollars for cost; null is unlimited and 0 is none at all. `timezone` is
    that of minutes to months. Until `raised_until` the amount is `raised_amount`.
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
    timezone: Mapped[str] = mapped_column(server_default=text("'UTC'"))
    amount: Mapped[int | None]
    action: Mapped[str]
    thresholds: Mapped[str]
    created_at: Mapped[datetime]
    counts_from: Mapped[datetime]
    raised_amount: Mapped[int | None]
    raised_until: Mapped[datetime | None]


class LimitRaise(Base):
    """One raise of a limit, or the end of one: only ever added, and kept when the limit goes.

    `kind` is `raise` or `end`; a raise holds until `until`, its limit's next row, or its end.
    """

    __tablename__ = "limit_raises"
    __table_args__ = (table_options("reference"),)

    limit_id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str]
    metric: Mapped[str]
    amount: Mapped[int | None]
    until: Mapped[datetime]
    reason: Mapped[str | None]
    created_at: Mapped[datetime]


class Counter(Base):
    """How much of one limit one scope used in one window; `held` is reserved by open holds.

    A plan's limit has one counter per user (`user:alice`), a team's one for the team.
    """

    __tablename__ = "limit_counters"
    __table_args__ = (
        Index(None, "limit_id", "window_start", "scope_key"),
        table_options("scope_key", clustered=True),
    )

    scope_key: Mapped[str] = mapped_column(primary_key=True)
    limit_id: Mapped[str] = mapped_column(primary_key=True)
    window_start: Mapped[datetime] = mapped_column(primary_key=True)
    used: Mapped[int] = mapped_column(server_default=text("0"))
    held: Mapped[int] = mapped_column(server_default=text("0"))


class Hold(Base):
    """What a caller reserved for a call before making it, and what became of that.

    `state` is `open`, `settled`, `released` or `expired`; an open one whose `expires_at` has passed
    holds nothing any more, though nobody may have noted it yet. `basis` says what the estimate was
    made of, `output_tokens` what it took for the output. `shares` is JSON: what was held of which
    limit, as it was answered. The key starts with the id, which is looked up without the user too.
    """

    __tablename__ = "holds"
    __table_args__ = (
        PrimaryKeyConstraint("id", "user_id"),
        Index(
            None,
            *("user_id", "created_at"),
            sqlite_where=text("state = 'open'"),
            postgresql_where=text("state = 'open'"),
        ),
        Index(None, "state", "expires_at"),
        table_options("user_id"),
    )

    user_id: Mapped[str]
    id: Mapped[str]
    body_hash: Mapped[int]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    state: Mapped[str]
    provider: Mapped[str | None]
    model: Mapped[str | None]
    endpoint: Mapped[str | None]
    team_id: Mapped[str | None]
    api_key_id: Mapped[str | None]
    estimated_cost_nanos: Mapped[Nanos | None]
    basis: Mapped[str]
    output_tokens: Mapped[int | None]
    shares: Mapped[str]
    settled_event_id: Mapped[str | None]
    closed_at: Mapped[datetime | None]


class HoldAmount(Base):
    """What an open hold holds in one counter; `held` of the counter is the sum of these rows.

    A row is made and removed only by who has locked the counter. The instant it expires at is part
    of the key, so that what has expired in one counter lies together.
    """

    __tablename__ = "hold_amounts"
    __table_args__ = (table_options("scope_key", clustered=True),)

    scope_key: Mapped[str] = mapped_column(primary_key=True)
    limit_id: Mapped[str] = mapped_column(primary_key=True)
    window_start: Mapped[datetime] = mapped_column(primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(primary_key=True)
    hold_id: Mapped[str] = mapped_column(primary_key=True)
    amount: Mapped[int]
