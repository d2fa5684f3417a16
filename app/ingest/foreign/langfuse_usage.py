"""What a generation of Langfuse's used and cost, in the older and the newer way to say so."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from app.core.counters import SECONDS
from app.core.errors import InvalidInput
from app.ingest.foreign.costs import Weighed, summed, weigh
from app.ingest.foreign.counts import Counts, counts_of, number_of
from app.ingest.foreign.metered import object_of

_UNITS = {
    "CHARACTERS": ("input_characters", 1),
    "IMAGES": ("output_images", 1),
    "SECONDS": ("audio_seconds", 1),
    "MILLISECONDS": ("audio_seconds", 1000),
    "REQUESTS": ("requests", 1),
}
"""What is counted where it is not tokens, and how many of the unit make one."""
_OLDER = {"input": "prompt_tokens", "output": "completion_tokens", "total": "total_tokens"}
_OPENAI = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")
_INPUT, _OUTPUT = "input_tokens", "output_tokens"
_READ = (_INPUT, "cache_read_tokens")
_WRITTEN = (_INPUT, "cache_write_tokens")
_PARTS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("cache_read_input_tokens", "input_cached_tokens", "input_cache_read", "cached_tokens"),
        _READ,
    ),
    **dict.fromkeys(
        ("cache_creation_input_tokens", "input_cache_creation", "cache_write_input_tokens"),
        _WRITTEN,
    ),
    **dict.fromkeys(
        ("input_cache_creation_5m", "input_ephemeral_5m_input_tokens"),
        (*_WRITTEN, "cache_write_5m_tokens"),
    ),
    **dict.fromkeys(
        ("input_cache_creation_1h", "input_ephemeral_1h_input_tokens"),
        (*_WRITTEN, "cache_write_1h_tokens"),
    ),
    **dict.fromkeys(
        (
            *("output_reasoning_tokens", "output_reasoning", "reasoning_tokens"),
            "thoughts_token_count",
        ),
        (_OUTPUT, "output_reasoning_tokens"),
    ),
    **{
        f"{side}_{name}": (f"{side}_tokens", f"{side}_{kind}_tokens")
        for side in ("input", "output")
        for kind in ("audio", "image")
        for name in (kind, f"{kind}_tokens", f"modality_{kind}")
    },
}
"""The counters that Langfuse's own names of parts are in, the whole first."""
_OTHERS = {"cached_modality_": _READ, "input": (_INPUT,), "output": (_OUTPUT,)}
"""The same by how other names begin."""


def usage_of(call: Mapping[str, Any], pointer: str) -> Counts:
    """The counters of a generation: `usageDetails`, or the older `usage`.

    Raises:
        InvalidInput: something in them is no count, or of a unit that nobody knows.
    """
    details = object_of(call.get("usageDetails"), f"{pointer}/usageDetails")
    if details:
        return details_of(details, f"{pointer}/usageDetails")
    usage, where = object_of(call.get("usage"), f"{pointer}/usage"), f"{pointer}/usage"
    unit = str(usage.get("unit") or "TOKENS").upper()
    if unit != "TOKENS":
        return _in_units(usage, unit, where)
    renamed = {
        ours: number_of(usage[theirs], f"{where}/{theirs}")
        for theirs, ours in _OLDER.items()
        if usage.get(theirs) not in (None, "")
    }
    return counts_of({**renamed, **{key: v for key, v in usage.items() if v is not None}}, where)


def _in_units(usage: Mapping[str, Any], unit: str, pointer: str) -> Counts:
    """What is not counted in tokens: the total, which is input and output unless it is told."""
    if unit not in _UNITS:
        known = ", ".join(_UNITS)
        raise InvalidInput.at(f"{pointer}/unit", f"TOKENS, {known} were looked for")
    counter, size = _UNITS[unit]
    fractions = counter in SECONDS
    found = {
        name: number_of(usage[name], f"{pointer}/{name}", fractions)
        for name in _OLDER
        if usage.get(name) not in (None, "")
    }
    count = found.pop("total", 0) or sum(found.values())
    count = round(count / size, 6) if fractions else count
    return Counts({counter: count} if count else {}, bool(count), True)


def details_of(details: Mapping[str, Any], pointer: str) -> Counts:
    """The counters of usage details.

    Under OpenAI's names a whole contains its parts; under Langfuse's own (`input`,
    `input_cached_tokens`, `output`, …) each counts what the others do not, unless the `total` is
    less than all of them: then some stand within `input` or `output`.

    Raises:
        InvalidInput: something in them is no count.
    """
    if any(details.get(name) is not None for name in _OPENAI):
        return counts_of(details, pointer)
    parts: dict[tuple[str, ...], int] = {}
    for name, value in details.items():
        counters = _counters_of(name)
        if value is not None and not isinstance(value, dict) and counters:
            count = int(number_of(value, f"{pointer}/{name}"))
            parts[counters] = parts.get(counters, 0) + count
    total = int(number_of(details.get("total") or 0, f"{pointer}/total"))
    if not parts:
        parts = {(_INPUT,): total}
    within = _within(parts, total)
    usage: dict[str, int | float] = {}
    for counters, count in parts.items():
        for counter in counters[1:] if counters in within else counters:
            usage[counter] = usage.get(counter, 0) + count
    split = any(counters[:2] in (_READ, _WRITTEN) for counters in parts)
    return Counts({name: n for name, n in usage.items() if n}, any(usage.values()), split)


def _counters_of(name: str) -> tuple[str, ...]:
    name = name.lower()
    if name in _PARTS:
        return _PARTS[name]
    return next((found for start, found in _OTHERS.items() if name.startswith(start)), ())


def _within(parts: Mapping[tuple[str, ...], int], total: int) -> tuple[tuple[str, ...], ...]:
    """The fewest parts without which all the others add up to the total; none if none do."""
    beyond = sum(parts.values()) - total
    inner = [counters for counters, count in parts.items() if len(counters) > 1 and count]
    for many in range(1, len(inner) + 1 if total and beyond > 0 else 0):
        for some in combinations(inner, many):
            if sum(map(parts.__getitem__, some)) == beyond and _fit(some, parts):
                return some
    return ()


def _fit(some: Iterable[tuple[str, ...]], parts: Mapping[tuple[str, ...], int]) -> bool:
    """Whether these parts are no more than what stands for the whole of each."""
    held = {_INPUT: 0, _OUTPUT: 0}
    for counters in some:
        held[counters[0]] += parts[counters]
    return all(count <= parts.get((whole,), 0) for whole, count in held.items())


def cost_of(call: Mapping[str, Any], counts: Counts, trust: str, pointer: str) -> Weighed:
    """The cost of a generation: the stated total, or the sum of what is stated of its parts.

    Raises:
        InvalidInput: something in it is no amount of money.
    """
    said, where = object_of(call.get("costDetails"), f"{pointer}/costDetails"), "costDetails"
    total, parts = "total", [name for name in said if name != "total"]
    if not said:
        said, where = object_of(call.get("usage"), f"{pointer}/usage"), "usage"
        total, parts = "totalCost", ["inputCost", "outputCost"]
    given = said.get(total)
    if given in (None, ""):
        given = summed({name: said.get(name) for name in parts}, f"{pointer}/{where}")
    return weigh(
        given,
        tokens=counts.tokens,
        complete=counts.split,
        trust=trust,
        pointer=f"{pointer}/{where}/{total}",
    )
