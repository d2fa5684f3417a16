"""A change as people read it: what of the thing was one way before and another way after. Pure."""

import json
from collections.abc import Iterator
from typing import Any

from app.access.changelog import Change

MOST, LONGEST = 30, 200


def differing(change: Change) -> list[tuple[str, str | None, str | None]]:
    """(name, before, after) of what differs; None where there was, or is, nothing."""
    before, after = dict(_flat(change.before)), dict(_flat(change.after))
    names = list(before) + [name for name in after if name not in before]
    return [
        (name, before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    ][:MOST]


def _flat(state: dict[str, Any] | None, path: str = "") -> Iterator[tuple[str, str]]:
    """What a state says, by path, without what it says nothing of."""
    for name, value in (state or {}).items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{name}.")
        elif value is not None:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield f"{path}{name}", text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
