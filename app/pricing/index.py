"""Find a provider's entry by a spelling: fixed names first, then the patterns of the source."""

from app.pricing.entries import Entry
from app.pricing.genai import Pattern, Shop
from app.pricing.names import is_exact


class Index:
    """One provider's entries by spelling; the first listed wins, as in the source."""

    def __init__(self, shop: Shop) -> None:
        self.entries = [listed.entry for listed in shop.listed]
        self._exact: dict[str, int] = {}
        self._loose: list[tuple[int, Pattern]] = []
        for place, listed in enumerate(shop.listed):
            for name in listed.names:
                self._exact.setdefault(name, place)
            self._loose += [(place, pattern) for pattern in listed.patterns]
        self._recognised = shop.names
        self._patterns = shop.patterns

    def find(self, name: str) -> tuple[Entry, bool] | None:
        """The entry of a spelling, and whether nothing of the name was left unexplained."""
        exact = self._exact.get(name)
        for place, pattern in self._loose:
            if exact is not None and exact <= place:
                break
            span = pattern.span(name)
            if span is not None:
                entry = self.entries[place]
                sure = name == entry.model.lower() or is_exact(name, *span, pattern.tuned)
                return entry, sure
        return None if exact is None else (self.entries[exact], True)

    def recognises(self, name: str) -> bool:
        """Whether a bare model name is this provider's own."""
        return name in self._recognised or any(pattern.span(name) for pattern in self._patterns)
