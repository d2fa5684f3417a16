"""Coding agents tell what they used in log records."""

from typing import Any

import httpx
import pytest

from tests.otlp.scenarios import (
    call,
    events_of,
    record,
    send_records,
    send_spans,
    sums_of,
)

pytestmark = pytest.mark.anyio

CODEX = {
    "event__name": "codex.sse_event",
    "event__kind": "response.completed",
    "conversation__id": "conv-1",
    "model": "gpt-5-codex",
    "input_token_count": "1200",
    "output_token_count": "340",
    "cached_token_count": "1024",
    "reasoning_token_count": "64",
}
GEMINI = {
    "event__name": "gemini_cli.api_response",
    "session__id": "sess-g",
    "model": "gemini-2.5-pro",
    "status_code": 200,
    "duration_ms": 900,
    "input_token_count": 1200,
    "output_token_count": 276,
    "cached_content_token_count": 1024,
    "thoughts_token_count": 64,
}
CLAUDE = {
    "event__name": "api_request",
    "session__id": "sess-c",
    "user__id": "4f0c9d1e",
    "user__email": "alice@example.com",
    "model": "claude-sonnet-4-5",
    "input_tokens": "500",
    "output_tokens": "200",
    "cache_read_tokens": "2000",
    "cache_creation_tokens": "500",
    "cost_usd": "0.006975",
    "duration_ms": "1200",
    "request_id": "req_011CSd1234567890",
}
FROM_CLAUDE = {"service__name": "claude-code"}


async def test_codex_counts_its_completed_response_once_with_counts_as_text(
    client: httpx.AsyncClient,
) -> None:
    alice = {"service__name": "codex_cli_rs", "user__id": "alice"}
    without = {name: value for name, value in CODEX.items() if "count" not in name}
    other = CODEX | {"event__kind": "response.output_item.done"}
    records = [
        record(resource=alice, **CODEX),
        record(resource=alice, time_ms=1, **without),
        record(resource=alice, time_ms=2, **other),
    ]
    for _ in range(2):
        assert (await send_records(client, *records)).status_code == 200

    [event] = await events_of(client, "alice")
    assert event["usage"] == {
        "input_tokens": 1200,
        "output_tokens": 340,
        "cache_read_tokens": 1024,
        "output_reasoning_tokens": 64,
    }
    assert (event["provider"], event["model"]) == ("openai", "gpt-5-codex")
    assert event["session_id"] == "conv-1"
    assert event["cost_status"] == "priced"


async def test_gemini_cli_leaves_thoughts_out_of_its_output_and_tells_a_call_twice(
    client: httpx.AsyncClient,
) -> None:
    bob = {"service__name": "gemini-cli", "user__id": "bob"}
    details = {
        "event__name": "gen_ai.client.inference.operation.details",
        "session__id": "sess-g",
        "gen_ai__operation__name": "generate_content",
        "gen_ai__provider__name": "gcp.gemini",
        "gen_ai__request__model": "gemini-2.5-pro",
        "gen_ai__usage__input_tokens": 1200,
        "gen_ai__usage__output_tokens": 276,
    }
    await send_records(client, record(resource=bob, time_ms=1001, **details))
    await send_records(client, record(resource=bob, time_ms=1000, **GEMINI))

    [event] = await events_of(client, "bob")
    assert event["usage"]["output_tokens"] == 340
    assert event["usage"]["output_reasoning_tokens"] == 64
    assert event["usage"]["cache_read_tokens"] == 1024
    assert (await sums_of(client, "bob"))["bob"]["total_calls"] == 1


async def test_claude_code_leaves_the_cache_out_of_its_input_and_states_its_cost(
    client: httpx.AsyncClient,
) -> None:
    for _ in range(2):
        await send_records(client, record(resource=FROM_CLAUDE, **CLAUDE))

    [event] = await events_of(client, "alice@example.com")
    assert event["usage"] == {
        "input_tokens": 3000,
        "output_tokens": 200,
        "cache_read_tokens": 2000,
        "cache_write_tokens": 500,
    }
    assert event["cost_usd"] == "0.006975"
    assert event["context"]["stated_cost_usd"] == "0.006975"
    assert event["latency_ms"] == 1200


async def test_a_user_set_on_purpose_goes_before_what_the_agent_knows(
    client: httpx.AsyncClient,
) -> None:
    await send_records(client, record(resource=FROM_CLAUDE | {"user__id": "carol"}, **CLAUDE))
    assert len(await events_of(client, "carol")) == 1


async def test_a_failed_request_of_an_agent_is_an_error_that_costs_nothing_silently(
    client: httpx.AsyncClient,
) -> None:
    failed = {
        "event__name": "claude_code.api_error",
        "user__email": "dora@example.com",
        "model": "claude-sonnet-4-5",
        "error": "overloaded",
        "status_code": "529",
        "duration_ms": "80",
    }
    await send_records(client, record(**failed))
    [event] = await events_of(client, "dora@example.com")
    assert (event["status_code"], event["error_message"]) == (529, "overloaded")
    assert event["usage"] == {"input_tokens": 0, "output_tokens": 0}


async def test_the_span_around_a_record_is_the_same_call(client: httpx.AsyncClient) -> None:
    details: dict[str, Any] = record(
        time_ms=99,
        event__name="gen_ai.client.inference.operation.details",
        gen_ai__operation__name="chat",
        gen_ai__request__model="gpt-4o",
        gen_ai__usage__input_tokens=1200,
        gen_ai__usage__output_tokens=340,
        gen_ai__usage__cache_read__input_tokens=1024,
    )
    [inner] = details["scopeLogs"][0]["logRecords"]
    inner |= {"traceId": f"{1:032x}", "spanId": f"{7:016x}"}
    await send_records(client, details)
    await send_spans(client, call(7, user__id="erin"))

    [event] = await events_of(client, "erin")
    assert event["usage"]["cache_read_tokens"] == 1024
    assert (await sums_of(client, "erin", "unknown"))["unknown"]["total_calls"] == 0


async def test_a_stream_that_logfire_tells_in_two_halves_is_one_call(
    client: httpx.AsyncClient,
) -> None:
    request = call(
        1,
        scope="logfire.openai",
        end_ms=50,
        gen_ai__usage__input_tokens=None,
        gen_ai__usage__output_tokens=None,
        user_id="fred",
    )
    stream = call(2, scope="logfire.openai", start_ms=170, end_ms=170, duration=0.118)
    for first, second in ((request, stream), (stream, request)):
        assert (await send_spans(client, first)).status_code == 200
        assert (await send_spans(client, second)).status_code == 200

    [event] = await events_of(client, "fred")
    assert event["usage"] == {"input_tokens": 1200, "output_tokens": 340}
    assert event["latency_ms"] == 170
    assert (await sums_of(client, "fred", "unknown"))["unknown"]["total_calls"] == 0


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
async def test_halves_outside_of_any_span_find_each_other(
    client: httpx.AsyncClient, order: tuple[int, ...]
) -> None:
    """Each is a trace of its own; another user's at the same time are not mixed up with them."""
    sent = []
    for number, user in enumerate(("fred", "gail")):
        whose: dict[str, Any] = {"scope": "logfire.openai", "user_id": user}
        counted = {"tokens": (1200 + number, 340), "duration": 0.118}
        unsaid = {"gen_ai__usage__input_tokens": None, "gen_ai__usage__output_tokens": None}
        lasted = {"start_ms": number, "end_ms": 50 - number}
        sent += [
            call(1, trace=10 + number, **whose, **lasted, **unsaid),
            call(2, trace=20 + number, start_ms=170, end_ms=170, **whose, **counted),
        ]
    for place in order:
        assert (await send_spans(client, sent[place])).status_code == 200

    for number, user in enumerate(("fred", "gail")):
        [event] = await events_of(client, user)
        assert event["usage"] == {"input_tokens": 1200 + number, "output_tokens": 340}
        assert event["latency_ms"] == 170 - number
    assert await events_of(client, "unknown") == []


async def test_other_records_are_accepted_and_ignored(client: httpx.AsyncClient) -> None:
    answer = await send_records(client, record(event__name="codex.user_prompt", prompt="hi"))
    assert (answer.status_code, answer.json()) == (200, {})
    assert await events_of(client, "unknown") == []


async def test_a_record_that_is_sent_again_in_other_company_is_known(
    client: httpx.AsyncClient,
) -> None:
    first = record(resource=FROM_CLAUDE, **CLAUDE)
    second = record(
        resource=FROM_CLAUDE, time_ms=5000, **CLAUDE | {"request_id": "req_" + "9" * 16}
    )
    await send_records(client, first)
    await send_records(client, second, first)
    events = await events_of(client, "alice@example.com")
    assert len(events) == 2
