"""What is known of recent traces, so that what arrives later finds the call it belongs to."""

from datetime import datetime

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from app.db.types import Base, table_options


class OtlpTelling(Base):
    """One span or log record that tells of a model call, and the event that it became part of.

    Several of them may tell of one call. `response_key` and `likeness` find the others: the id of
    the response (or where its halves meet), and when it ended with the tokens it counted. An empty
    `event_id` means that no event came of it. `event_hash` tells whether the event says what it
    should. `owner` is the user that the sender's key is bound to, or empty.
    """

    __tablename__ = "otlp_tellings"
    __table_args__ = (
        Index(None, "owner", "response_key"),
        Index(None, "owner", "likeness"),
        Index(None, "expires_at"),
        table_options("local"),
    )

    owner: Mapped[str] = mapped_column(primary_key=True)
    trace_id: Mapped[str] = mapped_column(primary_key=True)
    span_id: Mapped[str] = mapped_column(primary_key=True)
    response_key: Mapped[str | None]
    likeness: Mapped[str]
    telling: Mapped[str]
    event_user: Mapped[str]
    event_id: Mapped[str]
    event_hash: Mapped[int]
    expires_at: Mapped[datetime]


class OtlpLinks(Base):
    """Spans of a trace that tell of no model call: whose child each is, and whom it names.

    A row has those that one request brought; `digest` tells it from others of its trace.
    """

    __tablename__ = "otlp_links"
    __table_args__ = (Index(None, "expires_at"), table_options("local"))

    owner: Mapped[str] = mapped_column(primary_key=True)
    trace_id: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    links: Mapped[str]
    expires_at: Mapped[datetime]
