"""A reservation around a call: taken before it, kept while it runs, ended by what it used."""

import logging
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self, Unpack
from urllib.parse import quote

from tollgate_client.errors import LimitReached, Refused, TollgateError, Unavailable
from tollgate_client.events import Event, ask_of
from tollgate_client.exchange import Question
from tollgate_client.ids import uuid7

logger = logging.getLogger("tollgate_client")
SAME = ("provider", "model", "endpoint", "team_id", "api_key_id", "context")
"""What the event of a call takes over from what was asked before it."""


class Desk(Protocol):
    """What a hold needs of its client."""

    fails_open: bool

    def record_line(self, user_id: str, event: Mapping[str, Any]) -> tuple[str, int]:
        """Keep an event; its id and its number in the queue, 0 if it was dropped."""

    def carried(self, number: int) -> bool:
        """Wait for an event to be delivered, as long as the service is there."""

    def let_through(self, reason: str) -> None:
        """Count a call that goes ahead unasked."""

    @property
    def keeper(self) -> "Keeper":
        """Who extends holds."""


class HoldBase:
    """What a hold is to both kinds of caller.

    `granted` is False where the service could not be asked and calls are let through.
    """

    def __init__(self, desk: Desk, user_id: str, ask: Mapping[str, Any], ttl_s: int) -> None:
        if not 1 <= ttl_s <= 86_400:
            raise ValueError("`ttl_s` is 1 to 86400")
        self._desk, self._ttl_s = desk, ttl_s
        self.id, self.user_id = f"hold_{uuid7()}", user_id
        self._ask = ask_of(user_id, ask)
        self.granted = False
        self.event_id: str | None = None
        self.estimated_cost_usd: str | None = None
        self._number = 0

    def used(self, **event: Unpack[Event]) -> str:
        """Record what the call used, which ends the hold; the event's id.

        It takes provider, model, endpoint, team and key from what was asked, where it leaves them
        out. Once for a hold; what is recorded stays recorded if the block then raises.
        """
        if self.event_id is not None:
            raise ValueError("a hold is settled once")
        names = SAME if "response" not in event else tuple(n for n in SAME if n != "model")
        whole = {name: self._ask[name] for name in names if name in self._ask} | dict(event)
        if self.granted:
            whole["hold_id"] = self.id
        self.event_id, self._number = self._desk.record_line(self.user_id, whole)
        self._desk.keeper.forget(self.id)
        return self.event_id

    def _opening(self) -> Question:
        return Question("/v1/holds", self._ask | {"id": self.id, "ttl_s": self._ttl_s})

    def _opened(self, said: Mapping[str, Any]) -> None:
        self.granted = True
        self.estimated_cost_usd = said.get("estimated_cost_usd")
        self._desk.keeper.keep(self.id, self.user_id, self._ttl_s)

    def _not_asked(self, error: Unavailable) -> None:
        if not self._desk.fails_open:
            raise error
        self._desk.let_through(f"hold: {error.reason}")

    def _releasing(self) -> Question | None:
        """What gives the hold back, if there is something to give."""
        self._desk.keeper.forget(self.id)
        if not self.granted or self.event_id is not None:
            return None
        return Question(_path(self.id, self.user_id, "release"))


class Hold(HoldBase):
    """A hold for callers that block: `with gate.hold(...) as hold: ...; hold.used(...)`."""

    def __init__(
        self,
        desk: Desk,
        user_id: str,
        ask: Mapping[str, Any],
        ttl_s: int,
        send: Callable[[Question], dict[str, Any]],
    ) -> None:
        super().__init__(desk, user_id, ask, ttl_s)
        self._send = send

    def __enter__(self) -> Self:
        try:
            self._opened(self._send(self._opening()))
        except Unavailable as error:
            self._not_asked(error)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.event_id is not None:
            self._desk.carried(self._number)
        self.release()

    def release(self) -> None:
        """Give back what is held, unless the call was recorded; without an answer it expires."""
        if question := self._releasing():
            try:
                self._send(question)
            except TollgateError as error:
                logger.info("hold.not_released id=%s reason=%s", self.id, error)
            self.granted = False


class AsyncHold(HoldBase):
    """A hold for callers that await: `async with gate.hold(...) as hold: ...`."""

    def __init__(
        self,
        desk: Desk,
        user_id: str,
        ask: Mapping[str, Any],
        ttl_s: int,
        send: Callable[[Question], Any],
        carried: Callable[[int], Any],
    ) -> None:
        super().__init__(desk, user_id, ask, ttl_s)
        self._send, self._carried = send, carried

    async def __aenter__(self) -> Self:
        try:
            self._opened(await self._send(self._opening()))
        except Unavailable as error:
            self._not_asked(error)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.event_id is not None:
            await self._carried(self._number)
        await self.release()

    async def release(self) -> None:
        """Give back what is held, unless the call was recorded; without an answer it expires."""
        if question := self._releasing():
            try:
                await self._send(question)
            except TollgateError as error:
                logger.info("hold.not_released id=%s reason=%s", self.id, error)
            self.granted = False


class Keeper:
    """Extends the holds of calls that still run, at half of their time; one thread for all."""

    def __init__(
        self, send: Callable[[Question], dict[str, Any]], longest_s: float, now: Callable[[], float]
    ) -> None:
        self._send, self._longest_s, self._now = send, longest_s, now
        self._cond = threading.Condition()
        self._open: dict[str, tuple[float, float, str, int]] = {}
        self._thread: threading.Thread | None = None

    def keep(self, hold_id: str, user_id: str, ttl_s: int) -> None:
        """Extend from now on, until `forget` or the longest time that a call may take."""
        now = self._now()
        with self._cond:
            self._open[hold_id] = (now + ttl_s / 2, now + self._longest_s, user_id, ttl_s)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="holds", daemon=True)
                self._thread.start()
            self._cond.notify_all()

    def forget(self, hold_id: str) -> None:
        """The hold has ended."""
        with self._cond:
            self._open.pop(hold_id, None)

    def close(self) -> None:
        """Extend nothing any more."""
        with self._cond:
            self._open.clear()
            self._cond.notify_all()

    def _run(self) -> None:
        while True:
            with self._cond:
                if not self._open and not self._cond.wait_for(lambda: bool(self._open), 5):
                    self._thread = None
                    return
                hold_id = min(self._open, key=lambda one: self._open[one][0])
                due, until, user_id, ttl_s = self._open[hold_id]
                if (wait := due - self._now()) > 0:
                    self._cond.wait(wait)
                    continue
                if self._now() >= until:
                    logger.warning("hold.left id=%s: open for %ss", hold_id, self._longest_s)
                    del self._open[hold_id]
                    continue
                self._open[hold_id] = (due + max(0.2, ttl_s / 8), until, user_id, ttl_s)
            self._extend(hold_id, user_id, ttl_s)

    def _extend(self, hold_id: str, user_id: str, ttl_s: int) -> None:
        path = _path(hold_id, user_id, "extend")
        try:
            self._send(Question(path, {"ttl_s": ttl_s}))
        except (Refused, LimitReached) as error:
            logger.warning("hold.not_extended id=%s reason=%s", hold_id, error)
            self.forget(hold_id)
        except Unavailable as error:
            logger.info("hold.extended_later id=%s reason=%s", hold_id, error)
        else:
            with self._cond:
                if hold_id in self._open:
                    until = self._open[hold_id][1]
                    self._open[hold_id] = (self._now() + ttl_s / 2, until, user_id, ttl_s)


def _path(hold_id: str, user_id: str, verb: str) -> str:
    return f"/v1/holds/{quote(hold_id, safe='')}/{verb}?user_id={quote(user_id, safe='')}"
