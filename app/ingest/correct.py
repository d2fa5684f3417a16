"""Take back what an event counts, and put in its place what it shall count: by rows that are added.

A void takes an event back. A correction takes it back as it stands and enters it as it shall be.
Totals, limits and alerts move in the same transaction, by the functions that ingest counts with.
Whoever corrects an event holds its row still, so two corrections of one come one after the other.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from operator import add
from typing import Any, NamedTuple

from app.alerts.crossings import crossings
from app.alerts.outbox import raise_alerts
from app.core.errors import Conflict, IdReused, NotFound
from app.db.engine import Tx
from app.ingest.beside import beside_again
from app.ingest.calls import MAX_BILLED
from app.ingest.correct_fields import Amount, Edit, edited, with_amount
from app.ingest.correct_names import blank_of
from app.ingest.meter import House, know_rules
from app.ingest.rerate import SHARD
from app.limits.counters import Growth, count, growths
from app.plans.known import Agreement
from app.summaries.drifts import apply_drifts, drifts_of
from app.summaries.fold import Amounts, Change, fold, measures_of
from app.summaries.store import apply
from app.usage.corrections import (
    AMOUNT,
    CORRECT,
    VOID,
    Correction,
    append_corrections,
    corrected,
    is_voided,
    present,
)
from app.usage.ledger import Entry
from app.usage.lock import Kept, lock_events
from app.usage.wrapped import WrappedRow


class Order(NamedTuple):
    """What somebody asks to be done to an event, and why; `edit` is None for a void.

    `body_hash` and `idempotency_key` tell an order that was carried out before.
    """

    user_id: str
    event_id: str
    edit: Edit | Amount | None
    reason: str
    actor: str
    body_hash: int
    idempotency_key: str | None

    @property
    def kind(self) -> str:
        return VOID if self.edit is None else CORRECT if isinstance(self.edit, Edit) else AMOUNT


class Standing(NamedTuple):
    """An event as it came and every correction of it; `row` is None where it cannot be read."""

    event_id: str
    row: Entry | None
    corrections: Sequence[Correction]


class Done(NamedTuple):
    """The rows of an event that an order was about, first the one it named."""

    rows: Sequence[Standing]
    agreement: Agreement


class Moved(Exception):
    """The row was read from where it no longer is: roll back, read it again and try again."""


Evidence = Mapping[str, Entry | None]
"""Rows of wrapped events by id, read from their archives; None where that was not possible."""


def rows_meant(order: Order) -> list[str]:
    """The ids that an order may be about: a void takes back every call that an event told of."""
    if order.edit is not None:
        return [order.event_id]
    further = (f"{order.event_id}#{place}" for place in range(2, MAX_BILLED + 1))
    return [order.event_id, *further]


def needs_evidence(kept: Kept, corrections: Sequence[Correction]) -> bool:
    """Whether how an event stands is told by its archive alone."""
    return kept.row is None and not any(one.kind == CORRECT for one in corrections)


async def carry_out(
    tx: Tx, order: Order, *, house: House, evidence: Evidence, now: datetime
) -> Done:
    """Carry out an order, unless it was before: nothing is taken back or entered twice.

    Raises:
        NotFound: this user has no such event.
        Conflict: it was voided, or where it lies cannot be read.
        IdReused: another order came with this idempotency key.
        InvalidInput: the amount is more than the event costs, or it is not told which calls.
        Moved: read the evidence again and try again.
    """
    agreements = await house.agreements.ensure(tx, {order.user_id}, now)
    kept = await lock_events(tx, order.user_id, rows_meant(order))
    if order.event_id not in kept:
        raise NotFound("this user has no such event", id=order.event_id)
    same = kept[order.event_id].body_hash
    ids = [one for one in rows_meant(order) if one in kept and kept[one].body_hash == same]
    known = await corrected(tx, [(order.user_id, event_id) for event_id in ids])
    standing = [
        _standing(event_id, kept[event_id], known.get((order.user_id, event_id), []), evidence)
        for event_id in ids
    ]
    agreement = agreements[order.user_id]
    if _was_done(order, standing[0].corrections):
        return Done(standing, agreement)
    made: list[Correction] = []
    for one in standing:
        made += await _rows_for(tx, order, one, kept[one.event_id].left, house, now)
    if made:
        await append_corrections(tx, made)
        await _move(tx, made, agreements, house, now)
        standing = [_with(one, made) for one in standing]
    return Done(standing, agreement)


def _standing(
    event_id: str, kept: Kept, corrections: Sequence[Correction], evidence: Evidence
) -> Standing:
    row = kept.row
    if row is None and needs_evidence(kept, corrections):
        if event_id not in evidence:
            raise Moved
        row = evidence[event_id]
        if row is not None and not _is_of(row, kept.left):
            raise Moved
    return Standing(event_id, row, corrections)


def _is_of(row: Entry, left: WrappedRow | None) -> bool:
    """Whether what was read from an archive is the row of what is left in its place."""
    names = ("body_hash", "timestamp", "recorded_at", "cost_nanos", "cost_status")
    return left is not None and all(getattr(row, name) == getattr(left, name) for name in names)


def _was_done(order: Order, corrections: Sequence[Correction]) -> bool:
    """Whether this order was carried out before. Pure.

    One with a key was if any correction has that key; one without, if the newest says the same.
    """
    if order.idempotency_key is None:
        last = corrections[-1] if corrections else None
        return last is not None and last.entry.body_hash == order.body_hash
    for one in corrections:
        if one.idempotency_key == order.idempotency_key:
            if one.entry.body_hash != order.body_hash:
                raise IdReused("another correction of this event came with this idempotency key")
            return True
    return False


async def _rows_for(
    tx: Tx,
    order: Order,
    one: Standing,
    left: WrappedRow | None,
    house: House,
    now: datetime,
) -> list[Correction]:
    """What an order adds to one row's corrections; nothing where that would change nothing."""
    if is_voided(one.corrections):
        if order.edit is None:
            return []
        raise Conflict("this event was voided; send what was used as another event")
    stands = present(one.row, one.corrections)
    if one.row is None and left is not None and not _is_known(one.corrections):
        if not isinstance(order.edit, Amount):
            raise Conflict(
                "the archive that holds this event cannot be read; restore it, or correct the "
                "event's cost by an amount",
                archive_id=left.archive_id,
            )
        if stands is None:
            key = (order.user_id, one.event_id)
            stands = await blank_of(tx, key, left, order.edit.names, now)
    if stands is None:
        raise RuntimeError("an event that was not voided stands")
    if order.edit is None:
        shall = None
    elif isinstance(order.edit, Amount):
        shall = with_amount(stands, order.edit)
    else:
        shall = edited(stands, order.edit, house.prices.catalog, now)
        if shall == stands:
            return []
    if shall is not None:
        shall = beside_again(shall, house.prices.catalog)
    last = len(one.corrections)
    return [
        Correction(
            last + place,
            sign,
            order.kind,
            order.reason,
            order.actor,
            entry._replace(recorded_at=now, body_hash=order.body_hash),
            order.idempotency_key,
        )
        for place, (sign, entry) in enumerate(((-1, stands), (1, shall)), 1)
        if entry is not None
    ]


def _is_known(corrections: Sequence[Correction]) -> bool:
    return any(one.kind == CORRECT for one in corrections)


def _with(one: Standing, made: Sequence[Correction]) -> Standing:
    mine = [new for new in made if new.entry.event_id == one.event_id]
    return one._replace(corrections=[*one.corrections, *mine])


# ---- what moves ---------------------------------------------------------------------------------


async def _move(
    tx: Tx,
    made: Sequence[Correction],
    agreements: Mapping[str, Agreement],
    house: House,
    now: datetime,
) -> None:
    """Move every total and counter by what was taken back and entered, and raise what is due."""
    taken = [one.entry for one in made if one.sign < 0]
    given = [one.entry for one in made if one.sign > 0]
    await apply(
        tx, joined(fold(taken, agreements, _less, calls=-1), fold(given, agreements)), SHARD
    )
    await apply_drifts(tx, SHARD, drifts_of(taken, -1), drifts_of(given))
    await know_rules(tx, [*taken, *given], agreements, house.rules)
    grown = growths(given, agreements, house.rules)
    for key, growth in growths(taken, agreements, house.rules).items():
        known = grown.setdefault(key, Growth(growth.rule, growth.billing_period))
        known.amount -= growth.amount
    steps = await count(tx, {key: growth for key, growth in grown.items() if growth.amount})
    await raise_alerts(tx, crossings(steps, now), now)


def _less(entry: Entry) -> Amounts:
    return [(place, -amount) for place, amount in measures_of(entry)]


def joined(one: Change, other: Change) -> Change:
    """Both changes as one, without what they cancel out. Pure."""
    return Change(
        _joined(one.periods, other.periods),
        _joined(one.hours, other.hours),
        _joined(one.dimensions, other.dimensions),
    )


def _joined(one: Mapping[Any, list[int]], other: Mapping[Any, list[int]]) -> dict[Any, list[int]]:
    found = dict(one)
    for key, more in other.items():
        known = found.get(key)
        found[key] = more if known is None else list(map(add, known, more))
    return {key: total for key, total in found.items() if any(total)}
