"""Totals that readers touch instead of the log. Everything in them is additive."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, MappedColumn, mapped_column

from app.core.money import Nanos
from app.db.types import Base, table_options


def _zero() -> MappedColumn[Any]:
    return mapped_column(server_default=text("0"))


class Measures:
    """What every total adds up. An average is a sum here and a division at the reader."""

    calls: Mapped[int] = _zero()
    errors: Mapped[int] = _zero()
    input_tokens: Mapped[int] = _zero()
    output_tokens: Mapped[int] = _zero()
    cache_read_tokens: Mapped[int] = _zero()
    cache_write_tokens: Mapped[int] = _zero()
    output_reasoning_tokens: Mapped[int] = _zero()
    input_audio_tokens: Mapped[int] = _zero()
    output_audio_tokens: Mapped[int] = _zero()
    input_image_tokens: Mapped[int] = _zero()
    output_image_tokens: Mapped[int] = _zero()
    requests: Mapped[int] = _zero()
    cost_nanos: Mapped[Nanos] = _zero()
    unpriced_calls: Mapped[int] = _zero()
    latency_calls: Mapped[int] = _zero()
    latency_us: Mapped[int] = _zero()
    ttft_calls: Mapped[int] = _zero()
    ttft_us: Mapped[int] = _zero()


MEASURES = tuple(Measures.__annotations__)


class PeriodTotal(Measures, Base):
    """What one user used of one model in one billing period."""

    __tablename__ = "period_totals"
    __table_args__ = (table_options("user_id", clustered=True),)

    user_id: Mapped[str] = mapped_column(primary_key=True)
    period_start: Mapped[datetime] = mapped_column(primary_key=True)
    provider: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)


class HourTotal(Measures, Base):
    """What one user used of one model for one kind of task in one hour."""

    __tablename__ = "hour_totals"
    __table_args__ = (
        Index(
            None,
            *("provider", "model", "hour"),
            sqlite_where=text("unpriced_calls != 0"),
            postgresql_where=text("unpriced_calls != 0"),
        ),
        table_options("user_id", clustered=True),
    )

    user_id: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    provider: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    task_type: Mapped[str] = mapped_column(primary_key=True)


class HourDimension(Measures, Base):
    """What all users used in one hour, by one dimension.

    Every call is in `model`, `endpoint` and `status_code` (so that each sums to the whole), in
    `backend`, `pool`, `team` and `key` where it names one, and in one `latency` and one `ttft`
    bucket where it carries them. What a team or a key called is in `team_calls` and `key_calls`,
    by provider, model, endpoint and status code; a pool's backends are in `pool_backend`. `shard`
    is the writer's number: writers never queue for a row, readers sum over shards.
    """

    __tablename__ = "hour_dimensions"
    __table_args__ = (table_options("shard", clustered=True),)

    shard: Mapped[int] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    dimension: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(primary_key=True)


class WrappedUsage(Measures, Base):
    """What rows of the log that were archived add up to: one row an archive, hour and kind of call.

    Every name that a total or a limit asks for is kept, so that each of them can be counted from
    the log and these. Of one archive no two rows have the same names; `group_no` counts them.
    A name that the call did not give is null, a provider or model that it did not name is empty.
    """

    __tablename__ = "wrapped_usage"
    __table_args__ = (
        Index(None, "user_id", "hour"),
        table_options("user_id", clustered=True),
    )

    user_id: Mapped[str] = mapped_column(primary_key=True)
    archive_id: Mapped[str] = mapped_column(primary_key=True)
    group_no: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    period_start: Mapped[datetime]
    hour: Mapped[datetime]
    provider: Mapped[str]
    model: Mapped[str]
    task_type: Mapped[str | None]
    endpoint: Mapped[str | None]
    status_code: Mapped[int]
    team_id: Mapped[str | None]
    api_key_id: Mapped[str | None]
    backend: Mapped[str | None]
    pool: Mapped[str | None]
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]
    min_latency_us: Mapped[int | None]
    max_latency_us: Mapped[int | None]
    min_ttft_us: Mapped[int | None]
    max_ttft_us: Mapped[int | None]
    cache_write_5m_tokens: Mapped[int] = _zero()
    cache_write_1h_tokens: Mapped[int] = _zero()
    cache_audio_read_tokens: Mapped[int] = _zero()
    output_citation_tokens: Mapped[int] = _zero()
    web_searches: Mapped[int] = _zero()
    rerank_searches: Mapped[int] = _zero()
    input_document_pages: Mapped[int] = _zero()
    input_characters: Mapped[int] = _zero()
    output_images: Mapped[int] = _zero()
    audio_micros: Mapped[int] = _zero()
    video_micros: Mapped[int] = _zero()
    compute_micros: Mapped[int] = _zero()
    retries: Mapped[int] = _zero()
    request_bytes: Mapped[int] = _zero()
    response_bytes: Mapped[int] = _zero()


class DriftTotal(Base):
    """How far stated costs and ours are apart on one day in UTC, over the calls that have both.

    `source` is the door by which they came. `calls_apart` counts those more than 5 % apart.
    `shard` is the writer's number: writers never queue for a row, readers sum over shards.
    """

    __tablename__ = "drift_totals"
    __table_args__ = (table_options("shard", clustered=True),)

    day: Mapped[datetime] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(primary_key=True)
    provider: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    shard: Mapped[int] = mapped_column(primary_key=True)
    calls: Mapped[int] = _zero()
    calls_apart: Mapped[int] = _zero()
    stated_nanos: Mapped[Nanos] = _zero()
    priced_nanos: Mapped[Nanos] = _zero()
