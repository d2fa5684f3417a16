"""Write the alerts of a transaction into it, and the messages that are to tell of them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from app.alerts.crossings import Crossing
from app.alerts.messages import Raised, Reader, composed
from app.alerts.notices import Notice, NoticeKey, notice_of
from app.alerts.tables import Alert, Delivery, Message, Webhook
from app.core.ids import uuid7
from app.db.engine import Tx
from app.db.types import instant, table_of
from app.db.upsert import Append, Find
from app.metrics.names import ALERTS

_KEY = ("scope_key", "limit_id", "window_start", "threshold")
_COLUMNS = (
    *_KEY,
    *("id", "type", "severity", "title", "message", "billing_period", "created_at", "read_at"),
)
_append = Append(table_of(Alert), _COLUMNS, _KEY)
_find_readers = Find(table_of(Webhook), ("enabled",), ("id", "event_types", "scope_key"))
_append_messages = Append(
    table_of(Message), ("id", "created_at", "type", "scope_key", "payload"), ("id",)
)
_append_deliveries = Append(
    table_of(Delivery),
    ("id", "message_id", "webhook_id", "created_at", "state", "next_attempt_at"),
    ("id",),
)


async def raise_alerts(tx: Tx, found: Iterable[Crossing], now: datetime) -> None:
    """Record each crossing once; one that was alerted before stays as it was.

    The alerts that are new become one message per scope, queued for every webhook that wants it.
    """
    await raise_notices(tx, map(notice_of, found), now)


async def raise_notices(tx: Tx, found: Iterable[Notice], now: datetime) -> int:
    """As `raise_alerts`, of whatever is to be told; how many were new."""
    raised = sorted((Raised(uuid7(), notice) for notice in found), key=_key)
    if not raised:
        return 0
    new = await _append(tx, [_row(one, now) for one in raised])
    if new is not None:
        known = {(*key[:2], instant(key[2]), key[3]) for key in new}
        raised = [one for one in raised if _key(one) in known]
    for severity, count in Counter(one.notice.severity for one in raised).items():
        tx.note(ALERTS, severity, by=count)
    if raised and (readers := await _readers(tx)):
        await _queue(tx, raised, readers, now)
    return len(raised)


def _key(one: Raised) -> NoticeKey:
    return one.notice.key


def _row(one: Raised, now: datetime) -> tuple[object, ...]:
    notice = one.notice
    said = (notice.type, notice.severity, notice.title, notice.message, notice.billing_period)
    return (*notice.key, one.id, *said, now, None)


async def _readers(tx: Tx) -> list[Reader]:
    """The webhooks that take messages now: one read, and only where something was crossed."""
    return [
        Reader(webhook_id, frozenset(filter(None, types.split(","))), scope_key)
        for webhook_id, types, scope_key in await _find_readers(tx, [(True,)])
    ]


async def _queue(
    tx: Tx, raised: Sequence[Raised], readers: Sequence[Reader], now: datetime
) -> None:
    messages: list[tuple[object, ...]] = []
    deliveries: list[tuple[object, ...]] = []
    for message in composed(raised, now):
        wanting = [reader.id for reader in readers if reader.wants(message)]
        if not wanting:
            continue
        message_id = f"msg_{uuid7()}"
        messages.append((message_id, now, message.type, message.scope_key, message.payload))
        for webhook_id in wanting:
            deliveries.append((f"dlv_{uuid7()}", message_id, webhook_id, now, "pending", now))
    if messages:
        await _append_messages(tx, messages)
        await _append_deliveries(tx, deliveries)
