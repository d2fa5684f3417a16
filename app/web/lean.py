"""The lean door: an ASGI layer in front of the application for the few routes that carry the load.

A handler here gets the request's bytes and gives bytes back; everything else passes through to
FastAPI. On one core FastAPI's own routing and models cost more than a durable, priced event does.
The same handlers stand behind FastAPI's routes, so that both doors do the same thing.
"""

import asyncio
import itertools
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from app.core.errors import AppError, InvalidInput, TooLarge, UnsupportedMedia
from app.metrics.figures import Figures
from app.web.problems import document, expected, headers_of
from app.web.queries import flag_in, parameters

BODY_SECONDS = 15.0
"""How long a client may take to send a body once its head has arrived."""
TOO_SLOW = "the body did not arrive in time"

_ids = itertools.count(int.from_bytes(os.urandom(4), "big") << 16)
_PREFIX = os.urandom(3).hex()
_GOOD_ID = re.compile(rb"[A-Za-z0-9._:-]{8,64}")

Scope = Any
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class LeanRequest(NamedTuple):
    """What a handler needs of a request."""

    headers: Mapping[bytes, bytes]
    query: str
    receive: Receive
    state: Any
    path: str = ""

    def header(self, name: bytes) -> str:
        """A header as text, or an empty string."""
        return self.headers.get(name, b"").decode("latin-1")

    def flag(self, name: str) -> bool:
        """A boolean query parameter; absent is false, anything but true or false is refused."""
        return flag_in(self.query, name)

    def parameters(self, *known: str) -> dict[str, str]:
        """The query parameters, refused unless they are of these and each is given once."""
        return parameters(self.query, known) if self.query else {}

    async def body(self, bound: int) -> bytes:
        """The body as sent, refused as soon as it passes the bound or dawdles."""
        announced = self.headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced[:20]) > bound:
            raise TooLarge(f"the body is at most {bound:,} bytes")
        parts: list[bytes] = []
        total, more = 0, True
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while more:
                    message = await self.receive()
                    parts.append(_whole(message, bound))
                    total += len(parts[-1])
                    if total > bound:
                        raise TooLarge(f"the body is at most {bound:,} bytes")
                    more = message.get("more_body", False)
        except TimeoutError:
            raise InvalidInput.at("", TOO_SLOW) from None
        return parts[0] if len(parts) == 1 else b"".join(parts)


def headers_from(sent: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers by their names.

    Raises:
        InvalidInput: two idempotency keys, so that it is not said which event is meant.
    """
    found = dict(sent)
    if len(found) != len(sent) and len({v for k, v in sent if k == b"idempotency-key"}) > 1:
        raise InvalidInput.at("/Idempotency-Key", "two of them are given")
    return found


def _whole(message: Any, bound: int) -> bytes:
    if message["type"] == "http.disconnect":
        raise InvalidInput.at("", "the client went away before the body ended")
    body: bytes = message.get("body", b"")
    if len(body) > bound:
        raise TooLarge(f"the body is at most {bound:,} bytes")
    return body


class LeanAnswer(NamedTuple):
    """Status, extra headers and JSON bytes."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


Handler = Callable[[LeanRequest], Awaitable[LeanAnswer]]


def new_request_id() -> str:
    """Short, unique to this process's life, cheap."""
    return f"req_{_PREFIX}{next(_ids):x}"


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """The caller's `X-Request-Id` where it is a plain token, else a new one."""
    given = headers.get(b"x-request-id", b"")
    return given.decode() if given and _GOOD_ID.fullmatch(given) else new_request_id()


class _Named(NamedTuple):
    """A route with a name in its path, between these two."""

    route: str
    method: str
    before: str
    after: str
    handler: Handler

    def in_path(self, path: str) -> str:
        """What stands for the name in a path; empty where the path is another one."""
        if not (path.startswith(self.before) and path.endswith(self.after)):
            return ""
        return path[len(self.before) : -len(self.after) or None]


def _around_name(path: str) -> tuple[str, str]:
    before, _, rest = path.partition("{")
    return before, rest.partition("}")[2]


class LeanDoor:
    """ASGI: the routes given are answered here, the rest by `inner`; both get a request id.

    A route may have one name in braces in its path, which then stands for any text.
    """

    def __init__(
        self,
        inner: App,
        routes: Mapping[tuple[str, str], Handler],
        figures: Figures | None = None,
    ) -> None:
        self._inner, self.figures = inner, figures or Figures()
        self._routes = routes
        self._named = [
            _Named(path, method, *_around_name(path), handler)
            for (method, path), handler in routes.items()
            if "{" in path
        ]
        self.swift = {
            path.encode(): handler
            for (_, path), handler in routes.items()
            if hasattr(handler, "swift")
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = request_id_of(headers)
        method, path = scope["method"], scope["path"]
        began_s, route = self.figures.now_s(), path
        handler = self._routes.get((method, path))
        if handler is None and (named := self._by_name(method, path)) is not None:
            handler, route = named.handler, named.route
        if handler is None:
            await self._pass(scope, receive, send, request_id, headers)
            return
        query = scope["query_string"].decode("latin-1")
        kind = b"application/json"
        try:
            sent = headers_from(scope["headers"])
            request = LeanRequest(sent, query, receive, scope.get("app"), path)
            status, body, extra = await handler(request)
        except Exception as error:
            problem: AppError = expected(error)
            status, body = problem.status, document(problem, request_id)
            beside = headers_of(problem)
            kind = beside.pop("Content-Type").encode()
            extra = tuple((k.lower().encode(), v.encode()) for k, v in beside.items())
        head = [
            (b"content-type", kind),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request_id.encode()),
            *extra,
        ]
        self.figures.request(method, route, status, began_s, headers)
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": body})

    def _by_name(self, method: str, path: str) -> _Named | None:
        for named in self._named:
            if method == named.method and named.in_path(path):
                return named
        return None

    async def _pass(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        request_id: str,
        headers: Mapping[bytes, bytes],
    ) -> None:
        scope.setdefault("state", {})["request_id"] = request_id
        began_s, status, ended = self.figures.now_s(), 500, False
        method = scope["method"]
        if method == "HEAD":  # the server sends the head of what GET answers, and no body
            scope = {**scope, "method": "GET"}

        async def marked(message: Any) -> None:
            nonlocal status, ended
            if message["type"] == "http.response.body":
                ended = not message.get("more_body", False)
                if method == "HEAD":
                    message = {**message, "body": b""}
            elif message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                ]
            await send(message)

        try:
            await self._inner(scope, receive, marked)
        except Exception:
            if not ended:
                raise
            # It was logged and answered: raised again it would only make the server hang up.
        finally:
            self.figures.request(method, _template(scope), status, began_s, headers)


def _template(scope: Scope) -> str | None:
    """The path of the route that took the request, with names where values stood."""
    route = scope.get("route")
    found: str | None = getattr(route, "path_format", None) or getattr(route, "path", None)
    return found


def media_type(request: LeanRequest, allowed: tuple[str, ...]) -> str:
    """The request's media type, refused unless it is one of these in UTF-8."""
    kind, _, rest = request.header(b"content-type").partition(";")
    kind = kind.strip().lower()
    if kind not in allowed:
        raise UnsupportedMedia(f"send {' or '.join(allowed)}")
    charset = re.search(r"charset\s*=\s*\"?([A-Za-z0-9_-]+)", rest)
    if charset and charset[1].lower() not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMedia("the body must be UTF-8")
    return kind
