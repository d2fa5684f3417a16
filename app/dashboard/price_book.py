"""The price book: every price that is known, found by provider, model or name, in memory. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from app.core.errors import NotFound
from app.db.engine import Tx
from app.pricing.catalog import Catalog
from app.pricing.rows import Alias, Listing, Override, PriceRow
from app.pricing.store import Stored, find_entries

ORIGINS = ("override", "overlay", "genai", "extract", "default")
"""The layers of prices, the one that wins first."""
MOST_NAMES = 60


class BookRow(NamedTuple):
    """One price: where it is from, what it is for, and its rates.

    `match` says how a call's model is recognised. `adds` is no price by itself: it adds to others.
    """

    origin: str
    provider: str
    model: str
    name: str
    match: str
    row: PriceRow
    user_id: str | None = None
    team_id: str | None = None
    is_default: bool = False
    adds: bool = False
    created_at: datetime | None = None
    retired_at: datetime | None = None

    @property
    def whose(self) -> str:
        """For whom it holds; empty where it holds for everyone."""
        if self.user_id is not None:
            return f"user {self.user_id}"
        return "" if self.team_id is None else f"team {self.team_id}"


def found_in(catalog: Catalog, text: str, origin: str) -> list[BookRow]:
    """The prices whose provider, model or other names have every word of the text, stated first."""
    words = text.lower().split()
    rows: list[BookRow] = []
    if origin in ("", "override"):
        for one in catalog.overrides:
            named = f"{one.provider}/{one.model} {one.row.source} {one.user_id} {one.team_id}"
            if _has(named.lower(), words):
                rows.append(of_override(one))
    if origin != "override":
        rows += _listed(catalog.price_list.listings, words, origin)
    return rows


def _listed(listings: Iterable[Listing], words: Sequence[str], origin: str) -> Iterator[BookRow]:
    for one in listings:
        if origin and one.layer != origin:
            continue
        if words and not _has(_named(one), words):
            continue
        match = match_of(one)
        for row in one.rows:
            yield of_listing(one, row, match)


def _named(listing: Listing) -> str:
    named = (f"{listing.provider}/{listing.model}", listing.name, *listing.names)
    return " ".join(named).lower()


def _has(text: str, words: Sequence[str]) -> bool:
    return all(word in text for word in words)


def match_of(listing: Listing) -> str:
    """How a call's model is recognised as this one, in short."""
    if listing.model == "*":
        return "every model of the provider that nothing else prices"
    others = len(listing.names) - (listing.model.lower() in listing.names)
    said = ["exact"]
    if others > 0:
        said.append(f"{others} other name{'' if others == 1 else 's'}")
    if listing.patterns:
        said.append(f"{len(listing.patterns)} pattern{'' if len(listing.patterns) == 1 else 's'}")
    return ", ".join(said)


def of_override(one: Override) -> BookRow:
    """A stated price as a row of the book."""
    return BookRow(
        *("override", one.provider, one.model, one.model, _stated(one.match, one.model), one.row),
        user_id=one.user_id,
        team_id=one.team_id,
        is_default=one.default,
        created_at=one.created_at,
    )


def _stated(match: str, model: str) -> str:
    if model == "*":
        return "every model"
    return {"prefix": f"begins with {model}", "regex": f"regex {model}"}.get(match, "exact")


def of_listing(listing: Listing, row: PriceRow, match: str) -> BookRow:
    """A listed price as a row of the book."""
    names = (listing.layer, listing.provider, listing.model, listing.name, match, row)
    return BookRow(*names, is_default=listing.layer == "default", adds=listing.adds)


class Entry(NamedTuple):
    """One price with every way in which a call may name its model."""

    book: BookRow
    names: Sequence[str]
    patterns: Sequence[str]
    aliases: Sequence[Alias]


async def read_entry(tx: Tx, catalog: Catalog, price_id: str) -> Entry:
    """A price by its id, also one that older events cite and nothing uses any more.

    Raises:
        NotFound: there never was such a price.
    """
    for listing in catalog.price_list.listings:
        for row in listing.rows:
            if row.id == price_id:
                return _entry(catalog, of_listing(listing, row, match_of(listing)), listing)
    stored = (await find_entries(tx, [price_id])).get(price_id)
    if stored is None:
        raise NotFound("no such price", id=price_id)
    return _entry(catalog, _of_stored(stored), None)


def _of_stored(stored: Stored) -> BookRow:
    return BookRow(
        *(stored.layer if stored.version_id else "override", stored.provider, stored.model),
        *(stored.model, _stated(stored.match or "exact", stored.model), stored.row),
        user_id=stored.user_id,
        team_id=stored.team_id,
        is_default=stored.is_default,
        created_at=stored.created_at,
        retired_at=stored.retired_at,
    )


def _entry(catalog: Catalog, book: BookRow, listing: Listing | None) -> Entry:
    names = () if listing is None else listing.names[:MOST_NAMES]
    patterns = [] if listing is None else [" and ".join(one) for one in listing.patterns]
    means = {book.model.lower(), f"{book.provider}/{book.model}".lower()}
    aliases = [one for one in catalog.aliases if one.resolves_to in means]
    return Entry(book, names, patterns[:MOST_NAMES], aliases)


def counts_by_origin(catalog: Catalog) -> Mapping[str, int]:
    """How many models each layer prices."""
    found = dict.fromkeys(ORIGINS, 0)
    found["override"] = len(catalog.overrides)
    for one in catalog.price_list.listings:
        found[one.layer] = found.get(one.layer, 0) + 1
    return found
