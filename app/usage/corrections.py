"""Corrections: what was taken back of an event and put in its place, and what it is at present."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import select

from app.core.counters import COLUMNS
from app.db.engine import Tx
from app.db.types import table_of
from app.db.upsert import Append, Find
from app.usage.ledger import Entry, entry_of
from app.usage.tables import UsageCorrection

VOID, CORRECT, AMOUNT = "void", "correct", "amount"
Key = tuple[str, str]

_ABOUT = ("revision", "sign", "kind", "reason", "actor", "idempotency_key")
_COLUMNS = (*Entry._fields, *_ABOUT)
_WIDTH = len(Entry._fields)
_NO_USAGE = dict.fromkeys(COLUMNS, 0)


class Correction(NamedTuple):
    """One row of a correction: the call as it was taken back (`sign` -1) or is since then (+1).

    The entry's `recorded_at` is when the correction was made, its `body_hash` that of the request.
    """

    revision: int
    sign: int
    kind: str
    reason: str
    actor: str
    entry: Entry
    idempotency_key: str | None = None


_find = Find(table_of(UsageCorrection), ("user_id", "event_id"), _COLUMNS)
_append = Append(table_of(UsageCorrection), _COLUMNS, ("user_id", "event_id", "revision"))
_find_keys = Find(table_of(UsageCorrection), ("user_id", "event_id"), ("user_id", "event_id"))


async def _are_any(tx: Tx) -> bool:
    return await tx.first(select(UsageCorrection.user_id).limit(1)) is not None


async def corrected(tx: Tx, keys: Sequence[Key]) -> dict[Key, list[Correction]]:
    """The corrections of these events, by user and id, in their order; events without are left out.

    One short read while no event of anybody was ever corrected.
    """
    found: dict[Key, list[Correction]] = {}
    if not keys or not await _are_any(tx):
        return found
    for row in await _find(tx, sorted(set(keys))):
        one = correction_of(row)
        found.setdefault(one.entry[:2], []).append(one)
    for corrections in found.values():
        corrections.sort()
    return found


async def corrected_keys(tx: Tx, keys: Sequence[Key]) -> set[Key]:
    """Which of these events were corrected."""
    if not keys or not await _are_any(tx):
        return set()
    return {(user_id, event_id) for user_id, event_id in await _find_keys(tx, sorted(set(keys)))}


def correction_of(row: Sequence[object]) -> Correction:
    """A correction from a row as a driver gives it: the log's columns, then what is said of it."""
    revision, sign, kind, reason, actor, idempotency_key = row[_WIDTH:]
    about = (revision, sign, kind, reason, actor, entry_of(row[:_WIDTH]), idempotency_key)
    return Correction._make(about)


async def append_corrections(tx: Tx, corrections: Iterable[Correction]) -> None:
    """Add the rows of corrections.

    Raises:
        RuntimeError: a revision exists; whoever adds one holds the lock of its event.
    """
    rows = [
        (*one.entry, one.revision, one.sign, one.kind, one.reason, one.actor, one.idempotency_key)
        for one in corrections
    ]
    rows.sort(key=lambda row: (row[:2], row[_WIDTH]))
    if rows and await _append(tx, rows) is not None:
        raise RuntimeError("another writer corrected an event that was locked")


def present(entry: Entry | None, corrections: Sequence[Correction]) -> Entry | None:
    """The event as it stands after its corrections; None if it was voided. Pure.

    `entry` is the row as it came, None where it cannot be read: what corrections say of it is then
    all that is known. It keeps the row's `recorded_at` and `body_hash` where there is a row.
    """
    standing, last = entry, None
    for one in corrections:
        if one.sign < 0:
            last, standing = standing, None
        elif one.kind == AMOUNT and last is not None:
            standing = last._replace(
                cost_nanos=one.entry.cost_nanos,
                cost_status=one.entry.cost_status,
                price_ref=one.entry.price_ref,
            )
        else:
            standing = one.entry
    if standing is None or entry is None or not corrections:
        return standing
    return standing._replace(recorded_at=entry.recorded_at, body_hash=entry.body_hash)


def shown(entry: Entry | None, corrections: Sequence[Correction]) -> Entry | None:
    """As `present`, and a voided event with nothing used and nothing charged. Pure."""
    standing = present(entry, corrections)
    if standing is not None or not corrections:
        return standing
    last = corrections[-1].entry
    if entry is not None:
        last = last._replace(recorded_at=entry.recorded_at, body_hash=entry.body_hash)
    return Entry(**last._asdict() | _NO_USAGE | {"cost_nanos": 0, "price_ref": ""})


def is_voided(corrections: Sequence[Correction]) -> bool:
    """Whether nothing of an event with these corrections counts any more. Pure."""
    return bool(corrections) and corrections[-1].sign < 0
