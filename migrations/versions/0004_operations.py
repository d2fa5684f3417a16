"""Keys that are replaced, sessions of the dashboard, and a log of what was managed."""

import sqlalchemy as sa
from alembic import op

from app.db.types import Moment, Pairs

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.TEXT(), "sqlite")
WHOLE = sa.BigInteger().with_variant(sa.INTEGER(), "sqlite")
BYTES = sa.LargeBinary().with_variant(sa.BLOB(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "dashboard_sessions",
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("key_id", TEXT, nullable=False),
        sa.Column("csrf", TEXT, nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_dashboard_sessions")),
        info={"dist": "local"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_table(
        "drift_totals",
        sa.Column("day", Moment(), nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("provider", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("shard", WHOLE, nullable=False),
        sa.Column("calls", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("calls_apart", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("stated_nanos", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.Column("priced_nanos", WHOLE, server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint(
            "day", "source", "provider", "model", "shard", name=op.f("pk_drift_totals")
        ),
        info={"dist": "shard"},
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "management_log",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("key_id", TEXT, nullable=False),
        sa.Column("key_name", TEXT, nullable=False),
        sa.Column("via", TEXT, nullable=False),
        sa.Column("request_id", TEXT, nullable=True),
        sa.Column("action", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("ref", TEXT, nullable=False),
        sa.Column("before", Pairs(), nullable=True),
        sa.Column("after", Pairs(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_management_log")),
        info={"dist": "local"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_index(op.f("ix_management_log_at"), "management_log", ["at"], unique=False)
    op.create_index(
        "ix_management_log_kind_ref", "management_log", ["kind", "ref", "at"], unique=False
    )

    op.create_table(
        "sign_in_links",
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("key_id", TEXT, nullable=False),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.Column("used_at", Moment(), nullable=True),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_sign_in_links")),
        info={"dist": "local"},
        sqlite_strict=True,
        sqlite_with_rowid=True,
    )
    op.create_index(
        "ix_alerts_unread",
        "alerts",
        ["created_at", "id"],
        unique=False,
        sqlite_where=sa.text("read_at IS NULL"),
        postgresql_where=sa.text("read_at IS NULL"),
    )

    op.add_column("api_keys", sa.Column("last_used_at", Moment(), nullable=True))
    op.add_column("api_keys", sa.Column("replaced_by", TEXT, nullable=True))
    op.add_column("api_keys", sa.Column("requests_per_minute", WHOLE, nullable=True))

    op.add_column("leases", sa.Column("done_at", Moment(), nullable=True))
    op.add_column("leases", sa.Column("failed_at", Moment(), nullable=True))
    op.add_column("leases", sa.Column("failure", TEXT, nullable=True))


def downgrade() -> None:
    op.drop_column("leases", "failure")
    op.drop_column("leases", "failed_at")
    op.drop_column("leases", "done_at")

    op.drop_column("api_keys", "requests_per_minute")
    op.drop_column("api_keys", "replaced_by")
    op.drop_column("api_keys", "last_used_at")

    op.drop_index(
        "ix_alerts_unread",
        "alerts",
        sqlite_where=sa.text("read_at IS NULL"),
        postgresql_where=sa.text("read_at IS NULL"),
    )

    op.drop_table("sign_in_links")
    op.drop_index(
        "ix_management_log_kind_ref",
        "management_log",
    )
    op.drop_index(
        op.f("ix_management_log_at"),
        "management_log",
    )

    op.drop_table("management_log")
    op.drop_table("drift_totals")
    op.drop_table("dashboard_sessions")
