"""The river: log, totals, limits, alerts, keys, plans."""

import sqlalchemy as sa
from alembic import op

from app.core.clock import EPOCH
from app.db.types import Flag, Moment, Pairs

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.TEXT(), "sqlite")
WHOLE = sa.BigInteger().with_variant(sa.INTEGER(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "alerts",
        sa.Column("scope_key", TEXT, nullable=False),
        sa.Column("limit_id", TEXT, nullable=False),
        sa.Column("window_start", Moment(), nullable=False),
        sa.Column("threshold", WHOLE, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("type", TEXT, nullable=False),
        sa.Column("severity", TEXT, nullable=False),
        sa.Column("title", TEXT, nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("billing_period", TEXT, nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("read_at", Moment(), nullable=True),
        sa.PrimaryKeyConstraint(
            "scope_key", "limit_id", "window_start", "threshold", name=op.f("pk_alerts")
        ),
        info={"dist": "scope_key"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_index(op.f("ix_alerts_id"), "alerts", ["id"], unique=False)
    op.create_index(
        op.f("ix_alerts_scope_key_created_at"), "alerts", ["scope_key", "created_at"], unique=False
    )

    op.create_table(
        "api_keys",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("prefix", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("scopes", TEXT, nullable=False),
        sa.Column("user_id", TEXT, nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=True),
        sa.Column("revoked_at", Moment(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("digest", name=op.f("uq_api_keys_digest")),
        info={"dist": "reference"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_table(
        "config_changes",
        sa.Column("version", WHOLE, autoincrement=False, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("ref", TEXT, nullable=False),
        sa.Column("changed_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_config_changes")),
        info={"dist": "reference"},
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "hour_dimensions",
        sa.Column("shard", WHOLE, nullable=False),
        sa.Column("hour", Moment(), nullable=False),
        sa.Column("dimension", TEXT, nullable=False),
        sa.Column("value", TEXT, nullable=False),
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
        sa.PrimaryKeyConstraint(
            "shard", "hour", "dimension", "value", name=op.f("pk_hour_dimensions")
        ),
        info={"dist": "shard"},
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "hour_totals",
        sa.Column("user_id", TEXT, nullable=False),
        sa.Column("hour", Moment(), nullable=False),
        sa.Column("provider", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("task_type", TEXT, nullable=False),
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
        sa.PrimaryKeyConstraint(
            "user_id", "hour", "provider", "model", "task_type", name=op.f("pk_hour_totals")
        ),
        info={"dist": "user_id"},
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "limit_counters",
        sa.Column("scope_key", TEXT, nullable=False),
        sa.Column("limit_id", TEXT, nullable=False),
        sa.Column("window_start", Moment(), nullable=False),
        sa.Column("used", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("held", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint(
            "scope_key", "limit_id", "window_start", name=op.f("pk_limit_counters")
        ),
        info={"dist": "scope_key"},
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "limits",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("scope_key", TEXT, nullable=False),
        sa.Column("provider", TEXT, nullable=True),
        sa.Column("model", TEXT, nullable=True),
        sa.Column("endpoint", TEXT, nullable=True),
        sa.Column("metric", TEXT, nullable=False),
        sa.Column("window", TEXT, nullable=False),
        sa.Column("amount", WHOLE, nullable=True),
        sa.Column("action", TEXT, nullable=False),
        sa.Column("thresholds", TEXT, nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("counts_from", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_limits")),
        info={"dist": "reference"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_index(op.f("ix_limits_scope_key"), "limits", ["scope_key"], unique=False)

    op.create_table(
        "period_totals",
        sa.Column("user_id", TEXT, nullable=False),
        sa.Column("period_start", Moment(), nullable=False),
        sa.Column("provider", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
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
        sa.PrimaryKeyConstraint(
            "user_id", "period_start", "provider", "model", name=op.f("pk_period_totals")
        ),
        info={"dist": "user_id"},
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "plans",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("is_default", Flag(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plans")),
        sa.UniqueConstraint("name", name=op.f("uq_plans_name")),
        info={"dist": "reference"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_table(
        "usage_events",
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
        sa.PrimaryKeyConstraint("event_id", "user_id", name=op.f("pk_usage_events")),
        info={"dist": "user_id"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_index(
        op.f("ix_usage_events_user_id_timestamp"),
        "usage_events",
        ["user_id", "timestamp"],
        unique=False,
    )

    op.create_table(
        "subscriptions",
        sa.Column("user_id", TEXT, nullable=False),
        sa.Column("starts_at", Moment(), nullable=False),
        sa.Column("plan_id", TEXT, nullable=False),
        sa.Column("anchor_at", Moment(), nullable=False),
        sa.Column("interval", TEXT, nullable=False),
        sa.Column("timezone", TEXT, nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.ForeignKeyConstraint(
            ["plan_id"], ["plans.id"], name=op.f("fk_subscriptions_plan_id_plans")
        ),
        sa.PrimaryKeyConstraint("user_id", "starts_at", name=op.f("pk_subscriptions")),
        info={"dist": "user_id"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    plans = sa.table(
        "plans",
        sa.column("id", TEXT),
        sa.column("name", TEXT),
        sa.column("is_default", Flag()),
        sa.column("created_at", Moment()),
    )
    default = {"id": "plan_default", "name": "default", "is_default": True, "created_at": EPOCH}
    op.bulk_insert(plans, [default])


def downgrade() -> None:
    op.drop_table("subscriptions")
    op.drop_index(op.f("ix_usage_events_user_id_timestamp"), "usage_events")

    op.drop_table("usage_events")
    op.drop_table("plans")
    op.drop_table("period_totals")
    op.drop_index(op.f("ix_limits_scope_key"), "limits")

    op.drop_table("limits")
    op.drop_table("limit_counters")
    op.drop_table("hour_totals")
    op.drop_table("hour_dimensions")
    op.drop_table("config_changes")
    op.drop_table("api_keys")
    op.drop_index(op.f("ix_alerts_scope_key_created_at"), "alerts")
    op.drop_index(op.f("ix_alerts_id"), "alerts")

    op.drop_table("alerts")
