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
from app.ingest.foreign.counts import UNKNOWN, Counts
from app.ingest.foreign.identity import Identity, event_id, text_of
from app.ingest.foreign.langfuse_usage import cost_of, usage_of
from app.ingest.foreign.metered import object_of
from app.ingest.foreign.names import told_apart
from app.ingest.foreign.parts import CALL, TRACE, Part
from app.ingest.foreign.submit import Draft
from app.web.strict import check_name

SOURCE = "langfuse"
LONGEST_PART = 32 << 10
_CALLS = frozenset({"generation-create", "generation-update", "embedding-create"})
_EITHER = frozenset({"observation-create", "observation-update"})
_MODEL_CALLS = frozenset({"GENERATION", "EMBEDDING"})
_KEPT = (
    *("startTime", "endTime", "completionStartTime", "model", "usage", "usageDetails"),
    *("costDetails", "level", "statusMessage", "name"),
)


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
    cost_of(kept, Counts({}, False, False), "never", pointer)
    parameters = body.get("modelParameters")
    tier = text_of(parameters.get("service_tier")) if isinstance(parameters, dict) else None
    return {**kept, **_who(body, identity), **({"service_tier": tier[:64]} if tier else {})}


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
    weighed = cost_of(call, counts, trust, pointer)
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
