"""LiteLLM's spend logs: from an export of the table, from its API, or out of its database.

A row is one call under its `request_id`; what it cost there is the cost here.
"""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import asyncpg
import msgspec
from sqlalchemy import make_url

from app.core.clock import rfc3339
from app.ingest.imports.records import Fields, Record, id_for
from app.ingest.imports.values import (
    UnfitError,
    count_of,
    instant_of,
    object_of,
    pairs_of,
    text_of,
    usd_of,
    without_nothing,
)

USERS = ("end_user", "user", "api_key", "team_id")
"""Which columns may say who the user is; the first that holds something does."""
_ENDPOINTS = {
    "acompletion": "/v1/chat/completions",
    "completion": "/v1/chat/completions",
    "aembedding": "/v1/embeddings",
    "embedding": "/v1/embeddings",
    "aresponses": "/v1/responses",
    "responses": "/v1/responses",
    "anthropic_messages": "/v1/messages",
}
_COLUMNS = (
    *("request_id", "call_type", "api_key", "spend", "prompt_tokens", "completion_tokens"),
    *("startTime", "endTime", "completionStartTime", "model", "model_group", "user"),
    *("custom_llm_provider", "metadata", "request_tags", "team_id", "end_user"),
    *("requester_ip_address", "session_id", "status", "cache_hit"),
)
ROWS = 1_000


def event_from_spend(record: Record, users: tuple[str, ...] = USERS) -> dict[str, Any]:
    """An event from a row of `LiteLLM_SpendLogs`.

    Raises:
        UnfitError: it names nobody, or says no time.
    """
    fields = record.fields
    user_id = text_of(fields, *users)
    if user_id is None:
        raise UnfitError(f"{' or '.join(users)} is missing")
    metadata = object_of(fields, "metadata")
    provider = text_of(fields, "custom_llm_provider", longest=128)
    started = instant_of(fields, "startTime", naive_is_utc=True)
    failure = object_of(metadata, "error_information")
    failed = text_of(fields, "status") == "failure" or bool(failure.get("error_code"))
    return without_nothing(
        {
            "id": text_of(fields, "request_id") or id_for(record, "litellm"),
            "user_id": user_id,
            "timestamp": started,
            "provider": provider,
            "model": _model(fields, provider),
            "usage": _usage(fields, metadata),
            "cost_usd": usd_of(fields, "spend"),
            "status_code": _status(failure) if failed else None,
            "error_message": text_of(failure, "error_message", "error_class", longest=4096),
            "endpoint": _ENDPOINTS.get(text_of(fields, "call_type") or ""),
            "latency_ms": _since(fields, started, "endTime"),
            "ttft_ms": _since(fields, started, "completionStartTime") if not failed else None,
            "team_id": text_of(fields, "team_id"),
            "api_key_id": text_of(fields, "api_key"),
            "session_id": text_of(fields, "session_id"),
            "ip_address": text_of(fields, "requester_ip_address", longest=64),
            "tags": _tags(fields) or None,
        }
    )


def _model(fields: Fields, provider: str | None) -> str | None:
    """The model without the provider that LiteLLM writes in front of some."""
    model = text_of(fields, "model", "model_group")
    if model is not None and provider is not None:
        model = model.removeprefix(f"{provider}/")
    return model or None


def _usage(fields: Fields, metadata: Mapping[str, Any]) -> dict[str, int]:
    """The tokens, inclusive: where cached ones were not in the prompt, they are added to it."""
    more = {
        **object_of(metadata, "additional_usage_values"),
        **object_of(metadata, "usage_object"),
    }
    prompt = object_of(more, "prompt_tokens_details")
    completion = object_of(more, "completion_tokens_details")
    usage = {
        "input_tokens": count_of(fields, "prompt_tokens") or 0,
        "output_tokens": count_of(fields, "completion_tokens") or 0,
        "cache_read_tokens": count_of(more, "cache_read_input_tokens")
        or count_of(prompt, "cached_tokens")
        or 0,
        "cache_write_tokens": count_of(more, "cache_creation_input_tokens")
        or count_of(prompt, "cache_creation_tokens")
        or 0,
        "input_audio_tokens": count_of(prompt, "audio_tokens") or 0,
        "output_reasoning_tokens": count_of(completion, "reasoning_tokens") or 0,
        "output_audio_tokens": count_of(completion, "audio_tokens") or 0,
        "requests": 1,
    }
    cached = usage["cache_read_tokens"] + usage["cache_write_tokens"]
    if cached > usage["input_tokens"]:
        usage["input_tokens"] += cached
    if usage["output_reasoning_tokens"] > usage["output_tokens"]:
        usage["output_tokens"] += usage["output_reasoning_tokens"]
    return {name: amount for name, amount in usage.items() if amount}


def _status(failure: Mapping[str, Any]) -> int:
    code = text_of(failure, "error_code") or ""
    return int(code) if code.isascii() and code.isdigit() and 400 <= int(code) <= 599 else 500


def _since(fields: Fields, started: str, name: str) -> float | None:
    if text_of(fields, name) is None:
        return None
    ended = datetime.fromisoformat(instant_of(fields, name, naive_is_utc=True))
    passed = (ended - datetime.fromisoformat(started)).total_seconds() * 1000
    return round(passed, 3) if 0 <= passed <= 1e9 else None


def _tags(fields: Fields) -> dict[str, str]:
    found: dict[str, Any] = {}
    if (group := text_of(fields, "model_group")) and group != text_of(fields, "model"):
        found["model_group"] = group
    if text_of(fields, "cache_hit", longest=8) in ("True", "true"):
        found["cache_hit"] = "true"
    tags: Any = fields.get("request_tags")
    if isinstance(tags, str):
        try:
            tags = msgspec.json.decode(tags)
        except msgspec.DecodeError:
            tags = None
    if isinstance(tags, list):
        found |= {f"tag_{place}": tag for place, tag in enumerate(tags[:10]) if tag}
    return pairs_of(found)


# ---- out of its database ----------------------------------------------------------------------


async def read_spend(url: str, start: datetime | None = None) -> AsyncIterator[Record]:
    """The rows of a LiteLLM database, oldest first, some at a time; nothing is written there.

    Raises:
        OSError, PostgresError: it does not answer, or has no such table.
    """
    plain = make_url(url).set(drivername="postgresql")
    there = await asyncpg.connect(plain.render_as_string(hide_password=False), timeout=10)
    try:
        async with there.transaction(isolation="repeatable_read", readonly=True):
            have = await there.fetch(
                "SELECT column_name FROM information_schema.columns "
                "WHERE table_name = 'LiteLLM_SpendLogs' "
                "AND table_schema = ANY(current_schemas(false))"
            )
            kept = {row[0] for row in have}
            columns = [name for name in _COLUMNS if name in kept]
            if "request_id" not in columns or "startTime" not in columns:
                raise UnfitError('there is no table "LiteLLM_SpendLogs" with calls in it')
            names = ", ".join(f'"{name}"' for name in columns)
            query = f'SELECT {names} FROM "LiteLLM_SpendLogs"'
            given: list[Any] = []
            if start is not None:
                query += ' WHERE "startTime" >= $1'
                given.append(start.astimezone(UTC).replace(tzinfo=None))
            query += ' ORDER BY "startTime", "request_id"'
            number = 0
            async for row in there.cursor(query, *given, prefetch=ROWS):
                number += 1
                yield Record(number, {name: _plain(row[name]) for name in columns})
    finally:
        await there.close()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value.replace(tzinfo=value.tzinfo or UTC))
    return str(value) if isinstance(value, Decimal) else value
