"""Find a provider's entry in one layer by a spelling: whole names first, then the patterns."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from app.pricing.entries import Entry
from app.pricing.names import is_exact
from app.pricing.rows import Listing

WHOLE, DATED, LOOSE = 2, 1, 0
"""How much of a spelling a hit explains: all of it; all but a date or a version; less than that."""

_PLAIN = re.compile(r"(\^?)((?:[^\\.^$*+?{}\[\]|()]|\\[^A-Za-z0-9])+)(\$?)")


class Pattern:
    """One way a model may be spelled that is not one fixed name: all parts have to be found.

    Most parts are a fixed beginning, end or middle, and are looked for without an expression.
    """

    __slots__ = ("_parts", "_texts", "tuned")

    def __init__(self, texts: tuple[str, ...]) -> None:
        self._texts = texts
        self._parts: tuple[_Part, ...] | None = None
        self.tuned = any(text.startswith("^ft:") for text in texts)

    def span(self, name: str) -> tuple[int, int] | None:
        """What of a name the pattern accounts for."""
        if self._parts is None:
            self._parts = tuple([_part(text) for text in self._texts])
        found = [part.span(name) for part in self._parts]
        spans = [span for span in found if span is not None and span[0] < span[1]]
        if None in found or not spans:
            return None
        return min(start for start, _ in spans), max(end for _, end in spans)


class _Part(NamedTuple):
    """A fixed text and where it stands, or an expression."""

    text: str
    first: bool
    last: bool
    expression: re.Pattern[str] | None

    def span(self, name: str) -> tuple[int, int] | None:
        if self.expression is not None:
            found = self.expression.search(name)
            return found.span() if found else None
        size = len(self.text)
        if self.first:
            hit = name == self.text if self.last else name.startswith(self.text)
            return (0, size) if hit else None
        start = len(name) - size if self.last else name.find(self.text)
        return (start, start + size) if start >= 0 and name.startswith(self.text, start) else None


def _part(text: str) -> _Part:
    plain = _PLAIN.fullmatch(text)
    if plain is None:
        return _Part("", False, False, re.compile(text))
    return _Part(re.sub(r"\\(.)", r"\1", plain[2]), bool(plain[1]), bool(plain[3]), None)


class Index:
    """One provider's entries in one layer, by spelling; of the patterns the first listed wins."""

    __slots__ = ("_loose", "_whole", "entries")

    def __init__(self, listings: Iterable[Listing]) -> None:
        self.entries = [Entry(listing) for listing in listings]
        self._whole: dict[str, int] = {}
        self._loose: list[tuple[int, Pattern]] = []
        for place, entry in enumerate(self.entries):
            for name in entry.listing.names:
                self._whole.setdefault(name, place)
            self._loose += [(place, Pattern(texts)) for texts in entry.listing.patterns]

    def find(self, name: str) -> tuple[Entry, int] | None:
        """The entry of a spelling, and how much of the name it explains."""
        place = self._whole.get(name)
        if place is not None:
            return self.entries[place], WHOLE
        for place, pattern in self._loose:
            span = pattern.span(name)
            if span is not None:
                entry = self.entries[place]
                if span == (0, len(name)) or name == entry.listing.model.lower():
                    return entry, WHOLE
                return entry, DATED if is_exact(name, *span, pattern.tuned) else LOOSE
        return None

    def all_of(self, *names: str) -> list[Entry]:
        """Every entry that one of these spellings may mean, in order."""
        places = {self._whole[name] for name in names if name in self._whole}
        places |= {
            place
            for place, pattern in self._loose
            if any(pattern.span(name) is not None for name in names)
        }
        return [self.entries[place] for place in sorted(places)]
