"""What the API answers about calls that were wrapped."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from app.core.counters import as_mapping
from app.core.money import to_usd
from app.plans.known import Agreement
from app.usage.corrections import Correction, is_voided
from app.usage.ledger import Entry, usage_of
from app.usage.wrapped import Group, Key, WrappedRow
from app.usage.wrapped_stands import charge_of

WRAPPED: dict[str, Any] = {
    "id": "arc_4f0c9a1b2c3d4e5f:0",
    "kind": "wrapped",
    "user_id": "alice",
    "timestamp": "2026-08-02T09:58:11Z",
    "hour": "2026-08-02T09:00:00Z",
    "first_at": "2026-08-02T09:01:40Z",
    "last_at": "2026-08-02T09:58:11Z",
    "calls": 214,
    "errors": 0,
    "provider": "openai",
    "model": "gpt-4o-mini",
    "usage": {"input_tokens": 256800, "output_tokens": 64200},
    "cost_usd": "0.07704",
    "unpriced_calls": 0,
    "status_code": 200,
    "endpoint": "/v1/chat/completions",
    "team_id": "research",
    "api_key_id": None,
    "task_type": "chat",
    "backend": None,
    "pool": None,
    "avg_latency_ms": 801.2,
    "min_latency_ms": 312.0,
    "max_latency_ms": 2980.4,
    "avg_ttft_ms": None,
    "min_ttft_ms": None,
    "max_ttft_ms": None,
    "retries": 3,
    "request_bytes": 876544,
    "response_bytes": 385200,
    "billing_period": "2026-08",
    "archive_id": "arc_4f0c9a1b2c3d4e5f",
}


class WrappedOut(BaseModel):
    """Calls of one hour that have every name here in common, in the place of their rows.

    What they add up to is as they stand after their corrections: one that was voided counts no
    more. Names, times and extremes are of the calls as they were sent. `timestamp` is that of the
    last of them. `cost_usd` is null where none of them has a price.
    """

    id: str
    kind: Literal["wrapped"]
    user_id: str
    timestamp: datetime
    hour: datetime
    first_at: datetime
    last_at: datetime
    calls: int
    errors: int
    provider: str | None
    model: str | None
    usage: dict[str, int | float]
    cost_usd: str | None
    unpriced_calls: int
    status_code: int
    endpoint: str | None
    team_id: str | None
    api_key_id: str | None
    task_type: str | None
    backend: str | None
    pool: str | None
    avg_latency_ms: float | None
    min_latency_ms: float | None
    max_latency_ms: float | None
    avg_ttft_ms: float | None
    min_ttft_ms: float | None
    max_ttft_ms: float | None
    retries: int
    request_bytes: int
    response_bytes: int
    billing_period: str
    archive_id: str

    model_config = {"json_schema_extra": {"example": WRAPPED}}


class WrappedEventOut(BaseModel):
    """One event that was wrapped, as it stands: one that was voided uses and costs nothing.

    `event` is the whole of it, from its archive or from what was corrected; null where neither can
    tell, and then `provider`, `model` and `usage` are null too.
    """

    id: str
    kind: Literal["wrapped_event"]
    user_id: str
    timestamp: datetime
    recorded_at: datetime
    provider: str | None
    model: str | None
    usage: dict[str, int | float] | None
    cost_usd: str | None
    cost_status: str
    billing_period: str
    voided: bool
    corrections: int
    archive_id: str
    event: dict[str, Any] | None

    model_config = {
        "json_schema_extra": {
            "example": {
                "id": "req_8f2c",
                "kind": "wrapped_event",
                "user_id": "alice",
                "timestamp": "2026-08-02T09:30:00Z",
                "recorded_at": "2026-08-02T09:30:00.120000Z",
                "provider": None,
                "model": None,
                "usage": None,
                "cost_usd": "0.00036",
                "cost_status": "priced",
                "billing_period": "2026-08",
                "voided": False,
                "corrections": 0,
                "archive_id": "arc_4f0c9a1b2c3d4e5f",
                "event": None,
            }
        }
    }


def wrapped_out(group: Group, agreement: Agreement) -> WrappedOut:
    """A group as the contract has it. Pure."""
    return WrappedOut(
        id=f"{group.archive_id}:{group.group_no}",
        kind="wrapped",
        user_id=group.user_id,
        timestamp=group.last_at,
        hour=group.hour,
        first_at=group.first_at,
        last_at=group.last_at,
        calls=group.calls,
        errors=group.errors,
        provider=group.provider or None,
        model=group.model or None,
        usage=as_mapping(group.usage),
        cost_usd=_usd(group.known_cost_nanos),
        unpriced_calls=group.unpriced_calls,
        status_code=group.status_code,
        endpoint=group.endpoint,
        team_id=group.team_id,
        api_key_id=group.api_key_id,
        task_type=group.task_type,
        backend=group.backend,
        pool=group.pool,
        avg_latency_ms=_mean_ms(group.latency_us, group.latency_calls),
        min_latency_ms=_ms(group.min_latency_us),
        max_latency_ms=_ms(group.max_latency_us),
        avg_ttft_ms=_mean_ms(group.ttft_us, group.ttft_calls),
        min_ttft_ms=_ms(group.min_ttft_us),
        max_ttft_ms=_ms(group.max_ttft_us),
        retries=group.retries,
        request_bytes=group.request_bytes,
        response_bytes=group.response_bytes,
        billing_period=agreement.period_at(group.first_at).key,
        archive_id=group.archive_id,
    )


def wrapped_event_out(
    key: Key,
    left: WrappedRow,
    stands: Entry | None,
    corrections: Sequence[Correction],
    event: BaseModel | None,
    agreement: Agreement,
) -> WrappedEventOut:
    """A wrapped event as the contract has it; `event` is the whole of it as it `stands`. Pure."""
    charge = charge_of(left, corrections)
    at = left.timestamp if stands is None else stands.timestamp
    return WrappedEventOut(
        id=key[1],
        kind="wrapped_event",
        user_id=key[0],
        timestamp=at,
        recorded_at=left.recorded_at,
        provider=None if stands is None else stands.provider or None,
        model=None if stands is None else stands.model or None,
        usage=None if stands is None else as_mapping(usage_of(stands)),
        cost_usd=_usd(charge.cost_nanos),
        cost_status=charge.cost_status,
        billing_period=agreement.period_at(at).key,
        voided=is_voided(corrections),
        corrections=sum(one.sign < 0 for one in corrections),
        archive_id=left.archive_id,
        event=None if event is None else event.model_dump(mode="json"),
    )


def _usd(nanos: int | None) -> str | None:
    return None if nanos is None else to_usd(nanos)


def _ms(micros: int | None) -> float | None:
    return None if micros is None else micros / 1000


def _mean_ms(micros: int, calls: int) -> float | None:
    return round(micros / calls / 1000, 3) if calls else None
