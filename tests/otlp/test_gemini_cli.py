"""What Gemini CLI 0.61 sends of one call: a span, three log records, and one call stands."""

from typing import Any

import httpx
import pytest

from tests.otlp.scenarios import call, events_of, record, send_records, send_spans, sums_of

pytestmark = pytest.mark.anyio

WHOSE = {"service__name": "gemini-cli", "user__id": "bob"}
ASKED = {
    "event__name": "gen_ai.client.inference.operation.details",
    "session__id": "sess-g",
    "gen_ai__operation__name": "generate_content",
    "gen_ai__provider__name": "gcp.gen_ai",
    "gen_ai__request__model": "gemini-2.5-pro",
    "gen_ai__request__temperature": 1,
}
ANSWERED = ASKED | {
    "gen_ai__response__id": "resp_d2c3c5a54a60415d8fa98d1c88895e45",
    "gen_ai__response__model": "gemini-2.5-pro",
    "gen_ai__usage__input_tokens": 1000,
    "gen_ai__usage__output_tokens": 100,
}
RESPONSE = {
    "event__name": "gemini_cli.api_response",
    "session__id": "sess-g",
    "model": "gemini-2.5-pro",
    "status_code": 200,
    "duration_ms": 110,
    "input_token_count": 1000,
    "output_token_count": 100,
    "cached_content_token_count": 250,
    "thoughts_token_count": 64,
}


def llm_call() -> dict[str, Any]:
    """Its span of a call: a model, an operation of its own, no counters."""
    return call(
        1,
        scope="gemini-cli",
        resource=WHOSE,
        tokens=(0, 0),
        gen_ai__operation__name="llm_call",
        gen_ai__provider__name=None,
        gen_ai__request__model="gemini-2.5-pro",
        gen_ai__usage__input_tokens=None,
        gen_ai__usage__output_tokens=None,
    )


async def test_its_span_and_the_record_of_its_request_are_no_calls(
    client: httpx.AsyncClient,
) -> None:
    await send_spans(client, llm_call())
    await send_records(client, record(resource=WHOSE, scope="gemini-cli", **ASKED))
    assert await events_of(client, "bob") == []


async def test_all_it_sends_of_one_call_is_one_call(client: httpx.AsyncClient) -> None:
    kinds = ((0, ASKED), (112, RESPONSE), (117, ANSWERED))
    records = [record(resource=WHOSE, scope="gemini-cli", time_ms=at, **said) for at, said in kinds]
    await send_spans(client, llm_call())
    await send_records(client, *records)

    [event] = await events_of(client, "bob")
    assert event["usage"] == {
        "input_tokens": 1000,
        "output_tokens": 164,
        "cache_read_tokens": 250,
        "output_reasoning_tokens": 64,
    }
    assert (await sums_of(client, "bob"))["bob"]["total_calls"] == 1


async def test_a_record_of_an_answer_without_counters_is_a_call_of_unknown_usage(
    client: httpx.AsyncClient,
) -> None:
    told = ASKED | {"gen_ai__response__finish_reasons": "stop"}
    await send_records(client, record(resource=WHOSE, **told))
    [event] = await events_of(client, "bob")
    assert event["context"]["usage"] == "unknown"
