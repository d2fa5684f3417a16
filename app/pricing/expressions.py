"""Judge a regular expression before names are matched with it: it must not be able to hang. Pure.

What backtracks is refused by its shape: a repeat inside a repeat, an alternative inside a repeat,
more than a few repeats of uncertain length. What is left takes at most the square of a name's
length (512 characters), some milliseconds, once per name.
"""

import re
import warnings
from collections.abc import Iterator
from re import _constants as kinds  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

LONGEST = 200
MOST_UNBOUNDED = 2
MOST_UNCERTAIN = 6
MOST_BRANCHES = 6
_REPEATS = (kinds.MAX_REPEAT, kinds.MIN_REPEAT, kinds.POSSESSIVE_REPEAT)
_REFUSED = {
    kinds.GROUPREF: "refers back to a group",
    kinds.GROUPREF_EXISTS: "refers back to a group",
    kinds.ASSERT: "looks ahead or behind",
    kinds.ASSERT_NOT: "looks ahead or behind",
}
_MANY = 64


def complaint_about(expression: str) -> str | None:
    """Why the expression is not taken, or None."""
    if len(expression) > LONGEST:
        return f"a regular expression has {LONGEST} characters at most"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            re.compile(expression)
            tree = parser.parse(expression)
    except (re.error, RecursionError, OverflowError, Warning) as error:
        return f"not a regular expression: {error}"[:200]
    nodes = list(_nodes(tree, repeated=False))
    for kind, _, repeated in nodes:
        if kind in _REFUSED:
            return f"this regular expression {_REFUSED[kind]}, which could take for ever"
        if repeated and kind in (*_REPEATS, kinds.BRANCH):
            return "a repeat must not hold another repeat or alternatives: it could take for ever"
    repeats = [value for kind, value, _ in nodes if kind in _REPEATS]
    uncertain = [value for value in repeats if value[0] != value[1]]
    unbounded = [value for value in uncertain if value[1] > _MANY]
    branches = [value for kind, value, _ in nodes if kind is kinds.BRANCH]
    if len(unbounded) > MOST_UNBOUNDED or len(uncertain) > MOST_UNCERTAIN:
        return f"more than {MOST_UNBOUNDED} open repeats or {MOST_UNCERTAIN} of uncertain length"
    if len(branches) > MOST_BRANCHES:
        return f"more than {MOST_BRANCHES} places with alternatives"
    return None


def _nodes(tree: Any, *, repeated: bool) -> Iterator[tuple[Any, Any, bool]]:
    """Every node with its kind, what it holds, and whether a repeat holds it."""
    for kind, value in tree:
        yield kind, value, repeated
        if kind in _REPEATS:
            yield from _nodes(value[2], repeated=repeated or value[1] > 1)
        elif kind is kinds.SUBPATTERN:
            yield from _nodes(value[3], repeated=repeated)
        elif kind is kinds.ATOMIC_GROUP:
            yield from _nodes(value, repeated=repeated)
        elif kind is kinds.BRANCH:
            for each in value[1]:
                yield from _nodes(each, repeated=repeated)
