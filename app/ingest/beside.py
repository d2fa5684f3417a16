"""Our price beside a cost that the caller stated, so that a drift can be seen. Pure."""

from collections.abc import Sequence

import msgspec

from app.core.money import to_usd
from app.ingest.calls import Call
from app.pricing.catalog import Catalog
from app.summaries.drifts import COMPARED, PRICED, PROVIDED, STATED
from app.usage.ledger import Entry, usage_of

SOURCE = "events"
_pairs = msgspec.json.Decoder(dict[str, str])


def beside(calls: Sequence[Call], entries: list[Entry], catalog: Catalog) -> list[Entry]:
    """The entries of the calls; those with a stated cost say what they would cost by our prices.

    A stated cost of 0 says that nothing was charged, and is compared with nothing. Nor is the cost
    of an event that tells of several calls, and what a foreign format's door has compared already.
    """
    if all(call.cost_nanos is None for call in calls):
        return entries
    found = list(entries)
    for place, (call, entry) in enumerate(zip(calls, entries, strict=True)):
        alone = not call.place and not (place + 1 < len(calls) and calls[place + 1].place)
        context = call.event.context or {}
        if not call.cost_nanos or not alone or STATED in context:
            continue
        told = {**context, STATED: to_usd(call.cost_nanos), COMPARED: SOURCE}
        found[place] = _with_ours(entry, told, catalog)
    return found


def beside_again(entry: Entry, catalog: Catalog) -> Entry:
    """A corrected entry whose costs are compared: with our price for what it says now."""
    if entry.context is None or entry.cost_status != PROVIDED or COMPARED not in entry.context:
        return entry
    return _with_ours(entry, _pairs.decode(entry.context), catalog)


def _with_ours(entry: Entry, told: dict[str, str], catalog: Catalog) -> Entry:
    """The entry with these pairs and our price; as it was where there is no price."""
    try:
        ours = catalog.quote(
            *(entry.provider or None, entry.model or None, entry.timestamp, usage_of(entry)),
            *(told, entry.user_id, entry.team_id),
        ).cost_nanos
    except OverflowError:
        ours = None
    if ours is not None:
        told = {**told, PRICED: to_usd(ours)}
    elif PRICED in told:
        told = {name: value for name, value in told.items() if name not in (PRICED, COMPARED)}
    else:
        return entry
    return entry._replace(context=msgspec.json.encode(told).decode())
