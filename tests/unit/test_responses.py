"""Recorded answers of providers: what each bills, in every form that it may be sent in."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.core.counters import INDEX, NOTHING, Usage
from app.ingest.responses.billed import Billed
from app.ingest.responses.read import read_response

FIXTURE = Path(__file__).parents[1] / "fixtures" / "responses" / "payloads.json"
HOLDERS = ("usage", "usageMetadata", "meta")
Case = dict[str, Any]
CASES: dict[str, Case] = {case["id"]: case for case in json.loads(FIXTURE.read_text())}


def holder(raw: Case) -> str | None:
    return next((key for key in HOLDERS if isinstance(raw.get(key), dict)), None)


BARE = [name for name, case in CASES.items() if holder(case["raw"])]
STREAMED = [name for name in BARE if CASES[name]["api"] in ("chat", "generate_content", "converse")]


def usage_of(counts: dict[str, int]) -> Usage:
    usage = list(NOTHING)
    for name, count in counts.items():
        usage[INDEX[name]] = count
    return tuple(usage)


def read(case: Case, raw: object) -> list[Billed]:
    return read_response(raw, provider=case["provider"], api=case["api"])


def usages(found: list[Billed]) -> list[Usage]:
    return [call.usage for call in found]


def expected(case: Case) -> list[Usage]:
    return [usage_of(call["usage"]) for call in case["expected"]["calls"]]


@pytest.mark.parametrize("name", CASES)
def test_a_whole_body_bills_what_the_provider_means(name: str) -> None:
    case = CASES[name]
    told = case["expected"]
    found = read(case, case["raw"])
    assert usages(found) == expected(case)
    assert [call.model for call in found] == [call["model"] for call in told["calls"]]
    for key in ("service_tier", "inference_geo", "traffic_type"):
        assert found[0].context.get(key) == told.get(key)
    cost = Decimal(told["provider_cost_usd"]) if "provider_cost_usd" in told else None
    if cost is not None and told.get("is_byok"):
        cost += Decimal(told["upstream_cost_usd"])
    assert found[0].cost_nanos == (None if cost is None else cost * 10**9)


@pytest.mark.parametrize("name", CASES)
def test_the_keys_alone_tell_the_shape(name: str) -> None:
    case = CASES[name]
    for provider, api in ((None, None), ("some-gateway", None), (None, "unheard-of")):
        found = read_response(case["raw"], provider=provider, api=api)
        assert usages(found) == expected(case)


@pytest.mark.parametrize("name", BARE)
def test_a_bare_usage_block_bills_the_same(name: str) -> None:
    case = CASES[name]
    bare = case["raw"][holder(case["raw"])]
    assert usages(read(case, bare)) == expected(case)


@pytest.mark.parametrize("name", STREAMED)
def test_a_stream_bills_its_last_word(name: str) -> None:
    case = CASES[name]
    key = holder(case["raw"])
    assert key
    named = {k: v for k, v in case["raw"].items() if k != key}
    chunks = [{"id": "a", **named, "choices": [{"delta": {}}], key: None}] * 3
    last = {"id": "a", **named, "choices": [], key: case["raw"][key]}
    for raw in (last, [*chunks, last], {"chunks": [*chunks, last, "[DONE]"]}):
        assert usages(read(case, raw)) == expected(case)


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if case["api"] == "messages"]
)
def test_an_anthropic_stream_bills_its_start_and_its_last_delta(name: str) -> None:
    case = CASES[name]
    usage = case["raw"]["usage"]
    start = {**case["raw"], "type": "message", "usage": {**usage, "output_tokens": 1}}
    start["usage"].pop("iterations", None)
    kept = ("output_tokens", "iterations", "server_tool_use", "output_tokens_details")
    delta = {key: usage[key] for key in kept if key in usage}
    chunks = [
        {"type": "message_start", "message": start},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": delta},
        {"type": "message_stop"},
    ]
    assert usages(read(case, chunks)) == expected(case)


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if case["api"] == "responses"]
)
def test_a_responses_stream_bills_its_completed_event(name: str) -> None:
    case = CASES[name]
    begun = {"type": "response.created", "response": {"object": "response", "usage": None}}
    done = {"type": "response.completed", "response": {"object": "response", **case["raw"]}}
    for raw in (done, [begun, done], {"chunks": [begun, done]}):
        assert usages(read(case, raw)) == expected(case)
    assert usages(read(case, [done, done])) == expected(case) * 2
