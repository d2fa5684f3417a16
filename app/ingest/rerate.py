"""Rate events of the log anew: their rows, every total and counter they are in, and the alerts."""

import json
from collections.abc import Collection
from datetime import datetime

from app.alerts.crossings import crossings
from app.alerts.outbox import raise_alerts
from app.db.engine import Tx
from app.ingest.meter import House, know_rules
from app.limits.counters import count, growths
from app.pricing.catalog import Catalog
from app.summaries.drifts import apply_drifts, drifts_of
from app.summaries.fold import fold, recost
from app.summaries.store import apply
from app.usage.adjust import Cause, Revision, adjust
from app.usage.corrections import corrected_keys
from app.usage.ledger import Entry, find_many, usage_of
from app.usage.sweep import RATED

SHARD = -1
"""Cross-user totals change in rows of their own, where no ingest waits for them."""


class Corrected(Exception):
    """An event was corrected while it was rated anew: nothing of this may be committed."""


def revised(entry: Entry, catalog: Catalog) -> Revision | None:
    """What an event would be charged by these prices; None for a cost that is not ours to change.

    A revision may say what stands already. Where no price covers the event, or its cost cannot be
    counted, the revision has no cost.
    """
    if entry.cost_status not in RATED:
        return None
    context = json.loads(entry.context) if entry.context else None
    try:
        quote = catalog.quote(
            entry.provider or None,
            entry.model or None,
            entry.timestamp,
            usage_of(entry),
            context,
            entry.user_id,
            entry.team_id,
        )
    except OverflowError:
        return Revision(entry, None, "unpriced", "")
    return Revision(entry, *quote)


def differs(revision: Revision) -> bool:
    """Whether the event is to be charged differently; a cost is never taken away from it."""
    entry = revision.entry
    stands = (entry.cost_nanos, entry.cost_status, entry.price_ref)
    return revision.cost_nanos is not None and revision[1:] != stands


async def rerate(
    tx: Tx,
    keys: Collection[tuple[str, str]],
    *,
    house: House,
    cause: Cause,
    now: datetime,
) -> list[Revision]:
    """Rate these events by the prices in force; return those that are charged differently now.

    All that it moves becomes durable together with the events: done twice, it moves nothing. What
    was corrected stays as it was said to be.

    Raises:
        Corrected: one of them was corrected meanwhile; roll back and try again.
    """
    said = await corrected_keys(tx, list(keys))
    standing = await find_many(tx, sorted(set(keys) - said))
    found = (revised(entry, house.prices.catalog) for entry in standing)
    wanted = [one for one in found if one is not None and differs(one)]
    made = await adjust(tx, wanted, cause, now)
    if not made:
        return []
    entries = [one.entry for one in made]
    if await corrected_keys(tx, [entry[:2] for entry in entries]):
        raise Corrected
    costs = {one.entry[:2]: one.cost_nanos for one in made}
    agreements = await house.agreements.ensure(tx, {entry.user_id for entry in entries}, now)
    change = fold(entries, agreements, lambda one: recost(one, costs[one[:2]]), calls=0)
    await apply(tx, change, SHARD)
    given = [
        one.entry._replace(cost_nanos=one.cost_nanos, cost_status=one.cost_status) for one in made
    ]
    await apply_drifts(tx, SHARD, drifts_of(entries, -1), drifts_of(given))

    def more(metric: str, entry: Entry) -> int:
        costing = metric == "cost_usd"
        return (costs[entry[:2]] or 0) - (entry.cost_nanos or 0) if costing else 0

    await know_rules(tx, entries, agreements, house.rules)
    grown = growths(entries, agreements, house.rules, more)
    steps = await count(tx, {key: growth for key, growth in grown.items() if growth.amount})
    await raise_alerts(tx, crossings(steps, now), now)
    return made
