"""Pages of webhooks: make, test, pause and delete them, and see what became of each message."""

from typing import Any

from fastapi import APIRouter, Request, Response

from app.access.api import Cursor, Place, page_of, place_of
from app.access.deps import Db, Now
from app.alerts import webhook_api
from app.alerts.deliveries import STATES, queue_dead_again
from app.alerts.messages import EVENT_TYPES
from app.alerts.webhook_api import Judge, Sending
from app.alerts.webhook_shapes import OverlapIn, TestOut, WebhookIn, WebhookPatch, shown_url
from app.alerts.webhooks import Hook, get_webhook
from app.core.errors import Conflict, InvalidInput
from app.dashboard.deps import Managing, SeenAll, Viewer, form
from app.dashboard.filled import Filled, body_of, overlap_in, said, scope_in, wrong
from app.dashboard.frame import page
from app.dashboard.moves import Note, cursor_links, see
from app.dashboard.webhooks_page import Sent, sent_to, shown_hooks
from app.db.engine import Tx

router = APIRouter()
HOME = "/dashboard/alerts/webhooks"
ROWS = 25
SCOPES = {"user": "user_id", "team": "team_id"}
_STATES = {"pending": "Waiting", "delivered": "Delivered", "dead": "Given up"}
_FIELDS = {"scope": "scope_of"}
_NO_FORM = Filled()


# ---- looking ----------------------------------------------------------------------------------


@router.get(HOME)
async def webhooks(viewer: SeenAll, db: Db, clock: Now, done: str = "") -> Response:
    """Every webhook, and what went to it lately."""
    return await _all(viewer, db, clock, _NO_FORM, done)


async def _all(
    viewer: Viewer, db: Db, clock: Now, filled: Filled, done: str, status: int = 200
) -> Response:
    found = await db.read(lambda tx: shown_hooks(tx, clock.now()))
    return page(
        viewer,
        "webhooks.html",
        status=status,
        hooks=found,
        event_types=EVENT_TYPES,
        filled=filled,
        done=done,
    )


@router.get(HOME + "/{webhook_id}")
async def webhook(
    webhook_id: str,
    viewer: SeenAll,
    db: Db,
    state: str = "",
    cursor: Cursor = None,
    done: str = "",
) -> Response:
    """One webhook: what it gets, and every message on its way there."""
    return await _one(viewer, db, webhook_id, state=state, cursor=cursor, done=done)


async def _one(
    viewer: Viewer,
    db: Db,
    webhook_id: str,
    *,
    state: str = "",
    cursor: str | None = None,
    done: str = "",
    secret: str | None = None,
    test: TestOut | None = None,
    filled: Filled = _NO_FORM,
    status: int = 200,
) -> Response:
    before = place_of(cursor)
    wanted = state if state in STATES else None

    async def work(tx: Tx) -> tuple[Hook, list[Sent]]:
        hook = await get_webhook(tx, webhook_id)
        return hook, await sent_to(tx, webhook_id, wanted, before, ROWS + 1)

    hook, rows = await db.read(work)
    shown, more = page_of(rows, ROWS, lambda one: Place(one.delivery.created_at, one.delivery.id))
    return page(
        viewer,
        "webhook.html",
        status=status,
        hook=hook,
        url=shown_url(hook.kind, hook.url),
        event_types=EVENT_TYPES,
        deliveries=shown,
        state=wanted or "",
        state_tabs=[(one, _STATES[one], f"{HOME}/{webhook_id}?state={one}") for one in STATES],
        links=cursor_links(f"{HOME}/{webhook_id}", {"state": wanted or ""}, cursor, more),
        secret=secret,
        test=test,
        filled=filled,
        done=done,
    )


# ---- deciding ---------------------------------------------------------------------------------


def _facts(values: dict[str, str]) -> dict[str, Any]:
    chosen = [name for name in EVENT_TYPES if name in values]
    return said(values, ("url", "kind")) | {
        "description": values.get("description", "").strip(),
        "event_types": [] if len(chosen) == len(EVENT_TYPES) else chosen,
        "scope": scope_in(values, SCOPES),
    }


@router.post(HOME)
async def make(
    request: Request, viewer: Managing, db: Db, clock: Now, note: Note, guard: Judge
) -> Response:
    """Make a webhook; the page that answers is the only place where its secret can be read."""
    values = await form(request)
    try:
        made = await webhook_api.create(
            body=body_of(WebhookIn, _facts(values)),
            key=viewer.key,
            db=db,
            clock=clock,
            guard=guard,
            note=note,
        )
    except (InvalidInput, Conflict) as error:
        filled = wrong(values, error, _FIELDS)
        return await _all(viewer, db, clock, filled, "", error.status)
    return await _one(viewer, db, made.id, secret=made.secret, done="made", status=201)


@router.post(HOME + "/{webhook_id}")
async def change(
    webhook_id: str,
    request: Request,
    viewer: Managing,
    db: Db,
    clock: Now,
    note: Note,
    guard: Judge,
) -> Response:
    """Change what a webhook gets, and where it is; an empty URL leaves it where it is."""
    values = await form(request)
    facts = {name: value for name, value in _facts(values).items() if name != "kind"}
    try:
        await webhook_api.patch(
            webhook_id,
            body=body_of(WebhookPatch, facts),
            key=viewer.key,
            db=db,
            clock=clock,
            guard=guard,
            note=note,
        )
    except InvalidInput as error:
        filled = wrong(values, error, _FIELDS)
        return await _one(viewer, db, webhook_id, filled=filled, status=error.status)
    return see(f"{HOME}/{webhook_id}?done=changed")


@router.post(HOME + "/{webhook_id}/switch")
async def switch(
    webhook_id: str,
    request: Request,
    viewer: Managing,
    db: Db,
    clock: Now,
    note: Note,
    guard: Judge,
) -> Response:
    """Pause a webhook, or have it get what was waiting."""
    enabled = (await form(request)).get("enabled") == "yes"
    body = WebhookPatch(enabled=enabled)
    await webhook_api.patch(
        webhook_id, body=body, key=viewer.key, db=db, clock=clock, guard=guard, note=note
    )
    return see(f"{HOME}/{webhook_id}?done={'resumed' if enabled else 'paused'}")


@router.post(HOME + "/{webhook_id}/rotate-secret")
async def rotate(
    webhook_id: str, request: Request, viewer: Managing, db: Db, clock: Now, note: Note
) -> Response:
    """Give the webhook a new secret, shown on the page that answers and never again."""
    values = await form(request)
    try:
        facts = overlap_in(values)
        made = await webhook_api.rotate(
            webhook_id,
            body=body_of(OverlapIn, facts),
            key=viewer.key,
            db=db,
            clock=clock,
            note=note,
        )
    except InvalidInput as error:
        filled = wrong(values, error, {"overlap_s": "overlap_h"})
        return await _one(viewer, db, webhook_id, filled=filled, status=error.status)
    return await _one(viewer, db, webhook_id, secret=made.secret, done="rotated")


@router.post(HOME + "/{webhook_id}/delete")
async def delete(webhook_id: str, viewer: Managing, db: Db, clock: Now, note: Note) -> Response:
    """Remove a webhook with all that was sent there or waits to be."""
    await webhook_api.delete(webhook_id, key=viewer.key, db=db, clock=clock, note=note)
    return see(f"{HOME}?done=deleted")


# ---- sending ----------------------------------------------------------------------------------


@router.post(HOME + "/{webhook_id}/test")
async def test(webhook_id: str, viewer: Managing, db: Db, clock: Now, sender: Sending) -> Response:
    """Send a signed test message now, and show what the receiver said."""
    found = await webhook_api.test(webhook_id, key=viewer.key, db=db, clock=clock, sender=sender)
    if viewer.part:
        return page(viewer, "webhook_test.html", test=found)
    return await _one(viewer, db, webhook_id, test=found)


@router.post(HOME + "/{webhook_id}/retry-dead")
async def retry_dead(webhook_id: str, viewer: Managing, db: Db, clock: Now, note: Note) -> Response:
    """Send everything again that was given up."""
    now = clock.now()

    async def work(tx: Tx) -> None:
        await get_webhook(tx, webhook_id)
        queued = await queue_dead_again(tx, webhook_id, now)
        await note(tx, "retry", webhook_api.KIND, webhook_id, None, {"deliveries": queued})

    await db.write(work)
    return see(f"{HOME}/{webhook_id}?done=queued")


@router.post(HOME + "/{webhook_id}/deliveries/{delivery_id}/retry")
async def retry(
    webhook_id: str, delivery_id: str, viewer: Managing, db: Db, clock: Now, note: Note
) -> Response:
    """Send one message again, under the same id, whatever became of it."""
    await webhook_api.retry(delivery_id, key=viewer.key, db=db, clock=clock, note=note)
    return see(f"{HOME}/{webhook_id}?done=queued")
