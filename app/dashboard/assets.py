"""The style, the scripts and the mark: addressed by what they contain, so they may be kept."""

import gzip
from functools import cache
from hashlib import sha256
from importlib.resources import files

from fastapi import APIRouter, Request, Response

from app.core.errors import NotFound

KINDS = {
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "chart.umd.min.js": "text/javascript; charset=utf-8",
    "mark.svg": "image/svg+xml",
}
KEEP = "public, max-age=31536000, immutable"

router = APIRouter(include_in_schema=False)


@cache
def _packed(name: str) -> tuple[bytes, str]:
    body = files("app.dashboard").joinpath("static", name).read_bytes()
    return gzip.compress(body, mtime=0), sha256(body).hexdigest()[:16]


def address_of(name: str) -> str:
    """Where a file is served; another content has another address."""
    return f"/dashboard/static/{name}?v={_packed(name)[1]}"


@router.get("/dashboard/static/{name}")
async def static(name: str, request: Request, v: str = "") -> Response:
    """One of the files; kept for ever by who asked for this very content."""
    if name not in KINDS:
        raise NotFound("no such file")
    body, digest = _packed(name)
    headers = {
        "Cache-Control": KEEP if v == digest else "no-cache",
        "ETag": f'"{digest}"',
        "X-Content-Type-Options": "nosniff",
        "Vary": "Accept-Encoding",
    }
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
    else:
        body = gzip.decompress(body)
    return Response(body, media_type=KINDS[name], headers=headers)
