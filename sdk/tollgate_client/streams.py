"""Streams that are heard while they are read; what is handed on is what the caller asked for."""

import json
import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any

from tollgate_client.calls import Call

CLOSED = "the stream was closed"
DONE = "[DONE]"


def watched(stream: Any, call: Call) -> None:
    """Hear a library's stream from its inside, so that it stays what it is to the caller."""
    stream._iterator = _Watched(stream._iterator, call)
    close = stream.close

    def closing() -> None:
        call.ended(CLOSED)
        close()

    stream.close = closing
    _follow(stream, call)


def async_watched(stream: Any, call: Call) -> None:
    """As `watched`."""
    stream._iterator = _AsyncWatched(stream._iterator, call)
    close = stream.close

    async def closing() -> None:
        call.ended(CLOSED)
        await close()

    stream.close = closing
    _follow(stream, call)


def _follow(stream: object, call: Call) -> None:
    """Record a stream that is dropped half read, or still open when the client is closed."""
    call.gate.open_calls.add(call)
    weakref.finalize(stream, call.left).atexit = False


class _Tail:
    """What is read ahead of the caller: a chat's usage comes after its last words.

    Callers stop reading at the finish reason, so what follows it is read before that is handed on.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        self.ready: deque[Any] = deque()
        self.error: BaseException | None = None
        self.over = False

    def take(self, chunk: Any) -> None:
        call = self.call
        call.first()
        call.heard.take(chunk)
        if call.heard.told_all:
            call.ended(CLOSED)
        if not (call.swallow and _is_usage_alone(chunk)):
            self.ready.append(chunk)

    def reads_ahead(self) -> bool:
        """Whether another chunk is to be read before anything is handed on."""
        if self.over or self.error is not None:
            return False
        if not self.ready:
            return True
        chat = self.call.sent.api in ("chat", "completions")
        return (
            chat and self.call.heard.finished and not self.call.heard.counted and self._expected()
        )

    def _expected(self) -> bool:
        wish = self.call.sent.body.get("stream_options") or {}
        return self.call.swallow or bool(wish.get("include_usage"))

    def ended(self) -> None:
        self.over = True
        self.call.ended("the stream has no usage")

    def failed(self, error: BaseException) -> None:
        self.error = error
        self.call.cut(error)


class _Watched:
    def __init__(self, inner: Iterator[Any], call: Call) -> None:
        self._inner, self._tail = inner, _Tail(call)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        tail = self._tail
        while tail.reads_ahead():
            try:
                tail.take(next(self._inner))
            except StopIteration:
                tail.ended()
            except BaseException as error:  # told to the caller below, in its turn
                tail.failed(error)
        if tail.ready:
            return tail.ready.popleft()
        if tail.error is not None:
            raise tail.error
        raise StopIteration

    def close(self) -> None:
        if close := getattr(self._inner, "close", None):
            close()


class _AsyncWatched:
    def __init__(self, inner: AsyncIterator[Any], call: Call) -> None:
        self._inner, self._tail = inner, _Tail(call)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        tail = self._tail
        while tail.reads_ahead():
            try:
                tail.take(await anext(self._inner))
            except StopAsyncIteration:
                tail.ended()
            except BaseException as error:  # told to the caller below, in its turn
                tail.failed(error)
        if tail.ready:
            return tail.ready.popleft()
        if tail.error is not None:
            raise tail.error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        if close := getattr(self._inner, "aclose", None):
            await close()


def _is_usage_alone(chunk: Any) -> bool:
    return chunk.usage is not None and not chunk.choices


# ---- raw answers --------------------------------------------------------------------------------


def watch_raw(answer: Any, call: Call) -> None:
    """Hear an answer that the caller takes as bytes, lines or JSON, or parses himself."""
    http = answer.http_response
    heard = _Bytes(call, "event-stream" in http.headers.get("content-type", ""))
    if http.is_closed:
        heard.take(http.content)
        heard.end()
        return
    read, read_async = http.iter_bytes, http.aiter_bytes

    def iter_bytes(*size: Any, **named: Any) -> Iterator[bytes]:
        try:
            for piece in read(*size, **named):
                heard.take(piece)
                yield piece
            heard.end()
        except Exception as error:
            call.cut(error)
            raise
        finally:
            call.left()

    async def aiter_bytes(*size: Any, **named: Any) -> AsyncIterator[bytes]:
        try:
            async for piece in read_async(*size, **named):
                heard.take(piece)
                yield piece
            heard.end()
        except Exception as error:
            call.cut(error)
            raise
        finally:
            call.left()

    http.iter_bytes, http.aiter_bytes = iter_bytes, aiter_bytes
    _end_with(http, call)


def _end_with(http: Any, call: Call) -> None:
    """An answer that is closed or dropped before it was read is a call all the same."""
    _follow(http, call)
    close, aclose = http.close, http.aclose

    def closing() -> None:
        close()
        if not http.is_stream_consumed:
            call.ended(CLOSED)

    async def aclosing() -> None:
        await aclose()
        if not http.is_stream_consumed:
            call.ended(CLOSED)

    http.close, http.aclose = closing, aclosing


class _Bytes:
    """Bytes of an answer, read as events as they come or as one JSON at the end."""

    def __init__(self, call: Call, events: bool) -> None:
        self._call, self._events = call, events
        self._rest = bytearray()

    def take(self, piece: bytes) -> None:
        self._call.first()
        self._rest += piece
        if self._events:
            *lines, rest = self._rest.split(b"\n")
            self._rest = bytearray(rest)
            for line in lines:
                self._line(bytes(line))

    def _line(self, line: bytes) -> None:
        name, _, data = line.strip().partition(b":")
        if name != b"data" or data.strip() == DONE.encode():
            return
        if isinstance(said := _json(data), dict):
            self._call.heard.take(said)

    def end(self) -> None:
        if self._events:
            self._line(bytes(self._rest))
            self._call.ended("the stream has no usage")
        else:
            self._call.answered(_json(bytes(self._rest)))


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
