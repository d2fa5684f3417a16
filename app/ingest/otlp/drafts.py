"""The event that a call becomes. Pure."""

from datetime import timedelta
from typing import Any

from app.core.clock import EPOCH, rfc3339
from app.ingest.foreign.costs import weigh
from app.ingest.foreign.identity import event_id
from app.ingest.otlp.failures import UNEXPLAINED
from app.ingest.otlp.merge import Merged
from app.summaries.drifts import COMPARED

SOURCE = "otlp"
STANDARD_SPEED = "normal"
OWN_IDS = 16
"""An answer's id of fewer characters is not its own: some local models count to 999."""
_MICROS_PER_DAY = 86_400_000_000


def ids_for(call: Merged) -> tuple[str, str]:
    """The id for its event, and one to take where another call has that: of the answer, the span.

    Both are the same whenever the same is sent again.
    """
    by_span = event_id("span", call.best.trace_id, call.best.span_id)
    if len(call.response_id) >= OWN_IDS:
        return event_id("rid", call.response_id), by_span
    return by_span, by_span


def event_from(call: Merged, named: str, user_id: str, trust: str) -> dict[str, Any]:
    """The event under this id and user, as a caller of `POST /v1/events` would send it.

    `trust` is when a stated cost counts: `needed`, `always` or `never`. A success that does not
    say what it used is marked, so that it has no price.
    """
    context = {"service_tier": call.service_tier} if call.service_tier else {}
    if call.speed not in ("", STANDARD_SPEED):
        context["speed"] = call.speed
    tokens = call.usage.get("input_tokens", 0) + call.usage.get("output_tokens", 0)
    weighed = weigh(
        call.cost_usd,
        tokens=tokens,
        complete=call.is_split,
        trust=trust,
        free=call.cached_answer,
    )
    if weighed.comparable:
        context[COMPARED] = SOURCE
    if not (call.is_known or call.failed or call.cached_answer):
        context["usage"] = "unknown"
    requested = call.requested_model if call.requested_model != call.model else ""
    tags = dict(call.tags)
    if requested:
        tags["requested_model"] = requested
    if call.streaming:
        tags["streaming"] = "true"
    if tags.get("end_user") == user_id:
        del tags["end_user"]
    found: dict[str, Any] = {
        "id": named,
        "user_id": user_id,
        "timestamp": _timestamp(call.start_ns),
        "provider": call.provider,
        "model": call.model,
        "usage": call.usage,
        "status_code": call.status_code or (UNEXPLAINED if call.failed else 200),
        "latency_ms": _millis(call.end_ns - call.start_ns),
        "task_type": call.best.operation,
        "context": {**context, **weighed.context},
        "tags": tags,
    }
    optional = {
        "error_message": call.error,
        "ttft_ms": _millis(call.ttft_ns) if call.ttft_ns else None,
        "team_id": call.people.team,
        "session_id": call.people.session,
        "api_key_id": call.api_key,
        "cost_usd": weighed.cost_usd,
    }
    found |= {name: value for name, value in optional.items() if value}
    return {name: value for name, value in found.items() if value not in ("", None, {})} | {
        "usage": call.usage
    }


def _timestamp(nanos: int) -> str:
    micros = nanos // 1000
    if micros > 100_000 * _MICROS_PER_DAY:  # beyond what a datetime holds: refused as an instant
        return "9999-12-31T23:59:59Z"
    return rfc3339(EPOCH + timedelta(microseconds=micros))


def _millis(nanos: int) -> float:
    return min(max(nanos, 0) // 1000, 10**12) / 1000
