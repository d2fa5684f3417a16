"""The pages of a user's events: a page of the log, and one event with how it came to its cost."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request, Response

from app.access.deps import Db, Now
from app.core.errors import InvalidInput
from app.dashboard.deps import Seen, Viewer
from app.dashboard.frame import csv_answer, page
from app.dashboard.price_tables import LINES, line_rows
from app.dashboard.span import span_from
from app.dashboard.user_around import USER, allowed, around, home_of
from app.dashboard.user_event_tables import EVENTS, correctable, event_rows
from app.dashboard.user_events import PAGE, EventRow, GroupRow, Story, read_events, read_story
from app.dashboard.user_page import count_unread
from app.db.engine import Tx
from app.pricing.api import Known
from app.usage.api import EventId, UserId, UserRoute, legible
from app.usage.read import MAX_CURSOR, Place, Wanted, cursor_of, place_of

router = APIRouter(route_class=UserRoute)
CSV_EVENTS = 1_000
Text = Annotated[str, Query(max_length=256)]


@router.get(USER + "/events")
async def events(
    request: Request,
    viewer: Seen,
    db: Db,
    clock: Now,
    user_id: UserId,
    provider: Text = "",
    model: Text = "",
    status: Literal["", "ok", "error"] = "",
    cursor: Annotated[str | None, Query(max_length=MAX_CURSOR)] = None,
    format: str = "",
) -> Response:
    """A user's events in the range, newest first; wrapped ones as groups."""
    allowed(viewer, user_id)
    span = span_from(request.query_params, clock.now())
    after = None if cursor is None else place_of(cursor)
    legible(provider, "provider")
    legible(model, "model")
    failed = None if not status else status == "error"
    wanted = Wanted(span.start, span.end, provider or None, model or None, failed=failed)
    state, size = request.app.state, CSV_EVENTS if format == "csv" else PAGE

    async def work(tx: Tx) -> tuple[Sequence[EventRow | GroupRow], Place | None, int]:
        found = await read_events(tx, user_id, wanted, after, size, state.wrapped_log)
        return *found, await count_unread(tx, user_id)

    rows, end, unread = await db.read(work)
    href = f"{home_of(user_id)}/events"
    if format == "csv":
        return csv_answer(f"events-{user_id}", EVENTS, event_rows(rows, href, raw=True))
    filters = {"provider": provider, "model": model, "status": status}
    keep = {name: text for name, text in filters.items() if text}
    here = f"{href}?{span.query}{f'&{urlencode(keep)}' if keep else ''}"
    return page(
        viewer,
        "user_events.html",
        **around(viewer, user_id, "events", unread, span.query),
        span=span,
        keep=keep,
        filters=filters,
        columns=EVENTS,
        rows=event_rows(rows, href),
        csv=f"{here}&format=csv",
        first=here if cursor else None,
        next=None if end is None else f"{here}&cursor={cursor_of(end)}",
    )


@router.get(USER + "/events/{event_id:path}")
async def event(
    request: Request,
    viewer: Seen,
    db: Db,
    known: Known,
    user_id: UserId,
    event_id: EventId,
    done: str = "",
) -> Response:
    """One event: as it stands, how it came to its cost, and what was corrected."""
    allowed(viewer, user_id)
    printed(event_id)
    return await show_event(request, viewer, db, known, user_id, event_id, done=done)


def printed(event_id: str) -> None:
    """Refuse an id that no event can have.

    Raises:
        InvalidInput: it holds a control character.
    """
    if any(char < " " for char in event_id):
        raise InvalidInput.at("/event_id", "must be printable text")


async def show_event(
    request: Request,
    viewer: Viewer,
    db: Db,
    known: Known,
    user_id: str,
    event_id: str,
    *,
    done: str = "",
    filled: Any = None,
    status: int = 200,
) -> Response:
    """The page of one event; `filled` is the form of a correction that was refused."""
    log = request.app.state.wrapped_log
    story: Story = await read_story(db, user_id, event_id, known.catalog, log)
    unread = await db.read(lambda tx: count_unread(tx, user_id))
    return page(
        viewer,
        "user_event.html",
        status=status,
        **around(viewer, user_id, "events", unread),
        event_id=event_id,
        here=f"{home_of(user_id)}/events/{quote(event_id, safe='')}",
        story=story,
        entry=story.entry,
        line_columns=LINES,
        lines=line_rows(story.account.lines, linked=viewer.user_id is None),
        counters=correctable(story),
        filled=filled,
        done=done,
    )
