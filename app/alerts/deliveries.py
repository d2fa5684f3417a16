"""Where each message stands on its way to each webhook: due, claimed, finished, queued again."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import (
    Row,
    delete,
    exists,
    insert,
    literal,
    or_,
    select,
    tuple_,
    union_all,
    update,
)

from app.alerts.messages import alert_ids
from app.alerts.schedule import Outcome, Verdict
from app.alerts.tables import Alert, Delivery, DeliveryAttempt, Message, Webhook
from app.core.errors import NotFound
from app.db.engine import Tx
from app.metrics.names import WEBHOOKS

STATES = ("pending", "delivered", "dead")
KEPT_ATTEMPTS = 20
LEASE = timedelta(seconds=30)
"""Twice the longest attempt: what a sender that died had claimed is due again after so long."""


class Claimed(NamedTuple):
    """A delivery that this sender has taken on, with its message."""

    id: str
    webhook_id: str
    message_id: str
    scope_key: str
    payload: str
    attempts: int
    failures: int


class Attempted(NamedTuple):
    """One attempt as it is kept."""

    delivery_id: str
    attempt: int
    attempted_at: datetime
    took_ms: int
    status: int | None
    response: str | None
    error: str | None


class Underway(NamedTuple):
    """A delivery as it is shown."""

    id: str
    message_id: str
    webhook_id: str
    created_at: datetime
    state: str
    next_attempt_at: datetime | None
    attempts: int
    last_status: int | None
    last_response: str | None
    last_error: str | None
    delivered_at: datetime | None


_COLUMNS = tuple(getattr(Delivery, name) for name in Underway._fields)
_ATTEMPTED = tuple(getattr(DeliveryAttempt, name) for name in Attempted._fields)


# ---- sending ----------------------------------------------------------------------------------


async def due(tx: Tx, room: Mapping[str, int], now: datetime) -> list[tuple[str, str]]:
    """(delivery, webhook) of what is due, oldest first, at most `room` of each webhook."""
    parts = [
        select(
            select(Delivery.id, Delivery.webhook_id, Delivery.next_attempt_at)
            .where(Delivery.webhook_id == webhook_id, Delivery.next_attempt_at <= now)
            .order_by(Delivery.next_attempt_at)
            .limit(most)
            .subquery()
        )
        for webhook_id, most in sorted(room.items())
        if most > 0
    ]
    if not parts:
        return []
    found = await tx.fetch(union_all(*parts).order_by("next_attempt_at", "id"))
    return [(row[0], row[1]) for row in found]


async def claim(tx: Tx, ids: Collection[str], mark: str, now: datetime) -> list[Claimed]:
    """Take on those of the deliveries that are still due; of two senders, one gets each."""
    still = (Delivery.id.in_(sorted(ids)), Delivery.next_attempt_at <= now)
    await tx.run(update(Delivery).where(*still).values(claim=mark, next_attempt_at=now + LEASE))
    query = (
        select(
            *(Delivery.id, Delivery.webhook_id, Delivery.message_id, Message.scope_key),
            *(Message.payload, Delivery.attempts, Delivery.failures),
        )
        .join(Message, Message.id == Delivery.message_id)
        .where(Delivery.id.in_(sorted(ids)), Delivery.claim == mark)
    )
    return [Claimed._make(row) for row in await tx.fetch(query)]


async def finish(
    tx: Tx, taken: Claimed, mark: str, outcome: Outcome, verdict: Verdict, now: datetime
) -> bool:
    """Note what came of an attempt; False where somebody else has taken the delivery on since."""
    delivered = verdict.state == "delivered"
    change = (
        update(Delivery)
        .where(Delivery.id == taken.id, Delivery.claim == mark)
        .values(
            state=verdict.state,
            next_attempt_at=verdict.next_attempt_at,
            claim=None,
            attempts=taken.attempts + 1,
            failures=taken.failures + (not delivered),
            last_status=outcome.status,
            last_response=outcome.response,
            last_error=outcome.error,
            **({"delivered_at": now} if delivered else {}),
        )
    )
    if not await tx.run(change):
        return False
    tx.note(WEBHOOKS, "retried" if verdict.state == "pending" else verdict.state)
    kept = Attempted(
        *(taken.id, taken.attempts + 1, now, outcome.took_ms),
        *(outcome.status, outcome.response, outcome.error),
    )
    await tx.run(insert(DeliveryAttempt), [kept._asdict()])
    old = (
        DeliveryAttempt.delivery_id == taken.id,
        DeliveryAttempt.attempt <= taken.attempts + 1 - KEPT_ATTEMPTS,
    )
    await tx.run(delete(DeliveryAttempt).where(*old))
    if delivered and (told := alert_ids(taken.payload)):
        same = (Alert.scope_key == taken.scope_key, Alert.id.in_(sorted(told)))
        await tx.run(update(Alert).where(*same, Alert.sent_at.is_(None)).values(sent_at=now))
    return True


# ---- looking and queueing again ---------------------------------------------------------------


async def list_deliveries(
    tx: Tx, webhook_id: str, state: str | None, before: tuple[datetime, str] | None, limit: int
) -> list[Underway]:
    """At most `limit` deliveries of a webhook, newest first, of one state or of all."""
    query = select(*_COLUMNS).where(Delivery.webhook_id == webhook_id).limit(limit)
    query = query.order_by(Delivery.created_at.desc(), Delivery.id.desc())
    if state is not None:
        query = query.where(Delivery.state == state)
    if before is not None:
        last = tuple_(literal(before[0], Delivery.created_at.type), literal(before[1]))
        query = query.where(tuple_(Delivery.created_at, Delivery.id) < last)
    return [Underway._make(row) for row in await tx.fetch(query)]


async def attempts_of(tx: Tx, ids: Sequence[str]) -> dict[str, list[Attempted]]:
    """The attempts that are kept of each delivery, oldest first."""
    found: dict[str, list[Attempted]] = {one: [] for one in ids}
    query = select(*_ATTEMPTED).where(DeliveryAttempt.delivery_id.in_(sorted(ids)))
    query = query.order_by(DeliveryAttempt.delivery_id, DeliveryAttempt.attempt)
    for row in await tx.fetch(query) if ids else ():
        found[row[0]].append(Attempted._make(row))
    return found


async def queue_again(tx: Tx, delivery_id: str, now: datetime) -> Underway:
    """Make a delivery due now, whatever became of it; one that is being sent just now stays so.

    Raises:
        NotFound: there is none of that id.
    """
    idle = or_(Delivery.claim.is_(None), Delivery.next_attempt_at <= now)
    change = update(Delivery).where(Delivery.id == delivery_id, idle)
    await tx.run(change.values(state="pending", next_attempt_at=now, claim=None, failures=0))
    row = await tx.first(select(*_COLUMNS).where(Delivery.id == delivery_id))
    if row is None:
        raise NotFound("no such delivery", id=delivery_id)
    return Underway._make(row)


async def queue_dead_again(tx: Tx, webhook_id: str, now: datetime) -> int:
    """Make every delivery due now that was given up for this webhook; how many there were."""
    dead = (Delivery.webhook_id == webhook_id, Delivery.state == "dead")
    again = {"state": "pending", "next_attempt_at": now, "claim": None, "failures": 0}
    return await tx.run(update(Delivery).where(*dead).values(**again))


async def forget_messages(tx: Tx, before: datetime, most: int) -> bool:
    """Remove at most `most` messages from before then; whether there may be more.

    One that is still on its way to an enabled webhook is kept.
    """
    live = select(Webhook.id).where(Webhook.enabled)
    waiting = exists().where(
        Delivery.message_id == Message.id,
        Delivery.state == "pending",
        Delivery.webhook_id.in_(live),
    )
    query = select(Message.id).where(Message.created_at < before, ~waiting)
    ids: list[Row[tuple[str]]] = list(
        await tx.fetch(query.order_by(Message.created_at).limit(most))
    )
    if not ids:
        return False
    gone = sorted(row[0] for row in ids)
    sent = select(Delivery.id).where(Delivery.message_id.in_(gone))
    await tx.run(delete(DeliveryAttempt).where(DeliveryAttempt.delivery_id.in_(sent)))
    await tx.run(delete(Delivery).where(Delivery.message_id.in_(gone)))
    await tx.run(delete(Message).where(Message.id.in_(gone)))
    return len(gone) == most
