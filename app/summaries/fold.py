"""Turn log entries into changes of totals. Pure, so that a property can pin it down."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from operator import add, attrgetter
from typing import Any, NamedTuple

from app.core.clock import hour_of
from app.plans.known import Agreement
from app.summaries.tables import MEASURES
from app.usage.ledger import Entry

Measures = list[int]
Amounts = list[tuple[int, int]]
"""Places in `MEASURES`, and how much each one grows."""
PeriodKey = tuple[str, datetime, str, str]
HourKey = tuple[str, datetime, str, str, str]
DimensionKey = tuple[datetime, str, str]

BUCKETS_PER_DOUBLING = 4
LATENCY_BOUNDS_US = tuple(
    round(1000 * 2 ** (place / BUCKETS_PER_DOUBLING)) for place in range(21 * BUCKETS_PER_DOUBLING)
)
"""Upper bounds of the latency buckets: from 1 ms in steps of a quarter doubling to 29 minutes, so
that a percentile read from them is at most 19 % above the true one."""

BUCKETS = tuple(f"{place:03d}" for place in range(len(LATENCY_BOUNDS_US) + 1))
"""Names of the buckets, so padded that they sort as their latencies do."""

_PLACE = {name: place for place, name in enumerate(MEASURES)}
_TOKENS = (
    "cache_read_tokens",
    "cache_write_tokens",
    "output_reasoning_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
    "input_image_tokens",
    "output_image_tokens",
    "requests",
)
_RARE = tuple(_PLACE[name] for name in _TOKENS)
_rare_of = attrgetter(*_TOKENS)
_INPUT, _OUTPUT, _COST = _PLACE["input_tokens"], _PLACE["output_tokens"], _PLACE["cost_nanos"]
_ERRORS, _UNPRICED = _PLACE["errors"], _PLACE["unpriced_calls"]
_LATENCY_CALLS, _LATENCY = _PLACE["latency_calls"], _PLACE["latency_us"]
_TTFT_CALLS, _TTFT = _PLACE["ttft_calls"], _PLACE["ttft_us"]
_WIDTH = len(MEASURES)
_ZEROS = [0] * _WIDTH
_NOTHING_ELSE = (0,) * (_WIDTH - 1)
SEPARATOR = "\x1f"


class Change(NamedTuple):
    """How much each total grows, by key."""

    periods: dict[PeriodKey, Measures]
    hours: dict[HourKey, Measures]
    dimensions: dict[DimensionKey, Measures]


def bucket_of(latency_us: int) -> str:
    """The name of the latency bucket: its place, so that names sort as latencies do."""
    return BUCKETS[bisect_left(LATENCY_BOUNDS_US, latency_us)]


def measures_of(entry: Entry) -> Amounts:
    """What one entry adds: (place in `MEASURES`, amount) for each amount that is not zero."""
    found = [(0, 1)]
    if entry.status_code >= 400:
        found.append((_ERRORS, 1))
    if entry.input_tokens:
        found.append((_INPUT, entry.input_tokens))
    if entry.output_tokens:
        found.append((_OUTPUT, entry.output_tokens))
    rare = _rare_of(entry)
    if any(rare):
        found += [(place, amount) for place, amount in zip(_RARE, rare, strict=True) if amount]
    if entry.cost_nanos:
        found.append((_COST, entry.cost_nanos))
    elif entry.cost_nanos is None:
        found.append((_UNPRICED, 1))
    if entry.latency_us is not None:
        found.append((_LATENCY_CALLS, 1))
        found.append((_LATENCY, entry.latency_us))
    if entry.ttft_us is not None:
        found.append((_TTFT_CALLS, 1))
        found.append((_TTFT, entry.ttft_us))
    return found


def recost(entry: Entry, cost_nanos: int | None) -> Amounts:
    """What an entry adds when it comes to cost this, after `measures_of` added what it did cost."""
    found = []
    more = (cost_nanos or 0) - (entry.cost_nanos or 0)
    if more:
        found.append((_COST, more))
    unpriced = (cost_nanos is None) - (entry.cost_nanos is None)
    if unpriced:
        found.append((_UNPRICED, unpriced))
    return found


def fold(
    entries: Iterable[Entry],
    agreements: Mapping[str, Agreement],
    amounts_of: Callable[[Entry], Amounts] = measures_of,
    *,
    calls: int = 1,
) -> Change:
    """Sum the entries by every key that a total is kept under.

    `amounts_of` says what an entry adds, and `calls` how many calls it adds to its latency buckets:
    a change of what it costs adds none. Entries are first summed by everything that any key looks
    at, so that each one is looked at twice and not once per total that it is part of.
    """
    by_user: dict[tuple[str, datetime, datetime, str, str, str], Measures] = {}
    by_kind: dict[tuple[datetime, tuple[Any, ...]], Measures] = {}
    buckets: Counter[DimensionKey] = Counter()
    for entry in entries:
        user_id, at = entry.user_id, entry.timestamp
        hour = hour_of(at)
        start = agreements[user_id].period_at(at).start
        amounts = amounts_of(entry)
        key = (user_id, start, hour, entry.provider, entry.model, entry.task_type or "")
        _grow(by_user, key, amounts)
        _grow(by_kind, (hour, _kind_of(entry)), amounts)
        if entry.latency_us is not None and calls:
            buckets[hour, "latency", bucket_of(entry.latency_us)] += calls
        if entry.ttft_us is not None and calls:
            buckets[hour, "ttft", bucket_of(entry.ttft_us)] += calls
    dimensions: dict[DimensionKey, Measures] = {
        key: [counted, *_NOTHING_ELSE] for key, counted in buckets.items()
    }
    periods: dict[PeriodKey, Measures] = {}
    hours: dict[HourKey, Measures] = {}
    for (user_id, start, hour, provider, model, task), total in by_user.items():
        _join(periods, (user_id, start, provider, model), total)
        _join(hours, (user_id, hour, provider, model, task), total)
    for (hour, kind), total in by_kind.items():
        for dimension, value in dimensions_of_kind(kind):
            _join(dimensions, (hour, dimension, value), total)
    return Change(periods, hours, dimensions)


KIND = ("provider", "model", "endpoint", "status_code", "backend", "pool", "team_id", "api_key_id")
_kind_of = attrgetter(*KIND)
_NAMED = ("backend", "pool", "team", "key")


def dimensions_of(entry: Entry) -> list[tuple[str, str]]:
    """The cross-user totals that one entry is part of, latency buckets aside."""
    return dimensions_of_kind(_kind_of(entry))


def dimensions_of_kind(kind: tuple[Any, ...]) -> list[tuple[str, str]]:
    """As `dimensions_of`, by the names that it looks at, in the order of `KIND`."""
    provider, model, endpoint, status_code = kind[:4]
    found = [
        ("model", f"{provider}{SEPARATOR}{model}"),
        ("endpoint", endpoint or ""),
        ("status_code", str(status_code)),
    ]
    for dimension, value in zip(_NAMED, kind[4:], strict=True):
        if value is not None:
            found.append((dimension, value))
    backend, pool, team_id, api_key_id = kind[4:]
    if backend is not None and pool is not None:
        found.append(("pool_backend", f"{pool}{SEPARATOR}{backend}"))
    if team_id is not None or api_key_id is not None:
        calls = SEPARATOR.join(("", provider, model, endpoint or "", str(status_code)))
        if team_id is not None:
            found.append(("team_calls", team_id + calls))
        if api_key_id is not None:
            found.append(("key_calls", api_key_id + calls))
    return found


def _join(totals: dict[Any, Measures], key: Any, more: Measures) -> None:
    """Add without changing `more`, which may stand under several keys."""
    total = totals.get(key)
    totals[key] = more if total is None else list(map(add, total, more))


def _grow(totals: dict[Any, Measures], key: Any, amounts: Iterable[tuple[int, int]]) -> None:
    total = totals.get(key)
    if total is None:
        total = totals[key] = _ZEROS.copy()
    for place, amount in amounts:
        total[place] += amount
