"""Keep-alive HTTP/1.1 load on raw asyncio protocols, cheap enough that the server is what waits."""

import asyncio
import gc
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import uvloop

from benchmarks.bodies import MakeBody

DRAIN_S = 30.0
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

Accept = Callable[[int, bytes], int]
"""How many units of work an answer (status, body) proves done; 0 makes it an error."""


def recorded_one(status: int, body: bytes) -> int:
    return int(status == 201)


def recorded_many(status: int, body: bytes) -> int:
    if status != 200:
        return 0
    answer = json.loads(body)
    return 0 if answer["rejected"] or answer["duplicates"] else int(answer["recorded"])


def answered(status: int, body: bytes) -> int:
    return int(200 <= status < 300)


class Load(NamedTuple):
    """What to send where, and for how long."""

    port: int
    path: str
    key: str
    make: Callable[[], MakeBody]
    accept: Accept
    connections: int = 64
    warmup_s: float = 0.5
    seconds: float = 3.0
    host: str = "127.0.0.1"


class Measured(NamedTuple):
    """What came of it. `per_second` and the latencies leave out warm-up and the last answers."""

    per_second: float
    p50_ms: float
    p99_ms: float
    done: int
    """Units the server acknowledged, warm-up and last answers included."""
    errors: dict[str, int]
    client_cpu: float
    """The share of its CPU the load generator used; near 1 it, not the server, was the limit."""
    server_cpu: float = 0.0
    """The share of one CPU the server's processes used meanwhile; the rest it waited."""


@dataclass(slots=True)
class _Run:
    head: bytes
    body: MakeBody
    accept: Accept
    open: int
    finished: asyncio.Event
    begin_at: float = 0.0
    end_at: float = 0.0
    done: int = 0
    done_in_time: int = 0
    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)


class _Connection(asyncio.Protocol):
    """One caller: sends, waits for the whole answer, sends the next."""

    __slots__ = ("_buffer", "_run", "_sent_at", "_transport", "_waiting")

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._buffer = b""
        self._sent_at = 0.0
        self._waiting = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        run, self._sent_at = self._run, time.perf_counter()
        if self._sent_at >= run.end_at:
            self._transport.close()
            return
        body = run.body()
        self._waiting = True
        self._transport.write(b"%s%d\r\n\r\n%s" % (run.head, len(body), body))

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        head_end = data.find(b"\r\n\r\n") + 4
        if head_end < 4:
            self._buffer = data
            return
        length = CONTENT_LENGTH.search(data, 0, head_end)
        if length is None:
            self._run.errors["answer without Content-Length"] += 1
            self._transport.abort()
            return
        if len(data) < head_end + int(length[1]):
            self._buffer = data
            return
        self._buffer, self._waiting = b"", False
        self._count(int(data[9:12]), data[head_end:])
        self._send()

    def _count(self, status: int, body: bytes) -> None:
        run, now = self._run, time.perf_counter()
        units = run.accept(status, body)
        if not units:
            run.errors[
                f"{status} {body[:200].decode(errors='replace')}" if body else f"{status}"
            ] += 1
            return
        run.done += units
        if now > run.end_at and not run.done_in_time:
            run.end_at = now  # too short a pass for even one answer: wait for the first
        if self._sent_at >= run.begin_at and now <= run.end_at:
            run.latencies.append(now - self._sent_at)
        if run.begin_at <= now <= run.end_at:
            run.done_in_time += units

    def connection_lost(self, exc: Exception | None) -> None:
        run = self._run
        if self._waiting:
            run.errors["connection lost before the answer"] += 1
        run.open -= 1
        if not run.open:
            run.finished.set()


async def _drive(load: Load) -> Measured:
    loop = asyncio.get_running_loop()
    key = f"Authorization: Bearer {load.key}\r\n" if load.key else ""
    head = (
        f"POST {load.path} HTTP/1.1\r\nHost: {load.host}:{load.port}\r\n{key}"
        "Content-Type: application/json\r\nContent-Length: "
    )
    run = _Run(
        head=head.encode(),
        body=load.make(),
        accept=load.accept,
        open=load.connections,
        finished=asyncio.Event(),
    )
    run.begin_at = time.perf_counter() + load.warmup_s
    run.end_at = run.begin_at + load.seconds
    cpu_at_start, wall_at_start = time.process_time(), time.perf_counter()
    for _ in range(load.connections):
        await loop.create_connection(lambda: _Connection(run), load.host, load.port)
    try:
        await asyncio.wait_for(run.finished.wait(), load.warmup_s + load.seconds + DRAIN_S)
    except TimeoutError:
        run.errors[f"no answer within {DRAIN_S:.0f} s"] += run.open
    cpu_s, wall_s = time.process_time() - cpu_at_start, time.perf_counter() - wall_at_start
    ordered = sorted(run.latencies) or [0.0]
    return Measured(
        per_second=run.done_in_time / (run.end_at - run.begin_at),
        p50_ms=ordered[len(ordered) // 2] * 1_000,
        p99_ms=ordered[len(ordered) * 99 // 100] * 1_000,
        done=run.done,
        errors=_by_status(run.errors),
        client_cpu=cpu_s / wall_s,
    )


def _by_status(errors: Counter[str]) -> dict[str, int]:
    """Fold errors that differ in their wording alone: one example and the count per status."""
    folded: dict[str, tuple[str, int]] = {}
    for text, count in errors.most_common():
        example, sum_so_far = folded.get(text[:3], (text, 0))
        folded[text[:3]] = (example, sum_so_far + count)
    return dict(folded.values())


def drive(load: Load) -> Measured:
    """Send until the time is up, wait for the last answers, and say what came of it."""
    gc.collect()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_drive(load))
    finally:
        gc.enable()
