"""Bytes to events: exact types, every refusal names its place, nothing is echoed."""

import json
import re
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from app.core.counters import COUNTERS, MAX_COUNT
from app.core.errors import InvalidInput, TooLarge
from app.web.strict import BACKSLASH, UNREADABLE, refusal, refuse_repeated_keys

MAX_EVENTS: Final = 10_000
ONE_EVENT_BYTES: Final = 1 << 20
TOO_LONG: Final = "one event is at most 1 MiB"
BATCH_BYTES: Final = 16 << 20

Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Millis = Annotated[float, Meta(ge=0, le=1e9)]
Name = Annotated[str, Meta(min_length=1, max_length=256)]
Text = Annotated[str, Meta(max_length=512)]


class UsageIn(Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """The counters of one call, inclusive; field order is that of `core.counters.COUNTERS`."""

    input_tokens: Count = 0
    cache_read_tokens: Count = 0
    cache_write_tokens: Count = 0
    cache_write_5m_tokens: Count = 0
    cache_write_1h_tokens: Count = 0
    input_audio_tokens: Count = 0
    cache_audio_read_tokens: Count = 0
    input_image_tokens: Count = 0
    output_tokens: Count = 0
    output_reasoning_tokens: Count = 0
    output_audio_tokens: Count = 0
    output_image_tokens: Count = 0
    output_citation_tokens: Count = 0
    requests: Count = 0
    web_searches: Count = 0
    rerank_searches: Count = 0
    input_document_pages: Count = 0
    input_characters: Count = 0
    output_images: Count = 0
    audio_seconds: Seconds = 0
    video_seconds: Seconds = 0
    compute_seconds: Seconds = 0


if UsageIn.__struct_fields__ != COUNTERS:
    raise RuntimeError("UsageIn must have the counters in their order")

NO_RESPONSE: Final = msgspec.Raw()


class EventIn(Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One event as it is sent. Encoding it again gives the body that duplicates are told by.

    `response` is any JSON, still unread; `read_raw` opens it.
    """

    user_id: Name
    id: Annotated[str, Meta(min_length=1, max_length=512)] = ""
    timestamp: Annotated[datetime, Meta(tz=True)] | None = None
    provider: Annotated[str, Meta(min_length=1, max_length=128)] = ""
    model: Name = ""
    usage: UsageIn | None = None
    endpoint: Text | None = None
    method: Annotated[str, Meta(max_length=16)] | None = None
    status_code: Annotated[int, Meta(ge=100, le=599)] | None = None
    error_message: Annotated[str, Meta(max_length=4096)] | None = None
    retry_count: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    latency_ms: Millis | None = None
    ttft_ms: Millis | None = None
    request_bytes: Count | None = None
    response_bytes: Count | None = None
    user_agent: Text | None = None
    ip_address: Annotated[str, Meta(max_length=64)] | None = None
    context: dict[Annotated[str, Meta(max_length=64)], Text] | None = None
    team_id: Name | None = None
    api_key_id: Name | None = None
    session_id: Name | None = None
    task_type: Annotated[str, Meta(max_length=128)] | None = None
    backend: Name | None = None
    pool: Name | None = None
    tags: dict[Annotated[str, Meta(min_length=1, max_length=64)], Text] | None = None
    cost_usd: Annotated[str, Meta(max_length=40)] | None = None
    hold_id: Name | None = None
    response: msgspec.Raw = NO_RESPONSE
    api: Annotated[str, Meta(min_length=1, max_length=64)] = ""


_one = msgspec.json.Decoder(EventIn)
_many = msgspec.json.Decoder(list[EventIn])
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_any = msgspec.json.Decoder()

Refused = InvalidInput
"""What takes an event's place in a batch when it could not be read."""


def decode_one(body: bytes) -> tuple[EventIn, bytes]:
    """Read one JSON object; the second value is its canonical form.

    Raises:
        InvalidInput: not JSON, not an event; `errors` names the place.
    """
    if len(body) > ONE_EVENT_BYTES:
        raise TooLarge(TOO_LONG)
    try:
        event = _one.decode(body)
    except UNREADABLE as error:
        refuse_repeated_keys(body)
        raise refusal(error, "", body) from None
    same = _canonical.encode(event)
    if _may_repeat_keys(body, same):
        refuse_repeated_keys(body)
    return event, same


def decode_array(body: bytes) -> list[EventIn | Refused]:
    """Read a JSON array of events; one that is no event is refused alone.

    Raises:
        InvalidInput: the body as a whole is not a JSON array.
        TooLarge: more than 10,000 events.
    """
    try:
        events = _many.decode(body)
    except UNREADABLE:
        events = None
    if events is not None and not _may_repeat_keys(body, _canonical.encode(events)):
        return _bounded(events)
    _refuse_floods(body)
    try:
        items = [bytes(raw) for raw in _raws.decode(body)]
    except UNREADABLE as error:
        found = _items(body)
        if found is None:
            raise refusal(error, "", body) from None
        items = found
    return [_item(item, place) for place, item in enumerate(_bounded(items))]


def decode_lines(body: bytes) -> list[EventIn | Refused]:
    """Read newline-delimited JSON; empty lines are skipped."""
    if body.count(b"\n") > 2 * MAX_EVENTS and body.strip():
        raise TooLarge(f"at most {MAX_EVENTS:,} events in one request")
    if not body.strip():
        raise InvalidInput.at("", "send at least one event")
    lines = [line for line in body.split(b"\n") if line.strip()]
    return [_item(line, place) for place, line in enumerate(_bounded(lines))]


_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[][{},]', re.DOTALL)
_MAX_TOKENS = 2_000_000


def _refuse_floods(body: bytes) -> None:
    """Refuse an array of too many items before any of them takes memory."""
    if body.count(b",") < MAX_EVENTS:
        return
    depth = items = 0
    for place, token in enumerate(_TOKEN.finditer(body)):
        match token[0]:
            case b"[" | b"{":
                depth += 1
            case b"]" | b"}":
                depth -= 1
            case b",":
                items += depth == 1
        if items >= MAX_EVENTS or place > _MAX_TOKENS:
            raise TooLarge(f"at most {MAX_EVENTS:,} events in one request")


def _bounded(found: list[Any]) -> list[Any]:
    if not found:
        raise InvalidInput.at("", "send at least one event")
    if len(found) > MAX_EVENTS:
        raise TooLarge(f"at most {MAX_EVENTS:,} events in one request", events=len(found))
    return found


_lenient = json.JSONDecoder()
_GAP = re.compile(r"[ \t\r\n]*")


def _items(body: bytes) -> list[bytes] | None:
    """The items of an array of which some may hold half a character; None if it is no array."""
    if b"\\u" not in body:
        return None
    found: list[bytes] = []
    try:
        text = body.decode()
        at = _after(_GAP, text, 0)
        mark = "["
        while text[at] == mark and len(found) <= MAX_EVENTS:
            start = _after(_GAP, text, at + 1)
            end = _lenient.raw_decode(text, start)[1]
            found.append(text[start:end].encode())
            at, mark = _after(_GAP, text, end), ","
        if len(found) > MAX_EVENTS:
            raise TooLarge(f"at most {MAX_EVENTS:,} events in one request")
        whole = text[at] == "]" and _after(_GAP, text, at + 1) == len(text)
    except (ValueError, RecursionError, IndexError):
        return None
    return found if whole and found else None


def _after(gap: re.Pattern[str], text: str, at: int) -> int:
    found = gap.match(text, at)
    return at if found is None else found.end()


def _item(raw: bytes, place: int) -> EventIn | Refused:
    if len(raw) > ONE_EVENT_BYTES:
        return InvalidInput.at(f"/{place}", TOO_LONG)
    try:
        return decode_one(raw)[0]
    except InvalidInput as error:
        return InvalidInput.at(f"/{place}{error.extra['errors'][0]['pointer']}", error.detail)


_canonical = msgspec.json.Encoder(order="deterministic")


def canonical(event: EventIn) -> bytes:
    """The event without spacing, order or defaults: what two sendings of it have in common."""
    return _canonical.encode(event)


def _may_repeat_keys(body: bytes, same: bytes) -> bool:
    """Whether the body has more strings than its canonical form; cheap, errs towards True."""
    if body.count(b'"') != same.count(b'"'):
        return True
    return BACKSLASH in body and b"\\u0022" in body


def read_raw(raw: msgspec.Raw, pointer: str) -> tuple[object, msgspec.Raw]:
    """Read any JSON; the second value is its canonical form, without spacing and order.

    Raises:
        InvalidInput: too long, a key given twice, or no value that JSON can say.
    """
    sent = bytes(raw)
    if len(sent) > ONE_EVENT_BYTES:
        raise InvalidInput.at(pointer, TOO_LONG)
    try:
        value = _any.decode(sent)
        same = _canonical.encode(value)
    except UNREADABLE as error:
        raise refusal(error, pointer, sent) from None
    if _may_repeat_keys(sent, same):
        refuse_repeated_keys(sent, pointer)
    return value, msgspec.Raw(same)
