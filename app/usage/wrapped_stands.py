"""How a wrapped event stands, by its row from the archive or by what was corrected of it. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from app.core.money import Nanos
from app.usage.corrections import AMOUNT, Correction, is_voided, shown
from app.usage.ledger import Entry
from app.usage.wrapped import WrappedRow


class Charge(NamedTuple):
    """What an event costs, and how that is known."""

    cost_nanos: int | None
    cost_status: str


def standing_of(
    left: WrappedRow, archived: Entry | None, corrections: Sequence[Correction]
) -> Entry | None:
    """The event as it stands; None where only its archive could tell and that was not read.

    A void and a correction of what was sent keep the whole call. One of its cost alone may have
    been made without the archive, and then holds only names.
    """
    if archived is not None:
        return shown(archived, corrections) or archived
    if all(one.kind == AMOUNT for one in corrections):
        return None
    found = shown(None, corrections)
    if found is None:
        return None
    return found._replace(recorded_at=left.recorded_at, body_hash=left.body_hash)


def charge_of(left: WrappedRow, corrections: Sequence[Correction]) -> Charge:
    """What the event costs after its corrections, which takes no archive to tell."""
    if not corrections:
        return Charge(left.cost_nanos, left.cost_status)
    last = corrections[-1].entry
    cost = Nanos(0) if is_voided(corrections) else last.cost_nanos
    return Charge(cost, last.cost_status)
