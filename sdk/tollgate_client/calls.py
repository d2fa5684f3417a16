"""One call of a metered client, from before it is made until it is recorded, exactly once."""

import logging
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Literal, Protocol

from tollgate_client.answers import Verdict
from tollgate_client.delivery import Delivery
from tollgate_client.errors import LimitReached
from tollgate_client.heard import Bill, Heard, bill_of_answer
from tollgate_client.holds import Desk
from tollgate_client.shapes import Sent, field
from tollgate_client.stats import Tally

logger = logging.getLogger("tollgate_client")
Before = Literal["nothing", "check", "hold"]
NO_ANSWER = 599
"""The status of a call that was never answered: no provider sends it, and it counts as an error."""
MOST_TAGS = 16
MARK = "usage_estimated"


class MeterDesk(Desk, Protocol):
    """What metering needs of a client; `awaits` says how `check` and `hold` are called."""

    awaits: bool
    tally: Tally
    delivery: Delivery
    open_calls: "set[Call]"

    def check(self, *, user_id: str, **asked: Any) -> Any:
        """Whether a call may be made."""

    def hold(self, *, user_id: str, ttl_s: int = 120, **asked: Any) -> Any:
        """What a call may use, reserved."""


class Call:
    """What is known of a call; `heard` grows while it streams."""

    def __init__(
        self,
        gate: MeterDesk,
        user_id: str | None,
        provider: str,
        sent: Sent,
        event: Mapping[str, Any],
        *,
        swallow: bool,
    ) -> None:
        self.gate, self.sent, self.swallow = gate, sent, swallow
        self.heard = Heard(sent)
        self._user_id, self._provider, self._event = user_id, provider, event
        self._at, self._began = datetime.now(UTC), monotonic()
        self._ttft_ms: float | None = None
        self._ends = threading.Lock()
        self._ended = False
        self._hold: Any = None

    # ---- before ---------------------------------------------------------------------------------

    def permit(self, before: Before) -> None:
        """Ask whether it may be made, if that is wanted. Raises LimitReached, Unavailable."""
        if (asked := self._asked(before)) is None:
            return
        if before == "check":
            _allowed(self.gate.check(**asked))
        else:
            self._hold = self.gate.hold(**asked).__enter__()

    async def permit_async(self, before: Before) -> None:
        """As `permit`."""
        if (asked := self._asked(before)) is None:
            return
        if before == "check":
            _allowed(await self.gate.check(**asked))
        else:
            self._hold = await self.gate.hold(**asked).__aenter__()

    def _asked(self, before: Before) -> dict[str, Any] | None:
        """The question; no usage where the request does not bound what is written."""
        if before == "nothing" or not self.sent.api or self._user_id is None:
            return None
        asked: dict[str, Any] = {
            "user_id": self._user_id,
            "provider": self._provider,
            "endpoint": self.sent.path,
            "model": self.sent.model,
        }
        asked |= {n: self._event[n] for n in ("team_id", "api_key_id") if n in self._event}
        if (most := self.sent.most_output_tokens()) is not None:
            asked["usage"] = {"input_tokens": self.sent.input_tokens(), "output_tokens": most}
        return asked

    # ---- after ----------------------------------------------------------------------------------

    def answered(self, answer: object) -> None:
        """Record a whole answer, a model or plain JSON."""
        bill = bill_of_answer(answer, self.sent)
        if bill is None and self.sent.api:
            self._unmetered("it runs in the background; what it uses is not known yet")
        self._end(bill)

    def first(self) -> None:
        """A stream has begun to answer."""
        if self._ttft_ms is None:
            self._ttft_ms = self._elapsed_ms()

    def ended(self, why: str) -> None:
        """Record a stream as far as it was heard; `why` it ended, if not by itself."""
        self._end(self.heard.bill(why))

    def left(self) -> None:
        """Record a stream that nobody reads on; from anywhere, also while memory is tidied up."""
        if not self._ended:
            self.gate.delivery.strays.put(lambda: self.ended("the stream was left"))

    def cut(self, error: BaseException) -> None:
        """Record a stream that broke."""
        self._end(self.heard.bill("the stream broke"), error)

    def broke(self, error: BaseException) -> None:
        """Record a call that failed before there was an answer."""
        if self.sent.api:
            model = {"model": self.sent.model} if self.sent.model else {}
            self._end(Bill({"usage": {}} | model), error)

    def release(self) -> None:
        """Give back the hold, if it was not settled."""
        if self._hold is not None:
            self._hold.release()

    async def release_async(self) -> None:
        """As `release`."""
        if self._hold is not None:
            await self._hold.release()

    def _end(self, bill: Bill | None, error: BaseException | None = None) -> None:
        with self._ends:
            if self._ended:
                return
            self._ended = True
        self.gate.open_calls.discard(self)
        if bill is None:
            return
        if self._user_id is None:
            self._unmetered("nobody said whose it is")
            return
        try:
            event = self._whole(bill, error)
            if self._hold is not None:
                self._hold.used(**event)
            else:
                self.gate.record_line(self._user_id, event)
        except (ValueError, TypeError) as wrong:
            self._unmetered(str(wrong))

    def _whole(self, bill: Bill, error: BaseException | None) -> dict[str, Any]:
        event: dict[str, Any] = {
            "provider": self._provider,
            "endpoint": self.sent.path,
            "method": "POST",
            "timestamp": self._at,
            "latency_ms": self._elapsed_ms(),
            "ttft_ms": self._ttft_ms,
            **self._event,
            **bill.fields,
        }
        if error is not None:
            event["status_code"] = _status_of(error)
            event["error_message"] = _name_of(error)
        if bill.estimated is not None:
            self.gate.tally.add("estimated")
            tags = dict(event.get("tags") or {})
            place = "tags" if len(tags) < MOST_TAGS else "context"
            event[place] = {**(event.get(place) or {}), MARK: bill.estimated}
        return event

    def _elapsed_ms(self) -> float:
        return round((monotonic() - self._began) * 1000, 3)

    def _unmetered(self, why: str) -> None:
        count = self.gate.tally.add("unmetered")
        if count == 1 or count % 100 == 0:
            logger.error("call.unmetered total=%d path=%s reason=%s", count, self.sent.path, why)


def end_all(calls: set[Call]) -> None:
    """Record streams that are still open, as far as they were heard."""
    for call in list(calls):
        call.ended("the client was closed")


def _allowed(verdict: Verdict) -> None:
    if not verdict.allowed:
        binding = verdict.binding
        retry_after_s = binding.resets_in_s() if binding and binding.resets_at else None
        raise LimitReached(verdict.message, binding, retry_after_s)


def _status_of(error: BaseException) -> int:
    status = field(error, "status_code")
    return status if isinstance(status, int) and 400 <= status <= 599 else NO_ANSWER


def _name_of(error: BaseException) -> str:
    """The kind of an error and the provider's code for it; never its text, which may quote."""
    code = field(error, "code") or field(error, "type")
    kind = type(error).__name__
    return f"{kind}: {code}"[:512] if isinstance(code, str) else kind
