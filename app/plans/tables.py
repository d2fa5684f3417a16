"""Plans and who is on which, since when."""

from datetime import datetime

from sqlalchemy import ForeignKey, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.types import Base, table_options


class Plan(Base):
    """A named set of limits. One plan is the default: who is seen first gets it."""

    __tablename__ = "plans"
    __table_args__ = (table_options("reference"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    is_default: Mapped[bool]
    created_at: Mapped[datetime]


class Subscription(Base):
    """From `starts_at` until the user's next row, periods are counted from `anchor_at`.

    A renewal, a reset or a new plan is another row: what was agreed before stays readable. At
    `expires_at`, if there is one, it goes on as `on_expiry` says: `fallback` to `fallback_plan_id`,
    `renew`, or `refuse`. Only that may change in a row, and only while nothing is counted after it.
    """

    __tablename__ = "subscriptions"
    __table_args__ = (table_options("user_id"),)

    user_id: Mapped[str] = mapped_column(primary_key=True)
    starts_at: Mapped[datetime] = mapped_column(primary_key=True)
    plan_id: Mapped[str] = mapped_column(ForeignKey("plans.id"))
    anchor_at: Mapped[datetime]
    interval: Mapped[str]
    timezone: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    on_expiry: Mapped[str] = mapped_column(server_default=text("'fallback'"))
    fallback_plan_id: Mapped[str | None]
