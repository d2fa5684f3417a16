"""In and out: with a key, or with a link that works once."""

from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from app.access.deps import Db, Now
from app.access.guard import MAX_TOKEN
from app.access.keys import Key, KeyRing, find_fresh
from app.core.errors import Forbidden, RateLimited, Unauthenticated
from app.dashboard.deps import COOKIE, Form, Seen, refuse_foreign, theme_of
from app.dashboard.frame import HEADERS, page
from app.dashboard.refusal import HOME, own_path
from app.dashboard.sessions import LASTS, end_session, sign_in, use_link
from app.dashboard.tries import Tries
from app.db.engine import Tx

REFUSED = "That key does not open the dashboard."
USED_UP = (
    "That link was used, or is too old. Start `tollgate serve` again for another, or use a key."
)
MOST_LINK = 128

router = APIRouter(include_in_schema=False)


@router.get("/dashboard/sign-in")
async def ask(request: Request, next: str = HOME) -> Response:
    """The form that takes a key."""
    return _form(request, next)


def _form(request: Request, next: str, error: str = "", token: str = "") -> Response:
    return page(
        None,
        "sign_in.html",
        status=401 if error else 200,
        theme=theme_of(request),
        next=own_path(next),
        error=error,
        token=token,
    )


@router.post("/dashboard/sign-in")
async def take(request: Request, form: Form, db: Db, clock: Now) -> Response:
    """Begin a session, if the key may read."""
    _is_ours(request)
    _admit(request)
    token, now = form.get("key", "").strip(), clock.now()
    state = request.app.state
    if not token or len(token) > MAX_TOKEN:
        return _form(request, form.get("next", ""), REFUSED)
    try:
        key = await find_fresh(db, state.feed, state.keys, token, now)
    except Unauthenticated:
        return _form(request, form.get("next", ""), REFUSED)
    if not key.may("read"):
        return _form(request, form.get("next", ""), REFUSED)
    cookie = await db.write(lambda tx: sign_in(tx, key, now))
    return _signed_in(request, cookie, own_path(form.get("next", "")))


@router.get("/dashboard/sign-in/link")
async def offer(request: Request, token: str = "") -> Response:
    """A button: what only looks at a link does not use it up."""
    return _form(request, HOME, token=token[:MOST_LINK]) if token else _form(request, HOME, USED_UP)


@router.post("/dashboard/sign-in/link")
async def follow(request: Request, form: Form, db: Db, clock: Now) -> Response:
    """Begin a session with the key that the link stands for."""
    _is_ours(request)
    _admit(request)
    token, now = form.get("token", ""), clock.now()
    ring: KeyRing = request.app.state.keys

    async def work(tx: Tx) -> str | None:
        key_id = await use_link(tx, token, now)
        if key_id is None:
            return None
        await request.app.state.feed.catch_up(tx)
        key: Key = ring.find_by_id(key_id, now)
        return await sign_in(tx, key, now)

    try:
        cookie = await db.write(work) if 0 < len(token) <= MOST_LINK else None
    except Unauthenticated:
        cookie = None
    if cookie is None:
        return _form(request, HOME, USED_UP)
    return _signed_in(request, cookie, HOME)


@router.post("/dashboard/sign-out")
async def leave(request: Request, viewer: Seen, db: Db) -> Response:
    """End the session, in this browser and in the database."""
    await refuse_foreign(request, viewer)
    await db.write(lambda tx: end_session(tx, request.cookies[COOKIE]))
    answer = RedirectResponse(f"{HOME}/sign-in", 303, headers=HEADERS)
    answer.delete_cookie(COOKIE, path=HOME, secure=_is_safe(request), httponly=True, samesite="lax")
    return answer


def _signed_in(request: Request, cookie: str, address: str) -> Response:
    answer = RedirectResponse(address, 303, headers=HEADERS)
    answer.set_cookie(
        COOKIE,
        cookie,
        max_age=int(LASTS.total_seconds()),
        path=HOME,
        secure=_is_safe(request),
        httponly=True,
        samesite="lax",  # strict would ask everybody who follows a link from a chat to sign in
    )
    return answer


def _is_safe(request: Request) -> bool:
    """Whether the browser speaks https, to us or to who passes its requests on."""
    told = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip()
    return "https" in (request.url.scheme, told)


def _is_ours(request: Request) -> None:
    """Refuse a form that another site sends: it would sign somebody in as somebody else."""
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    here = request.headers.get("host", "")
    elsewhere = origin is not None and origin != "null" and urlsplit(origin).netloc != here
    if site not in ("same-origin", "none") or (
        elsewhere and "sec-fetch-site" not in request.headers
    ):
        raise Forbidden("this form is from another site")


def _admit(request: Request) -> None:
    tries: Tries = request.app.state.tries
    if not tries.allow(request.client.host if request.client else ""):
        raise RateLimited("too many tries to sign in; wait a minute", retry_after_s=60)
