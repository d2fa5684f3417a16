"""Langfuse's ingestion batches (SDK v2, JS v3, LiteLLM, Dify): what they say of model calls.

A generation is created and updated, often in several requests, and its user stands on its trace.
So what is said is taken apart into parts, and a call is made of all the parts of one generation.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from app.core.errors import InvalidInput
from app.ingest.foreign.costs import weigh
from app.ingest.foreign.counts import UNKNOWN, Counts, counts_of, number_of
from app.ingest.foreign.identity import Identity, event_id, text_of
from app.ingest.foreign.metered import object_of
from app.ingest.foreign.names import told_apart
from app.ingest.foreign.parts import CALL, TRACE, Part
from app.ingest.foreign.submit import Draft
from app.web.strict import check_name

SOURCE = "langfuse"
LONGEST_PART = 32 << 10
_CALLS = frozenset({"generation-create", "generation-update"})
_EITHER = frozenset({"observation-create", "observation-update"})
_MODEL_CALLS = frozenset({"GENERATION", "EMBEDDING"})
_KEPT = (
    *("startTime", "endTime", "completionStartTime", "model", "usage", "usageDetails"),
    *("costDetails", "level", "statusMessage", "name"),
)
_UNITS = {
    "CHARACTERS": "input_characters",
    "IMAGES": "output_images",
    "SECONDS": "audio_seconds",
    "REQUESTS": "requests",
}
_OLDER = {"input": "prompt_tokens", "output": "completion_tokens", "total": "total_tokens"}
_OPENAI = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")
_READ = ("cache_read_input_tokens", "input_cached_tokens", "input_cache_read", "cached_tokens")
_WRITTEN = ("cache_creation_input_tokens", "input_cache_creation", "cache_write_input_tokens")
_REASONED = ("output_reasoning_tokens", "output_reasoning", "reasoning_tokens")


class Said(NamedTuple):
    """One item of a batch: its id, and its part; None where it says nothing of a call."""

    id: str
    part: Part | None


def said_in(item: object, pointer: str, owner: str, identity: Identity, now: datetime) -> Said:
    """Read one item of a batch.

    Raises:
        InvalidInput: not an item; `errors` names the place.
    """
    envelope = object_of(item, pointer)
    item_id, kind = text_of(envelope.get("id")), text_of(envelope.get("type"))
    for name, value in (("id", item_id), ("type", kind)):
        if value is None or len(value) > 512:
            raise InvalidInput.at(f"{pointer}/{name}", "a text of 1 to 512 characters is required")
    if item_id is None or kind is None:
        raise RuntimeError("checked above")
    where = f"{pointer}/body"
    if kind != "trace-create" and kind not in _CALLS and kind not in _EITHER:
        return Said(item_id, None)
    body = object_of(envelope.get("body"), where)
    if kind in _EITHER and str(body.get("type", "")).upper() not in _MODEL_CALLS:
        return Said(item_id, None)
    subject = text_of(body.get("id"))
    if subject is None:
        raise InvalidInput.at(f"{where}/id", "this field is required")
    at = _instant(envelope.get("timestamp"), f"{pointer}/timestamp") or now
    is_trace = kind == "trace-create"
    trace = subject if is_trace else text_of(body.get("traceId")) or ""
    kept = _of_trace(body, identity) if is_trace else _of_call(body, identity, where)
    text = msgspec.json.encode(kept)
    if len(text) > LONGEST_PART:
        raise InvalidInput.at(where, "says more of the call than 32 KiB")
    if b"\\u0000" in text:
        raise InvalidInput.at(where, "must not contain NUL")
    for value, place in ((item_id, f"{pointer}/id"), (subject, f"{where}/id")):
        check_name(value, place)
    check_name(trace, f"{where}/traceId")
    name = f"{TRACE if is_trace else CALL}{event_id(subject)}"
    part_id = event_id(item_id)
    part = Part(owner, name, part_id, event_id(trace), at, now, not is_trace, kept)
    return Said(item_id, part)


def _who(body: Mapping[str, Any], identity: Identity) -> dict[str, Any]:
    metadata = body.get("metadata")
    sources = [one for one in (body, metadata) if isinstance(one, dict)]
    found = {
        "userId": identity.named(*sources),
        "teamId": identity.team(*sources),
        "sessionId": identity.session(*sources),
    }
    return {name: value[:512] for name, value in found.items() if value}


def _of_trace(body: Mapping[str, Any], identity: Identity) -> dict[str, Any]:
    return _who(body, identity)


def _of_call(body: Mapping[str, Any], identity: Identity, pointer: str) -> dict[str, Any]:
    """What is kept of a generation; its numbers are read once, to refuse now what is none."""
    kept = {name: body[name] for name in _KEPT if body.get(name) is not None}
    if isinstance(kept.get("statusMessage"), str):
        kept["statusMessage"] = kept["statusMessage"][:512]
    for name in ("startTime", "endTime", "completionStartTime"):
        _instant(kept.get(name), f"{pointer}/{name}")
    usage_of(kept, pointer)
    _cost(kept, Counts({}, False, False), "never", pointer)
    parameters = body.get("modelParameters")
    tier = text_of(parameters.get("service_tier")) if isinstance(parameters, dict) else None
    return {**kept, **_who(body, identity), **({"service_tier": tier[:64]} if tier else {})}


def usage_of(call: Mapping[str, Any], pointer: str) -> Counts:
    """The counters of a generation: `usageDetails`, or the older `usage`.

    Raises:
        InvalidInput: something in them is no count.
    """
    details = object_of(call.get("usageDetails"), f"{pointer}/usageDetails")
    if details:
        return details_of(details, f"{pointer}/usageDetails")
    usage, where = object_of(call.get("usage"), f"{pointer}/usage"), f"{pointer}/usage"
    unit = str(usage.get("unit") or "TOKENS").upper()
    if unit in _UNITS:
        total = usage.get("total") or usage.get("input") or usage.get("output") or 0
        count = number_of(total, f"{where}/total", unit == "SECONDS")
        return Counts({_UNITS[unit]: count} if count else {}, bool(count), True)
    renamed = {
        ours: number_of(usage[theirs], f"{where}/{theirs}")
        for theirs, ours in _OLDER.items()
        if usage.get(theirs) not in (None, "")
    }
    return counts_of({**renamed, **{key: v for key, v in usage.items() if v is not None}}, where)


def details_of(details: Mapping[str, Any], pointer: str) -> Counts:
    """The counters of usage details.

    Under OpenAI's names a whole contains its parts; under Langfuse's own (`input`,
    `input_cached_tokens`, `output`, …) each counts what the others do not.

    Raises:
        InvalidInput: something in them is no count.
    """
    if any(details.get(name) is not None for name in _OPENAI):
        return counts_of(details, pointer)
    usage: dict[str, int | float] = {}
    split = False
    for name, value in details.items():
        if value is None or name == "total" or isinstance(value, dict):
            continue
        count = number_of(value, f"{pointer}/{name}")
        for part, names in (
            ("cache_read_tokens", _READ),
            ("cache_write_tokens", _WRITTEN),
            ("output_reasoning_tokens", _REASONED),
        ):
            if name in names:
                usage[part] = usage.get(part, 0) + count
                split = split or part != "output_reasoning_tokens"
        if name.startswith("output") or name in _REASONED:
            usage["output_tokens"] = usage.get("output_tokens", 0) + count
        elif name.startswith("input") or name in _READ or name in _WRITTEN:
            usage["input_tokens"] = usage.get("input_tokens", 0) + count
    if not usage and details.get("total"):
        usage["input_tokens"] = number_of(details["total"], f"{pointer}/total")
    return Counts({name: n for name, n in usage.items() if n}, any(usage.values()), split)


def _cost(call: Mapping[str, Any], counts: Counts, trust: str, pointer: str) -> Any:
    given, where = None, f"{pointer}/costDetails/total"
    details = object_of(call.get("costDetails"), f"{pointer}/costDetails")
    if details:
        given = details.get("total")
    else:
        usage = object_of(call.get("usage"), f"{pointer}/usage")
        given, where = usage.get("totalCost"), f"{pointer}/usage/totalCost"
    return weigh(given, tokens=counts.tokens, complete=counts.split, trust=trust, pointer=where)


def merged(parts: Sequence[Part]) -> dict[str, Any]:
    """What the parts of one subject say together: of each field the last that says something."""
    found: dict[str, Any] = {}
    for part in sorted(parts, key=lambda one: (one.said_at, one.part_id)):
        found |= {name: value for name, value in part.body.items() if value is not None}
    return found


class Whole(NamedTuple):
    """A call made of its parts: the draft, whether its user is known, and whether it is over."""

    draft: Draft
    is_owned: bool
    is_over: bool


def whole(
    subject: str,
    call: Mapping[str, Any],
    trace: Mapping[str, Any],
    pointer: str,
    trust: str,
) -> Whole:
    """The event that a generation and its trace tell of. Pure.

    Raises:
        InvalidInput: what the parts say together cannot be.
    """
    counts = usage_of(call, pointer)
    failed = str(call.get("level", "")).upper() == "ERROR"
    provider, model = told_apart("", text_of(call.get("model")) or "")
    start, end = (_instant(call.get(name), pointer) for name in ("startTime", "endTime"))
    first = _instant(call.get("completionStartTime"), pointer)
    weighed = _cost(call, counts, trust, pointer)
    context = dict(weighed.context)
    if tier := call.get("service_tier"):
        context["service_tier"] = tier
    if not counts.known and not failed:
        context |= UNKNOWN
    event: dict[str, Any] = {
        "id": subject.removeprefix(CALL),
        "provider": provider,
        "model": model,
        "timestamp": end or start,
        "status_code": 500 if failed else None,
        "error_message": text_of(call.get("statusMessage")) if failed else None,
        "latency_ms": _between(start, end),
        "ttft_ms": _between(start, first),
        "context": context,
        "cost_usd": weighed.cost_usd,
        "user_id": call.get("userId") or trace.get("userId"),
        "team_id": call.get("teamId") or trace.get("teamId"),
        "session_id": call.get("sessionId") or trace.get("sessionId"),
    }
    kept = {name: value for name, value in event.items() if value not in (None, "", {})}
    draft = Draft({"usage": counts.usage, **kept}, pointer, {}, weighed.comparable)
    is_over = counts.known or (failed and end is not None)
    return Whole(draft, "user_id" in kept, is_over)


def _between(start: datetime | None, end: datetime | None) -> float | None:
    if start is None or end is None or end < start:
        return None
    return round((end - start).total_seconds() * 1000, 3)


def _instant(value: object, pointer: str) -> datetime | None:
    """An instant; one without an offset is UTC, as older clients send it.

    Raises:
        InvalidInput: not one.
    """
    if value is None or value == "":
        return None
    try:
        at = msgspec.convert(value, datetime)
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        raise InvalidInput.at(pointer, "an RFC 3339 instant was looked for") from None
    return at


def digest(draft: Draft) -> int:
    """What two orders to correct a call to the same have in common."""
    text = msgspec.json.encode(draft.event, order="deterministic")
    return int.from_bytes(sha256(text).digest()[:8], "big", signed=True)
