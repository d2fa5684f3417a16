"""Reading attributes: the first of several names that says something of the type looked for."""

from collections.abc import Sequence
from typing import Any

import msgspec

from app.core.counters import MAX_COUNT
from app.ingest.otlp.spans import Attributes, Value

_LONGEST_NUMBER = 32
MAX_JSON = 1 << 20
_json = msgspec.json.Decoder()


def text_in(attributes: Attributes, names: Sequence[str], longest: int = 256) -> str:
    """The first of these that is text, cleaned and cut; empty where none is."""
    for name in names:
        value = attributes.get(name)
        if isinstance(value, str) and (found := clean(value, longest)):
            return found
    return ""


def clean(text: str, longest: int = 256) -> str:
    """Text without control characters, at most so many characters long, and twice that in bytes."""
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text[: 4 * longest])
    text = text.strip()[:longest]
    if not text.isascii():
        text = text.encode("utf-8", "ignore")[: 2 * longest].decode("utf-8", "ignore")
    return text


def number_in(attributes: Attributes, names: Sequence[str]) -> float | None:
    """The first of these that is a finite number, or text that is one."""
    for name in names:
        value = attributes.get(name)
        if isinstance(value, bool) or value is None:
            continue
        if isinstance(value, str) and len(value) > _LONGEST_NUMBER:
            continue
        if isinstance(value, int | float | str):
            try:
                found = float(value)
            except (ValueError, OverflowError):
                continue
            if abs(found) < 1e18:
                return found
    return None


def count_in(attributes: Attributes, names: Sequence[str]) -> int | None:
    """The first of these that is a count: a whole number from 0, or text that is one."""
    for name in names:
        found = count(attributes.get(name))
        if found is not None:
            return found
    return None


def count(value: Value) -> int | None:
    """A value as a count; None where it is none."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit() and len(value) <= _LONGEST_NUMBER):
            return None
        value = int(value)
    if isinstance(value, float):
        if not value.is_integer():
            return None
        value = int(value)
    if isinstance(value, int) and 0 <= value <= MAX_COUNT:
        return value
    return None


def flag_in(attributes: Attributes, names: Sequence[str]) -> bool:
    """Whether any of these says yes."""
    return any(attributes.get(name) in (True, "true", "True") for name in names)


def object_in(attributes: Attributes, name: str) -> dict[str, Any]:
    """The JSON object that an attribute holds as text or is as a map; empty where it is neither."""
    value = attributes.get(name)
    if isinstance(value, dict):
        return value
    if not isinstance(value, str) or len(value) > MAX_JSON or value.lstrip()[:1] != "{":
        return {}
    try:
        found = _json.decode(value)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return {}
    return found if isinstance(found, dict) else {}
