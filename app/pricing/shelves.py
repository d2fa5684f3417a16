"""A price list ready to be searched: which entries a spelling means, the best layer first."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from app.pricing.conditions import PRICED_CONDITIONS, SEARCH_CONTEXT
from app.pricing.entries import Entry
from app.pricing.index import DATED, LOOSE, Index, Pattern
from app.pricing.names import (
    AS_WRITTEN,
    DATE_DROPPED,
    GATEWAYS,
    LONGEST_NAME,
    Candidate,
    candidates,
    provider_id,
)
from app.pricing.rows import Listing, PriceList, PriceRow

LAYERS = ("own", "overlay", "genai", "extract")
"""Best first; the last one names models in more detail than it knows their prices over time."""
LAST_LAYER, DEFAULT_LAYER = "extract", "default"


class Hit(NamedTuple):
    """An entry that a spelling means, with the rows that join it, and how the spelling was read."""

    entry: Entry
    added: tuple[PriceRow, ...]
    foreign: bool
    rule: str
    sure: bool


class Shelves:
    """All listings of a price list by layer and provider; shared by every catalogue made of it."""

    __slots__ = ("_added", "_known", "_layers", "_recognised", "conditions", "lends", "price_list")

    def __init__(self, price_list: PriceList) -> None:
        self.price_list = price_list
        sorted_out: dict[str, dict[str, list[Listing]]] = {}
        adding: dict[str, list[Listing]] = {}
        self.conditions = {*PRICED_CONDITIONS, SEARCH_CONTEXT}
        for listing in price_list.listings:
            shelf = adding if listing.adds else sorted_out.setdefault(listing.layer, {})
            shelf.setdefault(listing.provider, []).append(listing)
            self.conditions.update(key for row in listing.rows for key, _ in row.when)
        layers = sorted(sorted_out, key=lambda name: (_rank(name), name))
        self._layers = {
            layer: {provider: Index(found) for provider, found in sorted_out[layer].items()}
            for layer in layers
        }
        self._added = {provider: Index(found) for provider, found in adding.items()}
        self.lends = {provider.id: provider.lends for provider in price_list.providers}
        self._known = set(self.lends).union(*(set(found) for found in self._layers.values()))
        self._known.discard("*")
        self._recognised = [
            (provider.id, frozenset(provider.names), [Pattern(each) for each in provider.patterns])
            for provider in price_list.providers
        ]

    def entries(self) -> Iterator[Entry]:
        """Every entry that is a price by itself, the best layer first."""
        for layer in self._layers.values():
            for index in layer.values():
                yield from index.entries

    def adding(self) -> Iterator[Entry]:
        """Every entry that only adds to others."""
        for index in self._added.values():
            yield from index.entries

    def find(self, provider: str | None, model: str) -> list[Hit]:
        """The entries of a spelling: sure ones before guesses, in each the best layer first.

        A whole name beats one without its date, but in the last layer: the others know dated names
        by their family, with its history.
        """
        if len(model) > LONGEST_NAME:
            return []
        read = list(self._readings(provider, model))
        found = []
        for place, (layer, indexes) in enumerate(self._layers.items()):
            if layer == DEFAULT_LAYER:
                continue
            best = self._best(read, indexes)
            if best is not None:
                hit, match = best
                worth = min(match, DATED) if layer == LAST_LAYER else match
                found.append((not hit.sure, layer == LAST_LAYER, -worth, place, hit))
        return [each[-1] for each in sorted(found, key=lambda each: each[:4])]

    def defaults(self, providers: Iterable[str]) -> list[Hit]:
        """What providers, or anybody, charge for models that no other listing names."""
        indexes = self._layers.get(DEFAULT_LAYER, {})
        return [
            Hit(entry, (), False, "default price of the provider", False)
            for named in dict.fromkeys((*providers, "*"))
            if named in indexes
            for entry in indexes[named].entries
        ]

    def _best(self, read: list[Candidate], indexes: dict[str, Index]) -> tuple[Hit, int] | None:
        """What the spelling means in one layer.

        The first reading that matches decides the entry. A later one can only show that the match
        was not a guess: a pattern finds a model inside an ARN, its last part is the name.
        """
        best: tuple[Hit, int] | None = None
        for candidate in read:
            found = self._look_up(candidate, indexes, read)
            if found is not None and (best is None or found[0].entry is best[0].entry):
                best = found
            if best is not None and best[0].sure:
                break
        return best

    def _look_up(
        self, candidate: Candidate, indexes: dict[str, Index], read: list[Candidate]
    ) -> tuple[Hit, int] | None:
        """Find a reading with its provider, then with those whose models that provider serves."""
        for host in (candidate.provider, *self.lends.get(candidate.provider, ())):
            index = indexes.get(host)
            found = index.find(candidate.model) if index else None
            if found is not None:
                entry, match = found
                names = {each.model for each in read if each.provider == candidate.provider}
                added = self._joining(candidate.provider, host, names | {entry.listing.model})
                rule = candidate.rule
                if match == LOOSE:
                    rule += ", beyond the known spelling"
                elif match == DATED and rule == AS_WRITTEN:
                    rule = "date or version dropped"
                elif rule == DATE_DROPPED:
                    match = DATED
                foreign = host != candidate.provider
                sure = candidate.sure and match > LOOSE
                return Hit(entry, added, foreign, rule, sure), match
        return None

    def _joining(self, provider: str, host: str, names: set[str]) -> tuple[PriceRow, ...]:
        """The rows that join an entry; of a lender's only those without conditions carry over."""
        if not self._added:
            return ()
        spellings = {name.lower() for name in names}
        rows: list[PriceRow] = []
        for named in dict.fromkeys((provider, host)):
            index = self._added.get(named)
            for entry in index.all_of(*spellings) if index else ():
                rows += [row for row in entry.listing.rows if named == provider or not row.when]
        return tuple(rows)

    def _readings(self, provider: str | None, model: str) -> Iterator[Candidate]:
        known = self._known.__contains__
        named = list(candidates(provider, model, known, self.lends))
        yield from named
        name = model.strip().lower()
        if provider_id(provider) not in GATEWAYS:
            return
        for host, names, patterns in self._recognised:
            if name in names or any(pattern.span(name) for pattern in patterns):
                for candidate in candidates(host, name, known, self.lends):
                    yield candidate._replace(rule="provider told by the model", sure=False)
                return


def _rank(layer: str) -> int:
    return LAYERS.index(layer) if layer in LAYERS else len(LAYERS)
