"""Settings: environment variables `TOLLGATE_…`, read once at start and passed down."""

import re

from pydantic import Field, SecretStr, field_validator
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
    webhooks_allow_private: bool = Field(
        False,
        description="Send webhooks to private and loopback addresses too; cloud metadata and "
        "link-local addresses stay closed unless TOLLGATE_WEBHOOKS_ALLOW_HOSTS names them.",
    )
    webhooks_allow_http: bool = Field(
        False, description="Send webhooks by unencrypted http too, where a URL says so."
    )
    webhooks_allow_hosts: str = Field(
        "",
        max_length=4096,
        description="Host names and networks (10.1.0.0/16), separated by commas, that webhooks may "
        "lead to though they are not public.",
    )
    webhooks_in_flight: int = Field(
        16, ge=1, le=256, description="Webhook attempts at once; one receiver gets a quarter."
    )
    webhooks_keep_days: int = Field(
        30, ge=1, le=3650, description="How long messages and their attempts stay readable."
    )
    alert_forecasts: bool = Field(
        True, description="Tell when a blocking limit of a week or more will be passed."
    )
    alert_recovered: bool = Field(
        True, description="Tell when a blocking limit that was reached no longer is."
    )
    health_server_errors: str = Field(
        "5:15,10:30",
        max_length=256,
        description="`percent:points` steps: more of all calls failing with 500 and up takes these "
        "points from the health score. The highest step counts.",
    )
    health_client_errors: str = Field(
        "", max_length=256, description="The same for calls that were answered with 4xx."
    )
    health_latency_s: str = Field(
        "2:10,5:25", max_length=256, description="The same for seconds of mean latency."
    )
    health_budgets: str = Field(
        "75:10,90:20", max_length=256, description="The same for percent of all budgets together."
    )
    health_highest_budget: str = Field(
        "80:10,100:25",
        max_length=256,
        description="The same for the percentage of the fullest budget, at a step or above it.",
    )
    health_healthy: int = Field(90, ge=0, le=100, description="The lowest healthy score.")
    health_warning: int = Field(
        70, ge=0, le=100, description="The lowest score that is a warning and not critical."
    )

    @field_validator(
        *("health_server_errors", "health_client_errors", "health_latency_s"),
        *("health_budgets", "health_highest_budget"),
    )
    @classmethod
    def _are_steps(cls, text: str) -> str:
        if not re.fullmatch(r"(\d{1,6}(\.\d{1,6})?:\d{1,3}(,(?=\d)|$))*", text, re.ASCII):
            raise ValueError("expected steps as 5:15,10:30")
        return text
