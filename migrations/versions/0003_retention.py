"""What is left of events that were archived, and corrections of events."""

import sqlalchemy as sa
from alembic import op

from app.db.types import Flag, Moment, Pairs

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.TEXT(), "sqlite")
WHOLE = sa.BigInteger().with_variant(sa.INTEGER(), "sqlite")
BYTES = sa.LargeBinary().with_variant(sa.BLOB(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "archives",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("changed_at", Moment(), nullable=False),
        sa.Column("month", Moment(), nullable=False),
        sa.Column("path", TEXT, nullable=False),
        sa.Column("trigger", TEXT, nullable=False),
        sa.Column("users", WHOLE, nullable=False),
        sa.Column("events", WHOLE, nullable=False),
        sa.Column("bytes", WHOLE, nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("first_at", Moment(), nullable=True),
        sa.Column("last_at", Moment(), nullable=True),
        sa.Column("last_recorded_at", Moment(), nullable=True),
        sa.Column("sums", Pairs(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_archives")),
        info={"dist": "local"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_index(
        op.f("ix_archives_state_created_at"), "archives", ["state", "created_at"], unique=False
    )

    op.create_table(
        "foreign_parts",
        sa.Column("owner", TEXT, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("part_id", TEXT, nullable=False),
        sa.Column("trace_id", TEXT, nullable=False),
        sa.Column("said_at", Moment(), nullable=False),
        sa.Column("received_at", Moment(), nullable=False),
        sa.Column("waiting", Flag(), nullable=False),
        sa.Column("body", Pairs(), nullable=False),
        sa.Column("user_id", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("owner", "subject", "part_id", name=op.f("pk_foreign_parts")),
        info={"dist": "local"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_index(
        op.f("ix_foreign_parts_owner_trace_id"),
        "foreign_parts",
        ["owner", "trace_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_foreign_parts_waiting_received_at"),
        "foreign_parts",
        ["waiting", "received_at"],
        unique=False,
    )

    op.create_table(
        "otlp_links",
        sa.Column("owner", TEXT, nullable=False),
        sa.Column("trace_id", TEXT, nullable=False),
        sa.Column("digest", WHOLE, autoincrement=False, nullable=False),
        sa.Column("links", TEXT, nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "trace_id", "digest", name=op.f("pk_otlp_links")),
        info={"dist": "local"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_index(op.f("ix_otlp_links_expires_at"), "otlp_links", ["expires_at"], unique=False)

    op.create_table(
        "otlp_tellings",
        sa.Column("owner", TEXT, nullable=False),
        sa.Column("trace_id", TEXT, nullable=False),
        sa.Column("span_id", TEXT, nullable=False),
        sa.Column("response_key", TEXT, nullable=True),
        sa.Column("likeness", TEXT, nullable=False),
        sa.Column("telling", TEXT, nullable=False),
        sa.Column("event_user", TEXT, nullable=False),
        sa.Column("event_id", TEXT, nullable=False),
        sa.Column("event_hash", WHOLE, nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "trace_id", "span_id", name=op.f("pk_otlp_tellings")),
        info={"dist": "local"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_index(
        op.f("ix_otlp_tellings_expires_at"), "otlp_tellings", ["expires_at"], unique=False
    )
    op.create_index(
        op.f("ix_otlp_tellings_owner_likeness"),
        "otlp_tellings",
        ["owner", "likeness"],
        unique=False,
    )
    op.create_index(
        op.f("ix_otlp_tellings_owner_response_key"),
        "otlp_tellings",
        ["owner", "response_key"],
        unique=False,
    )

    op.create_table(
        "retention",
        sa.Column("scope_key", TEXT, nullable=False),
        sa.Column("max_rows", WHOLE, nullable=True),
        sa.Column("keep_rows", WHOLE, nullable=True),
        sa.Column("max_age_days", WHOLE, nullable=True),
        sa.Column("keep_ids_days", WHOLE, nullable=True),
        sa.Column("changed_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("scope_key", name=op.f("pk_retention")),
        info={"dist": "reference"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_table(
        "usage_corrections",
        sa.Column("revision", WHOLE, nullable=False),
        sa.Column("sign", WHOLE, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("idempotency_key", TEXT, nullable=True),
        sa.Column("user_id", TEXT, nullable=False),
        sa.Column("event_id", TEXT, nullable=False),
        sa.Column("timestamp", Moment(), nullable=False),
        sa.Column("recorded_at", Moment(), nullable=False),
        sa.Column("body_hash", WHOLE, nullable=False),
        sa.Column("provider", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("status_code", WHOLE, nullable=False),
        sa.Column("cost_nanos", WHOLE, nullable=True),
        sa.Column("cost_status", TEXT, nullable=False),
        sa.Column("price_ref", TEXT, nullable=False),
        sa.Column("input_tokens", WHOLE, nullable=True),
        sa.Column("cache_read_tokens", WHOLE, nullable=True),
        sa.Column("cache_write_tokens", WHOLE, nullable=True),
        sa.Column("cache_write_5m_tokens", WHOLE, nullable=True),
        sa.Column("cache_write_1h_tokens", WHOLE, nullable=True),
        sa.Column("input_audio_tokens", WHOLE, nullable=True),
        sa.Column("cache_audio_read_tokens", WHOLE, nullable=True),
        sa.Column("input_image_tokens", WHOLE, nullable=True),
        sa.Column("output_tokens", WHOLE, nullable=True),
        sa.Column("output_reasoning_tokens", WHOLE, nullable=True),
        sa.Column("output_audio_tokens", WHOLE, nullable=True),
        sa.Column("output_image_tokens", WHOLE, nullable=True),
        sa.Column("output_citation_tokens", WHOLE, nullable=True),
        sa.Column("requests", WHOLE, nullable=True),
        sa.Column("web_searches", WHOLE, nullable=True),
        sa.Column("rerank_searches", WHOLE, nullable=True),
        sa.Column("input_document_pages", WHOLE, nullable=True),
        sa.Column("input_characters", WHOLE, nullable=True),
        sa.Column("output_images", WHOLE, nullable=True),
        sa.Column("audio_micros", WHOLE, nullable=True),
        sa.Column("video_micros", WHOLE, nullable=True),
        sa.Column("compute_micros", WHOLE, nullable=True),
        sa.Column("endpoint", TEXT, nullable=True),
        sa.Column("method", TEXT, nullable=True),
        sa.Column("error_message", TEXT, nullable=True),
        sa.Column("retry_count", WHOLE, nullable=True),
        sa.Column("latency_us", WHOLE, nullable=True),
        sa.Column("ttft_us", WHOLE, nullable=True),
        sa.Column("request_bytes", WHOLE, nullable=True),
        sa.Column("response_bytes", WHOLE, nullable=True),
        sa.Column("user_agent", TEXT, nullable=True),
        sa.Column("ip_address", TEXT, nullable=True),
        sa.Column("team_id", TEXT, nullable=True),
        sa.Column("api_key_id", TEXT, nullable=True),
        sa.Column("session_id", TEXT, nullable=True),
        sa.Column("task_type", TEXT, nullable=True),
        sa.Column("backend", TEXT, nullable=True),
        sa.Column("pool", TEXT, nullable=True),
        sa.Column("hold_id", TEXT, nullable=True),
        sa.Column("tags", Pairs(), nullable=True),
        sa.Column("context", Pairs(), nullable=True),
        sa.PrimaryKeyConstraint(
            "user_id", "event_id", "revision", name=op.f("pk_usage_corrections")
        ),
        info={"dist": "user_id"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_index(
        op.f("ix_usage_corrections_user_id_timestamp"),
        "usage_corrections",
        ["user_id", "timestamp"],
        unique=False,
    )

    op.create_table(
        "wrapped_events",
        sa.Column("user_id", TEXT, nullable=False),
        sa.Column("event_hash", BYTES, nullable=False),
        sa.Column("body_hash", WHOLE, nullable=False),
        sa.Column("timestamp", Moment(), nullable=False),
        sa.Column("recorded_at", Moment(), nullable=False),
        sa.Column("cost_nanos", WHOLE, nullable=True),
        sa.Column("cost_status", TEXT, nullable=False),
        sa.Column("archive_id", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "event_hash", name=op.f("pk_wrapped_events")),
        info={"dist": "user_id"},
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_wrapped_events_user_id_archive_id"),
        "wrapped_events",
        ["user_id", "archive_id"],
        unique=False,
    )

    op.create_table(
        "wrapped_usage",
        sa.Column("user_id", TEXT, nullable=False),
        sa.Column("archive_id", TEXT, nullable=False),
        sa.Column("group_no", WHOLE, autoincrement=False, nullable=False),
        sa.Column("period_start", Moment(), nullable=False),
        sa.Column("hour", Moment(), nullable=False),
        sa.Column("provider", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("task_type", TEXT, nullable=True),
        sa.Column("endpoint", TEXT, nullable=True),
        sa.Column("status_code", WHOLE, nullable=False),
        sa.Column("team_id", TEXT, nullable=True),
        sa.Column("api_key_id", TEXT, nullable=True),
        sa.Column("backend", TEXT, nullable=True),
        sa.Column("pool", TEXT, nullable=True),
        sa.Column("first_at", Moment(), nullable=False),
        sa.Column("last_at", Moment(), nullable=False),
        sa.Column("min_latency_us", WHOLE, nullable=True),
        sa.Column("max_latency_us", WHOLE, nullable=True),
        sa.Column("min_ttft_us", WHOLE, nullable=True),
        sa.Column("max_ttft_us", WHOLE, nullable=True),
        sa.Column("cache_write_5m_tokens", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("cache_write_1h_tokens", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("cache_audio_read_tokens", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("output_citation_tokens", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("web_searches", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("rerank_searches", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("input_document_pages", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("input_characters", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("output_images", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("audio_micros", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("video_micros", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("compute_micros", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("retries", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("request_bytes", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("response_bytes", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("calls", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("errors", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("input_tokens", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("output_tokens", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("cache_read_tokens", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("cache_write_tokens", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("output_reasoning_tokens", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("input_audio_tokens", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("output_audio_tokens", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("input_image_tokens", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("output_image_tokens", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("requests", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("cost_nanos", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("unpriced_calls", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("latency_calls", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("latency_us", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("ttft_calls", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("ttft_us", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "archive_id", "group_no", name=op.f("pk_wrapped_usage")),
        info={"dist": "user_id"},
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_wrapped_usage_user_id_hour"), "wrapped_usage", ["user_id", "hour"], unique=False
    )


def downgrade() -> None:
    op.drop_index(
        op.f("ix_wrapped_usage_user_id_hour"),
        "wrapped_usage",
    )

    op.drop_table("wrapped_usage")
    op.drop_index(
        op.f("ix_wrapped_events_user_id_archive_id"),
        "wrapped_events",
    )

    op.drop_table("wrapped_events")
    op.drop_index(
        op.f("ix_usage_corrections_user_id_timestamp"),
        "usage_corrections",
    )

    op.drop_table("usage_corrections")
    op.drop_table("retention")
    op.drop_index(
        op.f("ix_otlp_tellings_owner_response_key"),
        "otlp_tellings",
    )
    op.drop_index(
        op.f("ix_otlp_tellings_owner_likeness"),
        "otlp_tellings",
    )
    op.drop_index(
        op.f("ix_otlp_tellings_expires_at"),
        "otlp_tellings",
    )

    op.drop_table("otlp_tellings")
    op.drop_index(
        op.f("ix_otlp_links_expires_at"),
        "otlp_links",
    )

    op.drop_table("otlp_links")
    op.drop_index(
        op.f("ix_foreign_parts_waiting_received_at"),
        "foreign_parts",
    )
    op.drop_index(
        op.f("ix_foreign_parts_owner_trace_id"),
        "foreign_parts",
    )

    op.drop_table("foreign_parts")
    op.drop_index(
        op.f("ix_archives_state_created_at"),
        "archives",
    )

    op.drop_table("archives")
