"""Counters by name, as callers state them, to one tuple; every refusal names its counter."""

from collections.abc import Mapping
from math import isfinite

from app.core.counters import (
    COUNTERS,
    INDEX,
    MAX_COUNT,
    MICROS_PER_SECOND,
    SECONDS,
    Usage,
    part_beyond_whole,
)
from app.core.errors import InvalidInput

MAX_SECONDS = 10**9
_CACHE_WRITE = INDEX["cache_write_tokens"]
_SPLIT = (INDEX["cache_write_5m_tokens"], INDEX["cache_write_1h_tokens"])


def usage_of(said: Mapping[str, object]) -> Usage:
    """The counters in their order, durations in microseconds, as an event's would be read.

    Raises:
        InvalidInput: unknown names, values that are no counts, parts beyond their whole.
    """
    wrong: list[dict[str, str]] = []
    usage = [0] * len(COUNTERS)
    for name, value in said.items():
        place = INDEX.get(name)
        why = "unknown counter" if place is None else _refusal(name, value)
        if why is not None:
            wrong.append({"pointer": f"/usage/{_escaped(name)}", "detail": why})
        elif place is not None:
            number: float = value  # type: ignore[assignment]
            usage[place] = round(number * MICROS_PER_SECOND) if name in SECONDS else int(number)
    if wrong:
        detail = f"{wrong[0]['pointer'][1:]}: {wrong[0]['detail']}"
        raise InvalidInput(detail, errors=wrong[:50])
    if not usage[_CACHE_WRITE]:
        usage[_CACHE_WRITE] = sum(usage[place] for place in _SPLIT)
    if beyond := part_beyond_whole(tuple(usage)):
        part, whole = beyond
        raise InvalidInput.at(f"/usage/{part}", f"{part} is more than what contains it, {whole}")
    return tuple(usage)


def _refusal(name: str, value: object) -> str | None:
    """What is wrong with the value of a known counter, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return "a number is expected"
    if name in SECONDS:
        if not 0 <= value <= MAX_SECONDS:
            return "seconds from 0 to 10^9 are expected"
        exact = value * MICROS_PER_SECOND
        if abs(exact - round(exact)) > 1e-3 + exact * 1e-12:
            return "seconds have six decimal places at most"
        return None
    if not 0 <= value <= MAX_COUNT or value != int(value):
        return "a whole number from 0 to 2^53-1 is expected"
    return None


def _escaped(name: str) -> str:
    return name[:64].replace("~", "~0").replace("/", "~1")
