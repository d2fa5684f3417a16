"""Events to calls: what can be judged without the database is judged here, once. Pure."""

from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import NamedTuple

from msgspec.structs import astuple, replace

from app.access.keys import Key
from app.core.counters import (
    COUNTERS,
    FIRST_SECONDS,
    MICROS_PER_SECOND,
    NOTHING,
    REQUESTS,
    Usage,
    has_parts,
    part_beyond_whole,
)
from app.core.errors import Forbidden, InvalidInput, OutOfWindow
from app.core.ids import uuid7
from app.core.money import CEILING, Nanos
from app.ingest.decode import NO_RESPONSE, EventIn, canonical, read_raw
from app.ingest.responses.billed import Billed
from app.ingest.responses.read import read_response
from app.web.strict import check_name, stated_cost

_CACHE_WRITE, _WRITE_5M, _WRITE_1H = (
    COUNTERS.index(f"cache_write_{part}tokens") for part in ("", "5m_", "1h_")
)
_ONE_REQUEST: Usage = tuple(int(place == REQUESTS) for place in range(len(COUNTERS)))
MAX_TAGS = 16
MAX_BILLED = 100
"""How many calls one response may bill."""
_BYTES = (
    *(("user_id", 1024), ("id", 1024), ("provider", 256), ("model", 512), ("task_type", 256)),
    *(("endpoint", 1024), ("team_id", 512), ("api_key_id", 512), ("session_id", 512)),
    *(("backend", 512), ("pool", 512)),
)
"""How long a name may be in UTF-8: an index entry of PostgreSQL holds some 2,700 bytes. A user's
may have any 256 characters; beside two of them the id of a hold has 512 bytes (`hour_totals`,
`hold_amounts`)."""


class Window(NamedTuple):
    """Which timestamps are accepted, relative to arrival."""

    past: timedelta = timedelta(days=35)
    future: timedelta = timedelta(minutes=5)


def window_for(key: Key, usual: Window, *, backfill: bool) -> Window | None:
    """When a key's events may have happened; None is at any time.

    Raises:
        Forbidden: a backfill by a key that may not manage.
    """
    if not backfill:
        return usual
    if not key.may("manage"):
        raise Forbidden("a backfill needs a key with the scope `manage`", scope="manage")
    return None


class Call(NamedTuple):
    """One AI call as reported, whatever format it arrived in; everything in it is valid.

    `place` counts the calls of one event from 0; nearly every event has only that one.
    """

    event: EventIn
    event_id: str
    at: datetime
    usage: Usage
    cost_nanos: Nanos | None
    body_hash: int
    place: int = 0


def calls_from(
    event: EventIn,
    now: datetime,
    window: Window | None,
    *,
    plain: bool,
    base: str = "",
    body: bytes | None = None,
) -> list[Call]:
    """Judge one event: the calls it tells of, one unless it carries a response that bills more.

    `window` is None for a backfill. `plain` says that the body was ASCII without escapes, so that
    no name in it can hold a control character or be longer in UTF-8 than in characters.
    `body` is the event's canonical form where the caller made it already.

    Raises:
        InvalidInput, OutOfWindow: `errors` names the place, under the pointer `base`.
    """
    said = None
    if event.response is not NO_RESPONSE:
        said, body = _opened(event, f"{base}/response"), None
        if said is not None and event.usage is not None:
            raise _said_twice(base)
    digest = blake2b(body or canonical(event), digest_size=8).digest()
    at = now if event.timestamp is None else _instant(event.timestamp, now, window, base)
    cost = None
    if event.cost_usd is not None:
        cost = stated_cost(event.cost_usd, f"{base}/cost_usd")
    if not plain:
        _check_names(event, base)
    if event.tags is not None and len(event.tags) > MAX_TAGS:
        raise InvalidInput.at(f"{base}/tags", f"at most {MAX_TAGS} tags")
    if event.context is not None and len(event.context) > MAX_TAGS:
        raise InvalidInput.at(f"{base}/context", f"at most {MAX_TAGS} pairs")
    body_hash = int.from_bytes(digest, "big", signed=True)
    event_id = event.id or uuid7()
    if said is None:
        usage = _ONE_REQUEST if event.usage is None else usage_from(event, base)
        only = (event, event_id, at, usage, cost, body_hash, 0)
        return [tuple.__new__(Call, only)]  # a third of a microsecond less than Call(…)
    return [
        Call(
            _as_billed(event, one, place, f"{base}/response"),
            f"{event_id}#{place + 1}" if place else event_id,
            at,
            one.usage,
            _cost(cost, one, place, f"{base}/response"),
            body_hash,
            place,
        )
        for place, one in enumerate(_billed(event, said, base))
    ]


def _opened(event: EventIn, pointer: str) -> object:
    """What the response says; the event keeps its canonical form. None where it is null."""
    said, same = read_raw(event.response, pointer)
    event.response = NO_RESPONSE if said is None else same
    return said


def _said_twice(base: str) -> InvalidInput:
    detail = "send `usage` or `response`, not both"
    pointers = (f"{base}/usage", f"{base}/response")
    return InvalidInput(detail, errors=[{"pointer": one, "detail": detail} for one in pointers])


def _billed(event: EventIn, said: object, base: str) -> list[Billed]:
    try:
        found = read_response(said, provider=event.provider or None, api=event.api or None)
    except InvalidInput as error:
        places = [one | {"pointer": base + one["pointer"]} for one in error.extra["errors"]]
        raise InvalidInput(error.detail, errors=places) from None
    if len(found) > MAX_BILLED:
        raise InvalidInput.at(f"{base}/response", f"bills more than {MAX_BILLED} calls")
    return found


def _as_billed(event: EventIn, one: Billed, place: int, pointer: str) -> EventIn:
    """The event of one billed call: its own model, and the conditions that were reported.

    What belongs to the request as a whole (hold, durations, sizes, retries) stays with the first.
    """
    model = (one.model or event.model) if place else (event.model or one.model or "")
    if one.model:
        _check_reported(one.model, 256, pointer)
    for name, value in one.context.items():
        _check_reported(name, 64, pointer)
        _check_reported(value, 512, pointer)
    context = {**(event.context or {}), **one.context} or None
    if not place:
        return replace(event, model=model, context=context, response=NO_RESPONSE)
    return replace(
        event,
        model=model,
        context=context,
        response=NO_RESPONSE,
        hold_id=None,
        latency_ms=None,
        ttft_ms=None,
        request_bytes=None,
        response_bytes=None,
        retry_count=None,
    )


def _check_reported(text: str, longest: int, pointer: str) -> None:
    """Hold a name out of a response to the bounds of one that the caller gives."""
    if len(text) > longest:
        raise InvalidInput.at(pointer, f"names something of more than {longest} characters")
    check_name(text, pointer, 2 * longest)


def _cost(stated: Nanos | None, one: Billed, place: int, pointer: str) -> Nanos | None:
    """The caller's cost is that of the whole event: booked on its first call."""
    if stated is not None:
        return Nanos(0) if place else stated
    if one.cost_nanos is None:
        return None
    if not 0 <= one.cost_nanos <= CEILING:
        raise InvalidInput.at(pointer, "states a cost that cannot be recorded")
    return Nanos(one.cost_nanos)


def usage_from(event: EventIn, base: str) -> Usage:
    """The counters as one tuple, durations in microseconds.

    Raises:
        InvalidInput: parts that sum to more than their whole; both are named.
    """
    sent = event.usage
    if sent is None:
        return NOTHING
    usage: Usage = astuple(sent)
    if any(usage[FIRST_SECONDS:]):
        usage = usage[:FIRST_SECONDS] + tuple(
            _micros(value, f"{base}/usage/{name}")
            for value, name in zip(usage[FIRST_SECONDS:], COUNTERS[FIRST_SECONDS:], strict=True)
        )
    if has_parts(usage):
        split = usage[_WRITE_5M] + usage[_WRITE_1H]
        if split and not usage[_CACHE_WRITE]:
            usage = (*usage[:_CACHE_WRITE], split, *usage[_CACHE_WRITE + 1 :])
        if beyond := part_beyond_whole(usage):
            part, whole = beyond
            raise InvalidInput.at(
                f"{base}/usage/{part}", f"{part} is more than what contains it, {whole}"
            )
    return usage


def _micros(seconds: float, pointer: str) -> int:
    exact = seconds * MICROS_PER_SECOND
    micros = round(exact)
    if abs(exact - micros) > 1e-3 + micros * 1e-12:
        raise InvalidInput.at(pointer, "seconds have six decimal places at most")
    return micros


def _instant(stated: datetime, now: datetime, window: Window | None, base: str) -> datetime:
    try:
        at = stated if stated.tzinfo is UTC else stated.astimezone(UTC)
    except OverflowError:
        raise InvalidInput.at(f"{base}/timestamp", "no such instant in UTC") from None
    if at.year < 1970:
        raise OutOfWindow.at(f"{base}/timestamp", "nothing is recorded before 1970")
    if window is None:
        if at > now + timedelta(minutes=5):
            raise OutOfWindow.at(f"{base}/timestamp", "a backfill lies in the past")
        return at
    if at < now - window.past:
        days = window.past.days
        raise OutOfWindow.at(
            f"{base}/timestamp",
            f"older than {days} days; send it with ?backfill=true and a key with `manage`",
        )
    if at > now + window.future:
        raise OutOfWindow.at(f"{base}/timestamp", "further ahead than clocks may differ")
    return at


def _check_names(event: EventIn, base: str) -> None:
    for field, longest in _BYTES:
        value = getattr(event, field)
        if value:
            check_name(value, f"{base}/{field}", longest)
    for field in ("method", "error_message", "user_agent", "ip_address", "hold_id"):
        value = getattr(event, field)
        if value and "\0" in value:
            raise InvalidInput.at(f"{base}/{field}", "must not contain NUL")
    for field in ("tags", "context"):
        pairs: dict[str, str] | None = getattr(event, field)
        if pairs and any("\0" in text for text in (*pairs, *pairs.values())):
            raise InvalidInput.at(f"{base}/{field}", "must not contain NUL")
