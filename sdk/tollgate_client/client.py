"""The client itself, for callers that block and callers that await."""

import asyncio
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, Unpack, cast

import httpx

from tollgate_client.answers import Verdict, verdict_of
from tollgate_client.calls import Before, Call, MeterDesk, end_all
from tollgate_client.delivery import Delivery
from tollgate_client.errors import QueueFull, Unavailable
from tollgate_client.events import Ask, Dimensions, Event, ask_of, event_of
from tollgate_client.exchange import Question, ask, ask_async
from tollgate_client.holds import AsyncHold, Hold, Keeper
from tollgate_client.metering import meter
from tollgate_client.queues import MemoryQueue, Queue
from tollgate_client.spool import Spool, Sync
from tollgate_client.stats import Stats, Tally

logger = logging.getLogger("tollgate_client")
OnError = Literal["open", "closed"]
C = TypeVar("C")


class _Client:
    """What both kinds share: recording never waits for the service, so it is the same for both."""

    awaits: bool

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        on_error: OnError = "open",
        spool: str | Path | None = None,
        spool_bytes: int = 256 << 20,
        sync: Sync = "interval",
        queue_events: int = 10_000,
        flush_interval_s: float = 1.0,
        timeout_s: float = 5.0,
        delivery_timeout_s: float = 30.0,
        close_within_s: float = 5.0,
        longest_hold_s: float = 3600.0,
    ) -> None:
        """Connect to nothing yet; events left over in `spool` are sent at once.

        `url` and `key` default to `TOLLGATE_URL` and `TOLLGATE_KEY`. With `on_error="open"` a call
        is let through when the service cannot be asked, and an event is dropped, counted and
        logged when there is no room for it; with `"closed"` both raise. `timeout_s` bounds what
        somebody waits for: a check, a hold. Without `spool` at most `queue_events` wait in
        memory, and a process that is killed loses them.

        Raises:
            ValueError: no url, no key, or an option that is none.
        """
        url, key = url or os.environ.get("TOLLGATE_URL"), key or os.environ.get("TOLLGATE_KEY")
        if not url or not key:
            raise ValueError("give `url` and `key`, or set TOLLGATE_URL and TOLLGATE_KEY")
        if on_error not in ("open", "closed"):
            raise ValueError('`on_error` is "open" or "closed"')
        if sync not in ("record", "interval"):
            raise ValueError('`sync` is "record" or "interval"')
        self.fails_open = on_error == "open"
        self._timeout_s = timeout_s
        self._connection: dict[str, Any] = {
            "base_url": url.rstrip("/"),
            "headers": {"Authorization": f"Bearer {key}", "User-Agent": "tollgate-client/0.1"},
        }
        self.tally = Tally()
        self.open_calls = open_calls = set[Call]()
        queue: Queue = MemoryQueue(queue_events)
        if spool is not None:
            queue = Spool(Path(spool), spool_bytes, sync)
        self.delivery = Delivery(
            lambda: httpx.Client(**self._connection, timeout=delivery_timeout_s),
            queue,
            self.tally,
            interval_s=flush_interval_s,
            close_within_s=close_within_s,
            leave=lambda: end_all(open_calls),
        )
        _clients.add(self)
        self._longest_hold_s = longest_hold_s
        self._keeper_lock = threading.Lock()
        self._keeper: tuple[Keeper, httpx.Client] | None = None
        self._open()
        if queue.waiting():
            self.delivery.begin()

    def _open(self) -> None:
        """Make what asks the service."""
        raise NotImplementedError

    def record(self, *, user_id: str, **event: Unpack[Event]) -> str:
        """Keep an event to be sent in the background, and return its id.

        The id is made here unless you give one, and sending again never counts again. With a
        spool the event survives this process from now on.

        Raises:
            ValueError, TypeError: the event is impossible; `QueueFull`: no room, and closed.
        """
        return self.record_line(user_id, event)[0]

    def record_line(self, user_id: str, event: Mapping[str, Any]) -> tuple[str, int]:
        """As `record`; also the event's number in the queue, 0 if it was dropped."""
        event_id, line = event_of(user_id, event)
        try:
            return event_id, self.delivery.put(line)
        except QueueFull as error:
            dropped = self.tally.add("dropped")
            if not self.fails_open:
                raise
            if dropped == 1 or dropped % 1000 == 0:
                logger.error("event.dropped total=%d reason=%s", dropped, error)
            return event_id, 0

    def carried(self, number: int) -> bool:
        """Wait until an event is delivered; not while the service is away."""
        return number > 0 and self.delivery.carry(number, self._timeout_s)

    def let_through(self, reason: str) -> None:
        """Count and log a call that goes ahead though the service could not be asked."""
        count = self.tally.add("let_through")
        self.tally.last_failure = reason
        if count == 1 or count % 100 == 0:
            logger.warning("call.let_through total=%d reason=%s", count, reason)

    @property
    def keeper(self) -> Keeper:
        """Who extends open holds, from a thread of its own; another one after a fork."""
        with self._keeper_lock:
            if self._keeper is None:
                http = httpx.Client(**self._connection)
                send = _sender(http, self._timeout_s)
                self._keeper = (Keeper(send, self._longest_hold_s, time.monotonic), http)
            return self._keeper[0]

    @property
    def stats(self) -> Stats:
        """What has become of the events so far."""
        return self.tally.snapshot(self.delivery.waiting())

    def meter(
        self,
        client: C,
        *,
        user_id: str | Callable[[], str] | None = None,
        provider: str | None = None,
        before: Before = "nothing",
        ask_for_usage: bool = True,
        **event: Unpack[Dimensions],
    ) -> C:
        """A client of `openai` or `anthropic` like the given one, whose calls are recorded."""
        return meter(
            client,
            cast(MeterDesk, self),
            user_id=user_id,
            provider=provider,
            before=before,
            ask_for_usage=ask_for_usage,
            **event,
        )

    def _end(self, timeout_s: float | None) -> int:
        if self._keeper is not None:
            self._keeper[0].close()
            self._keeper[1].close()
        return self.delivery.close(timeout_s)

    def _forked(self) -> None:
        """In the child: connections and what waits are the parent's."""
        self._keeper_lock = threading.Lock()
        self._keeper = None
        self.open_calls.clear()
        self.delivery.forked()
        self._open()

    def _unknown(self, error: Unavailable) -> Verdict:
        if not self.fails_open:
            raise error
        self.let_through(f"check: {error.reason}")
        return Verdict(True, error.reason, known=False)


_clients: weakref.WeakSet[_Client] = weakref.WeakSet()


def _after_fork() -> None:
    for client in list(_clients):
        client._forked()


os.register_at_fork(after_in_child=_after_fork)


def _sender(http: httpx.Client, timeout_s: float) -> Callable[[Question], dict[str, Any]]:
    def send(question: Question) -> dict[str, Any]:
        return ask(http, question, timeout_s)

    return send


class Tollgate(_Client):
    """The client for callers that block; safe to share between threads, one per process."""

    awaits = False

    def _open(self) -> None:
        self._http = httpx.Client(**self._connection)

    def check(self, *, user_id: str, **asked: Unpack[Ask]) -> Verdict:
        """Ask whether a call may be made; nothing is reserved.

        Raises:
            Unavailable: no answer, and `on_error` is closed; `Refused`: the question is wrong.
        """
        question = Question("/v1/limits/check", ask_of(user_id, asked))
        try:
            return verdict_of(ask(self._http, question, self._timeout_s))
        except Unavailable as error:
            return self._unknown(error)

    def hold(self, *, user_id: str, ttl_s: int = 120, **asked: Unpack[Ask]) -> Hold:
        """Reserve what a call may use at most, for a `with` block around the call.

        It is extended while the block runs, settled by `hold.used(...)`, released otherwise.
        Entering raises LimitReached where it does not fit.
        """
        return Hold(self, user_id, asked, ttl_s, _sender(self._http, self._timeout_s))

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Send everything now; False if it did not all arrive in the time."""
        return self.delivery.flush(timeout_s)

    def close(self, timeout_s: float | None = None) -> int:
        """Send what can be sent in the time, and stop; how many events are left over."""
        self._http.close()
        return self._end(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncTollgate(_Client):
    """The client for callers that await; `record` does not wait and needs no `await`."""

    awaits = True

    def _open(self) -> None:
        self._http = httpx.AsyncClient(**self._connection)

    async def check(self, *, user_id: str, **asked: Unpack[Ask]) -> Verdict:
        """Ask whether a call may be made; nothing is reserved.

        Raises:
            Unavailable: no answer, and `on_error` is closed; `Refused`: the question is wrong.
        """
        question = Question("/v1/limits/check", ask_of(user_id, asked))
        try:
            return verdict_of(await ask_async(self._http, question, self._timeout_s))
        except Unavailable as error:
            return self._unknown(error)

    def hold(self, *, user_id: str, ttl_s: int = 120, **asked: Unpack[Ask]) -> AsyncHold:
        """Reserve what a call may use at most, for an `async with` block around the call."""

        async def send(question: Question) -> dict[str, Any]:
            return await ask_async(self._http, question, self._timeout_s)

        async def carried(number: int) -> bool:
            return await asyncio.to_thread(self.carried, number)

        return AsyncHold(self, user_id, asked, ttl_s, send, carried)

    async def flush(self, timeout_s: float = 30.0) -> bool:
        """Send everything now; False if it did not all arrive in the time."""
        return await asyncio.to_thread(self.delivery.flush, timeout_s)

    async def close(self, timeout_s: float | None = None) -> int:
        """Send what can be sent in the time, and stop; how many events are left over."""
        await self._http.aclose()
        return await asyncio.to_thread(self._end, timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
