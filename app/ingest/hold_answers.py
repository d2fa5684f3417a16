"""What is answered about a hold: that it stands, or which limit it does not fit under."""

from datetime import datetime

import msgspec
from msgspec import Struct

from app.core.clock import Clock
from app.core.errors import AppError, LimitReached
from app.core.money import to_usd
from app.ingest.intake import Outcome
from app.limits.door import EXPIRED, message_of, state_out
from app.limits.hold_judge import Denied
from app.limits.holds import HoldOutcome, HoldRow, Share, shares_of
from app.web.lean import LeanAnswer

LONGEST_WAIT_S = 86_400
_encode = msgspec.json.Encoder().encode
_SAID = {
    "stated": "the cost that was stated",
    "usage": "the usage that was stated, at the price of the model",
    "model_maximum": "the longest answer of the model; what it is asked is not in it",
    "unknown": "nothing is known of this model: one call is held and nothing else",
}


class EstimateOut(Struct, gc=False):
    """What the amounts were taken from."""

    basis: str
    detail: str
    output_tokens: int | None


class HoldOut(Struct, gc=False):
    """A hold for the wire."""

    id: str
    user_id: str
    status: str
    created_at: datetime
    expires_at: datetime
    held: list[Share]
    estimated_cost_usd: str | None
    estimate: EstimateOut
    provider: str | None
    model: str | None
    settled_event_id: str | None
    closed_at: datetime | None


def hold_out(row: HoldRow, now: datetime) -> HoldOut:
    """A hold as it stands at an instant. Pure."""
    cost = row.estimated_cost_nanos
    return HoldOut(
        id=row.id,
        user_id=row.user_id,
        status=row.state_at(now),
        created_at=row.created_at,
        expires_at=row.expires_at,
        held=shares_of(row),
        estimated_cost_usd=None if cost is None else to_usd(cost),
        estimate=EstimateOut(row.basis, _SAID[row.basis], row.output_tokens),
        provider=row.provider,
        model=row.model,
        settled_event_id=row.settled_event_id,
        closed_at=row.closed_at,
    )


def hold_json(row: HoldRow, now: datetime) -> bytes:
    """The hold as JSON."""
    return _encode(hold_out(row, now))


def hold_answer(outcome: Outcome, *, clock: Clock) -> LeanAnswer:
    """The answer to whoever asked for a hold: 201, or 200 where the same was asked before.

    Raises:
        LimitReached: it does not fit.
        AppError: what else became of it.
    """
    decision = outcome.decision
    if isinstance(decision, AppError):
        raise decision
    if isinstance(decision, Denied):
        raise _refusal(decision, clock.now())
    assert isinstance(decision, HoldOutcome)
    row, headers = decision.row, []
    if row.estimated_cost_nanos is not None:
        headers.append((b"x-tollgate-cost-usd", to_usd(row.estimated_cost_nanos).encode()))
    if decision.remaining_nanos is not None:
        headers.append((b"x-tollgate-remaining-usd", to_usd(decision.remaining_nanos).encode()))
    body = hold_json(row, row.created_at)  # it is open: the turn that answers has seen to that
    return LeanAnswer(201 if decision.fresh else 200, body, tuple(headers))


def _refusal(denied: Denied, now: datetime) -> LimitReached:
    binding = denied.binding
    if binding is None:
        return LimitReached(EXPIRED, binding=None, retry_after_s=LONGEST_WAIT_S)
    left_s = int((binding.resets_at - now).total_seconds()) + 1
    return LimitReached(
        message_of(binding),
        binding=state_out(binding),
        retry_after_s=min(max(1, left_s), LONGEST_WAIT_S),
    )
