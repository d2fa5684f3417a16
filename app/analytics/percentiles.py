"""Percentiles of everyone's latencies, from counts in buckets. Pure."""

from collections.abc import Mapping

from app.summaries.detail import NO_PERCENTILES, PERCENTS, Percentiles
from app.summaries.fold import LATENCY_BOUNDS_US


def percentiles_of(counts: Mapping[str, int]) -> Percentiles:
    """Nearest-rank percentiles from counts by bucket, each the upper bound of its bucket.

    At most 19 % above the true one; beyond the last bound, that bound, which is then too low.
    """
    total = sum(counts.values())
    if not total:
        return NO_PERCENTILES
    return Percentiles(*(_bound(counts, -(-total * percent // 100)) for percent in PERCENTS))


def _bound(counts: Mapping[str, int], rank: int) -> int:
    seen = 0
    for name in sorted(counts):
        seen += counts[name]
        if seen >= rank:
            break
    return LATENCY_BOUNDS_US[min(int(name), len(LATENCY_BOUNDS_US) - 1)]
