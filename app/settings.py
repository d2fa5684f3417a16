"""Settings: environment variables `TOLLGATE_…`, read once at start and passed down."""

import re
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_USERS = (
    "langfuse.user.id,litellm.metadata.user_api_key_user_id,metadata.user_api_key_user_id,"
    "litellm.metadata.user_api_key_end_user_id,user.id,enduser.id,user_id,userId,end_user,"
    "traceloop.association.properties.user_id,ai.settings.context.userId,"
    "ai.telemetry.metadata.userId,model_parameters.user,gen_ai.user,llm.user,user.email"
)
_TEAMS = (
    "team_id,litellm.team.id,metadata.user_api_key_team_id,litellm.metadata.user_api_key_team_id,"
    "team.id,traceloop.association.properties.team_id"
)
_SESSIONS = (
    "session_id,langfuse.session.id,session.id,sessionId,gen_ai.conversation.id,conversation.id,"
    "traceloop.association.properties.session_id,trace_id"
)


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
    jobs: str = Field(
        "on",
        pattern="^(on|off)$",
        description="Whether a serving process also does the work that nobody waits for (webhooks, "
        "wrapping, tidying); `off` leaves it to `tollgate worker`.",
    )
    metrics: str = Field(
        "key",
        pattern="^(open|key|off)$",
        description="Who may read `/metrics`: `key` asks for a key with the scope `read` that is "
        "bound to no user, `open` for nothing, `off` answers 404.",
    )
    metrics_folder: str = Field(
        "",
        max_length=4096,
        description="Where processes that count together keep their figures. `tollgate serve` with "
        "several workers makes a folder of its own; name one to have `tollgate worker` in it too.",
    )
    traces_endpoint: str = Field(
        "",
        max_length=4096,
        description="Where spans of our own work go, with the path: "
        "`http://collector:4318/v1/traces`. Needs `pip install 'tollgate[traces]'`.",
    )
    admin_key: SecretStr | None = Field(
        None,
        min_length=32,
        description="The admin key. Without one, the first start makes a key and prints it once.",
    )
    pool_size: int = Field(
        8, ge=4, le=100, description="Connections to PostgreSQL; 8 serve two cores best."
    )
    database_timeout_s: float = Field(
        4.5, ge=0.1, le=300, description="Seconds a request waits for the database before 503."
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
    archive_url: str = Field(
        "./archives",
        min_length=1,
        max_length=4096,
        description="Where rows that leave the log are kept: a folder, or a URL such as "
        "`s3://bucket/archives` for which fsspec has a driver installed.",
    )
    retention_max_rows: int = Field(
        5_000,
        ge=0,
        le=100_000_000,
        description="More detailed rows of one user are wrapped, unless set otherwise over HTTP; "
        "0: however many.",
    )
    retention_keep_rows: int = Field(
        4_000, ge=0, le=100_000_000, description="So many of the newest stay then."
    )
    retention_max_age_days: int = Field(
        90, ge=0, le=36500, description="Older detailed rows are wrapped; 0: however old."
    )
    log_level: str = Field("info", description="trace, debug, info, warning or error.")
    log_format: str = Field("pretty", pattern="^(pretty|json)$", description="pretty or json.")
    allow_unsafe_durability: bool = Field(
        False,
        description="Start though PostgreSQL runs with fsync, full_page_writes or "
        "synchronous_commit off, where an acknowledged event can be lost.",
    )
    foreign_user_names: str = Field(
        _USERS,
        max_length=4096,
        description="Names under which other programs' events may carry the user, the first that "
        "says something counts: attributes of a span, then of what surrounds it and of its "
        "resource, or paths in JSON.",
    )
    foreign_team_names: str = Field(_TEAMS, max_length=4096, description="The same for the team.")
    foreign_session_names: str = Field(
        _SESSIONS, max_length=4096, description="The same for the session."
    )
    foreign_unknown_user: str = Field(
        "unknown",
        max_length=256,
        description="Whom calls of nobody are booked to where a format need not name a user and "
        "the key is bound to none; empty refuses them.",
    )
    foreign_costs: str = Field(
        "needed",
        pattern="^(needed|always|never)$",
        description="When a cost that another program states counts instead of ours: `needed` "
        "where it saw more than it tells (no cached tokens, no tokens at all), `always`, `never`. "
        "It is kept with the event in any case.",
    )
    otlp_context_minutes: int = Field(
        30,
        ge=1,
        le=1440,
        description="How long what OpenTelemetry told is kept: a span of the same call that comes "
        "within that time completes its event and is not counted twice.",
    )
    foreign_cloudevents: dict[str, str] = Field(
        {},
        description="JSON: where in a CloudEvent a field of ours stands, where it is not found by "
        'itself: `{"user_id": "data.customer", "usage.input_tokens": "data.tokensIn"}`.',
    )
    foreign_wait_s: int = Field(
        300,
        ge=1,
        le=86400,
        description="How long a call that is told in parts (Langfuse) may wait for its usage and "
        "its user; then it is recorded as it stands.",
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

    @model_validator(mode="after")
    def _keeps_no_more_than_most(self) -> Self:
        if 0 < self.retention_max_rows < self.retention_keep_rows:
            raise ValueError("retention_keep_rows is more than retention_max_rows")
        return self

    @field_validator(
        *("health_server_errors", "health_client_errors", "health_latency_s"),
        *("health_budgets", "health_highest_budget"),
    )
    @classmethod
    def _are_steps(cls, text: str) -> str:
        if not re.fullmatch(r"(\d{1,6}(\.\d{1,6})?:\d{1,3}(,(?=\d)|$))*", text, re.ASCII):
            raise ValueError("expected steps as 5:15,10:30")
        return text
