"""What was changed of an event, correction by correction, as the API tells it."""

from collections.abc import Sequence
from datetime import datetime
from itertools import zip_longest
from typing import Any

from pydantic import BaseModel

from app.core.money import to_usd
from app.usage.corrections import Correction

CORRECTION: dict[str, Any] = {
    "revision": 2,
    "kind": "correct",
    "reason": "the gateway counted the prompt of another call",
    "actor": "key_4f0c9a1b2c3d4e5f",
    "at": "2026-11-21T09:00:00Z",
    "delta_cost_usd": "-0.00024",
    "cost_usd": "0.00012",
}


class CorrectionOut(BaseModel):
    """One correction: what the event costs since then, and by how much that is more.

    `kind` is `void`, `correct`, or `amount` where only the cost was changed by an amount.
    """

    revision: int
    kind: str
    reason: str
    actor: str
    at: datetime
    delta_cost_usd: str
    cost_usd: str | None

    model_config = {"json_schema_extra": {"example": CORRECTION}}


def history_out(corrections: Sequence[Correction]) -> list[CorrectionOut]:
    """The corrections of an event, oldest first. Pure."""
    found = []
    for one, following in zip_longest(corrections, corrections[1:]):
        if one.sign > 0:
            continue
        given = following if following is not None and following.sign > 0 else None
        cost = 0 if given is None else given.entry.cost_nanos
        found.append(
            CorrectionOut(
                revision=one.revision if given is None else given.revision,
                kind=one.kind,
                reason=one.reason,
                actor=one.actor,
                at=one.entry.recorded_at,
                delta_cost_usd=to_usd((cost or 0) - (one.entry.cost_nanos or 0)),
                cost_usd=None if cost is None else to_usd(cost),
            )
        )
    return found
