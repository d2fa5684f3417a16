"""LiteLLM's `generic_api` records (StandardLoggingPayload): an array, lines, or one object."""

from datetime import UTC, datetime, timedelta
from typing import Any

from app.access.keys import Key
from app.core.errors import AppError, BadRequest, InvalidInput, TooLarge
from app.ingest.decode import MAX_EVENTS
from app.ingest.foreign.costs import weigh
from app.ingest.foreign.counts import UNKNOWN, counts_of
from app.ingest.foreign.identity import Identity, event_id, text_of
from app.ingest.foreign.metered import object_of
from app.ingest.foreign.names import told_apart
from app.ingest.foreign.submit import Draft, read_any

SOURCE = "litellm"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TASKS = {
    "completion": "chat",
    "text_completion": "chat",
    "anthropic_messages": "chat",
    "responses": "responses",
    "embedding": "embeddings",
    "image_generation": "images",
    "transcription": "transcription",
    "speech": "speech",
    "rerank": "rerank",
    "moderation": "moderation",
}
_CLASSES = {
    "AuthenticationError": 401,
    "PermissionDeniedError": 403,
    "NotFoundError": 404,
    "Timeout": 408,
    "APITimeoutError": 408,
    "RateLimitError": 429,
    "BudgetExceededError": 429,
    "BadRequestError": 400,
    "ContextWindowExceededError": 400,
    "ContentPolicyViolationError": 400,
    "UnprocessableEntityError": 422,
    "ServiceUnavailableError": 503,
}
"""Statuses of LiteLLM's errors where the record's code is a word."""
MAX_TAGS, LONGEST_TAG = 16, 64
_TEXT = 512


def drafts_of(body: bytes, identity: Identity, key: Key, trust: str) -> list[Draft | AppError]:
    """The drafts of a request.

    Raises:
        BadRequest: not JSON, or nothing in it.
        TooLarge: more than 10,000 records.
    """
    records = _records(body)
    if not records:
        raise BadRequest.at("", "send at least one record")
    if len(records) > MAX_EVENTS:
        raise TooLarge(f"at most {MAX_EVENTS:,} records in one request")
    return [_tried(one, f"/{place}", identity, key, trust) for place, one in enumerate(records)]


def _records(body: bytes) -> list[Any]:
    try:
        read = read_any(body)
    except BadRequest as error:
        lines = [line for line in body.splitlines() if line.strip()]
        if len(lines) < 2:
            raise
        if len(lines) > MAX_EVENTS:
            raise TooLarge(f"at most {MAX_EVENTS:,} records in one request") from None
        found = [_line(line, place) for place, line in enumerate(lines)]
        if not any(isinstance(one, dict) for one in found):
            raise error from None
        return found
    return read if isinstance(read, list) else [read]


def _line(line: bytes, place: int) -> Any:
    try:
        return read_any(line)
    except BadRequest as error:
        return InvalidInput.at(f"/{place}", error.detail)


def _tried(one: object, at: str, identity: Identity, key: Key, trust: str) -> Draft | AppError:
    if isinstance(one, AppError):
        return one
    try:
        if not isinstance(one, dict):
            raise InvalidInput.at(at, "an object was looked for")
        return _draft(one, at, identity, key, trust)
    except InvalidInput as error:
        return error


def _draft(record: dict[str, Any], at: str, identity: Identity, key: Key, trust: str) -> Draft:
    name = "litellm_call_id" if text_of(record.get("litellm_call_id")) else "id"
    call_id = text_of(record.get(name))
    if call_id is None:
        raise InvalidInput.at(f"{at}/litellm_call_id", "this field is required")
    metadata = object_of(record.get("metadata"), f"{at}/metadata")
    provider, model = told_apart(
        text_of(record.get("custom_llm_provider")) or "", text_of(record.get("model")) or ""
    )
    failed = record.get("status") == "failure"
    event: dict[str, Any] = {"id": event_id("litellm", call_id), "provider": provider}
    event |= {"model": model, **_outcome(record, failed), **_times(record, at)}
    said = object_of(metadata.get("usage_object"), f"{at}/metadata/usage_object") or record
    where = f"{at}/metadata/usage_object" if said is not record else at
    counts = counts_of(said, where)
    hit = record.get("cache_hit") in (True, "True", "true")
    weighed = weigh(
        *(record.get("response_cost"),),
        tokens=counts.tokens,
        complete=said is not record,
        trust=trust,
        pointer=f"{at}/response_cost",
        free=hit,
    )
    context = {**weighed.context, **_conditions(record, hit)}
    cost = weighed.cost_usd
    if failed:
        cost = None if counts.known else cost
    elif not counts.known and not hit:
        context |= UNKNOWN
    if hit and cost is None and not context.get("stated_cost_usd"):
        cost = "0"
    event |= {"usage": counts.usage, "context": context, "tags": _tags(record, metadata)}
    event |= {"cost_usd": cost, "user_id": identity.user(key, SOURCE, record)}
    event |= {"team_id": identity.team(record), "session_id": identity.session(record)}
    event["api_key_id"] = text_of(metadata.get("user_api_key_hash"))
    event["user_agent"] = _short(record.get("user_agent"))
    event["ip_address"] = _short(record.get("requester_ip_address"), 64)
    places = {
        "id": f"{at}/{name}",
        "provider": f"{at}/custom_llm_provider",
        "model": f"{at}/model",
        "timestamp": f"{at}/endTime",
        "user_id": f"{at}/metadata/user_api_key_user_id",
        "team_id": f"{at}/metadata/user_api_key_team_id",
        "usage": where,
    }
    kept = {name: value for name, value in event.items() if value not in (None, "", {})}
    return Draft({"usage": {}, **kept}, at, places, weighed.comparable)


def _outcome(record: dict[str, Any], failed: bool) -> dict[str, Any]:
    task = (text_of(record.get("call_type")) or "").lower()
    task = task.removeprefix("a") if task.removeprefix("a") in _TASKS else task
    found: dict[str, Any] = {"task_type": _TASKS.get(task, task)[:128]}
    if not failed:
        return found
    told = record.get("error_information")
    told = told if isinstance(told, dict) else {}
    kind = text_of(told.get("error_class")) or "error"
    code = text_of(told.get("error_code")) or ""
    status = int(code) if code.isascii() and code.isdigit() and len(code) == 3 else 0
    if not 400 <= status <= 599:
        status = _CLASSES.get(kind, 500)
    return found | {"status_code": status, "error_message": kind[:_TEXT]}


def _times(record: dict[str, Any], at: str) -> dict[str, Any]:
    """When the call ended, how long it took, and how long until its first token."""
    end, start = (_seconds(record, name, at) for name in ("endTime", "startTime"))
    found: dict[str, Any] = {}
    if end is not None or start is not None:
        found["timestamp"] = _EPOCH + timedelta(seconds=end or start or 0.0)
    took = _seconds(record, "response_time", at)
    if took is None and start is not None and end is not None:
        took = max(end - start, 0.0)
    if took is not None:
        found["latency_ms"] = round(took * 1000, 3)
    first = _seconds(record, "completionStartTime", at)
    if record.get("stream") is True and first is not None and start is not None and first >= start:
        found["ttft_ms"] = round((first - start) * 1000, 3)
    return found


def _seconds(record: dict[str, Any], name: str, at: str) -> float | None:
    value = record.get(name)
    if value is None or value == "":
        return None
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        seconds = float(value)
        if not 0 <= seconds < 1e11:
            raise ValueError
    except (ValueError, OverflowError):
        raise InvalidInput.at(f"{at}/{name}", "seconds as a number were looked for") from None
    return seconds


def _conditions(record: dict[str, Any], hit: bool) -> dict[str, str]:
    """What can move the price, and that an answer came from a cache."""
    found = {"cache_hit": "true"} if hit else {}
    told = record.get("cost_breakdown")
    tier = text_of(told.get("service_tier")) if isinstance(told, dict) else None
    if tier:
        found["service_tier"] = tier[:_TEXT]
    return found


def _tags(record: dict[str, Any], metadata: dict[str, Any]) -> dict[str, str]:
    """The request's tags, and whose key, organisation and end user it was."""
    found: dict[str, str] = {}
    for tag, value in (
        ("org", metadata.get("user_api_key_org_id")),
        ("end_user", record.get("end_user")),
        ("model_group", record.get("model_group")),
    ):
        if text := _short(value):
            found[tag] = text
    labels = record.get("request_tags")
    for label in labels if isinstance(labels, list) else []:
        name = _short(label, LONGEST_TAG)
        if name and not name.startswith("User-Agent:") and len(found) < MAX_TAGS:
            found.setdefault(name, "true")
    return found


def _short(value: object, longest: int = _TEXT) -> str | None:
    text = text_of(value)
    return text[:longest] if text else None
