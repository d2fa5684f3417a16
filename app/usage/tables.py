"""The log of calls, and every change of what one of them was charged."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, PrimaryKeyConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.money import Nanos
from app.db.types import Base, table_options


class EntryColumns:
    """What is kept of one call. A counter that is null is 0; a name not given is empty or null."""

    user_id: Mapped[str]
    event_id: Mapped[str]
    timestamp: Mapped[datetime]
    recorded_at: Mapped[datetime]
    body_hash: Mapped[int]
    provider: Mapped[str]
    model: Mapped[str]
    status_code: Mapped[int]
    cost_nanos: Mapped[Nanos | None]
    cost_status: Mapped[str]
    price_ref: Mapped[str]
    input_tokens: Mapped[int | None]
    cache_read_tokens: Mapped[int | None]
    cache_write_tokens: Mapped[int | None]
    cache_write_5m_tokens: Mapped[int | None]
    cache_write_1h_tokens: Mapped[int | None]
    input_audio_tokens: Mapped[int | None]
    cache_audio_read_tokens: Mapped[int | None]
    input_image_tokens: Mapped[int | None]
    output_tokens: Mapped[int | None]
    output_reasoning_tokens: Mapped[int | None]
    output_audio_tokens: Mapped[int | None]
    output_image_tokens: Mapped[int | None]
    output_citation_tokens: Mapped[int | None]
    requests: Mapped[int | None]
    web_searches: Mapped[int | None]
    rerank_searches: Mapped[int | None]
    input_document_pages: Mapped[int | None]
    input_characters: Mapped[int | None]
    output_images: Mapped[int | None]
    audio_micros: Mapped[int | None]
    video_micros: Mapped[int | None]
    compute_micros: Mapped[int | None]
    endpoint: Mapped[str | None]
    method: Mapped[str | None]
    error_message: Mapped[str | None]
    retry_count: Mapped[int | None]
    latency_us: Mapped[int | None]
    ttft_us: Mapped[int | None]
    request_bytes: Mapped[int | None]
    response_bytes: Mapped[int | None]
    user_agent: Mapped[str | None]
    ip_address: Mapped[str | None]
    team_id: Mapped[str | None]
    api_key_id: Mapped[str | None]
    session_id: Mapped[str | None]
    task_type: Mapped[str | None]
    backend: Mapped[str | None]
    pool: Mapped[str | None]
    hold_id: Mapped[str | None]
    tags: Mapped[dict[str, Any] | None]
    context: Mapped[dict[str, Any] | None]


class UsageEvent(EntryColumns, Base):
    """One call, as it happened. What it used is never changed.

    `cost_nanos`, `cost_status` and `price_ref` are what it is charged at present: another rating
    changes them in place and leaves a `UsageAdjustment` with what they were.

    `body_hash` tells a retry from another event under the same id. A provider or model that the
    caller did not name is an empty string; a counter that is null is 0. The key starts with the
    event's id: ids that sort by time then land side by side, and a batch writes a few pages of that
    index instead of one for every user in it.
    """

    __tablename__ = "usage_events"
    __table_args__ = (
        PrimaryKeyConstraint("event_id", "user_id"),
        Index(None, "user_id", "timestamp"),
        Index(
            None,
            *("provider", "model", "timestamp"),
            sqlite_where=text("cost_status = 'unpriced'"),
            postgresql_where=text("cost_status = 'unpriced'"),
        ),
        table_options("user_id"),
    )


class UsageAdjustment(Base):
    """One change of what an event is charged: what stood before, what stands since, and why.

    Rows are added and never changed. `revision` counts the changes of one event from 1, and each
    one begins where the one before ended; `kind` is `rerate`. `timestamp`, `provider` and `model`
    are the event's. `job_id` names the re-rate, null where a price that arrived was the reason.
    """

    __tablename__ = "usage_adjustments"
    __table_args__ = (table_options("user_id"),)

    user_id: Mapped[str] = mapped_column(primary_key=True)
    event_id: Mapped[str] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    adjusted_at: Mapped[datetime]
    kind: Mapped[str]
    reason: Mapped[str]
    job_id: Mapped[str | None]
    actor: Mapped[str]
    timestamp: Mapped[datetime]
    provider: Mapped[str]
    model: Mapped[str]
    old_cost_nanos: Mapped[Nanos | None]
    new_cost_nanos: Mapped[Nanos | None]
    old_cost_status: Mapped[str]
    new_cost_status: Mapped[str]
    old_price_ref: Mapped[str]
    new_price_ref: Mapped[str]


class UsageCorrection(EntryColumns, Base):
    """One half of a correction: the call as it stood, taken back (`sign` -1), or as it is now (+1).

    Rows are added and never changed. A void takes back; a correction takes back and puts in its
    place. `revision` counts the rows of one event from 1; the newest one with +1 is what the event
    is now, and the row of the log stays as it came. Every figure is the log and what was wrapped,
    plus each of these rows times its sign. `recorded_at` is when the correction was made,
    `body_hash` and `idempotency_key` tell one that is sent again.
    """

    __tablename__ = "usage_corrections"
    __table_args__ = (
        PrimaryKeyConstraint("user_id", "event_id", "revision"),
        Index(None, "user_id", "timestamp"),
        table_options("user_id"),
    )

    revision: Mapped[int]
    sign: Mapped[int]
    kind: Mapped[str]
    reason: Mapped[str]
    actor: Mapped[str]
    idempotency_key: Mapped[str | None]


class WrappedEvent(Base):
    """What is left of an event in the log's place: enough to know it when it is sent again.

    `event_hash` is the first 16 bytes of the SHA-256 of its id; `body_hash`, the times and what it
    is charged are those of its row. The whole row lies in the archive.
    """

    __tablename__ = "wrapped_events"
    __table_args__ = (
        Index(None, "user_id", "archive_id"),
        table_options("user_id", clustered=True),
    )

    user_id: Mapped[str] = mapped_column(primary_key=True)
    event_hash: Mapped[bytes] = mapped_column(primary_key=True)
    body_hash: Mapped[int]
    timestamp: Mapped[datetime]
    recorded_at: Mapped[datetime]
    cost_nanos: Mapped[Nanos | None]
    cost_status: Mapped[str]
    archive_id: Mapped[str]
