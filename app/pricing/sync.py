"""Take a price list over into the database as a new version, in one transaction.

Everything is compiled before anything is written, and what was charged before stays as it was: see
`carry.py`. A list that would move too much is left alone unless that is meant.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import NamedTuple

from app.db.changes import announce
from app.db.engine import Database, Tx
from app.pricing.carry import carried
from app.pricing.catalog import Catalog
from app.pricing.diff import Difference, difference
from app.pricing.rows import Listing, PriceList, PriceRow
from app.pricing.store import (
    Version,
    activate,
    active_version,
    digest_of,
    load_active,
    save_version,
    versions,
)

WRITE_S = 60.0
"""A first import writes some ten thousand rows, and a busy disk may take its time."""
ATTEMPTS = 5
OWN = "own"
"""The layer of a file that an operator keeps; it comes before those of the release."""


class Synced(NamedTuple):
    """What became of a price list: the version in force, and what it changed or would change.

    `objections` say why it was left alone; `is_new` is false too where it is in force already.
    `in_force` is the list that the version holds, where it was put in force.
    """

    version_id: str
    is_new: bool
    difference: Difference | None
    objections: tuple[str, ...]
    in_force: PriceList | None = None


def _quiet(_: str) -> None:
    pass


Also = Callable[[Tx, Version | None, Version], Awaitable[None]]
"""What else is done in the transaction: told the list that was in force, and the one that is."""


async def sync(
    db: Database,
    price_list: PriceList,
    sources: str,
    *,
    now: datetime,
    by: str,
    force: bool = False,
    dry_run: bool = False,
    compiles: bool = False,
    tell: Callable[[str], None] = _quiet,
    also: Also | None = None,
) -> Synced:
    """Put a price list in force; nothing happens where it is in force already.

    A list of the layer `own` takes the place of the one before of that layer and of nothing else;
    any other list leaves that layer alone. `tell` is called with what is being done. The first list
    has nothing to be compared with. `compiles` says that all of it is known to compile.

    Raises:
        ValueError: some of its prices cannot be compiled.
        RuntimeError: other lists were put in force again and again meanwhile.
    """
    tell("reading")
    price_list = tidied(price_list)
    digest = digest_of(price_list)
    if not compiles:
        tell("compiling")
        Catalog(price_list).compile_all()
    own = any(listing.layer == OWN for listing in price_list.listings)
    for _ in range(ATTEMPTS):
        tell("comparing")
        active, old, known = await db.read(_present)
        kept = tuple(one for one in old.listings if (one.layer == OWN) != own)
        before = old._replace(
            listings=tuple(one for one in old.listings if (one.layer == OWN) == own)
        )
        if own:
            price_list = price_list._replace(providers=old.providers)
        since = None if active is None else active.imported_at
        found = None if active is None else difference(before, price_list, now, since)
        ids = frozenset(version.id for version in known)
        version = Version(_free_id(digest, ids), sources, digest, now, by)
        fresh = carried(before, stamped(price_list, version.id), now, since).price_list
        first, second = (fresh.listings, kept) if own else (kept, fresh.listings)
        fresh = fresh._replace(listings=(*first, *second))
        seen = any(each.sha256 == digest and each.sources == sources for each in known)
        if active is not None and seen and fresh[1:] == old[1:]:
            return Synced(active.id, False, None, ())
        objections = () if found is None or force else found.objections
        if objections or dry_run:
            return Synced("" if active is None else active.id, False, found, objections)
        if active is not None:
            Catalog(fresh).compile_all()
        tell("writing")
        if await db.write(
            partial(_put, version, fresh, active, also), alone=True, within_s=WRITE_S
        ):
            return Synced(version.id, True, found, (), fresh)
    raise RuntimeError("other price lists were put in force meanwhile")


async def _put(
    version: Version, fresh: PriceList, before: Version | None, also: Also | None, tx: Tx
) -> bool:
    """Put a version in force, if the one before it is still the one that it was made from."""
    if await active_version(tx) != before:
        return False
    await save_version(tx, version, fresh)
    await activate(tx, version.id, version.imported_at, version.created_by)
    await announce(tx, "prices", version.id, version.imported_at)
    if also is not None:
        await also(tx, before, version)
    return True


async def _present(tx: Tx) -> tuple[Version | None, PriceList, list[Version]]:
    return await active_version(tx), await load_active(tx), await versions(tx)


def _free_id(digest: str, known: frozenset[str]) -> str:
    """A list that comes back after another one is a version of its own: its history differs."""
    plain = f"cat_{digest[:8]}"
    found, again = plain, 1
    while found in known:
        again += 1
        found = f"{plain}.{again}"
    return found


def tidied(price_list: PriceList) -> PriceList:
    """The same list as the database will give it back, so that the two compare as equal."""
    seen: Counter[str] = Counter()
    listings = []
    for listing in price_list.listings:
        rows = tuple(_tidied(row, seen) for row in listing.rows)
        listings.append(listing._replace(rows=rows))
    return price_list._replace(listings=tuple(listings))


def _tidied(row: PriceRow, seen: Counter[str]) -> PriceRow:
    seen[row.id] += 1
    name = row.id if seen[row.id] == 1 else f"{row.id}~{seen[row.id]}"
    when, least = tuple(sorted(row.when)), tuple(sorted(row.least))
    return row._replace(id=name, when=when, least=least)


def stamped(price_list: PriceList, version_id: str) -> PriceList:
    """The list with ids that no other version has: `cat_1a2b3c4d:openai/gpt-4o`."""

    def named(listing: Listing) -> Listing:
        rows = (row._replace(id=f"{version_id}:{row.id}") for row in listing.rows)
        return listing._replace(rows=tuple(rows))

    return price_list._replace(
        version=version_id, listings=tuple(named(listing) for listing in price_list.listings)
    )
