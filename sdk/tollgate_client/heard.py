"""What has been heard of a stream, and what it comes to when it ends, whole or cut."""

from typing import Any, NamedTuple

from tollgate_client.shapes import (
    BYTES_PER_TOKEN,
    Sent,
    billing_part,
    bytes_written,
    field,
)

RESPONSE_ENDS = ("response.completed", "response.incomplete", "response.failed")


class Bill(NamedTuple):
    """What to record of a call; `estimated` says why, if the provider did not count all of it."""

    fields: dict[str, Any]
    estimated: str | None = None


def bill_of_answer(answer: object, sent: Sent) -> Bill | None:
    """What a whole answer comes to; None where it is not one that bills.

    An answer without usage of an API that bills is estimated by the request alone.
    """
    part = billing_part(answer)
    if part.get("usage") or part.get("x_groq"):
        return Bill(_response(part, sent))
    if not sent.api or part.get("status") in ("queued", "in_progress"):
        return None
    return Bill(_counted(part.get("model"), sent, 0), "the answer has no usage")


class Heard:
    """A stream as far as it was read; chunks are models or plain JSON."""

    def __init__(self, sent: Sent) -> None:
        self._sent = sent
        self._whole: dict[str, Any] = {}
        self._start: dict[str, Any] | None = None
        self._delta: dict[str, Any] | None = None
        self._final: dict[str, Any] | None = None
        self._written = self._finished = 0
        self._stopped = False

    def take(self, chunk: object) -> None:
        """Add the next chunk."""
        kind = field(chunk, "type")
        self._written += bytes_written(chunk)
        if kind == "message_start":
            self._start = billing_part(field(chunk, "message"))
        elif kind == "message_delta":
            self._delta = (self._delta or {}) | billing_part(chunk)
            self._delta |= {"delta": {"stop_reason": field(field(chunk, "delta"), "stop_reason")}}
        elif kind == "message_stop":
            self._stopped = True
        elif kind in RESPONSE_ENDS:
            self._final = billing_part(field(chunk, "response"))
        elif isinstance(kind, str) and kind.startswith("response."):
            if (response := field(chunk, "response")) is not None:
                self._whole |= billing_part(response)
        else:
            self._whole |= billing_part(chunk)
            choices = field(chunk, "choices") or ()
            self._finished += sum(field(one, "finish_reason") is not None for one in choices)

    @property
    def counted(self) -> bool:
        """Whether the provider has said what all of it comes to."""
        if self._delta is not None:
            return True
        if self._final is not None:
            return bool(self._final.get("usage"))
        usage = self._whole.get("usage") or self._whole.get("x_groq")
        return bool(usage) and self._finished >= self._sent.answers

    @property
    def told_all(self) -> bool:
        """Whether nothing that counts can follow; a message may tell its usage more than once."""
        return self.counted and (self._start is None or self._stopped)

    @property
    def finished(self) -> bool:
        """Whether every answer of a chat has said that it ends; its usage comes after that."""
        return self._finished >= self._sent.answers

    def bill(self, why: str) -> Bill:
        """What it comes to; `why` it ended, if the provider has not counted it."""
        if self._start is not None:
            return self._message(why)
        if self._final is not None and self._final.get("usage"):
            return Bill(_response(self._final, self._sent))
        part = self._final or self._whole
        if part.get("usage") or part.get("x_groq"):
            return Bill(_response(part, self._sent), None if self.counted else why)
        return Bill(_counted(part.get("model"), self._sent, self._tokens()), why)

    def _message(self, why: str) -> Bill:
        """A message's start has the input; its end has what was written, or it is estimated."""
        start = {"type": "message_start", "message": self._start}
        if self._delta is not None:
            return Bill(_response([start, self._delta], self._sent))
        said = field(self._start, "usage") or {}
        written = max(self._tokens(), int(said.get("output_tokens") or 0))
        end = {"type": "message_delta", "usage": {"output_tokens": written}}
        return Bill(_response([start, end], self._sent), why)

    def _tokens(self) -> int:
        return -(-self._written // BYTES_PER_TOKEN)


def _response(part: Any, sent: Sent) -> dict[str, Any]:
    named = part[0]["message"] if isinstance(part, list) else part
    fields = {"response": part}
    if sent.api:
        fields["api"] = sent.api
    if sent.model and not named.get("model"):
        fields["model"] = sent.model
    return fields


def _counted(model: str | None, sent: Sent, written: int) -> dict[str, Any]:
    usage = {"input_tokens": sent.input_tokens(), "output_tokens": written}
    named = model or sent.model
    return {"usage": usage} | ({"model": named} if named else {})
