"""The whole dashboard as one route, loaded when somebody first opens a page.

A service that nobody looks at in a browser does without what pages need: 5 MB, and 19 once used.
"""

import asyncio

from fastapi import FastAPI
from starlette.datastructures import State
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from app.web import problems

HOME = "/dashboard"


class Dashboard(BaseRoute):
    """Answers everything at and below `/dashboard`, from the parts that `state` holds."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._pages: ASGIApp | None = None
        self._loading = asyncio.Lock()

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a request is for a page."""
        path = scope.get("path", "")
        ours = scope["type"] == "http" and (path == HOME or path.startswith(f"{HOME}/"))
        return (Match.FULL if ours else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with a page; the first one waits for all of them to be loaded."""
        if self._pages is None:
            async with self._loading:
                if self._pages is None:
                    self._pages = await asyncio.to_thread(_load, self._state)
        await self._pages(scope, receive, send)


def _load(state: State) -> FastAPI:
    from app.dashboard import routes  # noqa: PLC0415  (see above)
    from app.dashboard.refusal import refusal_page  # noqa: PLC0415

    pages = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    pages.state = state
    problems.install(pages, refusal_page)
    pages.include_router(routes.router)
    return pages
