"""Whom a call belongs to, and under which id it is known, where no field of ours says so."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

from app.access.keys import Key
from app.ingest.foreign.tally import Tally

LONGEST_ID = 200
"""A longer id becomes a digest: LiteLLM's Responses ids have 430 characters."""
LONGEST_NAME = 256

Source = Mapping[str, object]
"""Names and values: flat ones such as a span's attributes, or JSON, where dots lead inwards."""


class Identity:
    """Looks for the user, the team and the session under an ordered list of names each.

    `unknown` is the user that calls of nobody are booked to; empty refuses them.
    """

    def __init__(self, users: str, teams: str, sessions: str, unknown: str, tally: Tally) -> None:
        self._users, self._teams, self._sessions = (
            _names(each) for each in (users, teams, sessions)
        )
        self._unknown, self._tally = unknown, tally

    def user(self, key: Key, origin: str, *sources: Source) -> str | None:
        """The first source that names a user wins, in each the first name; then the key's user.

        None where nobody is named and calls of nobody are refused; `origin` is for the counts.
        """
        found = self.named(*sources) or key.user_id
        if found is None:
            self._tally.add(origin, "unknown_user")
        return found or self._unknown or None

    def named(self, *sources: Source) -> str | None:
        """The user that a source names, or None."""
        return _first(self._users, sources)

    def team(self, *sources: Source) -> str | None:
        """The team that a source names, or None."""
        return _first(self._teams, sources)

    def session(self, *sources: Source) -> str | None:
        """The session that a source names, or None."""
        return _first(self._sessions, sources)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _first(names: Sequence[str], sources: Iterable[Source]) -> str | None:
    for source in sources:
        for name in names:
            if (found := text_of(found_at(source, name))) is not None:
                return found
    return None


def found_at(source: Source, name: str) -> object:
    """The value under a name: a key that has its dots, or a path into nested objects."""
    if name in source:
        return source[name]
    head, mark, rest = name.partition(".")
    while mark:
        inner = source.get(head)
        if isinstance(inner, dict) and (found := found_at(inner, rest)) is not None:
            return found
        more, mark, rest = rest.partition(".")
        head = f"{head}.{more}"
    return None


def text_of(value: object) -> str | None:
    """A name as text: strings, and whole numbers as some clients send them; else None."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < 10**18 else None
    return None


def event_id(*parts: str) -> str:
    """One id of several parts, the same for the same parts, at most 200 characters long.

    A bar inside any part but the last is written `%7C`, so that no two lists have one id.
    """
    *first, last = parts
    joined = "|".join([*(part.replace("%", "%25").replace("|", "%7C") for part in first), last])
    if len(joined) <= LONGEST_ID:
        return joined
    return f"sha256:{sha256(joined.encode('utf-8', 'surrogatepass')).hexdigest()}"
