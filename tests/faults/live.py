"""The service behind real sockets, in a thread of the test's own process.

Two ports lead to one runtime: `swift`, as `tollgate serve` has it, and `plain`, uvicorn's own
protocol with no lean door in front. What a caller sees must not depend on which one it took.
"""

import asyncio
import gc
import json
import re
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import uvicorn
import uvloop
from sqlalchemy import func, select
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.core.clock import Clock
from app.db.engine import Tx
from app.main import create_app, create_asgi
from app.pricing.catalog import Catalog
from app.runtime import Runtime, build
from app.settings import Settings
from app.usage.tables import UsageEvent
from app.web.lean import LeanDoor
from app.web.server import DoorProtocol

T = TypeVar("T")
ADMIN = "tg_live_admin_key_0123456789abcdef0123456789"


class Answer(NamedTuple):
    """One response as it came over the wire."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Live:
    """A started service; `swift` and `plain` are its ports."""

    def __init__(self, url: str, clock: Clock, catalog: Catalog) -> None:
        self._url, self._clock, self._catalog = url, clock, catalog
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live")
        self._servers: list[uvicorn.Server] = []

    def start(self) -> None:
        """Serve on both ports."""
        self._thread.start()
        if not self._ready.wait(20):
            raise RuntimeError("the service did not start")
        while not all(server.started for server in self._servers):
            time.sleep(0.01)

    def stop(self) -> None:
        """Finish and go."""
        for server in self._servers:
            server.should_exit = True
        self._thread.join(20)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        settings = Settings(database_url=self._url, admin_key=ADMIN)
        self.runtime: Runtime = build(settings, clock=self._clock, catalog=self._catalog)
        await self.runtime.start()
        doors = (
            (create_asgi(self.runtime), DoorProtocol),
            (LeanDoor(create_app(self.runtime), {}), HttpToolsProtocol),
        )
        listening, tasks = [], []
        for asgi, protocol in doors:
            config = uvicorn.Config(
                asgi,
                http=protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=1,
            )
            self._servers.append(uvicorn.Server(config))
            listening.append(socket.create_server(("127.0.0.1", 0)))
            tasks.append(asyncio.create_task(self._servers[-1].serve([listening[-1]])))
        self.swift, self.plain = (one.getsockname()[1] for one in listening)
        self._ready.set()
        await asyncio.gather(*tasks)
        await self.runtime.close()
        for one in listening:
            one.close()

    def run(self, work: Callable[[Tx], Awaitable[T]]) -> T:
        """Read from the service's database."""
        reading = self.runtime.db.read(work)
        return asyncio.run_coroutine_threadsafe(reading, self.loop).result(15)

    def logged(self) -> int:
        """How many rows the log has."""

        async def count(tx: Tx) -> int:
            return int((await tx.fetch(select(func.count()).select_from(UsageEvent)))[0][0])

        return self.run(count)


@contextmanager
def living(url: str, clock: Clock, catalog: Catalog) -> Iterator[Live]:
    """A live service for a while."""
    live = Live(url, clock, catalog)
    live.start()
    try:
        yield live
    finally:
        live.stop()
        gc.unfreeze()


# ---- the wire ---------------------------------------------------------------------------------


def request_bytes(
    method: str,
    target: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    key: str | None = ADMIN,
) -> bytes:
    """One HTTP/1.1 request. A header that is given wins over what would be added."""
    found = {"Host": "test"}
    if key is not None:
        found["Authorization"] = f"Bearer {key}"
    if body is not None:
        found |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    found |= headers or {}
    head = "".join(f"{name}: {value}\r\n" for name, value in found.items() if value is not None)
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + (body or b"")


class Wire:
    """One connection, read answer by answer."""

    def __init__(self, port: int, timeout_s: float = 10) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._seen = b""

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send these bytes."""
        self.socket.sendall(data)

    def answer(self, *, head: bool = False) -> Answer:
        """The next answer; an interim `100 Continue` counts as one. `head`: it has no body."""
        while b"\r\n\r\n" not in self._seen:
            self._more()
        top, _, self._seen = self._seen.partition(b"\r\n\r\n")
        first, *lines = top.decode("latin-1").split("\r\n")
        found = re.fullmatch(r"HTTP/1\.[01] (\d{3}) .*", first)
        assert found, first
        headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
        assert len(headers) == len(lines), f"a header is given twice: {lines}"
        if not head and headers.get("transfer-encoding") == "chunked":
            return Answer(int(found[1]), headers, b"".join(iter(self._chunk, b"")))
        length = 0 if head else int(headers.get("content-length", "0"))
        return Answer(int(found[1]), headers, self._taken(length))

    def _chunk(self) -> bytes:
        while b"\r\n" not in self._seen:
            self._more()
        size, _, self._seen = self._seen.partition(b"\r\n")
        return self._taken(int(size, 16) + 2)[:-2]

    def _taken(self, length: int) -> bytes:
        while len(self._seen) < length:
            self._more()
        taken, self._seen = self._seen[:length], self._seen[length:]
        return taken

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(f"closed after {self._seen!r}")
        self._seen += data

    def ended(self, within_s: float = 5) -> bool:
        """Whether the other side closes, saying nothing more."""
        self.socket.settimeout(within_s)
        began = time.monotonic()
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            return False
        except ConnectionError:
            data = b""
        self._seen += data
        return data == b"" and not self._seen and time.monotonic() - began < within_s


def ask(port: int, request: bytes, timeout_s: float = 10) -> Answer:
    """One request on a connection of its own."""
    with Wire(port, timeout_s) as wire:
        wire.send(request)
        return wire.answer(head=request.startswith(b"HEAD"))


def problem(answer: Answer, slug: str | None = None) -> dict[str, Any]:
    """The problem document of a refusal, checked for what every one must have."""
    assert answer.headers["content-type"] == "application/problem+json", answer
    found: dict[str, Any] = json.loads(answer.body)
    assert found["status"] == answer.status
    assert found["type"].startswith("/docs/problems#")
    assert found["title"]
    assert found["instance"] == answer.headers["x-request-id"]
    if slug is not None:
        assert found["type"] == f"/docs/problems#{slug}"
    return found
