"""What a page asks for: who is looking, whether they may, and what their form says."""

import asyncio
from datetime import datetime
from hmac import compare_digest
from typing import Annotated, Literal, NamedTuple
from urllib.parse import parse_qsl, quote

from fastapi import Depends, Request

from app.access.guard import require
from app.access.keys import Key, KeyRing
from app.core.clock import Clock
from app.core.errors import Forbidden, InvalidInput, TooLarge, Unauthenticated, UnsupportedMedia
from app.dashboard.sessions import Session, find_session
from app.db.changes import Feed
from app.db.engine import Database, Tx

COOKIE = "tollgate_session"
THEME_COOKIE = "tollgate_theme"
MAX_FORM, MAX_FIELDS = 64 * 1024, 500
BODY_SECONDS = 15.0

Theme = Literal["auto", "light", "dark"]


class Viewer(NamedTuple):
    """Who looks at a page: with which key, and the token that their forms carry.

    `user_id` is that of a key that is bound to one user. `path` is the page's; `part` says that
    only a part of it is asked for.
    """

    key: Key
    csrf: str
    user_id: str | None
    now: datetime
    path: str
    theme: Theme
    part: bool


async def seen(request: Request) -> Viewer:
    """The signed-in viewer, whose key may still read.

    Raises:
        Unauthenticated: nobody is signed in, or the key was revoked or has expired; a person is
            sent to sign in.
    """
    state, now = request.app.state, _clock(request).now()
    token = request.cookies.get(COOKIE, "")
    if not token or len(token) > 128:
        raise Unauthenticated("sign in first")
    feed: Feed = state.feed
    db: Database = state.db

    async def look(tx: Tx) -> Session | None:
        await feed.catch_up(tx)
        return await find_session(tx, token, now)

    session = await db.glance(look)
    if session is None:
        raise Unauthenticated("the session is over")
    ring: KeyRing = state.keys
    key = ring.find_by_id(session.key_id, now)
    if not key.may("read"):
        raise Unauthenticated("this key may not read")
    part = "hx-request" in request.headers and "hx-boosted" not in request.headers
    return Viewer(*(key, session.csrf, key.user_id, now, request.url.path, theme_of(request), part))


def theme_of(request: Request) -> Theme:
    """The theme that this browser was told to keep."""
    kept = request.cookies.get(THEME_COOKIE)
    return "light" if kept == "light" else "dark" if kept == "dark" else "auto"


def _clock(request: Request) -> Clock:
    found: Clock = request.app.state.clock
    return found


async def seen_all(viewer: Annotated[Viewer, Depends(seen)]) -> Viewer:
    """As `seen`, with a key that is bound to nobody; one that is gets sent to its own page."""
    if viewer.user_id is not None:
        own = f"/dashboard/users/{quote(viewer.user_id, safe='')}"
        raise Forbidden("this key is bound to one user", elsewhere=own)
    return viewer


async def form(request: Request) -> dict[str, str]:
    """The form that was posted, by name; read once and then kept with the request.

    Raises:
        UnsupportedMedia: it is not urlencoded.
        TooLarge: more than 64 KiB.
        InvalidInput: a name is given twice, or the bytes are not UTF-8.
    """
    kept: dict[str, str] | None = getattr(request.state, "form", None)
    if kept is None:
        kept = request.state.form = _fields(await _body(request))
    return kept


async def _body(request: Request) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise UnsupportedMedia("send application/x-www-form-urlencoded")
    found = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                found += chunk
                if len(found) > MAX_FORM:
                    raise TooLarge(f"a form is at most {MAX_FORM:,} bytes")
    except TimeoutError:
        raise InvalidInput.at("", "the form did not arrive in time") from None
    return bytes(found)


def _fields(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError:
        raise InvalidInput.at("", "the form is not urlencoded UTF-8, or too long") from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidInput.at("", "the form names a field twice")
    if any("\x00" in text for pair in pairs for text in pair):
        raise InvalidInput.at("", "the form holds a null character")
    return found


async def _trusted(request: Request, viewer: Viewer, scope: str) -> Viewer:
    if viewer.user_id is not None:
        raise Forbidden("this key is bound to one user")
    await refuse_foreign(request, viewer)
    require(viewer.key, scope)
    return viewer


async def refuse_foreign(request: Request, viewer: Viewer) -> None:
    """Refuse a form that does not carry the token of the viewer's session."""
    given = request.headers.get("x-csrf-token") or (await form(request)).get("csrf", "")
    if not compare_digest(given.encode("utf-8", "replace"), viewer.csrf.encode()):
        raise Forbidden("this form is not from a page of yours, or too old; load the page again")


async def managing(request: Request, viewer: Annotated[Viewer, Depends(seen)]) -> Viewer:
    """A viewer who may change things, and whose form comes from a page of theirs."""
    return await _trusted(request, viewer, "manage")


async def admin_only(request: Request, viewer: Annotated[Viewer, Depends(seen)]) -> Viewer:
    """As `managing`, with the scope `admin`."""
    return await _trusted(request, viewer, "admin")


Seen = Annotated[Viewer, Depends(seen)]
SeenAll = Annotated[Viewer, Depends(seen_all)]
Managing = Annotated[Viewer, Depends(managing)]
AdminOnly = Annotated[Viewer, Depends(admin_only)]
Form = Annotated[dict[str, str], Depends(form)]
