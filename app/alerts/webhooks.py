"""Make, change and remove webhooks: who gets messages, of what, and signed with which secrets."""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import delete, func, insert, literal, select, tuple_, update

from app.alerts.sender import Letter
from app.alerts.signing import new_secret, secrets_in_force
from app.alerts.tables import Delivery, DeliveryAttempt, Webhook
from app.core.errors import Conflict, InvalidInput, NotFound
from app.core.ids import short_id
from app.db.changes import announce
from app.db.engine import Tx

MOST_WEBHOOKS = 100
MOST_OLDER_SECRETS = 4


class Hook(NamedTuple):
    """A webhook as it is stored."""

    id: str
    kind: str
    url: str
    secret: str | None
    older_secrets: dict[str, str]
    event_types: tuple[str, ...]
    scope_key: str
    enabled: bool
    disabled_reason: str | None
    description: str
    created_at: datetime

    def letter(self, message_id: str, payload: str, now: datetime) -> Letter:
        """A message, addressed to this webhook."""
        keys = secrets_in_force(self.secret, self.older_secrets, now)
        return Letter(message_id, payload, self.kind, self.url, keys)


_COLUMNS = tuple(getattr(Webhook, name) for name in Hook._fields)


def _hook(row: Any) -> Hook:
    found = Hook._make(row)
    types: str = found.event_types  # type: ignore[assignment]
    return found._replace(event_types=tuple(filter(None, types.split(","))))


def _row(hook: Hook) -> dict[str, Any]:
    return hook._asdict() | {"event_types": ",".join(hook.event_types)}


async def create_webhook(tx: Tx, hook: Hook, now: datetime) -> Hook:
    """Store a webhook under a new id, with a secret if its kind is signed.

    Raises:
        Conflict: there are as many as may be.
    """
    if (await tx.fetch(select(func.count()).select_from(Webhook)))[0][0] >= MOST_WEBHOOKS:
        raise Conflict(f"there are {MOST_WEBHOOKS} webhooks already", limit=MOST_WEBHOOKS)
    secret = new_secret() if hook.kind == "webhook" else None
    made = hook._replace(id=short_id("wh"), secret=secret, created_at=now)
    await tx.run(insert(Webhook), [_row(made)])
    await announce(tx, "webhooks", made.id, now)
    return made


async def change_webhook(tx: Tx, hook: Hook, now: datetime) -> Hook:
    """Store everything that is decided about a webhook; enabling it forgets why it was not."""
    if hook.enabled:
        hook = hook._replace(disabled_reason=None)
    await tx.run(update(Webhook).where(Webhook.id == hook.id).values(**_row(hook)))
    await announce(tx, "webhooks", hook.id, now)
    return hook


async def rotate_secret(tx: Tx, hook: Hook, overlap: timedelta, now: datetime) -> Hook:
    """Give a webhook a new secret; the present one signs beside it until the overlap has run.

    Raises:
        InvalidInput: its kind is not signed.
    """
    if hook.secret is None:
        raise InvalidInput("only webhooks of kind `webhook` are signed")
    older = {hook.secret: (now + overlap).isoformat()} | hook.older_secrets
    running = secrets_in_force(hook.secret, older, now)[1:][:MOST_OLDER_SECRETS]
    kept = {secret: older[secret] for secret in running}
    return await change_webhook(tx, hook._replace(secret=new_secret(), older_secrets=kept), now)


async def disable_webhook(tx: Tx, webhook_id: str, reason: str, now: datetime) -> None:
    """Send nothing more there until somebody enables it again."""
    change = update(Webhook).where(Webhook.id == webhook_id, Webhook.enabled)
    if await tx.run(change.values(enabled=False, disabled_reason=reason)):
        await announce(tx, "webhooks", webhook_id, now)


async def delete_webhook(tx: Tx, webhook_id: str, now: datetime) -> None:
    """Remove a webhook with everything that was or is to be sent there.

    Raises:
        NotFound: there is none of that id.
    """
    if not await tx.run(delete(Webhook).where(Webhook.id == webhook_id)):
        raise NotFound("no such webhook", id=webhook_id)
    sent = select(Delivery.id).where(Delivery.webhook_id == webhook_id)
    await tx.run(delete(DeliveryAttempt).where(DeliveryAttempt.delivery_id.in_(sent)))
    await tx.run(delete(Delivery).where(Delivery.webhook_id == webhook_id))
    await announce(tx, "webhooks", webhook_id, now)


async def get_webhook(tx: Tx, webhook_id: str) -> Hook:
    """The webhook of that id.

    Raises:
        NotFound: there is none.
    """
    row = await tx.first(select(*_COLUMNS).where(Webhook.id == webhook_id))
    if row is None:
        raise NotFound("no such webhook", id=webhook_id)
    return _hook(row)


async def list_webhooks(
    tx: Tx, after: tuple[datetime, str] | None, limit: int | None, *, enabled: bool = False
) -> list[Hook]:
    """At most `limit` webhooks in the order they were made; the enabled ones, or all."""
    query = select(*_COLUMNS).order_by(Webhook.created_at, Webhook.id).limit(limit)
    if enabled:
        query = query.where(Webhook.enabled)
    if after is not None:
        last = tuple_(literal(after[0], Webhook.created_at.type), literal(after[1]))
        query = query.where(tuple_(Webhook.created_at, Webhook.id) > last)
    return [_hook(row) for row in await tx.fetch(query)]
