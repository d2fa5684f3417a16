"""What is known of events that left the log: enough to answer when one of them is sent again.

Until something was wrapped for the first time nobody looks. That it was is announced before the
first row leaves the log, in a transaction with no ingest beside it; so no ingest transaction runs
that neither finds an event in the log nor looks for it here.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple

from sqlalchemy import select

from app.core.clock import from_micros, to_micros
from app.db.changes import ConfigChange, announce
from app.db.engine import Tx
from app.db.types import instant, table_of
from app.db.upsert import Find
from app.usage.tables import WrappedEvent

KIND = "wrapped"
_BEGUN = "begun"
HASH_BYTES = 16
Key = tuple[str, str]


class WrappedRow(NamedTuple):
    """What is left of an event in the log's place."""

    body_hash: int
    timestamp: datetime
    recorded_at: datetime
    cost_nanos: int | None
    cost_status: str
    archive_id: str


class Group(NamedTuple):
    """Wrapped calls of one hour that have every name in common, and what they add up to.

    `usage` counts as `core.counters.COUNTERS` does; latencies are in microseconds. `cost_nanos` is
    the sum over the calls that have a price.
    """

    user_id: str
    archive_id: str
    group_no: int
    hour: datetime
    first_at: datetime
    last_at: datetime
    provider: str
    model: str
    task_type: str | None
    endpoint: str | None
    status_code: int
    team_id: str | None
    api_key_id: str | None
    backend: str | None
    pool: str | None
    calls: int
    errors: int
    usage: tuple[int, ...]
    cost_nanos: int
    unpriced_calls: int
    latency_calls: int
    latency_us: int
    min_latency_us: int | None
    max_latency_us: int | None
    ttft_calls: int
    ttft_us: int
    min_ttft_us: int | None
    max_ttft_us: int | None
    retries: int
    request_bytes: int
    response_bytes: int

    @property
    def known_cost_nanos(self) -> int | None:
        """The sum of the costs that are known; None where there are calls and none has a price."""
        return None if 0 < self.calls == self.unpriced_calls else self.cost_nanos


class WrappedIds:
    """Whether any id was ever wrapped, and from when on all of them are still known.

    An event before `known_from` may be one whose id is forgotten: it can no longer be accepted.
    """

    def __init__(self) -> None:
        self.exist = False
        self.known_from: datetime | None = None

    async def reload(self, tx: Tx, _changed: set[str]) -> None:
        """Read again what this transaction sees."""
        refs = await _announced(tx)
        self.exist = bool(refs)
        self.known_from = max((from_micros(int(one)) for one in refs - {_BEGUN}), default=None)


NONE_WRAPPED = WrappedIds()


async def _announced(tx: Tx) -> set[str]:
    query = select(ConfigChange.ref).where(ConfigChange.kind == KIND).distinct()
    return {row[0] for row in await tx.fetch(query)}


async def is_begun(tx: Tx) -> bool:
    """Whether it was announced that events are wrapped."""
    return bool(await _announced(tx))


async def announce_wrapping(tx: Tx, now: datetime) -> None:
    """Announce that events will be wrapped; in a transaction `alone`."""
    if not await is_begun(tx):
        await announce(tx, KIND, _BEGUN, now)


async def forget_before(tx: Tx, known_from: datetime, now: datetime) -> None:
    """Announce that ids of events before this may be forgotten; in a transaction `alone`."""
    await announce(tx, KIND, str(to_micros(known_from)), now)


def event_hash(event_id: str) -> bytes:
    """What is kept of an event's id: the first 16 bytes of its SHA-256."""
    return sha256(event_id.encode()).digest()[:HASH_BYTES]


_KEY = ("user_id", "event_hash")
_find = Find(table_of(WrappedEvent), _KEY, (*_KEY, *WrappedRow._fields))


async def find_wrapped(tx: Tx, keys: Sequence[Key]) -> Mapping[Key, WrappedRow]:
    """What is left of those of these (user, event id) that were wrapped."""
    hashed = {(user_id, event_hash(event_id)): (user_id, event_id) for user_id, event_id in keys}
    found = {}
    for row in await _find(tx, sorted(hashed)):
        body_hash, timestamp, recorded_at, *rest = row[2:]
        kept = WrappedRow(body_hash, instant(timestamp), instant(recorded_at), *rest)
        found[hashed[row[0], bytes(row[1])]] = kept
    return found
