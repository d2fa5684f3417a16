"""One call out of its tellings: each field from whoever knows it best. Pure."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from app.core.counters import PARTS
from app.ingest.otlp.groups import Lineage, ancestors
from app.ingest.otlp.telling import People, Telling

T = TypeVar("T")


class Merged(NamedTuple):
    """A call with everything that its tellings know. `best` is the one that is believed first."""

    best: Telling
    start_ns: int
    end_ns: int
    usage: dict[str, int]
    is_known: bool
    is_split: bool
    disagrees: bool
    people: People
    response_id: str
    provider: str
    model: str
    requested_model: str
    failed: bool
    status_code: int
    error: str
    streaming: bool
    ttft_ns: int
    cost_usd: str
    cached_answer: bool
    service_tier: str
    speed: str
    api_key: str
    tags: dict[str, str]


def merged(tellings: Sequence[Telling], lineage: Lineage) -> Merged:
    """Merge the tellings of one call, field by field.

    A provider's library is believed before a framework, and that before what instruments from
    outside; of two of one kind the inner one.
    """
    above = {one.spot: ancestors(one, lineage) for one in tellings}
    ordered = sorted(
        tellings, key=lambda one: (one.rank, one.half, -len(above[one.spot]), one.spot)
    )
    best = ordered[0]
    start_ns, end_ns = best.start_ns, best.end_ns
    if any(one.half for one in ordered):
        start_ns = min(one.start_ns for one in ordered)
        end_ns = max(one.end_ns for one in ordered)
    around = [
        lineage[spot].people for one in ordered for spot in above[one.spot] if spot in lineage
    ]
    levels = [*(one.people for one in ordered), *around, *(one.around for one in ordered)]
    failed = all(one.failed for one in ordered)
    usage = _usage(ordered)
    tags: dict[str, str] = {}
    for one in reversed(ordered):
        tags |= one.tags
    return Merged(
        best,
        start_ns,
        end_ns,
        usage,
        any(one.is_known for one in ordered),
        any("cache_read_tokens" in one.usage for one in ordered),
        _disagree(ordered),
        People(
            _first(levels, lambda one: one.user),
            _first(levels, lambda one: one.team),
            _first(levels, lambda one: one.session),
        ),
        _first(ordered, lambda one: one.response_id),
        _first(ordered, lambda one: one.provider),
        _first(ordered, lambda one: one.model),
        _first(ordered, lambda one: one.requested_model),
        failed,
        _status([one for one in ordered if one.failed] if failed else ordered),
        _first(ordered, lambda one: one.error) if failed else "",
        any(one.streaming for one in ordered),
        _first_chunk(ordered, start_ns, end_ns),
        _first(ordered, lambda one: one.cost_usd),
        any(one.cached_answer for one in ordered),
        _first(ordered, lambda one: one.service_tier),
        _first(ordered, lambda one: one.speed),
        _first(ordered, lambda one: one.api_key),
        tags,
    )


def _first(several: Sequence[T], field: Callable[[T], str]) -> str:
    return next((found for one in several if (found := field(one))), "")


def _first_chunk(ordered: Sequence[Telling], start_ns: int, end_ns: int) -> int:
    """Nanoseconds from the call's own start, as another telling of it may have begun before."""
    for one in ordered:
        if one.ttft_ns:
            return max(min(one.start_ns + one.ttft_ns, end_ns) - start_ns, 0)
    return 0


def _status(tellings: Sequence[Telling]) -> int:
    return next((one.status_code for one in tellings if one.status_code), 0)


def _usage(ordered: Sequence[Telling]) -> dict[str, int]:
    """The wholes from the first that knows them, each part from the first that has any of it."""
    knowing = [one for one in ordered if one.is_known]
    if not knowing:
        return {}
    found = dict(knowing[0].usage)
    for one in knowing[1:]:
        for name, value in one.usage.items():
            if value and not found.get(name) and _fits(found, name, value):
                found[name] = value
    return {name: value for name, value in found.items() if value}


def _fits(usage: dict[str, int], name: str, value: int) -> bool:
    with_it = {**usage, name: value}
    return all(
        sum(with_it.get(part, 0) for part in parts) <= with_it.get(whole, 0)
        for whole, parts in PARTS
        if name in parts
    )


def _disagree(ordered: Sequence[Telling]) -> bool:
    """Whether two that counted tokens counted differently."""
    counts = {
        (one.usage.get("input_tokens", 0), one.usage.get("output_tokens", 0))
        for one in ordered
        if one.is_known
    }
    return len(counts) > 1
