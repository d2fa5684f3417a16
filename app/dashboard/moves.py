"""What every page that changes something does besides: write it down, and go on to a page."""

from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Depends, Request
from fastapi.responses import RedirectResponse

from app.access.deps import Noted
from app.dashboard.deps import Viewer, refuse_foreign, seen, seen_all
from app.dashboard.frame import HEADERS


class NotedHere(Noted):
    """Writes down a change under the key that the viewer signed in with."""

    via = "dashboard"

    def __init__(self, request: Request, viewer: Annotated[Viewer, Depends(seen)]) -> None:
        super().__init__(request)
        request.state.key = viewer.key


Note = Annotated[NotedHere, Depends(NotedHere)]


async def seen_all_here(request: Request, viewer: Annotated[Viewer, Depends(seen_all)]) -> Viewer:
    """A viewer who may read, and whose form comes from a page of theirs."""
    await refuse_foreign(request, viewer)
    return viewer


SeenAllHere = Annotated[Viewer, Depends(seen_all_here)]


def see(url: str) -> RedirectResponse:
    """Have the browser look at another page, by GET, once something was done."""
    return RedirectResponse(url, 303, HEADERS)


def cursor_links(
    url: str, keep: Mapping[str, str], cursor: str | None, more: str | None
) -> dict[str, str | None]:
    """Links for the pager (to the first page, and to the next) and for the CSV of what is asked."""
    asked = {name: value for name, value in keep.items() if value}
    return {
        "first": linked(url, asked) if cursor else None,
        "next": linked(url, asked | {"cursor": more}) if more else None,
        "csv": linked(url, asked | {"format": "csv"}),
    }


def linked(url: str, query: Mapping[str, str]) -> str:
    """The URL with a query, if there is one."""
    return f"{url}?{urlencode(query)}" if query else url
