"""How a recorded event came to its cost: by the price entries that it cites, whatever holds now."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from app.db.engine import Tx
from app.pricing.catalog import Catalog
from app.pricing.quote import Line, explain, explain_rows, rows_of
from app.pricing.rows import PriceRow
from app.pricing.store import find_entries
from app.usage.ledger import Entry, usage_of


class Account(NamedTuple):
    """The lines that sum to an event's cost, the tier it fell in, and why it was charged so."""

    lines: tuple[Line, ...]
    tier: str
    why: str


VOIDED = Account((), "", "the event was voided")


async def account_of(tx: Tx, entry: Entry, catalog: Catalog) -> Account:
    """Account for an event. Only what is not priced yet is asked of the prices in force."""
    if entry.cost_status == "provided":
        return Account((), "", "the caller stated the cost")
    if entry.cost_nanos is None:
        return _unpriced(entry, catalog)
    cited = rows_of(entry.price_ref)
    stored = await find_entries(tx, cited)
    rows = [stored[key].row for key in cited if key in stored]
    if len(rows) < len(cited):
        rows = _listed(catalog, cited)
    if not rows or len(rows) < len(cited):
        return Account((), "", "the price that this event cites is not stored")
    stated = stored.get(cited[0])
    is_override = stated is not None and stated.version_id is None
    found = explain_rows(rows, usage_of(entry), override=is_override)
    if found.cost_nanos != entry.cost_nanos:
        return Account((), found.tier, "the cost was changed after it was rated")
    why = f"rated by {rows[0].source}" if rows[0].source else "rated by the entries that are named"
    if is_override:
        why = f"a stated price: {rows[0].source}" if rows[0].source else "a stated price"
    if entry.cost_status == "estimated":
        why += "; a name, a condition or a count had to be guessed"
    return Account(found.lines, found.tier, why)


def _unpriced(entry: Entry, catalog: Catalog) -> Account:
    context = msgspec.json.decode(entry.context, type=dict[str, str]) if entry.context else None
    names = (entry.provider or None, entry.model or None)
    call = (*names, entry.timestamp, usage_of(entry), context, entry.user_id, entry.team_id)
    try:
        now = explain(catalog, *call)
    except OverflowError as error:
        return Account((), "", str(error))
    if now.quote.cost_nanos is not None:
        return Account((), "", "no price was known; one is by now, and a re-rate would apply it")
    return Account((), "", now.why)


def _listed(catalog: Catalog, ids: Sequence[str]) -> list[PriceRow]:
    """Rows of the list in memory, where the database has none."""
    found = {
        row.id: row
        for listing in catalog.price_list.listings
        for row in listing.rows
        if row.id in ids
    }
    return [found[key] for key in ids if key in found]
