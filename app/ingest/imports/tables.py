"""Rows of usage trackers that keep a table of calls, or one of sums by user and month.

A sum is one event: its tokens and cost count, its calls are in `requests` and in the tag `calls`,
and as a call it counts once, since nobody knows when each of them was.
"""

import re
from datetime import UTC, datetime
from typing import Any

from app.core.clock import rfc3339
from app.core.money import from_usd, to_usd
from app.ingest.imports.records import Fields, Record, id_for
from app.ingest.imports.values import (
    UnfitError,
    count_of,
    instant_of,
    number_of,
    required,
    text_of,
    usd_of,
    without_nothing,
)

_PERIOD = re.compile(r"(\d{4})-(0[1-9]|1[0-2])")
_CALLS = "_calls"
AGGREGATED = "[AGGREGATED]"
"""How a tracker marks a row in which it folded many calls into one."""
_FOLDED = re.compile(r"\[?(?:Aggregated )?(\d+) calls")


def event_from_log(record: Record) -> dict[str, Any]:
    """An event from a row of a table of calls; what was folded there keeps its tag `calls`.

    Raises:
        UnfitError: it names no user or no time, or a figure is none.
    """
    fields = record.fields
    seconds = number_of(fields, "response_time")
    usage = {
        "input_tokens": count_of(fields, "tokens_input", "tokens_in", "input_tokens"),
        "output_tokens": count_of(fields, "tokens_output", "tokens_out", "output_tokens"),
        "requests": 1,
    }
    if usage["input_tokens"] is None and usage["output_tokens"] is None:
        usage["input_tokens"] = count_of(fields, "tokens_total", "total_tokens")
    tags = {"imported": "log"}
    if period := text_of(fields, "billing_period", longest=32):
        tags["billing_period"] = period
    if text_of(fields, "endpoint") == AGGREGATED:
        tags["calls"] = str(_folded(fields))
        usage["requests"] = _folded(fields)
    return without_nothing(
        {
            "id": _id(record, "log"),
            "user_id": required(fields, "user_id", "user"),
            "timestamp": instant_of(fields, "timestamp", "created_at", naive_is_utc=True),
            "provider": text_of(fields, "actual_provider_name", "provider", longest=128),
            "model": text_of(fields, "model_used", "model"),
            "usage": {name: amount for name, amount in usage.items() if amount},
            "cost_usd": _cost(fields),
            "endpoint": text_of(fields, "endpoint", longest=512),
            "method": text_of(fields, "method", longest=16),
            "status_code": count_of(fields, "status_code"),
            "error_message": text_of(fields, "error_message", "error", longest=4096),
            "retry_count": count_of(fields, "retry_count"),
            "latency_ms": None if seconds is None else float(seconds * 1000),
            "request_bytes": count_of(fields, "request_size", "request_bytes"),
            "response_bytes": count_of(fields, "response_size", "response_bytes"),
            "user_agent": text_of(fields, "user_agent", longest=512),
            "ip_address": text_of(fields, "ip_address", "ip", longest=64),
            "tags": tags,
        }
    )


def events_from_summary(record: Record) -> list[dict[str, Any]]:
    """Events from a row of sums: one for each provider of it that was called.

    A row names its `provider`, or has columns as `openai_calls`, `openai_tokens`, `openai_cost`.

    Raises:
        UnfitError: it names no user or month, or a figure is none.
    """
    fields = record.fields
    user_id = required(fields, "user_id", "user")
    period = required(fields, "billing_period", "period")
    month = _PERIOD.match(period)
    if month is None:
        raise UnfitError("billing_period: a month as 2026-11 is expected")
    at = rfc3339(datetime(int(month[1]), int(month[2]), 1, tzinfo=UTC))
    found = []
    for provider, prefix in _providers(fields):
        calls = count_of(fields, f"{prefix}calls") or 0
        tokens = count_of(fields, f"{prefix}tokens") or 0
        cost = usd_of(fields, f"{prefix}cost")
        if not calls and not tokens and cost in (None, "0"):
            continue
        usage = {"requests": calls, "input_tokens": tokens}
        found.append(
            {
                "id": f"import-summary-{user_id}-{period}-{provider}"[:512],
                "user_id": user_id,
                "timestamp": at,
                "provider": provider,
                "usage": {name: amount for name, amount in usage.items() if amount},
                "cost_usd": cost or "0",
                "tags": {"imported": "summary", "billing_period": period, "calls": str(calls)},
            }
        )
    return found


def _providers(fields: Fields) -> list[tuple[str, str]]:
    """The providers of a row of sums, and how the columns of each begin."""
    named = text_of(fields, "provider", longest=128)
    if named is not None:
        return [(named, "total_" if "total_calls" in fields else "")]
    found = [name.removesuffix(_CALLS) for name in fields if name.endswith(_CALLS)]
    providers = [(name, f"{name}_") for name in found if name not in ("total", "")]
    if not providers:
        raise UnfitError("provider, or columns as openai_calls, are missing")
    return providers


def _folded(fields: Fields) -> int:
    """How many calls a folded row says that it stands for."""
    for name in ("model_used", "error_message", "model", "error"):
        if found := _FOLDED.search(text_of(fields, name) or ""):
            return int(found[1])
    return 1


def _cost(fields: Fields) -> str | None:
    total = usd_of(fields, "cost_total", "total_cost", "cost")
    if total is not None:
        return total
    parts = [usd_of(fields, "cost_input"), usd_of(fields, "cost_output")]
    known = [from_usd(part) for part in parts if part is not None]
    return to_usd(sum(known)) if known else None


def _id(record: Record, kind: str) -> str:
    given = text_of(record.fields, "id", "uuid")
    return id_for(record, kind) if given is None else f"import-{kind}-{given}"[:512]
