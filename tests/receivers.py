"""A receiver of webhooks: a real HTTP server that keeps what it got and answers as it was told."""

import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest
import standardwebhooks.webhooks
from standardwebhooks.webhooks import Webhook

from app.core.clock import Clock


class Got(NamedTuple):
    """One request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The message's id."""
        return self.headers["webhook-id"]


class Says(NamedTuple):
    """One answer. `slowly_s` passes before it."""

    status: int = 200
    body: bytes = b"ok"
    headers: tuple[tuple[str, str], ...] = ()
    slowly_s: float = 0.0


class Receiver:
    """Gives the answers it was told, in turn, and then the last one for ever."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.got: list[Got] = []
        self.answers: list[Says] = [Says()]
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = receiver._take(Got(self.path, headers, body))
                time.sleep(answer.slowly_s)
                self.send_response(answer.status)
                for name, value in answer.headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def _take(self, got: Got) -> Says:
        with self._lock:
            self.got.append(got)
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: Any) -> None:
        """A sender that hung up is no fault of the receiver."""


@contextmanager
def receiving(context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver for a while."""
    found = Receiver(context)
    try:
        yield found
    finally:
        found.close()


def verified(secret: str, got: Got) -> dict[str, Any]:
    """The body of a request whose signature the reference library accepts."""
    found: dict[str, Any] = Webhook(secret).verify(got.body, dict(got.headers))
    return found


def set_library_clock(patch: pytest.MonkeyPatch, clock: Clock) -> None:
    """Let the reference library judge time stamps by our clock."""

    class Frozen(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Frozen":
            return cls.fromtimestamp(clock.now().timestamp(), tz)

    patch.setattr(standardwebhooks.webhooks, "datetime", Frozen)
