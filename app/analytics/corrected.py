"""Prove that every correction takes back what stood, so that its history sums to the present."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from sqlalchemy import Text, cast, literal, select, tuple_

from app.core.counters import COLUMNS
from app.core.money import to_usd
from app.db.engine import Tx
from app.db.types import table_of
from app.summaries.reconcile import MAX_DIFFERENCES, Difference, Verdict
from app.usage.corrections import AMOUNT, CORRECT, Correction, correction_of, present
from app.usage.ledger import Entry, find_many
from app.usage.tables import UsageCorrection
from app.usage.wrapped import WrappedRow, find_wrapped

PAGE = 2_000
IDENTITY = "corrections_sum_to_present"
_said = table_of(UsageCorrection).c
_KEY = (_said.user_id, _said.event_id, _said.revision)
_ABOUT = ("revision", "sign", "kind", "reason", "actor", "idempotency_key")
_read = (
    select(
        *(
            cast(_said[name], Text) if name in ("tags", "context") else _said[name]
            for name in (*Entry._fields, *_ABOUT)
        )
    )
    .order_by(*_KEY)
    .limit(PAGE)
)
_COUNTED = (
    *("timestamp", "provider", "model", "status_code", "cost_nanos", "cost_status", "price_ref"),
    *COLUMNS,
    *("endpoint", "latency_us", "ttft_us", "team_id", "api_key_id", "session_id", "task_type"),
    *("backend", "pool", "hold_id"),
)
"""What a correction must take back as it stood."""
_LEFT = ("timestamp", "cost_nanos", "cost_status")
"""What is known of it without its row."""


async def corrections_sum_to_present(tx: Tx) -> Verdict:
    """The corrections of an event count from 1, and each takes back exactly what stood before.

    The first one takes back the row of the log; of a wrapped event, what is left in its place.
    """
    findings: list[Difference] = []
    differing = compared = 0
    async for events in _events(tx):
        keys = sorted({one[0].entry[:2] for one in events})
        rows = {row[:2]: row for row in await find_many(tx, keys)}
        left = await find_wrapped(tx, [key for key in keys if key not in rows])
        for corrections in events:
            key = corrections[0].entry[:2]
            for place in range(len(corrections)):
                compared += 1
                wrong = _wrong(corrections, place, rows.get(key), left.get(key))
                if wrong is None:
                    continue
                differing += 1
                where = {"user_id": key[0], "event_id": key[1]}
                where["revision"] = str(corrections[place].revision)
                if len(findings) < MAX_DIFFERENCES:
                    findings.append(Difference(IDENTITY, where, *wrong))
    return Verdict(IDENTITY, compared, differing, findings)


def _wrong(
    corrections: Sequence[Correction], place: int, row: Entry | None, left: WrappedRow | None
) -> tuple[str, str] | None:
    """What is expected at a place and what is there, where they differ. Pure."""
    one = corrections[place]
    if one.revision != place + 1:
        return f"revision {place + 1}", f"revision {one.revision}"
    before = corrections[place - 1] if place else None
    if one.sign > 0:
        together = before is not None and before.sign < 0 and before.kind == one.kind
        return None if together else ("taken back before", "entered")
    if before is not None and before.sign < 0:
        return "nothing left to take back", _shown(one.entry, _LEFT)
    stood: Entry | WrappedRow | None = present(row, corrections[:place])
    names: Sequence[str] = _COUNTED
    said = any(earlier.kind == CORRECT for earlier in corrections[:place])
    if row is None and not said:
        stood = stood or left
        names = _LEFT if one.kind == AMOUNT or not place else ()
    elif one.kind == AMOUNT and not any(getattr(one.entry, name) for name in COLUMNS):
        names = _LEFT  # its row could not be read then
    if stood is None:  # its id is forgotten
        return None
    if all(getattr(stood, name) == getattr(one.entry, name) for name in names):
        return None
    return _shown(stood, names), _shown(one.entry, names)


def _shown(of: Entry | WrappedRow, names: Sequence[str]) -> str:
    cost = of.cost_nanos
    rest = (f"{name}={getattr(of, name)}" for name in names if name not in ("cost_nanos",))
    return " ".join(("-" if cost is None else to_usd(cost), *rest))[:1_000]


async def _events(tx: Tx) -> AsyncIterator[list[list[Correction]]]:
    """Every correction, those of one event together, some events at a time."""
    held: list[Correction] = []
    rows = await tx.fetch(_read)
    while rows:
        found = [*held, *(correction_of(tuple(row)) for row in rows)]
        last = found[-1].entry[:2]
        done = len(rows) < PAGE
        held = [] if done else [one for one in found if one.entry[:2] == last]
        ready = found if done else found[: len(found) - len(held)]
        events: dict[tuple[str, str], list[Correction]] = {}
        for one in ready:
            events.setdefault(one.entry[:2], []).append(one)
        if events:
            yield list(events.values())
        if done:
            return
        place: tuple[Any, ...] = (*found[-1].entry[:2], found[-1].revision)
        after = (literal(value, column.type) for value, column in zip(place, _KEY, strict=True))
        rows = await tx.fetch(_read.where(tuple_(*_KEY) > tuple_(*after)))
    if held:
        yield [held]
