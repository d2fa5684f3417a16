"""`python -m benchmarks.phoenix`: OTLP spans per second beside Arize Phoenix, in the same run.

Phoenix is a program of others that keeps spans to be looked at; it prices calls too, and counts no
limits. It answers before it has written, so both sides are timed until the last span is in the
database. Both write SQLite on one CPU, get the same protobuf bodies, and take turns.
"""

import argparse
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from rich.console import Console
from rich.table import Table

from benchmarks import servers

VENV = servers.REPOSITORY / "build" / "phoenix" / "venv"
REQUIREMENT = "arize-phoenix==20.26.1"
READY_S, WRITTEN_S = 180.0, 180.0
SIZES = {1: (200, 16), 100: (1_000, 4), 1_000: (4_000, 4)}
"""Spans a request: how many are sent in one pass, over how many connections."""


class Side(NamedTuple):
    """One of the two: where it listens, with which headers, and how many spans it has written."""

    name: str
    port: int
    headers: dict[str, str]
    written: Callable[[], int]


def body_of(size: int) -> bytes:
    """A request of so many spans, each a call of its own, as two conventions tell of it."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.append(_pair("service.name", "bench"))
    scope = resource.scope_spans.add()
    scope.scope.name = "bench"
    end = time.time_ns()
    for number in range(size):
        scope.spans.append(
            Span(
                trace_id=os.urandom(16),
                span_id=os.urandom(8),
                name="chat gpt-4o-mini",
                start_time_unix_nano=end - 800_000_000,
                end_time_unix_nano=end,
                attributes=[
                    _pair("openinference.span.kind", "LLM"),
                    _pair("llm.provider", "openai"),
                    _pair("llm.model_name", "gpt-4o-mini"),
                    _pair("llm.token_count.prompt", 1_200 + number % 97),
                    _pair("llm.token_count.completion", 340 + number % 89),
                    _pair("gen_ai.response.id", f"chatcmpl-{os.urandom(12).hex()}"),
                    _pair("user.id", f"user-{number % 1_000}"),
                ],
            )
        )
    found: bytes = request.SerializeToString()
    return found


def _pair(key: str, value: str | int) -> KeyValue:
    said = AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value)
    return KeyValue(key=key, value=said)


def per_second(side: Side, size: int) -> float:
    """Spans per second from the first request to the last span in the database.

    Raises:
        RuntimeError: an answer that is no success, or spans that never arrive.
    """
    spans, connections = SIZES[size]
    bodies = [body_of(size) for _ in range(spans // size)]
    before = side.written()
    headers = {"content-type": "application/x-protobuf", **side.headers}
    url = f"http://{servers.HOST}:{side.port}/v1/traces"
    with httpx.Client(headers=headers, timeout=60, trust_env=False) as client:

        def send(body: bytes) -> None:
            answer = client.post(url, content=body)
            if answer.status_code != 200:
                raise RuntimeError(f"{side.name}: {answer.status_code} {answer.text[:200]}")

        started = time.perf_counter()
        with ThreadPoolExecutor(connections) as pool:
            list(pool.map(send, bodies))
        while side.written() - before < spans:
            if time.perf_counter() - started > WRITTEN_S:
                raise RuntimeError(f"{side.name}: {side.written() - before} of {spans} arrived")
            time.sleep(0.02)
        return spans / (time.perf_counter() - started)


def _installed() -> Path:
    """Phoenix's program, installed in an environment of its own if it is not there yet."""
    program = VENV / "bin" / "phoenix"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "-q", REQUIREMENT]
        subprocess.run(pip, check=True)
    return program


@contextmanager
def _phoenix(folder: Path, cpu: int | None) -> Iterator[Side]:
    port, log = servers.free_port(), folder / "phoenix.log"
    env = {
        **os.environ,
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": servers.HOST,
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(servers.free_port()),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(_installed()), "serve"],
            env=env,
            stdout=output,
            stderr=output,
            preexec_fn=lambda: servers.pin(cpu),
        )
    try:
        _wait(process, port, log)
        yield Side("phoenix", port, {}, lambda: _count(folder / "phoenix.db", "spans"))
    finally:
        process.terminate()
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.perf_counter() + READY_S
    while time.perf_counter() < end and process.poll() is None:
        try:
            if httpx.get(f"http://{servers.HOST}:{port}/healthz", trust_env=False).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise servers.NotReady(log.read_text(errors="replace")[-1000:])


def _count(path: Path, table: str) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as found:
        return int(found.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.phoenix", description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    pairs = parser.parse_args().pairs
    console = Console()
    server_cpu, load_cpu = servers.cpus()
    table = Table("spans a request", "Tollgate, spans/s", "Phoenix, spans/s", "ratio")
    with tempfile.TemporaryDirectory(prefix="tollgate-phoenix-") as name:
        folder = Path(name)
        path = folder / "tollgate.db"
        with (
            _phoenix(folder, server_cpu) as peer,
            servers.tollgate(folder, server_cpu, f"sqlite:///{path}") as server,
        ):
            servers.pin(load_cpu)
            key = {"authorization": f"Bearer {servers.ADMIN_KEY}"}
            own = Side("tollgate", server.port, key, lambda: _count(path, "usage_events"))
            for size in SIZES:
                turns = []
                for _ in range(pairs):
                    with console.status(f"{size:,} a request"):
                        turns.append((per_second(own, size), per_second(peer, size)))
                ours, theirs = (median(side) for side in zip(*turns, strict=True))
                ratio = median(mine / other for mine, other in turns)
                row = (f"{size:,}", f"{ours:,.0f}", f"{theirs:,.0f}", f"{ratio:.1f}")
                table.add_row(*row)
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
