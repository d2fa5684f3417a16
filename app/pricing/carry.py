"""Take over a newer price list without touching what was charged before. Pure.

A refresh is no correction of the past: where a newer list says something else about a model, the
older rows end and the newer ones begin, at the instant the newer list itself gives if that lies
after the import before, else now. What did not change is carried over as it is.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from app.pricing.rows import Listing, PriceList, PriceRow

Key = tuple[str, str, str, bool, int]
"""Layer, provider, model, whether it adds, and which of several such listings it is."""


class Carried(NamedTuple):
    """The list to use from now on, and the instant at which each changed listing's rows change."""

    price_list: PriceList
    changed: Mapping[Key, datetime]
    new: tuple[Key, ...]
    vanished: tuple[Key, ...]


def carried(old: PriceList, new: PriceList, at: datetime, since: datetime | None = None) -> Carried:
    """Go on from `old` with what `new` says; `since` is when `old` was imported.

    For every instant before `at` (before the newer list's own date, if it has one after `since`)
    the listings of `old` say what they said.
    """
    before, after = keyed(old.listings), keyed(new.listings)
    listings, changed, added = [], {}, []
    for key, listing in after.items():
        former = before.get(key)
        if former is None:
            added.append(key)
            listings.append(listing)
            continue
        cut = _parting(former.rows, listing.rows, at, since)
        if cut is None:
            listings.append(listing._replace(rows=former.rows))
            continue
        changed[key] = cut
        rows = (*clipped(former.rows, None, cut), *seen(listing.rows, cut, None))
        listings.append(listing._replace(rows=rows))
    vanished = []
    for key, former in before.items():
        if key in after:
            continue
        if within(former.rows, at, None):
            vanished.append(key)
        listings.append(former._replace(rows=clipped(former.rows, None, at)))
    merged = PriceList(new.version, new.providers, tuple(listings))
    return Carried(merged, changed, tuple(added), tuple(vanished))


def keyed(listings: Iterable[Listing]) -> dict[Key, Listing]:
    """Listings by what makes them the same from one list to the next."""
    seen: dict[tuple[str, str, str, bool], int] = defaultdict(int)
    found = {}
    for listing in listings:
        name = (listing.layer, listing.provider, listing.model, listing.adds)
        found[*name, seen[name]] = listing
        seen[name] += 1
    return found


def _parting(
    old: Sequence[PriceRow], new: Sequence[PriceRow], at: datetime, since: datetime | None
) -> datetime | None:
    """From when the rows differ that hold from `at` on; None where they do not."""
    if [row[1:-1] for row in old] == [row[1:-1] for row in new]:  # all but id and source
        return None
    if within(old, at, None) == within(new, at, None):
        return None
    if since is None:
        return at
    dated = sorted(row.start for row in new if row.start is not None and since < row.start < at)
    for cut in dated:
        if within(old, since, cut) == within(new, since, cut):
            return cut
    return at


def clipped(
    rows: Iterable[PriceRow], start: datetime | None, end: datetime | None
) -> tuple[PriceRow, ...]:
    """The rows as far as they lie between two instants; those outside are left out."""
    found = []
    for row in rows:
        begin = row.start if start is None else max(row.start or start, start)
        until = row.end if end is None else min(row.end or end, end)
        if begin is None or until is None or begin < until:
            found.append(row._replace(start=begin, end=until))
    return tuple(found)


def within(rows: Iterable[PriceRow], start: datetime, end: datetime | None) -> tuple[PriceRow, ...]:
    """What rows say between two instants, so that lists that say the same are equal."""
    return tuple(row._replace(id="", source="") for row in seen(rows, start, end))


def seen(rows: Iterable[PriceRow], start: datetime, end: datetime | None) -> tuple[PriceRow, ...]:
    """The rows clipped, without those that never apply.

    Of the rows without conditions the last that holds applies: one that holds all the time hides
    those before it.
    """
    found: list[PriceRow] = []
    hidden = False
    for row in reversed(clipped(rows, start, end)):
        if not row.when:
            if hidden:
                continue
            always = row.start == start and row.end == end
            hidden = always and not row.windows and not row.weekdays
        found.append(row)
    return tuple(reversed(found))
