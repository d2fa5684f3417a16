"""Keys are kept as digests: nothing in the database opens the door."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from app.db.types import Base, table_options


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
