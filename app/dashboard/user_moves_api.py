"""What may be done on the pages of one user: correct, void, renew, release, mark as read."""

import msgspec
from fastapi import APIRouter, Request, Response

from app.access.deps import Db, Now
from app.access.guard import require
from app.alerts.read import mark_read
from app.core.errors import AppError, Conflict, IdReused, InvalidInput
from app.dashboard.corrected import correction_said, order_of
from app.dashboard.deps import Managing, Seen, Viewer, form, refuse_foreign
from app.dashboard.filled import wrong
from app.dashboard.moves import Note, see
from app.dashboard.user_around import USER, allowed, home_of
from app.dashboard.user_events_api import printed, show_event
from app.ingest.correct_api import carried_out
from app.ingest.correct_shapes import correction_from, void_from
from app.ingest.rerate_api import Served
from app.ingest.rerate_apply import Parts
from app.limits.api import post_renew
from app.limits.hold_ends import release
from app.pricing.api import Known
from app.pricing.known import Prices
from app.usage.api import EventId, UserId, UserRoute

router = APIRouter(route_class=UserRoute)


@router.post(USER + "/events/{event_id:path}/void")
async def void(
    request: Request,
    viewer: Managing,
    parts: Served,
    known: Known,
    note: Note,
    user_id: UserId,
    event_id: EventId,
) -> Response:
    """Take an event back, for the reason that the form states."""
    allowed(viewer, user_id)
    printed(event_id)
    values = await form(request)
    try:
        body = void_from(msgspec.json.encode({"reason": values.get("reason", "").strip()}))
        order = order_of(viewer, user_id, event_id, None, body)
        await carried_out(request, parts, order, note)
    except (InvalidInput, Conflict) as error:
        return await _again(request, viewer, parts, known, user_id, event_id, values, error)
    return see(f"{_event_of(request, '/void')}?done=voided")


@router.post(USER + "/events/{event_id:path}/correct")
async def correct(
    request: Request,
    viewer: Managing,
    parts: Served,
    known: Known,
    note: Note,
    user_id: UserId,
    event_id: EventId,
) -> Response:
    """Say what an event should have been, in the fields that the form changed."""
    allowed(viewer, user_id)
    printed(event_id)
    values = await form(request)
    try:
        said = msgspec.json.encode(correction_said(values))
        body, edit = correction_from(said, user_id, parts.clock.now())
        order = order_of(viewer, user_id, event_id, edit, body)
        await carried_out(request, parts, order, note)
    except (InvalidInput, Conflict, IdReused) as error:
        return await _again(request, viewer, parts, known, user_id, event_id, values, error)
    return see(f"{_event_of(request, '/correct')}?done=corrected")


async def _again(
    request: Request,
    viewer: Viewer,
    parts: Parts,
    known: Prices,
    user_id: str,
    event_id: str,
    values: dict[str, str],
    error: AppError,
) -> Response:
    """The page of the event, with what was refused."""
    shown = {"act": request.url.path.rpartition("/")[2], **values}
    filled = wrong(shown, error)
    return await show_event(
        request,
        viewer,
        parts.db,
        known,
        user_id,
        event_id,
        filled=filled,
        status=error.status,
    )


def _event_of(request: Request, end: str) -> str:
    """The address of the event whose form was posted, as it was spelled."""
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    return raw.partition(b"?")[0].decode("ascii", "replace").removesuffix(end)


# ---- the other tabs -----------------------------------------------------------------------------


async def own_form(request: Request, viewer: Viewer) -> dict[str, str]:
    """The form that was posted, refused unless it is from a page of the viewer's session."""
    await refuse_foreign(request, viewer)
    return await form(request)


@router.post(USER + "/alerts/read")
async def read(request: Request, viewer: Seen, db: Db, clock: Now, user_id: UserId) -> Response:
    """Mark one of the user's alerts as read."""
    allowed(viewer, user_id)
    alert_id = (await own_form(request, viewer)).get("alert_id", "")
    now = clock.now()
    await db.write(lambda tx: mark_read(tx, alert_id, user_id, now))
    return see(f"{home_of(user_id)}/alerts")


@router.post(USER + "/periods/renew")
async def renew(viewer: Managing, db: Db, clock: Now, note: Note, user_id: UserId) -> Response:
    """Begin a new billing period on the terms in force."""
    allowed(viewer, user_id)
    await post_renew(user_id, viewer.key, db, clock, note)
    return see(f"{home_of(user_id)}/periods?done=renewed")


@router.post(USER + "/holds/release")
async def give_back(
    request: Request, viewer: Seen, db: Db, clock: Now, user_id: UserId
) -> Response:
    """Release one of the user's holds; needs a key that may check."""
    allowed(viewer, user_id)
    hold_id = (await own_form(request, viewer)).get("hold_id", "")
    require(viewer.key, "check")
    await db.write(lambda tx: release(tx, (user_id, hold_id), clock))
    return see(f"{home_of(user_id)}/holds?done=released")
