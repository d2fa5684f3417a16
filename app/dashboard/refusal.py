"""Failures as a person is shown them: a page, a part of one, or the way to sign in."""

from urllib.parse import quote, urlsplit

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from app.core.errors import AppError, Forbidden, Unauthenticated
from app.dashboard.deps import theme_of
from app.dashboard.frame import HEADERS, page
from app.web.problems import headers_of

HOME = "/dashboard"


def refusal_page(error: AppError, request: Request) -> Response | None:
    """What a browser gets instead of a problem document; None where no page was asked for."""
    path = request.url.path
    if path != HOME and not path.startswith(f"{HOME}/"):
        return None
    part = "hx-request" in request.headers
    if isinstance(error, Unauthenticated):
        return _away(f"{HOME}/sign-in?next={quote(_wanted(request, part=part), safe='')}", part)
    if isinstance(error, Forbidden) and "elsewhere" in error.extra:
        return _away(error.extra["elsewhere"], part)
    answer = page(
        None,
        "refused_part.html" if part else "refused.html",
        status=error.status,
        theme=theme_of(request),
        heading=error.title,
        text=_sentence(error.detail),
        request_id=request.scope.get("state", {}).get("request_id", ""),
    )
    if retry := headers_of(error).get("Retry-After"):
        answer.headers["Retry-After"] = retry
    return answer


def _away(address: str, part: bool) -> Response:
    if part:
        return Response(status_code=401, headers=HEADERS | {"HX-Redirect": address})
    return RedirectResponse(address, 303, headers=HEADERS)


def _wanted(request: Request, *, part: bool) -> str:
    """The page that was asked for, to come back to once signed in."""
    if part:
        asked = urlsplit(request.headers.get("hx-current-url", ""))
    elif request.method == "GET":
        asked = urlsplit(str(request.url))
    else:
        return HOME
    return own_path(asked.path + (f"?{asked.query}" if asked.query else ""))


def own_path(address: str) -> str:
    """The address if it is a page of ours, else the first page: nobody is sent elsewhere. Pure."""
    path, mark, _ = address.partition("?")
    ours = path == HOME or path.startswith(f"{HOME}/")
    odd = "\\" in address or "//" in path or not address.isprintable() or "/." in path
    if not ours or odd or path.startswith(f"{HOME}/sign-") or len(address) > 2_000:
        return HOME
    return address if mark else path


def _sentence(detail: str) -> str:
    return (
        f"{detail[:1].upper()}{detail[1:]}{'' if detail.endswith('.') else '.'}" if detail else ""
    )
