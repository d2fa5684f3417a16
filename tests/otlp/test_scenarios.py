"""What each real client sent becomes exactly the calls that were made."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from tests.otlp.scenarios import (
    NAMES,
    events_of,
    expected_of,
    joined,
    one_span_each,
    requests_of,
    send,
    sums_of,
)

pytestmark = pytest.mark.anyio
_COUNTERS = (
    ("input_tokens", "input_tokens"),
    ("output_tokens", "output_tokens"),
    ("cached_input_tokens", "cache_read_tokens"),
    ("cache_write_tokens", "cache_write_tokens"),
    ("reasoning_tokens", "output_reasoning_tokens"),
)


def _expected(call: Mapping[str, Any]) -> tuple[Any, ...]:
    failed = call["status"] == "error"
    return (
        call.get("user") or "unknown",
        call.get("session"),
        call.get("provider") or _maker(call["requested_model"]),
        *(call.get(name) or 0 for name, _ in _COUNTERS),
        failed,
        call["operation"],
        call["usage_known"] or failed,
        round(call["latency_ms"], 2),
    )


def _maker(model: str) -> str | None:
    """Whose model it is, where the client does not say."""
    begins = {"gpt-": "openai", "text-embedding-3": "openai", "claude-": "anthropic"}
    return next((name for mark, name in begins.items() if model.startswith(mark)), None)


def _found(event: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        event["user"],
        event["session_id"],
        event["provider"],
        *(event["usage"].get(name, 0) for _, name in _COUNTERS),
        event["status_code"] >= 400,
        event["task_type"],
        (event["context"] or {}).get("usage") != "unknown",
        round(event["latency_ms"], 2),
    )


def _tells(event: Mapping[str, Any], call: Mapping[str, Any]) -> bool:
    """Whether an event has the model, the status and the cost of a call that took as long."""
    stated = call.get("client_cost_usd")
    return (
        abs(event["latency_ms"] - call["latency_ms"]) < 0.002
        and event["model"] in (call.get("model"), call["requested_model"])
        and call.get("http_status") in (None, event["status_code"])
        and (not stated or abs(float(event["cost_usd"]) - stated) < 1e-9)
    )


@pytest.mark.parametrize("name", NAMES)
async def test_every_call_is_recorded_once_and_whole(client: httpx.AsyncClient, name: str) -> None:
    expected = expected_of(name)
    users = sorted({call.get("user") or "unknown" for call in expected})
    for sent in requests_of(name):
        await send(client, sent)

    events = await events_of(client, *users)
    assert Counter(_rounded(map(_found, events))) == Counter(_rounded(map(_expected, expected)))
    for event in events:
        tokens = event["usage"]["input_tokens"] + event["usage"]["output_tokens"]
        assert event["status_code"] >= 400 or tokens or event["cost_status"] == "unpriced"
    for call in expected:
        assert any(_tells(event, call) for event in events), call

    before = await sums_of(client, *users)
    for sent in requests_of(name):
        await send(client, sent)
    assert await sums_of(client, *users) == before
    assert await events_of(client, *users) == events


def _rounded(tuples: Any) -> list[tuple[Any, ...]]:
    """Latencies as recorded are cut to microseconds, as expected they are rounded."""
    return [(*one[:-1], round(one[-1], 1)) for one in tuples]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", ["children_first", "parents_first", "halves"])
async def test_split_and_reordered_it_comes_to_the_same(
    client: httpx.AsyncClient, name: str, order: str
) -> None:
    expected = expected_of(name)
    users = sorted({call.get("user") or "unknown" for call in expected} | {"unknown"})
    traces = [one for one in requests_of(name) if one.path.endswith("/traces")]
    single = [one for sent in traces for one in one_span_each(sent)]
    if order == "parents_first":
        single.reverse()
    if order == "halves":
        single = [joined(single[1::2]), joined(single[::2])]
    for sent in single:
        await send(client, sent)

    events = await events_of(client, *users)
    assert Counter(_rounded(map(_found, events))) == Counter(_rounded(map(_expected, expected)))
    sums = await sums_of(client, *users)
    assert sum(each["total_calls"] for each in sums.values()) == len(expected)
