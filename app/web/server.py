"""uvicorn's HTTP protocol, with deadlines and with a swift way for the few routes that carry load.

httptools alone waits for ever for the rest of a head and takes a megabyte of it; here a head has a
deadline and a bound. And a plain POST to a swift route (small body, nothing unusual) skips the ASGI
machinery: its handler is called when the body is complete and writes its answer when it has one,
with no task, scope or event in between. Everything else goes the ordinary way, to the same handler.
"""

import asyncio
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.core.errors import AppError, HeadTooLarge, InvalidInput, NotHttp
from app.metrics.figures import Figures
from app.web.lean import TOO_SLOW, LeanAnswer, new_request_id, request_id_of
from app.web.problems import document, expected, headers_of

HEAD_SECONDS = 10.0
BODY_SECONDS = 15.0
HEAD_BYTES = 64 * 1024
SWIFT_BODY_BYTES = 64 * 1024
LEAVING_SECONDS = 1.0
"""How long a caller that keeps its connection is given to ask once more, and to be told that this
was the last answer here, when the process is asked to leave."""
_STATUS = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}
_JSON = b"content-type: application/json\r\ncontent-length: %d\r\nx-request-id: %s\r\n"


class DoorServer(uvicorn.Server):
    """uvicorn's server, which also closes connections that were accepted as it shut down.

    Such a connection is told nothing by uvicorn and would hold the process up until its keep-alive
    runs out.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        task = asyncio.create_task(self._close_late_ones())
        try:
            await super().shutdown(sockets)
        finally:
            task.cancel()

    async def _close_late_ones(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            for connection in list(self.server_state.connections):
                connection.shutdown()


class Swift(Protocol):
    """A handler that can answer without a task."""

    def swift(self, headers: dict[bytes, bytes], body: bytes, answer: "SwiftAnswer") -> bool:
        """Take the request and answer later, or return False to have it go the ordinary way.

        What it raises is answered as a problem.
        """


class SwiftAnswer:
    """The answer that a swift handler owes: what uvicorn calls a cycle, and shaped like a future.

    Give it `render` and hand it to whoever has the result: `set_result` renders and writes.
    """

    __slots__ = (
        "began_s",
        "body",
        "disconnected",
        "handler",
        "headers",
        "keep_alive",
        "message_event",
        "more_body",
        "protocol",
        "render",
        "response_complete",
        "route",
    )

    def __init__(
        self,
        protocol: "DoorProtocol",
        handler: Swift,
        headers: dict[bytes, bytes],
        keep_alive: bool,
        route: str,
    ) -> None:
        self.route, self.began_s = route, protocol.figures.now_s()
        self.protocol = protocol
        self.handler = handler
        self.headers = headers
        self.body = bytearray()
        self.keep_alive = keep_alive
        self.more_body = True
        self.disconnected = False
        self.response_complete = False
        self.message_event = _NO_EVENT
        self.render: Callable[[Any], LeanAnswer] = _unrendered

    def done(self) -> bool:
        """Whether an answer is no longer owed."""
        return self.response_complete or self.disconnected

    def set_result(self, result: Any) -> None:
        """Write the answer that `render` makes of the result."""
        try:
            status, body, extra = self.render(result)
        except Exception as error:
            self.set_exception(error)
            return
        request_id = request_id_of(self.headers).encode()
        head = _STATUS[status] + _JSON % (len(body), request_id)
        for name, value in extra:
            head += name + b": " + value + b"\r\n"
        self._write(status, head, body)

    def set_exception(self, error: Exception) -> None:
        """Write the problem document for an error."""
        problem: AppError = expected(error)
        request_id = request_id_of(self.headers)
        body = document(problem, request_id)
        head = _STATUS[problem.status]
        for name, value in headers_of(problem).items():
            head += f"{name.lower()}: {value}\r\n".encode()
        head += b"content-length: %d\r\nx-request-id: %s\r\n" % (len(body), request_id.encode())
        self._write(problem.status, head, body)

    def _write(self, status: int, head: bytes, body: bytes) -> None:
        if self.response_complete:
            return
        self.response_complete = True
        self.protocol.figures.request("POST", self.route, status, self.began_s, self.headers)
        if self.disconnected:
            return
        protocol = self.protocol
        for name, value in protocol.server_state.default_headers:
            head += name + b": " + value + b"\r\n"
        if not self.keep_alive:
            head += b"connection: close\r\n"
        protocol.transport.write(head + b"\r\n" + body)
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()


def _unrendered(result: Any) -> LeanAnswer:
    raise RuntimeError("a swift handler must say how its answer is rendered")


_NOT_SHOWN = Figures()
"""Where an application without a lean door is timed."""


class _NoEvent:
    def set(self) -> None:
        """Nobody waits."""


_NO_EVENT: Any = _NoEvent()


class DoorProtocol(HttpToolsProtocol):
    """One connection."""

    _deadline: asyncio.TimerHandle | None = None
    _idle_since: float | None = None
    _head_bytes = _raw_bytes = 0
    _in_head = _begins = False
    _leaving = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._routes: dict[bytes, Swift] = getattr(self.app, "swift", {})
        self.figures: Figures = getattr(self.app, "figures", None) or _NOT_SHOWN
        self._deadline = self.loop.call_later(HEAD_SECONDS, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_deadline()
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        super().connection_lost(exc)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def data_received(self, data: bytes) -> None:
        self._begins = False
        super().data_received(data)
        if self._in_head and not self._begins:  # the parser shows a header only when it is complete
            self._raw_bytes += len(data)
            if self._raw_bytes > HEAD_BYTES:
                self._refuse(HeadTooLarge("the request head is at most 64 KiB"))
                return
        if self._deadline is not None or self.transport.is_closing():
            return
        # The usual request comes in one piece; only what is left hanging gets a deadline.
        if self._in_head:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)
        elif isinstance(self.cycle, SwiftAnswer) and self.cycle.more_body:
            self._deadline = self.loop.call_later(BODY_SECONDS, self._give_up, self.cycle)

    def _give_up(self, answer: SwiftAnswer) -> None:
        """Say that the body did not come, and close: what still comes of it is of no request."""
        answer.keep_alive = False
        answer.set_exception(InvalidInput.at("", TOO_SLOW))

    def shutdown(self) -> None:
        """Make what is being answered the last answer; whoever is between two may ask once more.

        Closed at once, a connection breaks under a request that was sent at that moment.
        """
        if self._is_owed():
            self.cycle.keep_alive = False
        elif not self._leaving:
            self._leaving = True
            self.loop.call_later(LEAVING_SECONDS, self._leave)

    def _is_owed(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _leave(self) -> None:
        if self._is_owed():
            self.cycle.keep_alive = False
        elif not self.transport.is_closing():
            self.transport.close()

    # ---- one request ----

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._head_bytes = self._raw_bytes = 0
        self._in_head = self._begins = True

    def on_url(self, url: bytes) -> None:
        self._head_bytes += len(url)
        if self._head_bytes <= HEAD_BYTES:
            super().on_url(url)
        else:
            self._refuse(HeadTooLarge("the request head is at most 64 KiB"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes <= HEAD_BYTES:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))
        else:
            self._refuse(HeadTooLarge("the request head is at most 64 KiB"))

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP: an answer that is still owed goes first, and alone."""
        owed = self.cycle is not None and not self.cycle.response_complete
        if owed and not self.cycle.more_body:
            self.cycle.keep_alive = False
            self.flow.pause_reading()
            return
        self._refuse(NotHttp("this is not an HTTP/1.1 request"))

    def _refuse(self, problem: AppError) -> None:
        """Answer outside any request, and close."""
        if self.transport.is_closing():
            return
        request_id = new_request_id()
        body = document(problem, request_id)
        head = _STATUS[problem.status]
        head += b"content-type: application/problem+json\r\ncontent-length: %d\r\n" % len(body)
        head += b"x-request-id: %s\r\nconnection: close\r\n\r\n" % request_id.encode()
        self.transport.write(head + body)
        self.transport.close()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._cancel_deadline()
        if self.transport.is_closing():
            return
        handler = self._routes.get(self.url)
        if handler is not None:
            headers = dict(self.headers)  # what is named twice is judged by the ordinary way
            if self._is_plain(headers):
                stays = self.parser.should_keep_alive() and not self._leaving
                route = self.url.decode()
                answer = SwiftAnswer(self, handler, headers, stays, route)
                self.cycle = answer  # type: ignore[assignment]
                return
        self._as_asgi()

    def _is_plain(self, headers: dict[bytes, bytes]) -> bool:
        if self.cycle is not None and not self.cycle.response_complete:
            return False  # pipelined behind another request
        if len(headers) != len(self.headers):
            return False
        if self.expect_100_continue or self.parser.get_method() != b"POST":
            return False
        if self.parser.get_http_version() != "1.1" or self.parser.should_upgrade():
            return False
        length = headers.get(b"content-length", b"")
        return length.isdigit() and len(length) < 6 and int(length) <= SWIFT_BODY_BYTES

    def _as_asgi(self) -> None:
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expect
        self.headers.extend(headers)
        super().on_headers_complete()
        if self._leaving and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        cycle: Any = self.cycle
        if type(cycle) is not SwiftAnswer or not cycle.more_body:
            super().on_message_complete()
            return
        cycle.more_body = False
        self._cancel_deadline()
        try:
            taken = cycle.handler.swift(cycle.headers, bytes(cycle.body), cycle)
        except Exception as error:
            cycle.set_exception(error)
            return
        if not taken:
            self.cycle = None  # type: ignore[assignment]
            self._as_asgi()
            self.cycle.body += cycle.body
            super().on_message_complete()

    # ---- keep-alive: one timer per connection, moved on when it rings ----

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None

    def on_response_complete(self) -> None:
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._arm(self.timeout_keep_alive)

    def _arm(self, delay: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(delay, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if self.transport.is_closing():
            return
        idle = 0.0 if self._idle_since is None else self.loop.time() - self._idle_since
        if self._idle_since is not None and idle >= self.timeout_keep_alive - 0.01:
            self.transport.close()
        else:
            self._arm(self.timeout_keep_alive - idle)
