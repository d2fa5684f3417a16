"""Where one user stands: what a period used, how the limits stand, how it came to that.

Everything is read from totals and counters, on one snapshot; nothing is written.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import BaseModel
from sqlalchemy import select

from app.alerts.api import AlertOut, alert_out
from app.alerts.read import list_alerts
from app.core.clock import Clock
from app.core.errors import InvalidInput
from app.core.money import to_usd
from app.db.engine import Tx
from app.db.types import table_of
from app.limits.check import State, standing_of
from app.limits.door import state_out
from app.limits.manage import states_now
from app.plans.known import Agreement, Agreements, agreement_of
from app.plans.periods import Period, calendar_months
from app.summaries.tables import WrappedUsage
from app.summaries.trends import (
    NONE_USED,
    ByModel,
    Used,
    find_period,
    last_periods,
    used_in,
)
from app.usage.tables import UsageEvent, WrappedEvent

SHOWN_ALERTS = 10
UNNAMED = "unknown"


class UsagePeriodOut(BaseModel):
    """A billing period, half-open."""

    key: str
    start: datetime
    end: datetime


class ModelUsageOut(BaseModel):
    """What was used of one model."""

    calls: int
    tokens: int
    input_tokens: int
    output_tokens: int
    cost_usd: str


class ProviderUsageOut(BaseModel):
    """What was used of one provider."""

    calls: int
    tokens: int
    cost_usd: str
    models: dict[str, ModelUsageOut]


_MODEL = {
    "calls": 12,
    "tokens": 18000,
    "input_tokens": 14400,
    "output_tokens": 3600,
    "cost_usd": "0.00432",
}
_PROVIDERS = {
    "openai": {
        "calls": 12,
        "tokens": 18000,
        "cost_usd": "0.00432",
        "models": {"gpt-4o-mini": _MODEL},
    }
}
_PERIOD = {"key": "2026-11", "start": "2026-11-01T00:00:00Z", "end": "2026-12-01T00:00:00Z"}
_USAGE: dict[str, Any] = {
    "billing_period": _PERIOD,
    "usage_status": "active",
    "total_calls": 12,
    "total_tokens": 18000,
    "input_tokens": 14400,
    "output_tokens": 3600,
    "total_cost_usd": "0.00432",
    "avg_latency_ms": 812.5,
    "error_rate": 8.33,
    "providers": _PROVIDERS,
    "limits": [],
    "usage_percentages": {"monthly budget": 43.2},
    "alerts": [],
    "last_updated": "2026-11-20T12:30:00Z",
    "unpriced_calls": 0,
}
_TREND: dict[str, Any] = {
    "billing_period": _PERIOD,
    "total_calls": 12,
    "total_tokens": 18000,
    "total_cost_usd": "0.00432",
    "avg_latency_ms": 812.5,
    "error_rate": 8.33,
    "providers": _PROVIDERS,
}


_SINCE: dict[str, Any] = {
    "calls": 1,
    "cost_usd": "0.00036",
    "corrections": 1,
    "corrections_cost_usd": "-0.00024",
    "rerated_cost_usd": "0",
}


class SinceOut(BaseModel):
    """What of a period was recorded after the instant: late calls, corrections, other charges."""

    calls: int
    cost_usd: str
    corrections: int
    corrections_cost_usd: str
    rerated_cost_usd: str

    model_config = {"json_schema_extra": {"example": _SINCE}}


class UsageOut(BaseModel):
    """What a user used in one billing period, and how their limits stand now.

    With `as_of` it is what was known then; limits and alerts of then are not told.
    """

    billing_period: UsagePeriodOut
    usage_status: str | None
    total_calls: int
    total_tokens: int
    input_tokens: int
    output_tokens: int
    total_cost_usd: str
    avg_latency_ms: float | None
    error_rate: float
    providers: dict[str, ProviderUsageOut]
    limits: list[dict[str, Any]] | None
    usage_percentages: dict[str, float] | None
    alerts: list[AlertOut] | None
    last_updated: datetime | None
    unpriced_calls: int
    as_of: datetime | None = None
    changed_since: SinceOut | None = None

    model_config = {"json_schema_extra": {"example": _USAGE}}


class TrendOut(BaseModel):
    """What a user used in one billing period."""

    billing_period: UsagePeriodOut
    total_calls: int
    total_tokens: int
    total_cost_usd: str
    avg_latency_ms: float | None
    error_rate: float
    providers: dict[str, ProviderUsageOut]


class TrendsOut(BaseModel):
    """Billing periods, oldest first, without a gap."""

    items: list[TrendOut]

    model_config = {"json_schema_extra": {"example": {"items": [_TREND]}}}


class Stood(NamedTuple):
    """What the database says of one user."""

    period: Period
    models: ByModel
    states: Sequence[State]
    alerts: Sequence[AlertOut]
    last_updated: datetime | None


# ---- reads --------------------------------------------------------------------------------------


async def read_usage(tx: Tx, user_id: str, key: str | None, clock: Clock) -> Stood:
    """What the user used in the period of that key, and how the limits stand now.

    Raises:
        InvalidInput: the user has no such period.
    """
    now = clock.now()
    agreement = await agreed(tx, user_id)
    period = agreement.period_at(now) if key is None else find_period(agreement, key)
    if period is None:
        raise no_such_period()
    [models] = await used_in(tx, user_id, [period])
    return Stood(
        period,
        models,
        await states_now(tx, user_id, clock),
        await unread_alerts(tx, user_id, SHOWN_ALERTS),
        await last_recorded(tx, user_id),
    )


def no_such_period() -> InvalidInput:
    """What is said of a period's key that names none."""
    detail = (
        "billing_period: no such period; expected a key as 2026-11, or the date or instant at "
        "which one starts"
    )
    return InvalidInput.at("/billing_period", detail)


async def read_trends(
    tx: Tx, user_id: str, count: int, now: datetime
) -> list[tuple[Period, ByModel]]:
    """The user's last periods up to the running one, oldest first, each with what it used."""
    periods = last_periods(await agreed(tx, user_id), now, count)
    return list(zip(periods, await used_in(tx, user_id, periods), strict=True))


async def agreed(tx: Tx, user_id: str) -> Agreement:
    """What is agreed with the user; a user never seen would get calendar months.

    Read here and not from the process's cache: a snapshot may be older than what is cached, and
    what an old snapshot leaves in the cache would stay there.
    """
    agreements = Agreements()
    await agreements.reload_plans(tx, set())
    found = await agreements.of(tx, [user_id])
    return found[user_id] or agreement_of([calendar_months(agreements.default_plan)])


async def unread_alerts(tx: Tx, user_id: str, count: int) -> list[AlertOut]:
    """The user's own unread alerts, newest first; those of a team or of all are not theirs."""
    found = await list_alerts(tx, f"user:{user_id}", unread=True, before=None, limit=count)
    return [alert_out(alert) for alert in found]


async def last_recorded(tx: Tx, user_id: str) -> datetime | None:
    """When the user's newest event was recorded."""
    event = table_of(UsageEvent).c
    query = select(event.recorded_at).where(event.user_id == user_id)
    row = await tx.first(query.order_by(event.timestamp.desc()).limit(1))
    if row is not None:
        return row[0]  # type: ignore[no-any-return]
    group, left = table_of(WrappedUsage).c, table_of(WrappedEvent).c
    newest = select(group.archive_id).where(group.user_id == user_id)
    newest = newest.order_by(group.hour.desc(), group.last_at.desc()).limit(1)
    query = select(left.recorded_at).where(
        left.user_id == user_id, left.archive_id == newest.scalar_subquery()
    )
    row = await tx.first(query.order_by(left.timestamp.desc()).limit(1))
    return None if row is None else row[0]


# ---- answers ------------------------------------------------------------------------------------


def usage_out(stood: Stood) -> UsageOut:
    """Where the user stands, as the contract has it. Pure."""
    total = sum(stood.models.values(), NONE_USED)
    return UsageOut(
        billing_period=UsagePeriodOut(**stood.period._asdict()),
        usage_status=standing_of(stood.states).usage_status,
        total_calls=total.calls,
        total_tokens=total.tokens,
        input_tokens=total.input_tokens,
        output_tokens=total.output_tokens,
        total_cost_usd=to_usd(total.cost_nanos),
        avg_latency_ms=total.avg_latency_ms,
        error_rate=total.error_rate,
        providers=providers_out(stood.models),
        limits=[state_out(state) for state in stood.states],
        usage_percentages=percentages(stood.states),
        alerts=list(stood.alerts),
        last_updated=stood.last_updated,
        unpriced_calls=total.unpriced_calls,
    )


def trend_out(period: Period, models: ByModel) -> TrendOut:
    """One period of a history, as the contract has it. Pure."""
    total = sum(models.values(), NONE_USED)
    return TrendOut(
        billing_period=UsagePeriodOut(**period._asdict()),
        total_calls=total.calls,
        total_tokens=total.tokens,
        total_cost_usd=to_usd(total.cost_nanos),
        avg_latency_ms=total.avg_latency_ms,
        error_rate=total.error_rate,
        providers=providers_out(models),
    )


def providers_out(models: ByModel) -> dict[str, ProviderUsageOut]:
    """Totals by provider and model, in order of name. Pure."""
    grouped: dict[str, dict[str, Used]] = {}
    for (provider, model), used in models.items():
        named = grouped.setdefault(provider or UNNAMED, {})
        name = model or UNNAMED
        named[name] = named.get(name, NONE_USED) + used
    return {provider: _provider_out(grouped[provider]) for provider in sorted(grouped)}


def _provider_out(models: Mapping[str, Used]) -> ProviderUsageOut:
    total = sum(models.values(), NONE_USED)
    return ProviderUsageOut(
        calls=total.calls,
        tokens=total.tokens,
        cost_usd=to_usd(total.cost_nanos),
        models={name: _model_out(models[name]) for name in sorted(models)},
    )


def _model_out(used: Used) -> ModelUsageOut:
    return ModelUsageOut(
        calls=used.calls,
        tokens=used.tokens,
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cost_usd=to_usd(used.cost_nanos),
    )


def percentages(states: Collection[State]) -> dict[str, float]:
    """How much of each limit is used, by name; a name that two limits share tells their ids."""
    names = [state.rule.name for state in states]
    return {
        name if names.count(name) == 1 else f"{name} ({state.rule.id})": state.percent
        for name, state in zip(names, states, strict=True)
    }
