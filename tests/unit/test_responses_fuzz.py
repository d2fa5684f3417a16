"""Broken, hostile and half answers: calls that hold together, or a refusal with its place."""

import copy
import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.counters import COUNTERS, MAX_COUNT, part_beyond_whole
from app.core.errors import InvalidInput
from app.core.money import CEILING
from app.ingest.responses.read import read_response

FIXTURE = Path(__file__).parents[1] / "fixtures" / "responses" / "payloads.json"
RAWS: list[Any] = [case["raw"] for case in json.loads(FIXTURE.read_text())]
MORE: list[Any] = [
    {"custom_id": "a", "response": {"body": {"usage": {"prompt_tokens": 1}}}},
    {"x-amzn-bedrock-input-token-count": "4", "x-amzn-bedrock-output-token-count": "4"},
    {"inputTextTokenCount": 5, "results": [{"tokenCount": 61}]},
    {"metadata": {"duration": 2.5, "model_info": {"x": {}}}, "results": {"channels": [{}]}},
    {"created": 1, "data": [{"url": "u"}]},
    {"object": "video", "seconds": "8", "size": "1x1"},
    {"predictions": [{"embeddings": {"statistics": {"token_count": 3}}}], "metadata": {}},
    {"success": True, "creditsUsed": 2, "data": [{}, {}]},
    {"query": "x", "results": [{}], "response_time": 1},
    {"type": "message_start", "message": {"type": "message", "usage": {"input_tokens": 1}}},
    {"candidates": [{"groundingMetadata": {"webSearchQueries": ["a"]}}], "usageMetadata": {}},
    {"output": [{"type": "web_search_call", "action": {}}], "usage": {"input_tokens": 1}},
    {"usage": {"input_tokens": 1, "iterations": [{"type": "advisor", "input_tokens": 2}]}},
    {"usage": {"billed_units": {"input_tokens": 3}}},
    {"prompt_eval_count": 1, "eval_count": 1},
    {"usage": {"prompt_audio_seconds": 3, "prompt_tokens": 1}},
]
ODD: list[Any] = [
    *(None, True, -1, 1.5, 0.0, float("nan"), float("inf"), 1e308, MAX_COUNT, MAX_COUNT + 1),
    *(10**400, -(10**400), "", "12", "\x00", "x" * 5000, [], {}, [None], [[]], {"": {}}, [{}]),
]
BY_FAULT = st.sampled_from(ODD) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
PROVIDERS = st.sampled_from([None, "openai", "xai", "anthropic", "perplexity", "cohere", "Bedrock"])
APIS = st.sampled_from([None, "chat", "messages", "images", "speech", "embeddings", "converse"])


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a value with each of its keys."""
    if isinstance(value, dict):
        keys: list[Any] = list(value)
    elif isinstance(value, list):
        keys = list(range(len(value)))
    else:
        return []
    found = [(value, key) for key in keys]
    return found + [place for key in keys for place in places(value[key])]


@st.composite
def broken(draw: st.DrawFn) -> Any:
    raw = copy.deepcopy(draw(st.sampled_from(RAWS) | st.sampled_from(MORE)))
    for _ in range(draw(st.integers(0, 4))):
        found = places(raw)
        if not found:
            break
        container, key = draw(st.sampled_from(found))
        change = draw(st.sampled_from(("drop", "replace", "nest", "list", "borrow")))
        if change == "drop":
            del container[key]
        elif change == "replace":
            container[key] = copy.deepcopy(draw(BY_FAULT))
        elif change == "nest":
            for _ in range(draw(st.integers(1, 10))):
                container[key] = {
                    draw(st.sampled_from(("response", "usage", "data"))): container[key]
                }
        elif change == "list":
            container[key] = [container[key]] * 2
        elif isinstance(container, dict):
            other = draw(st.sampled_from(RAWS))
            container.update(copy.deepcopy(other))
    if draw(st.booleans()):
        raw = [raw, *draw(st.lists(st.sampled_from(MORE) | BY_FAULT, max_size=2))]
    return raw


def check(raw: Any, provider: str | None, api: str | None) -> None:
    try:
        calls = read_response(raw, provider=provider, api=api)
    except InvalidInput as refusal:
        (error,) = refusal.extra["errors"]
        assert error["pointer"].startswith("/response")
        assert error["detail"]
        return
    assert calls
    for call in calls:
        assert len(call.usage) == len(COUNTERS)
        assert all(type(count) is int and 0 <= count <= MAX_COUNT for count in call.usage)
        assert part_beyond_whole(call.usage) is None
        assert call.model is None or 0 < len(call.model) <= 256
        assert all(isinstance(value, str) for value in call.context.values())
        assert call.cost_nanos is None or 0 <= call.cost_nanos <= CEILING


@given(broken(), PROVIDERS, APIS)
@settings(max_examples=1500, deadline=None)
def test_a_broken_answer_is_refused_or_holds_together(
    raw: Any, provider: str | None, api: str | None
) -> None:
    check(raw, provider, api)


@given(BY_FAULT, PROVIDERS, APIS)
@settings(max_examples=300, deadline=None)
def test_anything_at_all_is_refused_or_holds_together(
    raw: Any, provider: str | None, api: str | None
) -> None:
    check(raw, provider, api)
    check({"usage": raw}, provider, api)
    check({"chunks": raw}, provider, api)


def test_a_known_usage_block_never_reads_as_nothing() -> None:
    for raw in RAWS:
        for key in ("usage", "usageMetadata"):
            if isinstance(raw.get(key), dict):
                renamed = {f"unknown_{name}": value for name, value in raw[key].items()}
                check_refused({**raw, key: renamed})


def check_refused(raw: Any) -> None:
    try:
        read_response(raw, provider=None, api=None)
    except InvalidInput:
        return
    raise AssertionError("an unknown usage block was read as nothing")
