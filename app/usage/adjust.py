"""Change what logged events are charged. Both amounts are kept, and nothing that was used moves."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from app.db.engine import Tx
from app.db.types import table_of
from app.db.upsert import Append, Exchange, Find
from app.usage.ledger import Entry
from app.usage.tables import UsageAdjustment, UsageEvent

_KEY = ("user_id", "event_id")
_RATING = ("cost_nanos", "cost_status", "price_ref")
_ADJUSTMENT = (
    *(*_KEY, "revision", "adjusted_at", "kind", "reason", "job_id", "actor"),
    *("timestamp", "provider", "model"),
    *(f"old_{name}" for name in _RATING),
    *(f"new_{name}" for name in _RATING),
)


class Cause(NamedTuple):
    """Why something is charged differently: the `job_id` is of the re-rate, if there is one."""

    kind: str
    reason: str
    job_id: str | None
    actor: str


class Revision(NamedTuple):
    """An entry as it stands, and what it shall cost."""

    entry: Entry
    cost_nanos: int | None
    cost_status: str
    price_ref: str


_exchange = Exchange(table_of(UsageEvent), _KEY, _RATING)
_append = Append(table_of(UsageAdjustment), _ADJUSTMENT, (*_KEY, "revision"))
_find = Find(table_of(UsageAdjustment), _KEY, (*_KEY, "revision"))


async def adjust(
    tx: Tx, revisions: Sequence[Revision], cause: Cause, now: datetime
) -> list[Revision]:
    """Charge the entries what they shall cost; return those that still stood as given.

    Each of these has one more adjustment. What another writer changed meanwhile is left as it is.
    """
    changed = await _exchange(tx, [_exchanged(one) for one in revisions])
    made = [one for one in revisions if one.entry[:2] in changed]
    if not made:
        return []
    last: dict[tuple[str, str], int] = {}
    for user_id, event_id, revision in await _find(tx, sorted(changed)):
        last[user_id, event_id] = max(revision, last.get((user_id, event_id), 0))
    rows = [_adjustment(one, last.get(one.entry[:2], 0) + 1, cause, now) for one in made]
    await _append(tx, sorted(rows, key=lambda row: row[:2]))
    return made


def _exchanged(revision: Revision) -> tuple[object, ...]:
    entry = revision.entry
    return (*entry[:2], entry.cost_nanos, entry.cost_status, entry.price_ref, *revision[1:])


def _adjustment(revision: Revision, number: int, cause: Cause, now: datetime) -> tuple[object, ...]:
    entry = revision.entry
    return (
        *(entry.user_id, entry.event_id, number, now, *cause),
        *(entry.timestamp, entry.provider, entry.model),
        *(entry.cost_nanos, entry.cost_status, entry.price_ref),
        *revision[1:],
    )
