"""Read price lists, operators' prices and aliases from the database."""

import asyncio
import json
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Select, func, literal, select, tuple_

from app.core.clock import rfc3339
from app.db.engine import Tx
from app.db.types import table_of
from app.db.upsert import Append
from app.pricing.encoded import ENTRY, RATE, Decoder, Values, entry_of, rates_of
from app.pricing.rows import Alias, Listing, Override, PriceList, PriceRow, Provider
from app.pricing.tables import (
    CatalogActivation,
    CatalogListing,
    CatalogVersion,
    ModelAlias,
    PriceEntry,
    PriceRate,
    PriceRetirement,
)

_entries, _rates = table_of(PriceEntry).c, table_of(PriceRate).c
_listings = table_of(CatalogListing).c
_LISTING = (*("version_id", "position", "layer", "provider", "model", "name", "adds", "content"),)
append_entries = Append(table_of(PriceEntry), ENTRY, ("id",))
append_rates = Append(table_of(PriceRate), RATE, ("entry_id", "position"))
_append_listings = Append(table_of(CatalogListing), _LISTING, ("version_id", "position"))
_append_versions = Append(
    table_of(CatalogVersion),
    ("id", "sources", "sha256", "providers", "imported_at", "created_by"),
    ("id",),
)
PAGE = 2_000
"""Rows read at once."""
_SOME = 500
"""So many ids in one statement: SQLite takes some thousands of parameters at most."""


class Version(NamedTuple):
    """A version of the catalogue: where it is from, what it is, since when it is known."""

    id: str
    sources: str
    sha256: str
    imported_at: datetime
    created_by: str


def digest_of(price_list: PriceList) -> str:
    """What a list says, as one number; its version and the order of its providers do not matter."""
    providers = sorted(price_list.providers)
    said = msgspec.json.encode((providers, price_list.listings))
    return sha256(said).hexdigest()


# ---- versions ---------------------------------------------------------------------------------


async def active_version(tx: Tx) -> Version | None:
    """The version that prices are asked of; None before the first import."""
    newest = select(func.max(CatalogActivation.seq)).scalar_subquery()
    query = (
        select(*(getattr(CatalogVersion, name) for name in Version._fields))
        .join(CatalogActivation, CatalogActivation.version_id == CatalogVersion.id)
        .where(CatalogActivation.seq == newest)
    )
    row = await tx.first(query)
    return None if row is None else Version(*row)


async def versions(tx: Tx) -> list[Version]:
    """Every version there ever was, oldest first."""
    columns = (getattr(CatalogVersion, name) for name in Version._fields)
    query = select(*columns).order_by(CatalogVersion.imported_at, CatalogVersion.id)
    return [Version(*row) for row in await tx.fetch(query)]


async def has_sources(tx: Tx, sources: str) -> bool:
    """Whether a version was imported from exactly these sources."""
    found = await tx.first(select(CatalogVersion.id).where(CatalogVersion.sources == sources))
    return found is not None


async def activate(tx: Tx, version_id: str, now: datetime, by: str) -> None:
    """From the commit on, prices are asked of this version."""
    newest = (await tx.fetch(select(func.max(CatalogActivation.seq))))[0][0] or 0
    row = {"seq": newest + 1, "version_id": version_id, "activated_at": now, "created_by": by}
    await tx.run(CatalogActivation.__table__.insert(), [row])  # type: ignore[attr-defined]


async def save_version(tx: Tx, version: Version, price_list: PriceList) -> None:
    """Write a version: the entries that it brings, and its listings."""
    brought = f"{version.id}:"
    entries: list[Values] = []
    rates: list[Values] = []
    listings: list[Values] = []
    for position, listing in enumerate(price_list.listings):
        closed = {}
        for row in listing.rows:
            if row.id.startswith(brought):
                entries.append(
                    entry_of(row, version.id, listing, version.imported_at, version.created_by)
                )
                rates += rates_of(row)
            elif row.end is not None:
                closed[row.id] = rfc3339(row.end)
        content: dict[str, Any] = {"names": listing.names, "patterns": listing.patterns}
        content["entries"] = [row.id for row in listing.rows]
        content["closed"] = closed
        where = (listing.layer, listing.provider, listing.model, listing.name, listing.adds)
        listings.append((version.id, position, *where, json.dumps(content)))
    providers = json.dumps({"providers": [list(one) for one in price_list.providers]})
    facts = (version.id, version.sources, version.sha256, providers)
    await _append_versions(tx, [(*facts, version.imported_at, version.created_by)])
    for append, rows in (
        (append_entries, entries),
        (append_rates, rates),
        (_append_listings, listings),
    ):
        if rows:
            await append(tx, rows)


async def load_active(tx: Tx) -> PriceList:
    """Read the version in force whole; an empty list where there is none."""
    active = await active_version(tx)
    return PriceList("", (), ()) if active is None else await load_list(tx, active.id)


async def load_list(tx: Tx, version_id: str) -> PriceList:
    """Read a version whole, table after table, so that no two are in memory as rows at once.

    It takes some tenths of a second, so what it decodes is not decoded on the event loop.
    """
    decoder = Decoder(())
    await _by_pages(tx, _catalogue_rates, (_rates.entry_id, _rates.position), decoder.learn)
    rows: dict[str, PriceRow] = {}

    def keep(entries: Sequence[Any]) -> None:
        rows.update((entry.id, decoder.row(entry)) for entry in entries)

    await _by_pages(tx, _catalogue_entries, (_entries.id,), keep)
    listings: list[Listing] = []

    def gather(stored: Sequence[Any]) -> None:
        listings.extend(_listing(one, rows) for one in stored)

    listed = select(*_listings).where(_listings.version_id == version_id)
    await _by_pages(tx, listed, (_listings.position,), gather)
    told = await tx.first(select(CatalogVersion.providers).where(CatalogVersion.id == version_id))
    providers = tuple(
        Provider(name, tuple(lends), tuple(names), _patterns(patterns))
        for name, lends, names, patterns in (told[0]["providers"] if told else ())
    )
    return PriceList(version_id, providers, tuple(listings))


async def _by_pages(
    tx: Tx,
    query: Select[Any],
    key: tuple[ColumnElement[Any], ...],
    take: Callable[[Sequence[Any]], None],
) -> None:
    ordered = query.order_by(*key).limit(PAGE)
    page = await tx.fetch(ordered)
    while page:
        await asyncio.to_thread(take, page)
        if len(page) < PAGE:
            return
        last = [getattr(page[-1], column.key) for column in key]  # type: ignore[arg-type]
        after = tuple_(*(literal(value, at.type) for value, at in zip(last, key, strict=True)))
        page = await tx.fetch(ordered.where(tuple_(*key) > after))


_catalogue_entries = select(*_entries).where(_entries.version_id.is_not(None))
_catalogue_rates = (
    select(*_rates)
    .join(PriceEntry, PriceEntry.id == PriceRate.entry_id)
    .where(PriceEntry.version_id.is_not(None))
)


def _listing(stored: Any, rows: Mapping[str, PriceRow]) -> Listing:
    content = stored.content
    closed = content["closed"]
    own = (
        rows[key]._replace(end=datetime.fromisoformat(closed[key])) if key in closed else rows[key]
        for key in content["entries"]
    )
    return Listing(
        sys.intern(stored.layer),
        sys.intern(stored.provider),
        stored.model,
        stored.name,
        tuple(content["names"]),
        _patterns(content["patterns"]),
        tuple(own),
        bool(stored.adds),
    )


def _patterns(said: Iterable[Iterable[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(parts) for parts in said)


# ---- what operators state ---------------------------------------------------------------------


async def load_overrides(tx: Tx) -> tuple[Override, ...]:
    """Every operator's price that is not retired, in the order they were made."""
    stated = _entries.version_id.is_(None)
    retired = select(PriceRetirement.id)
    query = select(*_entries).where(stated, _entries.id.not_in(retired))
    entries = await tx.fetch(query.order_by(_entries.created_at, _entries.id))
    if not entries:
        return ()
    rates = select(*_rates).join(PriceEntry, PriceEntry.id == PriceRate.entry_id)
    ordered = rates.where(stated).order_by(_rates.entry_id, _rates.position)
    decoder = Decoder(map(tuple, await tx.fetch(ordered)))
    return tuple(decoder.override(entry) for entry in entries)


async def load_aliases(tx: Tx) -> tuple[Alias, ...]:
    """Every operator's alias that is not retired, in the order they were made."""
    columns = (getattr(ModelAlias, name) for name in Alias._fields)
    query = select(*columns).where(ModelAlias.id.not_in(select(PriceRetirement.id)))
    ordered = query.order_by(ModelAlias.created_at, ModelAlias.id)
    return tuple(Alias(*row) for row in await tx.fetch(ordered))


# ---- single entries ---------------------------------------------------------------------------


class Stored(NamedTuple):
    """An entry with its row, and where it belongs."""

    row: PriceRow
    version_id: str | None
    layer: str
    provider: str
    model: str
    match: str
    user_id: str | None
    team_id: str | None
    is_default: bool
    created_at: datetime
    created_by: str
    retired_at: datetime | None


async def find_entries(tx: Tx, ids: Collection[str]) -> dict[str, Stored]:
    """Entries by id, whatever became of them; ids that never were give nothing."""
    wanted = sorted(set(ids))
    found: dict[str, Stored] = {}
    for start in range(0, len(wanted), _SOME):
        some = wanted[start : start + _SOME]
        rates = select(*_rates).where(_rates.entry_id.in_(some))
        ordered = rates.order_by(_rates.entry_id, _rates.position)
        decoder = Decoder(map(tuple, await tx.fetch(ordered)))
        query = select(*_entries, PriceRetirement.retired_at)
        joined = query.outerjoin(PriceRetirement, PriceRetirement.id == _entries.id)
        for entry in await tx.fetch(joined.where(_entries.id.in_(some))):
            found[entry.id] = Stored(
                decoder.row(entry),
                entry.version_id,
                entry.layer,
                entry.provider,
                entry.model,
                entry.matching,
                entry.user_id,
                entry.team_id,
                entry.is_default,
                entry.created_at,
                entry.created_by,
                entry.retired_at,
            )
    return found
