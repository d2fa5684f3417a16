"""Events to calls: what can be judged without the database is judged here, once. Pure."""

from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import NamedTuple

from msgspec.structs import astuple

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
from app.core.errors import InvalidInput, OutOfWindow
from app.core.ids import uuid7
from app.core.money import Nanos
from app.ingest.decode import EventIn, canonical
from app.web.strict import check_name, stated_cost

_CACHE_WRITE, _WRITE_5M, _WRITE_1H = (
    COUNTERS.index(f"cache_write_{part}tokens") for part in ("", "5m_", "1h_")
)
_ONE_REQUEST: Usage = tuple(int(place == REQUESTS) for place in range(len(COUNTERS)))
MAX_TAGS = 16
_BYTES = (
    *(("user_id", 512), ("id", 1024), ("provider", 256), ("model", 512), ("task_type", 256)),
    *(("endpoint", 1024), ("team_id", 512), ("api_key_id", 512), ("session_id", 512)),
    *(("backend", 512), ("pool", 512)),
)
"""How long a name may be in UTF-8: an index entry of PostgreSQL holds some 2,700 bytes."""


class Window(NamedTuple):
    """Which timestamps are accepted, relative to arrival."""

    past: timedelta = timedelta(days=35)
    future: timedelta = timedelta(minutes=5)


class Call(NamedTuple):
    """One AI call as reported, whatever format it arrived in; everything in it is valid."""

    event: EventIn
    event_id: str
    at: datetime
    usage: Usage
    cost_nanos: Nanos | None
    body_hash: int


def call_from(
    event: EventIn,
    now: datetime,
    window: Window | None,
    *,
    plain: bool,
    base: str = "",
    body: bytes | None = None,
) -> Call:
    """Judge one event.

    `window` is None for a backfill. `plain` says that the body was ASCII without escapes, so that
    no name in it can hold a control character or be longer in UTF-8 than in characters.
    `body` is the event's canonical form where the caller made it already.

    Raises:
        InvalidInput, OutOfWindow: `errors` names the place, under the pointer `base`.
    """
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
    usage = _ONE_REQUEST if event.usage is None else usage_from(event, base)
    body_hash = int.from_bytes(digest, "big", signed=True)
    return Call(event, event.id or uuid7(), at, usage, cost, body_hash)


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
