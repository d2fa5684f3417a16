"""Append to the log. An event id is accepted once per user, however often it is sent."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from app.core.counters import COLUMNS, Usage
from app.db.due import Remove
from app.db.engine import Tx
from app.db.types import instant, table_of
from app.db.upsert import Append, Find
from app.usage.tables import UsageEvent
from app.usage.wrapped import NONE_WRAPPED, WrappedIds, WrappedRow, find_wrapped

KEY = ("user_id", "event_id")


class Entry(NamedTuple):
    """A priced call: exactly the columns of the log, so that it is its own row.

    `tags` and `context` are JSON text.
    """

    user_id: str
    event_id: str
    timestamp: datetime
    recorded_at: datetime
    body_hash: int
    provider: str
    model: str
    status_code: int
    cost_nanos: int | None
    cost_status: str
    price_ref: str
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    input_audio_tokens: int
    cache_audio_read_tokens: int
    input_image_tokens: int
    output_tokens: int
    output_reasoning_tokens: int
    output_audio_tokens: int
    output_image_tokens: int
    output_citation_tokens: int
    requests: int
    web_searches: int
    rerank_searches: int
    input_document_pages: int
    input_characters: int
    output_images: int
    audio_micros: int
    video_micros: int
    compute_micros: int
    endpoint: str | None
    method: str | None
    error_message: str | None
    retry_count: int | None
    latency_us: int | None
    ttft_us: int | None
    request_bytes: int | None
    response_bytes: int | None
    user_agent: str | None
    ip_address: str | None
    team_id: str | None
    api_key_id: str | None
    session_id: str | None
    task_type: str | None
    backend: str | None
    pool: str | None
    hold_id: str | None
    tags: str | None
    context: str | None


FIRST_COUNTER = Entry._fields.index(COLUMNS[0])
AFTER_COUNTERS = FIRST_COUNTER + len(COLUMNS)


def usage_of(entry: Entry) -> Usage:
    """The counters of an entry, in the order of `core.counters.COUNTERS`."""
    return entry[FIRST_COUNTER:AFTER_COUNTERS]  # type: ignore[return-value]


class Torn(Exception):
    """Another writer took or moved an id in between: nothing of this may be committed."""


class Logged(NamedTuple):
    """What became of one event, and the row that stands.

    `status` is `recorded`, `duplicate`, `conflict`, or `out_of_window` for one so old that its id
    may have been forgotten. `others` are the further rows of an event that tells of several calls;
    in a conflict, the rows of other events that stand in its way.
    """

    status: str
    entry: Entry
    others: tuple[Entry, ...] = ()


_append = Append(table_of(UsageEvent), Entry._fields, KEY)
_find = Find(table_of(UsageEvent), KEY, Entry._fields)
_remove = Remove(table_of(UsageEvent), KEY, KEY)


async def append(
    tx: Tx, entries: Sequence[Entry], *, again: bool = False, wrapped: WrappedIds = NONE_WRAPPED
) -> tuple[list[Entry], list[Logged]]:
    """Write the entries not seen before; return exactly those, and what became of each one.

    Of several with one key the first is written. A key that exists is a `duplicate` if its row
    came from the same body, else a `conflict`; either way the stored row stays as it is. `again`
    says that an earlier attempt at these entries may have been committed though its answer was
    lost: rows of that attempt, told by `recorded_at`, are still `recorded`. A key that was wrapped
    is answered from what is left of it.

    Raises:
        Torn: a row moved while it was looked for; roll back and try again.
    """
    unique: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        unique.setdefault(entry[:2], entry)
    rows = sorted(unique.values(), key=_key_of)
    new = await _append(tx, rows)
    stored: dict[tuple[str, str], Entry] = {}
    if new is not None:
        known = [entry[:2] for entry in rows if entry[:2] not in new]
        stored = {entry[:2]: entry for entry in await find_many(tx, known)}
    if wrapped.exist:
        stored |= await _sent_again(tx, [one for one in rows if one[:2] not in stored], new)
    fresh = [entry for key, entry in unique.items() if key not in stored]
    if len(rows) == len(entries) and not stored:
        return fresh, [Logged("recorded", entry) for entry in entries]
    return fresh, [_outcome(entry, unique, stored, again) for entry in entries]


async def _sent_again(
    tx: Tx, rows: Sequence[Entry], new: set[tuple[str, ...]] | None
) -> dict[tuple[str, str], Entry]:
    """Take out again what was written though it had been wrapped before; what stood for each.

    Looked for after the rows were written: a write that waited for a wrap to take its row out of
    the log finds here what that left. A row that is neither new nor here moved in between.
    """
    found = await find_wrapped(tx, [entry[:2] for entry in rows])
    if new is not None and any(one[:2] not in new and one[:2] not in found for one in rows):
        raise Torn
    written = [key for key in found if new is None or key in new]
    await _remove(tx, sorted(written))
    return {one[:2]: as_wrapped(one, found[one[:2]]) for one in rows if one[:2] in found}


def as_wrapped(entry: Entry, row: WrappedRow) -> Entry:
    """An event that was sent again, with the times and the cost under which it was wrapped."""
    return entry._replace(
        timestamp=row.timestamp,
        recorded_at=row.recorded_at,
        body_hash=row.body_hash,
        cost_nanos=row.cost_nanos,
        cost_status=row.cost_status,
    )


def _key_of(entry: Entry) -> tuple[str, str]:
    return entry[:2]


def _outcome(
    entry: Entry,
    unique: dict[tuple[str, str], Entry],
    stored: dict[tuple[str, str], Entry],
    again: bool,
) -> Logged:
    key = entry[:2]
    standing = stored.get(key) or unique[key]
    if standing is entry:
        return Logged("recorded", entry)
    if standing.body_hash != entry.body_hash:
        return Logged("conflict", standing)
    ours = again and key in stored and standing.recorded_at == entry.recorded_at
    return Logged("recorded" if ours else "duplicate", standing)


async def find_many(tx: Tx, keys: Sequence[tuple[str, str]]) -> list[Entry]:
    """The entries that stand under these (user, event id) keys."""
    return [entry_of(row) for row in await _find(tx, keys)]


def entry_of(row: Sequence[object]) -> Entry:
    """An entry from a row as a driver gives it."""
    entry = Entry._make(row)
    counters = tuple(value or 0 for value in entry[FIRST_COUNTER:AFTER_COUNTERS])
    return Entry._make(
        (
            entry.user_id,
            entry.event_id,
            instant(entry.timestamp),
            instant(entry.recorded_at),
            *entry[4:FIRST_COUNTER],
            *counters,
            *entry[AFTER_COUNTERS:-2],
            _text(entry.tags),
            _text(entry.context),
        )
    )


def _text(value: object) -> str | None:
    """JSON as text: some drivers give `jsonb` decoded."""
    return value if value is None or isinstance(value, str) else json.dumps(value)
