"""Webhooks and deliveries as people look at them: what went out, what waits, what was given up."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import func, select

from app.alerts.deliveries import Attempted, Underway, attempts_of, list_deliveries
from app.alerts.tables import Delivery, Message
from app.alerts.webhook_shapes import shown_url
from app.alerts.webhooks import MOST_WEBHOOKS, Hook, list_webhooks
from app.db.engine import Tx

LATELY = timedelta(days=1)


class HookShown(NamedTuple):
    """A webhook, its URL without what opens it, and its deliveries of the last 24 hours."""

    hook: Hook
    url: str
    waiting: int
    delivered: int
    dead: int


class Sent(NamedTuple):
    """A delivery, what it delivers, and the attempts at it, oldest first."""

    delivery: Underway
    type: str
    scope_key: str
    payload: str
    attempts: Sequence[Attempted]


async def shown_hooks(tx: Tx, now: datetime) -> list[HookShown]:
    """Every webhook in the order they were made."""
    hooks = await list_webhooks(tx, None, MOST_WEBHOOKS)
    lately = select(Delivery.webhook_id, Delivery.state, func.count())
    lately = lately.where(Delivery.webhook_id.in_([hook.id for hook in hooks]))
    waiting = lately.where(Delivery.next_attempt_at.is_not(None))
    lately = lately.where(Delivery.created_at >= now - LATELY)
    by = (Delivery.webhook_id, Delivery.state)
    counted = {(row[0], row[1]): row[2] for row in await tx.fetch(lately.group_by(*by))}
    pending = {row[0]: row[2] for row in await tx.fetch(waiting.group_by(*by))}
    return [
        HookShown(
            hook,
            shown_url(hook.kind, hook.url),
            pending.get(hook.id, 0),
            counted.get((hook.id, "delivered"), 0),
            counted.get((hook.id, "dead"), 0),
        )
        for hook in hooks
    ]


async def sent_to(
    tx: Tx, webhook_id: str, state: str | None, before: tuple[datetime, str] | None, limit: int
) -> list[Sent]:
    """At most `limit` deliveries of a webhook, newest first, of one state or of all."""
    found = await list_deliveries(tx, webhook_id, state, before, limit)
    attempts = await attempts_of(tx, [one.id for one in found])
    query = select(Message.id, Message.type, Message.scope_key, Message.payload)
    ids = sorted({one.message_id for one in found})
    rows = await tx.fetch(query.where(Message.id.in_(ids))) if ids else []
    said = {row[0]: (row[1], row[2], row[3]) for row in rows}
    return [Sent(one, *said.get(one.message_id, ("", "", "")), attempts[one.id]) for one in found]
