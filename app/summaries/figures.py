"""Figures as every answer about usage writes them."""

from typing import Any

from pydantic import BaseModel

from app.core.money import to_usd
from app.summaries.detail import NO_PERCENTILES, Percentiles
from app.summaries.sums import Sums

EXAMPLE: dict[str, Any] = {
    "total_calls": 12,
    "successful_calls": 11,
    "failed_calls": 1,
    "error_rate": 8.33,
    "total_tokens": 18000,
    "input_tokens": 14400,
    "output_tokens": 3600,
    "cache_read_tokens": 0,
    "cache_write_tokens": 0,
    "output_reasoning_tokens": 0,
    "total_cost_usd": "0.00432",
    "unpriced_calls": 0,
    "avg_latency_ms": 812.5,
    "avg_ttft_ms": 190.25,
}


class FiguresOut(BaseModel):
    """What some calls used. Rates are percent; a mean is null where no call carries the value."""

    total_calls: int
    successful_calls: int
    failed_calls: int
    error_rate: float
    total_tokens: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_reasoning_tokens: int
    total_cost_usd: str
    unpriced_calls: int
    avg_latency_ms: float | None
    avg_ttft_ms: float | None


def figures(sums: Sums) -> dict[str, Any]:
    """The members of `FiguresOut`. Pure."""
    return {
        "total_calls": sums.calls,
        "successful_calls": sums.successes,
        "failed_calls": sums.errors,
        "error_rate": sums.error_rate,
        "total_tokens": sums.tokens,
        "input_tokens": sums.input_tokens,
        "output_tokens": sums.output_tokens,
        "cache_read_tokens": sums.cache_read_tokens,
        "cache_write_tokens": sums.cache_write_tokens,
        "output_reasoning_tokens": sums.output_reasoning_tokens,
        "total_cost_usd": to_usd(sums.cost_nanos),
        "unpriced_calls": sums.unpriced_calls,
        "avg_latency_ms": sums.avg_latency_ms,
        "avg_ttft_ms": sums.avg_ttft_ms,
    }


class PercentilesOut(BaseModel):
    """Percentiles in milliseconds, by nearest rank; null where no call carries the value."""

    p50: float | None
    p95: float | None
    p99: float | None


def percentiles_out(found: Percentiles = NO_PERCENTILES) -> PercentilesOut:
    """Percentiles in microseconds, for the wire. Pure."""
    p50, p95, p99 = (None if value is None else value / 1000 for value in found)
    return PercentilesOut(p50=p50, p95=p95, p99=p99)
