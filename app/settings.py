"""Settings: environment variables `TOLLGATE_…`, read once at start and passed down."""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Everything that can be set; docs/configuration.md is generated from this class."""

    model_config = SettingsConfigDict(
        env_prefix="TOLLGATE_", extra="ignore", hide_input_in_errors=True
    )

    database_url: str = Field(
        "sqlite:///./tollgate.db",
        description="`sqlite:///path` or `postgresql://user:password@host:port/name`.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on; loopback unless told.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on.")
    workers: int = Field(1, ge=1, le=64, description="Processes that serve.")
    admin_key: SecretStr | None = Field(
        None,
        min_length=32,
        description="The admin key. Without one, the first start makes a key and prints it once.",
    )
    pool_size: int = Field(
        8, ge=4, le=100, description="Connections to PostgreSQL; 8 serve two cores best."
    )
    lanes: int = Field(
        2, ge=1, le=8, description="Batches in flight at once on PostgreSQL; SQLite has one."
    )
    shard: int = Field(
        -1,
        ge=-1,
        le=9999,
        description="This writer's number in the cross-user totals; -1 picks one from the process.",
    )
    window_past_days: int = Field(
        35, ge=0, le=36500, description="Older events are refused, unless backfilled."
    )
    window_future_s: int = Field(
        300, ge=0, le=86400, description="How far ahead a caller's clock may be."
    )
    log_level: str = Field("info", description="trace, debug, info, warning or error.")
    log_format: str = Field("pretty", pattern="^(pretty|json)$", description="pretty or json.")
    allow_unsafe_durability: bool = Field(
        False,
        description="Start though PostgreSQL runs with fsync, full_page_writes or "
        "synchronous_commit off, where an acknowledged event can be lost.",
    )
