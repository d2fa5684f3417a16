"""Totals that readers touch instead of the log. Everything in them is additive."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from app.core.money import Nanos
from app.db.types import Base, table_options


class Measures:
    """What every total adds up. An average is a sum here and a division at the reader."""

    calls: Mapped[int]
    errors: Mapped[int]
    input_tokens: Mapped[int]
    output_tokens: Mapped[int]
    cache_read_tokens: Mapped[int]
    cache_write_tokens: Mapped[int]
    output_reasoning_tokens: Mapped[int]
    input_audio_tokens: Mapped[int]
    output_audio_tokens: Mapped[int]
    input_image_tokens: Mapped[int]
    output_image_tokens: Mapped[int]
    requests: Mapped[int]
    cost_nanos: Mapped[Nanos]
    unpriced_calls: Mapped[int]
    latency_calls: Mapped[int]
    latency_us: Mapped[int]
    ttft_calls: Mapped[int]
    ttft_us: Mapped[int]


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
    __table_args__ = (table_options("user_id", clustered=True),)

    user_id: Mapped[str] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    provider: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    task_type: Mapped[str] = mapped_column(primary_key=True)


class HourDimension(Measures, Base):
    """What all users used in one hour, by one dimension.

    Every call is in `model`, `endpoint` and `status_code` (so that each sums to the whole), in
    `backend`, `pool`, `team` and `key` where it names one, and in one `latency` and one `ttft`
    bucket where it carries them. `shard` is the writer's number: writers never queue for a row,
    readers sum over shards.
    """

    __tablename__ = "hour_dimensions"
    __table_args__ = (table_options("shard", clustered=True),)

    shard: Mapped[int] = mapped_column(primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    dimension: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(primary_key=True)
