"""A thread that carries what waits to the service, until the service has it."""

import atexit
import gzip
import json
import logging
import random
import threading
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

import httpx

from tollgate_client.backoff import asked_pause_s, pause_s
from tollgate_client.errors import QueueFull
from tollgate_client.exchange import object_in
from tollgate_client.queues import Batch, Queue
from tollgate_client.stats import Tally

logger = logging.getLogger("tollgate_client")
GZIP_FROM = 1024
TOLD_EVERY_S = 60.0
"""A failure that lasts is told once a minute."""
AWAITED_S = 0.5
"""The longest pause while somebody waits for the end of it, unless the service asked for more."""
Stray = Callable[[], None]


class _LaterError(Exception):
    """Not now: the same batch is sent again."""

    def __init__(self, reason: str, asked_s: float | None = None) -> None:
        super().__init__(reason)
        self.asked_s = asked_s


class Delivery:
    """Owns the queue; `put` from any thread, one thread of its own sends.

    `strays` takes work from where nothing may be locked or sent, such as a finaliser; it is done
    with the next round.
    """

    def __init__(
        self,
        connect: Callable[[], httpx.Client],
        queue: Queue,
        tally: Tally,
        *,
        interval_s: float,
        close_within_s: float,
        leave: Callable[[], None],
    ) -> None:
        self._connect, self._queue, self._tally = connect, queue, tally
        self._interval_s, self._close_within_s = interval_s, close_within_s
        self._leave = leave
        self.strays: SimpleQueue[Stray] = SimpleQueue()
        self._fresh()
        atexit.register(_close_at_exit, weakref.ref(self))

    def _fresh(self) -> None:
        self._cond = threading.Condition()
        self._thread: threading.Thread | None = None
        self._nudged = self._hurried = self._closing = self._patient = False
        self._failures = self._last = self._flushing = 0
        self._deadline = 0.0
        self._told_at = -TOLD_EVERY_S

    def forked(self) -> None:
        """In the child: what waits is the parent's to send."""
        self._queue.forget()
        self.strays = SimpleQueue()
        self._fresh()

    def begin(self) -> None:
        """Start the thread if it is not running; what was found on the disk is sent at once."""
        with self._cond:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="tollgate", daemon=True)
                self._thread.start()

    def put(self, line: bytes) -> int:
        """Keep a line to be sent. Raises QueueFull."""
        number = self._queue.put(line)
        self._last = number
        self._tally.add("taken")
        if self._thread is None:
            self.begin()
        return number

    def waiting(self) -> int:
        """How many events are on their way."""
        return self._queue.waiting()

    def flush(self, timeout_s: float) -> bool:
        """Send now, and wait until all that was put is done; False if the time did not suffice."""
        self._empty_strays()
        if self._queue.waiting():
            self.begin()
        with self._cond:
            self._hurried = True
            self._flushing += 1
            self._cond.notify_all()
            try:
                return self._cond.wait_for(lambda: self._queue.settled(self._last), timeout_s)
            finally:
                self._flushing -= 1

    def carry(self, number: int, timeout_s: float) -> bool:
        """Send now, and wait for a line until it is done or an attempt failed; not while away."""
        with self._cond:
            if self._failures:
                return False
            self._nudged = True
            self._cond.notify_all()
            self._cond.wait_for(lambda: self._queue.settled(number) or self._failures, timeout_s)
        return self._queue.settled(number)

    def close(self, timeout_s: float | None = None) -> int:
        """Send what can be sent in the time, and end; how many events are left."""
        timeout_s = self._close_within_s if timeout_s is None else timeout_s
        self._leave()
        self._empty_strays()
        if self._queue.waiting():
            self.begin()
        with self._cond:
            if self._closing:
                return self._queue.waiting()
            self._closing, self._deadline = True, monotonic() + timeout_s
            thread = self._thread
            self._cond.notify_all()
        if thread is not None:
            thread.join(timeout_s + 0.2)
        left = self._queue.waiting()
        if left and self._queue.place is None:
            self._tally.add("dropped", left)
            logger.error("delivery.lost events=%d: there is no spool", left)
        elif left:
            logger.warning("delivery.kept events=%d place=%s", left, self._queue.place)
        self._queue.close()
        return left

    # ---- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        with self._connect() as http:
            while True:
                self._empty_strays()
                pause = self._round(http)
                with self._cond:
                    self._cond.notify_all()
                    if self._closing and self._is_over():
                        return
                    self._cond.wait_for(self._is_called, pause)
                    self._nudged = self._hurried = False

    def _is_over(self) -> bool:
        return not self._queue.waiting() or monotonic() > self._deadline

    def _is_called(self) -> bool:
        if self._patient:
            return self._closing
        return self._hurried or self._closing or (self._nudged and not self._failures)

    def _round(self, http: httpx.Client) -> float:
        """Send all there is; the seconds until the next round."""
        try:
            self._queue.tick()
            while batch := self._queue.take():
                self._deliver(http, batch)
                if self._failures:
                    logger.info("delivery.resumed after=%d", self._failures)
                with self._cond:
                    self._failures, self._patient = 0, False
                    self._cond.notify_all()
        except (_LaterError, httpx.HTTPError) as error:
            return self._put_off(error)
        except Exception as error:  # whatever it is, what waits must not wait for ever
            logger.exception("delivery.error")
            return self._put_off(error)
        return self._interval_s

    def _put_off(self, error: Exception) -> float:
        reason = (
            str(error) if isinstance(error, _LaterError) else f"{type(error).__name__}: {error}"
        )
        with self._cond:
            self._failures += 1
            failures = self._failures
            self._cond.notify_all()
        self._tally.failed(reason)
        if monotonic() - self._told_at > TOLD_EVERY_S:
            self._told_at = monotonic()
            waiting = self._queue.waiting()
            logger.warning("delivery.failed waiting=%d reason=%s", waiting, reason)
        asked_s = getattr(error, "asked_s", None)
        self._patient = asked_s is not None
        pause = pause_s(failures, asked_s, random.random)
        if asked_s is None and (self._closing or self._flushing):
            pause = min(pause, AWAITED_S)
        if self._closing:
            return max(0.01, min(pause, self._deadline - monotonic()))
        return pause

    def _deliver(self, http: httpx.Client, batch: Batch) -> None:
        refusals: list[tuple[bytes, dict[str, Any]]] = []
        duplicates = self._send(http, batch.lines, refusals) if batch.lines else 0
        if refusals:
            self._queue.refuse([_buried(line, why) for line, why in refusals])
        self._queue.done(batch)
        for line, why in refusals:
            name = json.loads(line).get("id") if line.startswith(b"{") else None
            logger.error("event.refused id=%s detail=%s", name, why.get("detail"))
        self._tally.add("refused", len(refusals))
        self._tally.add("duplicates", duplicates)
        self._tally.add("delivered", len(batch.lines) - len(refusals))

    def _send(
        self, http: httpx.Client, lines: list[bytes], refusals: list[tuple[bytes, dict[str, Any]]]
    ) -> int:
        """Send lines, in halves where the service cannot read them together; the duplicates."""
        body = b"".join(lines)
        headers = {"Content-Type": "application/x-ndjson"}
        if len(body) >= GZIP_FROM:
            body, headers["Content-Encoding"] = gzip.compress(body, 5), "gzip"
        answer = http.post("/v1/events", content=body, headers=headers)
        said = object_in(answer)
        if isinstance(said.get("results"), list):
            for one in said["results"]:
                refusals.append((lines[one["index"]], one))
            return int(said.get("duplicates", 0))
        if answer.status_code in (413, 422):
            if len(lines) > 1:
                half = len(lines) // 2
                first = self._send(http, lines[:half], refusals)
                return first + self._send(http, lines[half:], refusals)
            refusals.append((lines[0], {"detail": said.get("detail"), "status": "rejected"}))
            return 0
        detail = said.get("detail") or answer.reason_phrase
        reason = f"{answer.status_code} {detail}"
        raise _LaterError(reason, asked_pause_s(answer.headers.get("retry-after")))

    def _empty_strays(self) -> None:
        while True:
            try:
                stray = self.strays.get_nowait()
            except Empty:
                return
            try:
                stray()
            except QueueFull as error:
                logger.error("event.dropped reason=%s", error)


def _buried(line: bytes, why: dict[str, Any]) -> bytes:
    told = {name: why.get(name) for name in ("status", "detail", "pointer")}
    return b'{"refused":' + json.dumps(told).encode() + b',"event":' + line.rstrip() + b"}\n"


def _close_at_exit(found: "weakref.ref[Delivery]") -> None:
    delivery = found()
    if delivery is not None:
        delivery.close()
