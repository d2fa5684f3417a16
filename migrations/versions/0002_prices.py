"""Prices by version, and changes of what was charged."""

import sqlalchemy as sa
from alembic import op

from app.db.types import Flag, Moment, Pairs

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.TEXT(), "sqlite")
WHOLE = sa.BigInteger().with_variant(sa.INTEGER(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "alert_rules",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("type", TEXT, nullable=False),
        sa.Column("scope_key", TEXT, nullable=False),
        sa.Column("limit_id", TEXT, nullable=True),
        sa.Column("metric", TEXT, nullable=True),
        sa.Column("window", TEXT, nullable=True),
        sa.Column("amount", WHOLE, nullable=True),
        sa.Column("thresholds", TEXT, nullable=False),
        sa.Column("sensitivity", WHOLE, nullable=True),
        sa.Column("min_amount", WHOLE, nullable=True),
        sa.Column("enabled", Flag(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_rules")),
        info={"dist": "reference"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_index(op.f("ix_alert_rules_scope_key"), "alert_rules", ["scope_key"], unique=False)

    op.create_table(
        "catalog_listings",
        sa.Column("version_id", TEXT, nullable=False),
        sa.Column("position", WHOLE, autoincrement=False, nullable=False),
        sa.Column("layer", TEXT, nullable=False),
        sa.Column("provider", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("adds", Flag(), nullable=False),
        sa.Column("content", Pairs(), nullable=False),
        sa.PrimaryKeyConstraint("version_id", "position", name=op.f("pk_catalog_listings")),
        info={"dist": "reference"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_table(
        "catalog_versions",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("sources", TEXT, nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("providers", Pairs(), nullable=False),
        sa.Column("imported_at", Moment(), nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_catalog_versions")),
        info={"dist": "reference"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_table(
        "deliveries",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("message_id", TEXT, nullable=False),
        sa.Column("webhook_id", TEXT, nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("next_attempt_at", Moment(), nullable=True),
        sa.Column("claim", TEXT, nullable=True),
        sa.Column("attempts", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("failures", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("last_status", WHOLE, nullable=True),
        sa.Column("last_response", TEXT, nullable=True),
        sa.Column("last_error", TEXT, nullable=True),
        sa.Column("delivered_at", Moment(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint(
            "message_id", "webhook_id", name=op.f("uq_deliveries_message_id_webhook_id")
        ),
        info={"dist": "local"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_index(
        op.f("ix_deliveries_webhook_id_created_at"),
        "deliveries",
        ["webhook_id", "created_at"],
        unique=False,
    )
    op.create_index(
        op.f("ix_deliveries_webhook_id_next_attempt_at"),
        "deliveries",
        ["webhook_id", "next_attempt_at"],
        unique=False,
    )

    op.create_table(
        "delivery_attempts",
        sa.Column("delivery_id", TEXT, nullable=False),
        sa.Column("attempt", WHOLE, nullable=False),
        sa.Column("attempted_at", Moment(), nullable=False),
        sa.Column("took_ms", WHOLE, nullable=False),
        sa.Column("status", WHOLE, nullable=True),
        sa.Column("response", TEXT, nullable=True),
        sa.Column("error", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("delivery_id", "attempt", name=op.f("pk_delivery_attempts")),
        info={"dist": "local"},
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "hold_amounts",
        sa.Column("scope_key", TEXT, nullable=False),
        sa.Column("limit_id", TEXT, nullable=False),
        sa.Column("window_start", Moment(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.Column("user_id", TEXT, nullable=False),
        sa.Column("hold_id", TEXT, nullable=False),
        sa.Column("amount", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint(
            "scope_key",
            "limit_id",
            "window_start",
            "expires_at",
            "user_id",
            "hold_id",
            name=op.f("pk_hold_amounts"),
        ),
        info={"dist": "scope_key"},
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "holds",
        sa.Column("user_id", TEXT, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("body_hash", WHOLE, nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("provider", TEXT, nullable=True),
        sa.Column("model", TEXT, nullable=True),
        sa.Column("endpoint", TEXT, nullable=True),
        sa.Column("team_id", TEXT, nullable=True),
        sa.Column("api_key_id", TEXT, nullable=True),
        sa.Column("estimated_cost_nanos", WHOLE, nullable=True),
        sa.Column("basis", TEXT, nullable=False),
        sa.Column("output_tokens", WHOLE, nullable=True),
        sa.Column("shares", TEXT, nullable=False),
        sa.Column("settled_event_id", TEXT, nullable=True),
        sa.Column("closed_at", Moment(), nullable=True),
        sa.PrimaryKeyConstraint("id", "user_id", name=op.f("pk_holds")),
        info={"dist": "user_id"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_index(
        op.f("ix_holds_state_expires_at"), "holds", ["state", "expires_at"], unique=False
    )
    op.create_index(
        op.f("ix_holds_user_id_created_at"),
        "holds",
        ["user_id", "created_at"],
        unique=False,
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )

    op.create_table(
        "leases",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("holder", TEXT, nullable=False),
        sa.Column("until_at", Moment(), nullable=False),
        sa.Column("mark", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
        info={"dist": "local"},
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "limit_raises",
        sa.Column("limit_id", TEXT, nullable=False),
        sa.Column("number", WHOLE, autoincrement=False, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("metric", TEXT, nullable=False),
        sa.Column("amount", WHOLE, nullable=True),
        sa.Column("until", Moment(), nullable=False),
        sa.Column("reason", TEXT, nullable=True),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("limit_id", "number", name=op.f("pk_limit_raises")),
        info={"dist": "reference"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_table(
        "model_aliases",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("provider", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=True),
        sa.Column("resolves_to", TEXT, nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_aliases")),
        info={"dist": "reference"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_table(
        "outbox",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("type", TEXT, nullable=False),
        sa.Column("scope_key", TEXT, nullable=False),
        sa.Column("payload", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        info={"dist": "local"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_index(op.f("ix_outbox_created_at"), "outbox", ["created_at"], unique=False)

    op.create_table(
        "price_entries",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("version_id", TEXT, nullable=True),
        sa.Column("layer", TEXT, nullable=False),
        sa.Column("provider", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("matching", TEXT, nullable=False),
        sa.Column("user_id", TEXT, nullable=True),
        sa.Column("team_id", TEXT, nullable=True),
        sa.Column("conditions", Pairs(), nullable=True),
        sa.Column("effective_from", Moment(), nullable=True),
        sa.Column("effective_to", Moment(), nullable=True),
        sa.Column("weekdays", TEXT, nullable=True),
        sa.Column("windows", TEXT, nullable=True),
        sa.Column("multiplier_ppm", WHOLE, nullable=False),
        sa.Column("min_charge_nanos", WHOLE, nullable=False),
        sa.Column("least", Pairs(), nullable=True),
        sa.Column("is_default", Flag(), nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_price_entries")),
        info={"dist": "reference"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_index(
        op.f("ix_price_entries_version_id"), "price_entries", ["version_id"], unique=False
    )

    op.create_table(
        "price_rates",
        sa.Column("entry_id", TEXT, nullable=False),
        sa.Column("position", WHOLE, autoincrement=False, nullable=False),
        sa.Column("unit", TEXT, nullable=False),
        sa.Column("per", WHOLE, nullable=False),
        sa.Column("above", WHOLE, nullable=False),
        sa.Column("graduated", Flag(), nullable=False),
        sa.Column("rate_nanos", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("entry_id", "position", name=op.f("pk_price_rates")),
        info={"dist": "reference"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_table(
        "price_retirements",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("retired_at", Moment(), nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_price_retirements")),
        info={"dist": "reference"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_table(
        "rerates",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("filter", Pairs(), nullable=False),
        sa.Column("diff", Pairs(), nullable=False),
        sa.Column("step", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("cursor", TEXT, nullable=True),
        sa.Column("scanned_count", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("changed_count", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("delta_nanos", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("finished_at", Moment(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rerates")),
        info={"dist": "local"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_index(op.f("ix_rerates_created_at_id"), "rerates", ["created_at", "id"], unique=False)

    op.create_table(
        "usage_adjustments",
        sa.Column("user_id", TEXT, nullable=False),
        sa.Column("event_id", TEXT, nullable=False),
        sa.Column("revision", WHOLE, autoincrement=False, nullable=False),
        sa.Column("adjusted_at", Moment(), nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("job_id", TEXT, nullable=True),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("timestamp", Moment(), nullable=False),
        sa.Column("provider", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("old_cost_nanos", WHOLE, nullable=True),
        sa.Column("new_cost_nanos", WHOLE, nullable=True),
        sa.Column("old_cost_status", TEXT, nullable=False),
        sa.Column("new_cost_status", TEXT, nullable=False),
        sa.Column("old_price_ref", TEXT, nullable=False),
        sa.Column("new_price_ref", TEXT, nullable=False),
        sa.PrimaryKeyConstraint(
            "user_id", "event_id", "revision", name=op.f("pk_usage_adjustments")
        ),
        info={"dist": "user_id"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_table(
        "webhooks",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("url", TEXT, nullable=False),
        sa.Column("secret", TEXT, nullable=True),
        sa.Column("older_secrets", Pairs(), nullable=False),
        sa.Column("event_types", TEXT, nullable=False),
        sa.Column("scope_key", TEXT, nullable=False),
        sa.Column("enabled", Flag(), nullable=False),
        sa.Column("disabled_reason", TEXT, nullable=True),
        sa.Column("description", TEXT, nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
        info={"dist": "reference"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_table(
        "catalog_activations",
        sa.Column("seq", WHOLE, autoincrement=False, nullable=False),
        sa.Column("version_id", TEXT, nullable=False),
        sa.Column("activated_at", Moment(), nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["catalog_versions.id"],
            name=op.f("fk_catalog_activations_version_id_catalog_versions"),
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_catalog_activations")),
        info={"dist": "reference"},
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.add_column("alerts", sa.Column("sent_at", Moment(), nullable=True))
    op.add_column("alerts", sa.Column("settled_at", Moment(), nullable=True))
    op.create_index(op.f("ix_alerts_created_at_id"), "alerts", ["created_at", "id"], unique=False)
    op.create_index(
        op.f("ix_alerts_scope_key_limit_id_window_start"),
        "alerts",
        ["scope_key", "limit_id", "window_start"],
        unique=False,
        sqlite_where=sa.text("settled_at IS NULL AND type = 'limit_reached'"),
        postgresql_where=sa.text("settled_at IS NULL AND type = 'limit_reached'"),
    )

    op.create_index(
        op.f("ix_hour_totals_provider_model_hour"),
        "hour_totals",
        ["provider", "model", "hour"],
        unique=False,
        sqlite_where=sa.text("unpriced_calls != 0"),
        postgresql_where=sa.text("unpriced_calls != 0"),
    )

    op.create_index(
        op.f("ix_limit_counters_limit_id_window_start_scope_key"),
        "limit_counters",
        ["limit_id", "window_start", "scope_key"],
        unique=False,
    )

    op.add_column(
        "limits", sa.Column("timezone", TEXT, server_default=sa.text("'UTC'"), nullable=False)
    )
    op.add_column("limits", sa.Column("raised_amount", WHOLE, nullable=True))
    op.add_column("limits", sa.Column("raised_until", Moment(), nullable=True))

    op.add_column("subscriptions", sa.Column("expires_at", Moment(), nullable=True))
    op.add_column(
        "subscriptions",
        sa.Column("on_expiry", TEXT, server_default=sa.text("'fallback'"), nullable=False),
    )
    op.add_column("subscriptions", sa.Column("fallback_plan_id", TEXT, nullable=True))

    op.create_index(
        op.f("ix_usage_events_provider_model_timestamp"),
        "usage_events",
        ["provider", "model", "timestamp"],
        unique=False,
        sqlite_where=sa.text("cost_status = 'unpriced'"),
        postgresql_where=sa.text("cost_status = 'unpriced'"),
    )


def downgrade() -> None:
    op.drop_index(
        op.f("ix_usage_events_provider_model_timestamp"),
        "usage_events",
        sqlite_where=sa.text("cost_status = 'unpriced'"),
        postgresql_where=sa.text("cost_status = 'unpriced'"),
    )

    op.drop_column("subscriptions", "fallback_plan_id")
    op.drop_column("subscriptions", "on_expiry")
    op.drop_column("subscriptions", "expires_at")

    op.drop_column("limits", "raised_until")
    op.drop_column("limits", "raised_amount")
    op.drop_column("limits", "timezone")

    op.drop_index(
        op.f("ix_limit_counters_limit_id_window_start_scope_key"),
        "limit_counters",
    )

    op.drop_index(
        op.f("ix_hour_totals_provider_model_hour"),
        "hour_totals",
        sqlite_where=sa.text("unpriced_calls != 0"),
        postgresql_where=sa.text("unpriced_calls != 0"),
    )

    op.drop_index(
        op.f("ix_alerts_scope_key_limit_id_window_start"),
        "alerts",
        sqlite_where=sa.text("settled_at IS NULL AND type = 'limit_reached'"),
        postgresql_where=sa.text("settled_at IS NULL AND type = 'limit_reached'"),
    )
    op.drop_index(
        op.f("ix_alerts_created_at_id"),
        "alerts",
    )
    op.drop_column("alerts", "settled_at")
    op.drop_column("alerts", "sent_at")

    op.drop_table("catalog_activations")
    op.drop_table("webhooks")
    op.drop_table("usage_adjustments")
    op.drop_index(
        op.f("ix_rerates_created_at_id"),
        "rerates",
    )

    op.drop_table("rerates")
    op.drop_table("price_retirements")
    op.drop_table("price_rates")
    op.drop_index(
        op.f("ix_price_entries_version_id"),
        "price_entries",
    )

    op.drop_table("price_entries")
    op.drop_index(
        op.f("ix_outbox_created_at"),
        "outbox",
    )

    op.drop_table("outbox")
    op.drop_table("model_aliases")
    op.drop_table("limit_raises")
    op.drop_table("leases")
    op.drop_index(
        op.f("ix_holds_user_id_created_at"),
        "holds",
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )
    op.drop_index(
        op.f("ix_holds_state_expires_at"),
        "holds",
    )

    op.drop_table("holds")
    op.drop_table("hold_amounts")
    op.drop_table("delivery_attempts")
    op.drop_index(
        op.f("ix_deliveries_webhook_id_next_attempt_at"),
        "deliveries",
    )
    op.drop_index(
        op.f("ix_deliveries_webhook_id_created_at"),
        "deliveries",
    )

    op.drop_table("deliveries")
    op.drop_table("catalog_versions")
    op.drop_table("catalog_listings")
    op.drop_index(
        op.f("ix_alert_rules_scope_key"),
        "alert_rules",
    )

    op.drop_table("alert_rules")
