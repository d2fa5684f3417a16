"""How far a cost that a caller stated is from ours: kept on the event, and added up by day.

The event's context says both: what was stated, ours where that one gave way, and by which door it
came where both were made of the same facts, so that a difference means something.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from operator import add

import msgspec

from app.core.money import CEILING, from_usd
from app.db.engine import Tx
from app.db.types import table_of
from app.db.upsert import AddTo
from app.summaries.grains import floor_of
from app.summaries.tables import DriftTotal
from app.usage.ledger import Entry

STATED, PRICED, COMPARED = "stated_cost_usd", "priced_cost_usd", "cost_compared"
"""Where an event's context keeps the stated cost, ours where that one gave way, and the door."""
PROVIDED = "provided"
DRIFT_PERCENT = 5
SOURCES = frozenset(
    {"events", "otlp", "cloudevents", "lago", "litellm", "langfuse", "stripe"},
)
"""The doors that a cost is stated through."""
_MARK = f'"{COMPARED}"'
_AMOUNTS = ("calls", "calls_apart", "stated_nanos", "priced_nanos")

DriftKey = tuple[datetime, str, str, str]
"""Day, source, provider and model."""
Drifts = Mapping[DriftKey, Sequence[int]]

_pairs = msgspec.json.Decoder(dict[str, str])
_add = AddTo(table_of(DriftTotal), ("day", "source", "provider", "model", "shard"), _AMOUNTS)


def drifts(stated: int, priced: int) -> bool:
    """Whether two costs in nano-dollars of the same call are more than 5 % apart."""
    return abs(stated - priced) * 100 > DRIFT_PERCENT * max(stated, priced)


def costs_of(entry: Entry) -> tuple[str, int, int] | None:
    """The door, the stated cost and ours in nano-dollars; None where they are not compared."""
    if entry.context is None or _MARK not in entry.context:
        return None
    try:
        context = _pairs.decode(entry.context)
        stated = int(from_usd(context.get(STATED, "")))
        ours = from_usd(context.get(PRICED, "")) if entry.cost_status == PROVIDED else None
    except (ValueError, msgspec.MsgspecError):  # a caller may send pairs of these names
        return None
    priced = entry.cost_nanos if ours is None else int(ours)
    source = context.get(COMPARED, "")
    if priced is None or source not in SOURCES or not 0 <= min(stated, priced) <= CEILING:
        return None
    return source, stated, priced


def drifts_of(entries: Iterable[Entry], sign: int = 1) -> dict[DriftKey, list[int]]:
    """What these entries add to the drift of their days; with `sign` -1, what they take away."""
    found: dict[DriftKey, list[int]] = {}
    for entry in entries:
        costs = costs_of(entry)
        if costs is None:
            continue
        source, stated, priced = costs
        key = (floor_of(entry.timestamp, "day"), source, entry.provider, entry.model)
        more = (1, int(drifts(stated, priced)), stated, priced)
        _grow(found, key, [sign * amount for amount in more])
    return found


async def apply_drifts(tx: Tx, shard: int, *changes: Drifts) -> None:
    """Add changes to the totals; where nothing has both costs there is no statement."""
    together: dict[DriftKey, list[int]] = {}
    for change in changes:
        for key, amounts in change.items():
            _grow(together, key, amounts)
    await _add(tx, [(*key, shard, *total) for key, total in together.items() if any(total)])


def _grow(totals: dict[DriftKey, list[int]], key: DriftKey, more: Sequence[int]) -> None:
    known = totals.get(key)
    totals[key] = list(more) if known is None else list(map(add, known, more))
