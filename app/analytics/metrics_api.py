"""The endpoints for how things are: the figures of the last hours, and their health."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from app.access.deps import Db, Now, Reader
from app.access.guard import require_user
from app.analytics.budgets import Budgets, read_budgets
from app.analytics.health import Health, health_of, weights_of
from app.analytics.metrics import (
    Metrics,
    Parts,
    Whose,
    errors_of,
    of_everyone,
    read_metrics,
)
from app.analytics.shapes import (
    BUDGETS,
    SHOWN,
    BudgetsOut,
    EndpointOut,
    ModelOut,
    budgets_out,
    named_figures,
)
from app.core.money import to_usd
from app.db.engine import Tx
from app.settings import Settings
from app.summaries.figures import EXAMPLE, FiguresOut, PercentilesOut, figures, percentiles_out
from app.summaries.grains import last_hours

router = APIRouter(tags=["analytics"])

MOST_HOURS = 8_784
Hours = Annotated[int, Query(ge=1, le=MOST_HOURS, description="The whole hours that hold these")]
Whom = Annotated[str | None, Query(max_length=256)]

_SPAN = {"from": "2026-11-19T12:00:00Z", "to": "2026-11-20T13:00:00Z"}


class MetricsOut(FiguresOut):
    """Figures of whole hours, `from` <= t < `to`, the last of which still runs.

    The ten models and endpoints with the most calls. Null where nothing kept can tell it exactly.
    Percentiles of all users are at most 19 % above the true ones, those of one user exact.
    """

    from_: datetime = Field(serialization_alias="from")
    to: datetime
    hours: int
    covered_minutes: float = Field(description="since `from`, or since anything was recorded")
    calls_per_minute: float
    client_errors: int | None
    server_errors: int | None
    avg_tokens_per_call: float | None
    avg_cost_per_call_usd: str | None
    latency_ms: PercentilesOut | None
    ttft_ms: PercentilesOut | None
    models: list[ModelOut] | None
    endpoints: list[EndpointOut] | None
    status_codes: dict[str, int] | None
    budgets: BudgetsOut

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                **_SPAN,
                "hours": 24,
                **EXAMPLE,
                "covered_minutes": 1470.0,
                "calls_per_minute": 0.0082,
                "client_errors": 1,
                "server_errors": 0,
                "avg_tokens_per_call": 1500.0,
                "avg_cost_per_call_usd": "0.00036",
                "latency_ms": {"p50": 761.093, "p95": 1810.193, "p99": 2152.695},
                "ttft_ms": {"p50": 190.273, "p95": 452.548, "p99": 538.174},
                "models": [{"provider": "openai", "model": "gpt-4o-mini", **EXAMPLE}],
                "endpoints": [{"endpoint": "/v1/chat/completions", **EXAMPLE}],
                "status_codes": {"200": 11, "429": 1},
                "budgets": BUDGETS,
            }
        }
    )


class HealthOut(BaseModel):
    """A score from 100 down, what took from it, and what to do about that.

    Calls that the client was at fault for (4xx) are told apart from those that the server was.
    """

    from_: datetime = Field(serialization_alias="from")
    to: datetime
    hours: int
    score: int
    status: str
    issues: list[str]
    recommendations: list[str]
    total_calls: int
    error_rate: float
    client_error_rate: float
    server_error_rate: float
    avg_latency_ms: float | None
    budgets: BudgetsOut

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "from": "2026-11-20T11:00:00Z",
                "to": "2026-11-20T13:00:00Z",
                "hours": 1,
                "score": 85,
                "status": "warning",
                "issues": ["8.33% of the calls failed on the server's side"],
                "recommendations": [
                    "Look at the providers' status and at the backends with the most errors."
                ],
                "total_calls": 12,
                "error_rate": 16.67,
                "client_error_rate": 8.33,
                "server_error_rate": 8.33,
                "avg_latency_ms": 812.5,
                "budgets": BUDGETS,
            }
        }
    )


@router.get("/v1/analytics/metrics")
async def get_metrics(
    db: Db,
    clock: Now,
    key: Reader,
    hours: Hours = 24,
    user_id: Whom = None,
    api_key_id: Whom = None,
    team_id: Whom = None,
) -> MetricsOut:
    """How much everyone, one user, one key or one team called in the last hours, and of what."""
    require_user(key, None)
    now = clock.now()
    whose, span = Whose(user_id, api_key_id, team_id), last_hours(now, hours)
    found = await db.read(lambda tx: read_metrics(tx, whose, span, now))
    return _metrics_out(found, hours)


@router.get("/v1/analytics/health")
async def get_health(
    request: Request, db: Db, clock: Now, key: Reader, hours: Hours = 1
) -> HealthOut:
    """How things are, as one score with its reasons; the settings `TOLLGATE_HEALTH_…` weigh them.

    What cannot be read is a 503, never a score.
    """
    require_user(key, None)
    now = clock.now()
    span = last_hours(now, hours)
    settings: Settings = request.app.state.runtime.settings

    async def work(tx: Tx) -> tuple[Parts, Budgets]:
        return await of_everyone(tx, span), await read_budgets(tx, None, now)

    parts, budgets = await db.read(work)
    health: Health = health_of(parts, budgets, weights_of(settings))
    return HealthOut(
        from_=span.start,
        to=span.end,
        hours=hours,
        score=health.score,
        status=health.status,
        issues=[one.issue for one in health.findings],
        recommendations=[one.recommendation for one in health.findings],
        total_calls=parts.used.calls,
        error_rate=parts.used.error_rate,
        client_error_rate=health.client_error_rate,
        server_error_rate=health.server_error_rate,
        avg_latency_ms=parts.used.avg_latency_ms,
        budgets=budgets_out(budgets),
    )


def _metrics_out(found: Metrics, hours: int) -> MetricsOut:
    parts = found.parts
    used, statuses = parts.used, parts.status_codes
    client, server = (None, None) if statuses is None else errors_of(statuses)
    cost = used.cost_per_call
    return MetricsOut(
        from_=found.span.start,
        to=found.span.end,
        hours=hours,
        **figures(used),
        covered_minutes=round(found.covered_minutes, 2),
        calls_per_minute=found.calls_per_minute,
        client_errors=client,
        server_errors=server,
        avg_tokens_per_call=used.tokens_per_call,
        avg_cost_per_call_usd=None if cost is None else to_usd(cost),
        latency_ms=None if parts.latency is None else percentiles_out(parts.latency),
        ttft_ms=None if parts.ttft is None else percentiles_out(parts.ttft),
        models=None
        if parts.models is None
        else [ModelOut(**one) for one in named_figures(parts.models, ("provider", "model"), SHOWN)],
        endpoints=None
        if parts.endpoints is None
        else [EndpointOut(**one) for one in named_figures(parts.endpoints, ("endpoint",), SHOWN)],
        status_codes=None
        if statuses is None
        else {str(code): sums.calls for (code,), sums in sorted(statuses.items()) if sums.calls},
        budgets=budgets_out(found.budgets),
    )
