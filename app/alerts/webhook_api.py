"""Endpoints for webhooks and what is on its way to them."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from app.access.api import Cursor, Id, JsonRoute, Page, PageSize, Place, page_of, place_of
from app.access.deps import Db, Manager, Note, Now, Reader
from app.access.guard import require_user
from app.alerts.channels import judge_channel
from app.alerts.deliveries import Attempted, Underway, attempts_of, list_deliveries, queue_again
from app.alerts.guard import Guard, Refused
from app.alerts.messages import TEST_TYPE, payload_of
from app.alerts.sender import Sender
from app.alerts.webhook_shapes import (
    DeliveryOut,
    NewSecretOut,
    OverlapIn,
    State,
    TestOut,
    WebhookIn,
    WebhookOut,
    WebhookPatch,
    delivery_out,
    facts_of,
)
from app.alerts.webhooks import (
    Hook,
    change_webhook,
    create_webhook,
    delete_webhook,
    get_webhook,
    list_webhooks,
    rotate_secret,
)
from app.core.errors import InvalidInput
from app.core.ids import uuid7
from app.db.engine import Tx

router = APIRouter(route_class=JsonRoute, tags=["webhooks"])
KIND = "webhook"


def _guard(request: Request) -> Guard:
    found: Guard = request.app.state.guard
    return found


def _sender(request: Request) -> Sender:
    found: Sender = request.app.state.sender
    return found


Judge = Annotated[Guard, Depends(_guard)]
Sending = Annotated[Sender, Depends(_sender)]


async def _judge(guard: Guard, kind: str, url: str) -> None:
    """Refuse a URL that nothing may be sent to."""
    try:
        if kind == "apprise":
            await judge_channel(guard, url)
        else:
            await guard.judge_url(url)
    except Refused as error:
        raise InvalidInput.at("/url", str(error)) from None


def _out(hook: Hook) -> WebhookOut:
    return WebhookOut(**facts_of(hook))


@router.post("/v1/webhooks", status_code=201)
async def create(
    body: WebhookIn, key: Manager, db: Db, clock: Now, guard: Judge, note: Note
) -> NewSecretOut:
    """Make a webhook. The answer is the only place where its secret can be read.

    It gets the alerts that are raised from now on.
    """
    require_user(key, None)
    await _judge(guard, body.kind, body.url)
    now = clock.now()
    drafted = Hook(
        id="",
        kind=body.kind,
        url=body.url,
        secret=None,
        older_secrets={},
        event_types=tuple(sorted(body.event_types)),
        scope_key=body.scope.key,
        enabled=body.enabled,
        disabled_reason=None,
        description=body.description,
        created_at=now,
    )

    async def work(tx: Tx) -> Hook:
        made = await create_webhook(tx, drafted, now)
        await note(tx, "create", KIND, made.id, None, _out(made))
        return made

    made = await db.write(work, alone=True)
    return NewSecretOut(**facts_of(made), secret=made.secret)


@router.get("/v1/webhooks")
async def list_all(
    key: Reader, db: Db, cursor: Cursor = None, limit: PageSize = 100
) -> Page[WebhookOut]:
    """Webhooks in the order they were made; without their secrets."""
    require_user(key, None)
    after = place_of(cursor)
    rows = await db.read(lambda tx: list_webhooks(tx, after, limit + 1))
    shown, more = page_of(rows, limit, lambda hook: Place(hook.created_at, hook.id))
    return Page(items=[_out(hook) for hook in shown], next_cursor=more)


@router.get("/v1/webhooks/{webhook_id}")
async def get(webhook_id: Id, key: Reader, db: Db) -> WebhookOut:
    """One webhook."""
    require_user(key, None)
    return _out(await db.read(lambda tx: get_webhook(tx, webhook_id)))


@router.patch("/v1/webhooks/{webhook_id}")
async def patch(
    webhook_id: Id,
    body: WebhookPatch,
    key: Manager,
    db: Db,
    clock: Now,
    guard: Judge,
    note: Note,
) -> WebhookOut:
    """Change what is named of a webhook; enabled again, it gets what was waiting for it."""
    require_user(key, None)
    sent = body.model_fields_set
    if "url" in sent:
        kind = (await db.read(lambda tx: get_webhook(tx, webhook_id))).kind
        await _judge(guard, kind, body.url)
    now = clock.now()
    given = {name: getattr(body, name) for name in sent & {"url", "enabled", "description"}}
    if "event_types" in sent:
        given["event_types"] = tuple(sorted(body.event_types))
    if "scope" in sent:
        given["scope_key"] = body.scope.key

    async def work(tx: Tx) -> Hook:
        known = await get_webhook(tx, webhook_id)
        changed = await change_webhook(tx, known._replace(**given), now)
        await note(tx, "change", KIND, webhook_id, _out(known), _out(changed))
        return changed

    return _out(await db.write(work, alone=True))


@router.delete("/v1/webhooks/{webhook_id}", status_code=204)
async def delete(webhook_id: Id, key: Manager, db: Db, clock: Now, note: Note) -> None:
    """Remove a webhook with all that was sent there or waits to be."""
    require_user(key, None)
    now = clock.now()

    async def work(tx: Tx) -> None:
        known = await get_webhook(tx, webhook_id)
        await delete_webhook(tx, webhook_id, now)
        await note(tx, "delete", KIND, webhook_id, _out(known), None)

    await db.write(work, alone=True)


@router.post("/v1/webhooks/{webhook_id}/rotate-secret")
async def rotate(
    webhook_id: Id, body: OverlapIn, key: Manager, db: Db, clock: Now, note: Note
) -> NewSecretOut:
    """Give the webhook a new secret; the present one signs beside it for `overlap_s` more."""
    require_user(key, None)
    now = clock.now()
    overlap = timedelta(seconds=body.overlap_s)

    async def work(tx: Tx) -> Hook:
        known = await get_webhook(tx, webhook_id)
        changed = await rotate_secret(tx, known, overlap, now)
        await note(tx, "rotate_secret", KIND, webhook_id, _out(known), _out(changed))
        return changed

    made = await db.write(work, alone=True)
    return NewSecretOut(**facts_of(made), secret=made.secret)


@router.post("/v1/webhooks/{webhook_id}/test")
async def test(webhook_id: Id, key: Manager, db: Db, clock: Now, sender: Sending) -> TestOut:
    """Send a signed test message now, even where disabled, and tell what the receiver said."""
    require_user(key, None)
    hook = await db.read(lambda tx: get_webhook(tx, webhook_id))
    now = clock.now()
    message_id = f"msg_{uuid7()}"
    data = {"webhook_id": hook.id, "text": "A test message: this is where alerts will arrive."}
    letter = hook.letter(message_id, payload_of(TEST_TYPE, now, data), now)
    outcome = await sender.send(letter, now)
    return TestOut(
        delivered=outcome.error is None,
        message_id=message_id,
        status=outcome.status,
        response=outcome.response,
        error=outcome.error,
        took_ms=outcome.took_ms,
    )


@router.get("/v1/webhooks/{webhook_id}/deliveries")
async def list_sent(
    webhook_id: Id,
    key: Reader,
    db: Db,
    state: Annotated[State | None, Query()] = None,
    cursor: Cursor = None,
    limit: PageSize = 100,
) -> Page[DeliveryOut]:
    """What was and is to be sent to a webhook, newest first, with the attempts at it."""
    require_user(key, None)
    before = place_of(cursor)

    async def work(tx: Tx) -> tuple[list[Underway], dict[str, list[Attempted]]]:
        await get_webhook(tx, webhook_id)
        found = await list_deliveries(tx, webhook_id, state, before, limit + 1)
        return found, await attempts_of(tx, [one.id for one in found[:limit]])

    rows, attempts = await db.read(work)
    shown, more = page_of(rows, limit, lambda one: Place(one.created_at, one.id))
    return Page(items=[delivery_out(one, attempts[one.id]) for one in shown], next_cursor=more)


@router.post("/v1/deliveries/{delivery_id}/retry")
async def retry(delivery_id: Id, key: Manager, db: Db, clock: Now, note: Note) -> DeliveryOut:
    """Send it again, soon, under the same message id: also what was delivered or given up."""
    require_user(key, None)
    now = clock.now()

    async def work(tx: Tx) -> DeliveryOut:
        found = await queue_again(tx, delivery_id, now)
        shown = delivery_out(found, (await attempts_of(tx, [found.id]))[found.id])
        await note(tx, "retry", "delivery", found.id, None, shown)
        return shown

    return await db.write(work)
