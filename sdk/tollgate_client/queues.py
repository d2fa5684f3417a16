"""Where events wait: in memory, bounded, gone with the process."""

import threading
from collections import deque
from typing import NamedTuple, Protocol

from tollgate_client.errors import QueueFull

BATCH_EVENTS = 1_000
BATCH_BYTES = 4 << 20


class Batch(NamedTuple):
    """Lines that are sent together; `last` numbers the newest of them among those put here."""

    name: str
    lines: list[bytes]
    last: int


class Queue(Protocol):
    """First in, first out; what was taken stays until it is done."""

    place: str | None
    """Where lines outlive the process; None if nowhere."""

    def put(self, line: bytes) -> int:
        """Keep a line and return its number, from 1. Raises QueueFull."""

    def take(self) -> Batch | None:
        """The oldest lines, the same ones until they are done."""

    def done(self, batch: Batch) -> None:
        """Let go of a batch."""

    def refuse(self, lines: list[bytes]) -> None:
        """Keep what the service will never take, where there is a place for it."""

    def waiting(self) -> int:
        """How many events are here."""

    def settled(self, number: int) -> bool:
        """Whether everything up to a number is done, and what was found here at the start too."""

    def tick(self) -> None:
        """Do what is due now and then."""

    def forget(self) -> None:
        """In a process that was forked off: everything here is the parent's."""

    def close(self) -> None:
        """Nothing is put or taken any more."""


class MemoryQueue:
    """Lines in memory, at most so many events."""

    place: str | None = None

    def __init__(self, most: int) -> None:
        self._most = most
        self.forget()

    def forget(self) -> None:
        self._lock = threading.Lock()
        self._lines: deque[bytes] = deque()
        self._taken: Batch | None = None
        self._put = self._done = 0
        self._closed = False

    def put(self, line: bytes) -> int:
        with self._lock:
            if self._closed:
                raise QueueFull("the client is closed")
            if self._put - self._done >= self._most:
                raise QueueFull(f"{self._most} events are waiting")
            self._lines.append(line)
            self._put += 1
            return self._put

    def take(self) -> Batch | None:
        with self._lock:
            if self._taken is None and self._lines:
                lines: list[bytes] = []
                size = 0
                while self._lines and len(lines) < BATCH_EVENTS and size < BATCH_BYTES:
                    lines.append(self._lines.popleft())
                    size += len(lines[-1])
                self._taken = Batch("", lines, self._done + len(lines))
            return self._taken

    def done(self, batch: Batch) -> None:
        with self._lock:
            self._taken, self._done = None, batch.last

    def refuse(self, lines: list[bytes]) -> None:
        return

    def waiting(self) -> int:
        with self._lock:
            return self._put - self._done

    def settled(self, number: int) -> bool:
        with self._lock:
            return self._done >= number

    def tick(self) -> None:
        return

    def close(self) -> None:
        with self._lock:
            self._closed = True
