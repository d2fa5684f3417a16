"""Where imported events go: through the door of this process, to a service, or nowhere yet."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import httpx
import msgspec

from app.core.errors import AppError, InvalidInput, Unavailable
from app.core.money import from_usd
from app.db.engine import Database
from app.ingest.calls import Call, calls_from
from app.ingest.decode import decode_array
from app.ingest.door import EventsDoor
from app.ingest.meter import rated
from app.pricing.catalog import Catalog
from app.usage.ledger import find_many
from app.usage.wrapped import find_wrapped
from app.web.lean import LeanRequest

PATH = "/v1/events"
QUERY = {"backfill": "true", "results": "all"}
TRIES, LONGEST_PAUSE_S = 12, 30.0


class Result(NamedTuple):
    """What became of one event: `recorded`, `duplicate` or else why it was refused."""

    status: str
    cost_nanos: int | None = None
    detail: str = ""
    pointer: str = ""


class Sender(Protocol):
    """Takes events, as JSON each, and says of every one what became of it."""

    async def send(self, events: Sequence[bytes]) -> list[Result]: ...


class StoppedError(Exception):
    """Nothing more can be sent; the message says why."""


class OwnDoor:
    """The door of a service's parts in this process, with a key that nobody else knows."""

    def __init__(self, door: EventsDoor, token: str) -> None:
        self._door = door
        self._headers = {
            b"authorization": f"Bearer {token}".encode(),
            b"content-type": b"application/json",
        }

    async def send(self, events: Sequence[bytes]) -> list[Result]:
        """Record them; a database that is busy is asked again."""
        body = _array(events)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        query = "&".join(f"{name}={value}" for name, value in QUERY.items())
        for attempt in range(TRIES):
            try:
                answer = await self._door(LeanRequest(self._headers, query, receive, None, PATH))
            except Unavailable as error:
                await _pause(attempt, str(error), error.retry_after_s)
            except AppError as error:
                raise StoppedError(str(error)) from error
            else:
                return _results(answer.body)
        raise AssertionError("unreachable")


class Service:
    """A service over HTTP, with a key that has `ingest` and `manage`."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def send(self, events: Sequence[bytes]) -> list[Result]:
        """Send them; what is busy or does not answer is asked again: an id counts once."""
        headers = {"Content-Type": "application/json"}
        for attempt in range(TRIES):
            try:
                answer = await self._http.post(
                    PATH, params=QUERY, content=_array(events), headers=headers
                )
            except httpx.TransportError as error:
                await _pause(attempt, f"{type(error).__name__}: {error}", 0)
                continue
            if answer.status_code in (200, 207, 422):
                return _results(answer.content)
            if answer.status_code in (429, 500, 502, 503, 504):
                after = answer.headers.get("retry-after", "0")
                why = f"the service answers {answer.status_code}"
                await _pause(attempt, why, int(after) if after.isdigit() else 0)
                continue
            raise StoppedError(f"the service answers {answer.status_code}: {answer.text[:300]}")
        raise AssertionError("unreachable")


class Rehearsal:
    """Judges and prices the events as they would be, beside what is recorded; changes nothing."""

    def __init__(self, db: Database | None, catalog: Catalog, now: datetime) -> None:
        self._db, self._catalog, self._now = db, catalog, now
        self._seen: dict[tuple[str, str], int] = {}

    async def send(self, events: Sequence[bytes]) -> list[Result]:
        """What would become of them."""
        judged = [self._judged(event) for event in decode_array(_array(events))]
        keys = [key for calls in judged if isinstance(calls, list) for key in _keys(calls)]
        known = await self._known(keys)
        return [one if isinstance(one, Result) else self._result(one, known) for one in judged]

    def _judged(self, event: Any) -> "list[Call] | Result":
        try:
            if isinstance(event, InvalidInput):
                raise event
            return calls_from(event, self._now, None, plain=False)
        except InvalidInput as error:
            place = error.extra["errors"][0]
            return Result("rejected", None, place["detail"], place["pointer"])

    async def _known(self, keys: list[tuple[str, str]]) -> dict[tuple[str, str], int]:
        db = self._db
        if db is None or not keys:
            return {}
        stored = await db.read(lambda tx: find_many(tx, keys))
        known = {entry[:2]: entry.body_hash for entry in stored}
        wrapped = await db.read(lambda tx: find_wrapped(tx, keys))
        return {key: row.body_hash for key, row in wrapped.items()} | known

    def _result(self, calls: list[Call], known: dict[tuple[str, str], int]) -> Result:
        key, body_hash = _keys(calls)[0], calls[0].body_hash
        before = known.get(key, self._seen.get(key))
        if before is not None and before != body_hash:
            return Result("rejected", None, "another event stands under this id", "/id")
        if before is not None:
            return Result("duplicate")
        self._seen[key] = body_hash
        costs = [rated(call, self._catalog, self._now).cost_nanos for call in calls]
        return Result("recorded", None if None in costs else sum(cost or 0 for cost in costs))


def _keys(calls: Sequence[Call]) -> list[tuple[str, str]]:
    return [(call.event.user_id, call.event_id) for call in calls]


def _array(events: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(events) + b"]"


async def _pause(attempt: int, why: str, seconds: float) -> None:
    """Wait before the next try.

    Raises:
        StoppedError: there is none.
    """
    if attempt + 1 == TRIES:
        raise StoppedError(f"{why}; tried {TRIES} times")
    await asyncio.sleep(max(seconds, min(0.2 * 2**attempt, LONGEST_PAUSE_S)))


class _One(msgspec.Struct):
    index: int
    status: str
    detail: str = ""
    pointer: str = ""
    cost_usd: str | None = None


class _Summary(msgspec.Struct):
    results: list[_One]


def _results(body: bytes) -> list[Result]:
    try:
        found = msgspec.json.decode(body, type=_Summary)
    except msgspec.DecodeError:
        raise StoppedError(f"not the answer of this service: {body[:200]!r}") from None
    return [
        Result(
            one.status,
            None if one.cost_usd is None else from_usd(one.cost_usd),
            one.detail,
            _within(one.pointer),
        )
        for one in sorted(found.results, key=lambda one: one.index)
    ]


def _within(pointer: str) -> str:
    """The place in the event of a place in the batch."""
    step = pointer.find("/", 1)
    return pointer[step:] if step > 0 else ""
