"""What instrumentations call the same things: each becomes one call with the right counts."""

import json
from typing import Any

import httpx
import pytest

from tests.otlp.scenarios import (
    MS,
    START_NS,
    call,
    events_of,
    pairs,
    record,
    send_records,
    send_spans,
    span,
    sums_of,
)

pytestmark = pytest.mark.anyio


def usage(taken: int, given: int, **parts: int) -> dict[str, int]:
    return {"input_tokens": taken, "output_tokens": given, **parts}


def said(**attributes: Any) -> dict[str, Any]:
    """A span of one user without any mark of the conventions."""
    return span(1, user__id="alice", **attributes)


CALLS: dict[str, tuple[dict[str, Any], tuple[str, str, dict[str, int]]]] = {
    "Google ADK's call_llm has no operation and names its framework": (
        said(
            gen_ai__system="gcp.vertex.agent",
            gen_ai__request__model="gemini-2.5-pro",
            gen_ai__usage__input_tokens=1200,
            gen_ai__usage__output_tokens=340,
        ),
        ("google", "gemini-2.5-pro", usage(1200, 340)),
    ),
    "Strands names itself, and Bedrock counts the cache beside the input": (
        call(
            1,
            user__id="alice",
            gen_ai__provider__name=None,
            gen_ai__system="strands-agents",
            gen_ai__request__model="us.anthropic.claude-sonnet-4-20250514-v1:0",
            tokens=(1000, 200),
            gen_ai__usage__prompt_tokens=1000,
            gen_ai__usage__completion_tokens=200,
            gen_ai__usage__cache_read_input_tokens=500,
            gen_ai__usage__cache_write_input_tokens=300,
            gen_ai__usage__total_tokens=2000,
        ),
        (
            "aws",
            "us.anthropic.claude-sonnet-4-20250514-v1:0",
            usage(1800, 200, cache_read_tokens=500, cache_write_tokens=300),
        ),
    ),
    "Langfuse's parts that its total counts within the input": (
        said(
            langfuse__observation__type="generation",
            langfuse__observation__model__name="claude-sonnet-4-5",
            langfuse__observation__usage_details=json.dumps(
                {
                    **{"input": 1000, "cache_read_input_tokens": 2000},
                    **{"cache_creation_input_tokens": 500, "output": 200, "total": 3200},
                }
            ),
        ),
        (
            "anthropic",
            "claude-sonnet-4-5",
            usage(3000, 200, cache_read_tokens=2000, cache_write_tokens=500),
        ),
    ),
    "MLflow writes JSON into every attribute": (
        said(
            mlflow__spanType='"CHAT_MODEL"',
            mlflow__spanInputs='{"model": "gpt-4o", "messages": []}',
            mlflow__chat__tokenUsage='{"input_tokens": 1200, "output_tokens": 340}',
        ),
        ("openai", "gpt-4o", usage(1200, 340)),
    ),
    "OpenLIT's details": (
        call(
            1,
            user__id="alice",
            gen_ai__usage__prompt_tokens_details__cache_read=1024,
            gen_ai__usage__completion_tokens_details__reasoning=64,
            gen_ai__request__is_stream=True,
        ),
        (
            "openai",
            "gpt-4o",
            usage(1200, 340, cache_read_tokens=1024, output_reasoning_tokens=64),
        ),
    ),
    "OpenRouter's details, and thoughts beside the output as the total says": (
        call(
            1,
            user__id="alice",
            gen_ai__provider__name=None,
            gen_ai__system="openrouter",
            gen_ai__request__model="google/gemini-2.5-pro",
            gen_ai__usage__input_tokens__cached=200,
            gen_ai__usage__output_tokens__reasoning=60,
            gen_ai__usage__total_tokens=1600,
        ),
        (
            "openrouter",
            "google/gemini-2.5-pro",
            usage(1200, 400, cache_read_tokens=200, output_reasoning_tokens=60),
        ),
    ),
    "Semantic Kernel's older counters": (
        call(
            1,
            user__id="alice",
            gen_ai__operation__name="chat.completions",
            gen_ai__usage__input_tokens=None,
            gen_ai__usage__output_tokens=None,
            gen_ai__response__prompt_tokens=1200,
            gen_ai__response__completion_tokens=340,
        ),
        ("openai", "gpt-4o", usage(1200, 340)),
    ),
    "Pydantic AI's details of Anthropic": (
        call(
            1,
            user__id="alice",
            gen_ai__provider__name="anthropic",
            gen_ai__request__model="claude-sonnet-4-5",
            tokens=(3000, 200),
            gen_ai__usage__details__cache_read_input_tokens=2000,
            gen_ai__usage__details__cache_creation_input_tokens=500,
        ),
        (
            "anthropic",
            "claude-sonnet-4-5",
            usage(3000, 200, cache_read_tokens=2000, cache_write_tokens=500),
        ),
    ),
    "Vercel's fifth version leaves Anthropic's cache out of the input": (
        said(
            ai__operationId="ai.streamText.doStream",
            gen_ai__system="anthropic.messages",
            gen_ai__request__model="claude-sonnet-4-5",
            ai__usage__inputTokens=1000,
            ai__usage__outputTokens=200,
            ai__usage__totalTokens=1200,
            ai__usage__cachedInputTokens=700,
            ai__response__providerMetadata=json.dumps(
                {"anthropic": {"cacheCreationInputTokens": 300}}
            ),
        ),
        (
            "anthropic",
            "claude-sonnet-4-5",
            usage(2000, 200, cache_read_tokens=700, cache_write_tokens=300),
        ),
    ),
    "Vercel's sixth version counts it in": (
        said(
            ai__operationId="ai.generateText.doGenerate",
            gen_ai__system="anthropic.messages",
            gen_ai__request__model="claude-sonnet-4-5",
            ai__usage__inputTokens=2000,
            ai__usage__outputTokens=200,
            ai__usage__cachedInputTokens=700,
            ai__usage__inputTokenDetails__noCacheTokens=1000,
            ai__usage__inputTokenDetails__cacheReadTokens=700,
            ai__usage__inputTokenDetails__cacheWriteTokens=300,
        ),
        (
            "anthropic",
            "claude-sonnet-4-5",
            usage(2000, 200, cache_read_tokens=700, cache_write_tokens=300),
        ),
    ),
    "Vercel's gateway names the provider in the model": (
        said(
            ai__operationId="ai.generateText.doGenerate",
            gen_ai__system="gateway",
            gen_ai__request__model="openai/gpt-4o",
            ai__usage__inputTokens=1200,
            ai__usage__outputTokens=340,
        ),
        ("openai", "gpt-4o", usage(1200, 340)),
    ),
    "OpenInference's older name for what was cached": (
        said(
            openinference__span__kind="LLM",
            llm__model_name="gpt-4o",
            llm__provider="openai",
            llm__token_count__prompt=1200,
            llm__token_count__completion=340,
            llm__token_count__prompt_details__cache_input=1024,
        ),
        ("openai", "gpt-4o", usage(1200, 340, cache_read_tokens=1024)),
    ),
    "Bedrock's own instrumentation": (
        call(
            1,
            user__id="alice",
            gen_ai__provider__name=None,
            gen_ai__system="aws.bedrock",
            gen_ai__request__model="us.amazon.nova-lite-v1:0",
        ),
        ("aws.bedrock", "us.amazon.nova-lite-v1:0", usage(1200, 340)),
    ),
    "LangSmith keeps LangChain's usage beside the conventions'": (
        said(
            langsmith__span__kind="llm",
            gen_ai__operation__name="chat",
            gen_ai__system="langchain",
            gen_ai__request__model="gpt-4o",
            langsmith__metadata__ls_provider="openai",
            langsmith__metadata__usage_metadata=json.dumps(
                {
                    "input_tokens": 1200,
                    "output_tokens": 340,
                    "total_tokens": 1540,
                    "input_token_details": {"cache_read": 1024},
                    "output_token_details": {"reasoning": 64},
                }
            ),
            gen_ai__usage__input_tokens=1200,
            gen_ai__usage__output_tokens=340,
            gen_ai__usage__total_tokens=1540,
        ),
        (
            "openai",
            "gpt-4o",
            usage(1200, 340, cache_read_tokens=1024, output_reasoning_tokens=64),
        ),
    ),
    "LangSmith has no provider of its own for a framework's": (
        said(
            langsmith__span__kind="llm",
            gen_ai__operation__name="chat",
            gen_ai__system="langchain",
            gen_ai__request__model="claude-sonnet-4-5",
            langsmith__metadata__ls_provider="anthropic",
            langsmith__metadata__usage_metadata=json.dumps(
                {
                    "input_tokens": 3000,
                    "output_tokens": 200,
                    "input_token_details": {"cache_read": 2000, "cache_creation": 500},
                }
            ),
        ),
        (
            "anthropic",
            "claude-sonnet-4-5",
            usage(3000, 200, cache_read_tokens=2000, cache_write_tokens=500),
        ),
    ),
    "OpenLIT passes on Anthropic's input, which is without the cache": (
        call(
            1,
            tokens=(1222, 166),
            scope="openlit.instrumentation.anthropic",
            user__id="alice",
            gen_ai__provider__name="anthropic",
            gen_ai__request__model="claude-sonnet-4-5",
            gen_ai__usage__cache_read__input_tokens=7,
            gen_ai__usage__cache_creation__input_tokens=13,
            gen_ai__client__token__usage=1388,
        ),
        (
            "anthropic",
            "claude-sonnet-4-5",
            usage(1242, 166, cache_read_tokens=7, cache_write_tokens=13),
        ),
    ),
    "Logfire keeps what the OpenAI Agents SDK counted": (
        span(
            1,
            scope="logfire.openai_agents",
            user_id="alice",
            gen_ai__system="openai",
            gen_ai__request__model="gpt-4o",
            gen_ai__response__model="gpt-4o",
            usage=json.dumps(
                {
                    "requests": 1,
                    "input_tokens": 1200,
                    "output_tokens": 340,
                    "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 1024},
                    "output_tokens_details": {"reasoning_tokens": 64},
                }
            ),
            gen_ai__usage__input_tokens=1200,
            gen_ai__usage__output_tokens=340,
        ),
        (
            "openai",
            "gpt-4o",
            usage(1200, 340, cache_read_tokens=1024, output_reasoning_tokens=64),
        ),
    ),
    "Vercel's fifth version has what was read from the cache in Anthropic's own usage alone": (
        said(
            ai__operationId="ai.generateText.doGenerate",
            ai__model__id="claude-sonnet-4-5",
            gen_ai__system="anthropic.messages",
            gen_ai__request__model="claude-sonnet-4-5",
            ai__usage__promptTokens=1148,
            ai__usage__completionTokens=144,
            ai__response__providerMetadata=json.dumps(
                {
                    "anthropic": {
                        "usage": {
                            "input_tokens": 1148,
                            "output_tokens": 144,
                            "cache_creation_input_tokens": 13,
                            "cache_read_input_tokens": 7,
                        },
                        "cacheCreationInputTokens": 13,
                    }
                }
            ),
        ),
        (
            "anthropic",
            "claude-sonnet-4-5",
            usage(1168, 144, cache_read_tokens=7, cache_write_tokens=13),
        ),
    ),
    "OpenInference has the user that LangChain was given in its metadata": (
        span(
            1,
            openinference__span__kind="LLM",
            llm__model_name="gpt-4o",
            llm__provider="openai",
            llm__token_count__prompt=1200,
            llm__token_count__completion=340,
            metadata=json.dumps({"user_id": "alice", "ls_provider": "openai"}),
        ),
        ("openai", "gpt-4o", usage(1200, 340)),
    ),
}


@pytest.mark.parametrize("name", CALLS)
async def test_it_is_one_call_with_its_counts(client: httpx.AsyncClient, name: str) -> None:
    sent, (provider, model, counts) = CALLS[name]
    assert (await send_spans(client, sent)).status_code == 200
    [event] = await events_of(client, "alice")
    assert (event["provider"], event["model"], event["usage"]) == (provider, model, counts)
    assert event["cost_status"] != "unpriced"


NO_CALLS = {
    "an agent of OpenLIT": call(1, gen_ai__operation__name="agent"),
    "Spring AI's client around its model": call(1, gen_ai__operation__name="framework"),
    "a workflow of Traceloop": said(
        traceloop__span__kind="workflow",
        gen_ai__system="openai",
        gen_ai__request__model="gpt-4o",
        gen_ai__usage__input_tokens=1,
        gen_ai__usage__output_tokens=1,
    ),
    "an agent that sums up, by its kind": said(
        gen_ai__span__kind="AGENT",
        gen_ai__system="openai",
        gen_ai__request__model="gpt-4o",
        gen_ai__usage__input_tokens=1,
        gen_ai__usage__output_tokens=1,
    ),
    "a look at a thread of Azure's": call(1, gen_ai__operation__name="get_thread_run"),
    "a tool": call(1, gen_ai__operation__name="execute_tool"),
    "what names a model and counts nothing": said(
        gen_ai__system="openai", gen_ai__request__model="gpt-4o"
    ),
    "what LlamaIndex prepares before it calls": said(
        openinference__span__kind="LLM",
        llm__model_name="gpt-4o",
        llm__provider="openai",
        output__value=json.dumps({"messages": ["ChatMessage(...)"], "tools": []}),
        output__mime_type="application/json",
    ),
    "an agent that failed, without a mark": span(
        1,
        user__id="alice",
        status={"code": 2},
        gen_ai__system="openai",
        gen_ai__request__model="gpt-4o",
    ),
    "Claude Code's own span, whose record is the call": said(
        gen_ai__system="anthropic",
        gen_ai__request__model="claude-sonnet-4-5",
        model="claude-sonnet-4-5",
        input_tokens=1000,
        output_tokens=100,
    ),
}


@pytest.mark.parametrize("name", NO_CALLS)
async def test_it_is_no_call(client: httpx.AsyncClient, name: str) -> None:
    assert (await send_spans(client, NO_CALLS[name])).status_code == 200
    assert await events_of(client, "alice", "unknown") == []


FAILURES: dict[str, tuple[dict[str, Any], tuple[int, str]]] = {
    "Pydantic AI's status, in its own spelling": (
        call(
            1,
            user__id="alice",
            tokens=(0, 0),
            status={"code": 2, "message": "ModelHTTPError: status_code: 429, model_name: gpt-4o"},
        ),
        (429, "ModelHTTPError: status_code: 429, model_name: gpt-4o"),
    ),
    "LangSmith's, which the exception alone tells": (
        call(
            1,
            scope="langsmith",
            user__id="alice",
            tokens=(0, 0),
            status={"code": 1},
            events=[
                {
                    "name": "exception",
                    "timeUnixNano": "1",
                    "attributes": pairs(
                        {
                            "exception.type": "Exception",
                            "exception.message": "RateLimitError('Error code: 429 - refused')",
                        }
                    ),
                }
            ],
        ),
        (429, "Exception: RateLimitError('Error code: 429 - refused')"),
    ),
    "Logfire's of the OpenAI Agents SDK, which have no mark": (
        span(
            1,
            scope="logfire.openai_agents",
            user_id="alice",
            status={"code": 2, "message": "NotFoundError: Error code: 404 - refused"},
            gen_ai__system="openai",
            gen_ai__request__model="gpt-4o",
        ),
        (404, "NotFoundError: Error code: 404 - refused"),
    ),
    "Langfuse's, which its level tells": (
        said(
            langfuse__observation__type="generation",
            langfuse__observation__model__name="gpt-4o",
            langfuse__observation__level="ERROR",
            langfuse__observation__status_message="Error code: 429 - too many requests",
        ),
        (429, "Error code: 429 - too many requests"),
    ),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_it_failed_with_its_status(client: httpx.AsyncClient, name: str) -> None:
    sent, (status_code, error) = FAILURES[name]
    assert (await send_spans(client, sent)).status_code == 200
    [event] = await events_of(client, "alice")
    assert (event["status_code"], event["error_message"]) == (status_code, error)


@pytest.mark.parametrize(("told", "expected"), [(56, 56), (0.056, 56), (2, 100), (0.3, 100)])
async def test_the_first_piece_comes_before_the_end_in_either_unit(
    client: httpx.AsyncClient, told: float, expected: float
) -> None:
    """Strands has whole milliseconds under the name that OpenLIT has seconds under."""
    sent = call(1, user__id="alice", gen_ai__server__time_to_first_token=told)
    if told == 2:
        sent["scopeSpans"][0]["spans"][0]["endTimeUnixNano"] = str(START_NS + 2000 * MS)
        expected = 2000
    await send_spans(client, sent)
    [event] = await events_of(client, "alice")
    assert event["ttft_ms"] == expected


async def test_the_first_piece_is_counted_from_the_calls_own_start(
    client: httpx.AsyncClient,
) -> None:
    """The outer span began 40 ms before the provider's own, whose length counts."""
    outer = call(1, user__id="alice", gen_ai__response__time_to_first_chunk=0.06)
    inner = call(2, parent=1, scope="com.anthropic.sdk.python", start_ms=40, end_ms=100)
    await send_spans(client, outer, inner)
    [event] = await events_of(client, "alice")
    assert (event["latency_ms"], event["ttft_ms"]) == (60, 20)


async def test_a_framework_without_marks_around_a_marked_call_is_that_call(
    client: httpx.AsyncClient,
) -> None:
    """Google's ADK and the library below it: the inner span has the counts as well."""
    outer = said(
        gen_ai__system="gcp.vertex.agent",
        gen_ai__request__model="gemini-2.5-pro",
        gen_ai__usage__input_tokens=1200,
        gen_ai__usage__output_tokens=340,
    )
    inner = call(
        2,
        parent=1,
        gen_ai__operation__name="generate_content",
        gen_ai__provider__name="gcp.vertex_ai",
        gen_ai__request__model="gemini-2.5-pro",
    )
    await send_spans(client, inner)
    await send_spans(client, outer)
    [event] = await events_of(client, "alice", "unknown")
    assert (event["user"], event["provider"]) == ("alice", "gcp.vertex_ai")
    assert (await sums_of(client, "alice"))["alice"]["total_calls"] == 1


async def test_the_speed_of_an_answer_is_a_condition_of_its_price(
    client: httpx.AsyncClient,
) -> None:
    told = {
        "event__name": "api_request",
        "model": "claude-opus-4-6",
        "input_tokens": 1000,
        "output_tokens": 100,
        "cache_read_tokens": 0,
        "cache_creation_tokens": 0,
    }
    whose = {"service__name": "claude-code", "user__id": "alice"}
    await send_records(client, record(resource=whose, speed="normal", **told))
    await send_records(client, record(resource=whose, time_ms=9000, speed="fast", **told))
    fast, normal = await events_of(client, "alice")
    assert not normal["context"]
    assert fast["context"] == {"speed": "fast"}
