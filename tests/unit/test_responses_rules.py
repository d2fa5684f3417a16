"""The rules of each provider's answer, on bodies as the providers write them."""

from collections.abc import Mapping
from typing import Any

import pytest

from app.core.counters import as_mapping
from app.core.errors import InvalidInput
from app.ingest.responses.billed import Billed
from app.ingest.responses.read import READERS, read_response


def read(raw: object, provider: str | None = None, api: str | None = None) -> list[Billed]:
    return read_response(raw, provider=provider, api=api)


def counts(call: Billed) -> Mapping[str, int | float]:
    return {name: value for name, value in as_mapping(call.usage).items() if value}


def only(raw: object, provider: str | None = None, api: str | None = None) -> dict[str, Any]:
    (call,) = read(raw, provider, api)
    return dict(counts(call))


def refused(raw: object, provider: str | None = None) -> str:
    with pytest.raises(InvalidInput) as caught:
        read(raw, provider)
    return str(caught.value.extra["errors"][0]["pointer"])


def test_openai_web_searches_are_counted_among_the_output_items() -> None:
    def item(action: object) -> dict[str, object]:
        return {"type": "web_search_call", "action": action}

    kinds = ("search", "open_page", "find_in_page", "search")
    output = [item({"type": kind}) for kind in kinds]
    body = {
        "object": "response",
        "output": [*output, item(None), {"type": "file_search_call"}, "odd"],
        "usage": {"input_tokens": 9, "output_tokens": 3, "output_tokens_details": None},
    }
    assert only(body) == {"input_tokens": 9, "output_tokens": 3, "web_searches": 2}


def test_image_and_speech_endpoints_make_nothing_else() -> None:
    usage = {"input_tokens": 48, "output_tokens": 90, "total_tokens": 138}
    assert only(usage, "openai", "images/generations")["output_image_tokens"] == 90
    assert only({"type": "image_generation.completed", "usage": usage})["output_image_tokens"] == 90
    assert only({"type": "speech.audio.done", "usage": usage})["output_audio_tokens"] == 90
    split = {**usage, "output_tokens_details": {"image_tokens": 80, "text_tokens": 10}}
    assert only(split, "openai", "images")["output_image_tokens"] == 80
    assert "output_image_tokens" not in only(usage, "openai", "responses")


def test_pieces_are_counted_where_no_tokens_are() -> None:
    assert only({"text": "x", "usage": {"type": "duration", "seconds": 9}}) == {"audio_seconds": 9}
    assert only({"task": "transcribe", "duration": 8.47, "text": "x"}) == {"audio_seconds": 8.47}
    ocr = {"model": "mistral-ocr-2512", "pages": [{}], "usage_info": {"pages_processed": 29}}
    assert only(ocr) == {"input_document_pages": 29}
    assert only({"created": 1, "data": [{"url": "u"}, {"b64_json": "b"}]}) == {"output_images": 2}
    assert only({"object": "video", "model": "sora-2", "seconds": "8"}) == {"video_seconds": 8}
    assert only({"predictions": [{"bytesBase64Encoded": "x"}] * 3}) == {"output_images": 3}
    embedded = {"embeddings": {"values": [], "statistics": {"token_count": 7}}}
    assert only({"predictions": [embedded] * 2}, "vertex") == {"input_tokens": 14}


def test_speech_is_billed_by_its_length() -> None:
    deepgram = {
        "metadata": {"duration": 25.93, "model_info": {"x": {"name": "nova-3"}}},
        "results": {"channels": [{}, {}]},
    }
    (call,) = read(deepgram, "deepgram")
    assert (call.model, counts(call)) == ("nova-3", {"audio_seconds": 51.86})
    assembly = {"audio_duration": 281, "speech_model": "universal", "text": "x", "words": []}
    assert read(assembly)[0].model == "universal"
    assert only(assembly) == {"audio_seconds": 281}
    assert only({"text": "x", "audio_duration_secs": 1.5}, "elevenlabs") == {"audio_seconds": 1.5}
    voxtral = {"prompt_audio_seconds": 203, "prompt_tokens": 4, "completion_tokens": 635}
    assert only({"usage": {**voxtral, "total_tokens": 3264}})["audio_seconds"] == 203
    assert "audio_seconds" not in only({"usage": {**voxtral, "prompt_audio_seconds": {}}})


@pytest.mark.parametrize(
    ("name", "arch", "model"),
    [
        ("2-general-nova", "nova-2", "nova-2-general"),
        ("medical-nova-3", "nova-3", "nova-3-medical"),
        ("general", "base", "base-general"),
        ("whisper-medium", "whisper", "whisper-medium"),
        ("nova-3", None, "nova-3"),
        (None, "nova-3", "nova-3"),
    ],
)
def test_deepgrams_model_is_named_as_it_is_priced(
    name: str | None, arch: str | None, model: str
) -> None:
    told = {"duration": 6.0, "model_info": {"x": {"name": name, "arch": arch}}}
    (call,) = read({"metadata": told, "results": {"channels": [{}]}}, "deepgram")
    assert call.model == model


def test_advisors_are_calls_of_a_second_model() -> None:
    usage = {
        "input_tokens": 412,
        "cache_read_input_tokens": 0,
        "output_tokens": 531,
        "service_tier": "standard",
        "iterations": [
            {"type": "message", "input_tokens": 412, "output_tokens": 89},
            {
                "type": "advisor_message",
                "model": "claude-opus-5",
                "input_tokens": 823,
                "output_tokens": 1612,
            },
            {
                "type": "message",
                "input_tokens": 1348,
                "cache_read_input_tokens": 412,
                "output_tokens": 442,
            },
        ],
    }
    own, advisor = read({"type": "message", "model": "claude-sonnet-5", "usage": usage})
    assert own.model == "claude-sonnet-5"
    assert counts(own) == {"input_tokens": 2172, "cache_read_tokens": 412, "output_tokens": 531}
    assert advisor.model == "claude-opus-5"
    assert counts(advisor) == {"input_tokens": 823, "output_tokens": 1612}


def test_anthropic_caches_stand_beside_the_input_wherever_it_is_hosted() -> None:
    usage = {
        "input_tokens": 3,
        "cache_read_input_tokens": 10,
        "cache_creation_input_tokens": 7,
        "cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 5},
        "output_tokens": 1,
        "speed": "fast",
    }
    for provider in ("bedrock", "vertex", "openai", None):
        (call,) = read({"usage": usage}, provider)
        assert counts(call) == {
            "input_tokens": 20,
            "cache_read_tokens": 10,
            "cache_write_tokens": 7,
            "cache_write_5m_tokens": 2,
            "cache_write_1h_tokens": 5,
            "output_tokens": 1,
        }
        assert call.context["speed"] == "fast"


def test_a_chunk_without_its_input_is_refused() -> None:
    assert refused({"type": "message_delta", "usage": {"output_tokens": 15}}).startswith(
        "/response/usage"
    )
    assert refused({"usage": {"completion_tokens": 15}}) == "/response/usage"


@pytest.mark.parametrize(
    ("usage", "output"),
    [
        ({"total_tokens": 334}, 322),
        ({}, 322),
        ({"total_tokens": 14}, None),
    ],
)
def test_the_total_tells_whether_reasoning_stands_beside(
    usage: dict[str, int], output: int | None
) -> None:
    details = {"completion_tokens_details": {"reasoning_tokens": 320}}
    raw = {"usage": {"prompt_tokens": 12, "completion_tokens": 2, **details, **usage}}
    if output is None:
        assert refused(raw, "xai") == "/response/usage"
    else:
        assert only(raw, "xai")["output_tokens"] == output


def test_deep_research_bills_reasoning_citations_and_queries() -> None:
    usage = {
        "prompt_tokens": 33,
        "completion_tokens": 7163,
        "total_tokens": 7196,
        "search_context_size": "low",
        "citation_tokens": 20016,
        "num_search_queries": 28,
        "reasoning_tokens": 95305,
        "cost": {"request_cost": 0.14, "total_cost": 0.5},
    }
    (call,) = read({"model": "sonar-deep-research", "usage": usage}, "perplexity")
    assert counts(call) == {
        "input_tokens": 33,
        "output_tokens": 102468,
        "output_reasoning_tokens": 95305,
        "output_citation_tokens": 20016,
        "web_searches": 28,
    }
    assert call.cost_nanos == 500_000_000
    assert call.context == {"search_context_size": "low"}


def test_grounding_is_billed_by_query_since_gemini_3_and_by_prompt_before() -> None:
    grounded = [{"groundingMetadata": {"webSearchQueries": ["a", "b", "a", ""]}}]
    usage = {"promptTokenCount": 8, "totalTokenCount": 10}
    for model, searches in (("gemini-3-flash-preview", 2), ("gemini-2.5-pro", 1)):
        body = {"modelVersion": model, "candidates": grounded, "usageMetadata": usage}
        later = {"modelVersion": model, "candidates": [{}], "usageMetadata": usage}
        for raw in (body, [body, later]):
            assert only(raw, "google")["web_searches"] == searches


def test_gemini_names_its_tier_by_traffic() -> None:
    usage = {"prompt_token_count": 8, "total_token_count": 10, "traffic_type": "ON_DEMAND_FLEX"}
    (call,) = read({"usage_metadata": usage}, "google")
    assert call.context == {"traffic_type": "ON_DEMAND_FLEX", "service_tier": "flex"}


def test_what_callers_keep_in_metadata_is_not_usage() -> None:
    begun = {"response": {"usage": None, "metadata": {"input_tokens": "5"}}}
    done = {"type": "response.completed", "response": {"usage": {"input_tokens": 7}}}
    assert only([begun, done]) == {"input_tokens": 7}
    assert refused(begun) == "/response"


def test_each_turn_of_a_live_session_is_billed() -> None:
    turn = {"usageMetadata": {"promptTokenCount": 5, "responseTokenCount": 2}}
    done = {"type": "response.done", "response": {"usage": {"input_tokens": 5}}}
    for turns in ([turn, {"serverContent": {}}, turn], [{"type": "x"}, done, done]):
        assert [counts(call)["input_tokens"] for call in read(turns)] == [5, 5]


def test_bedrock_tells_its_counts_in_four_places() -> None:
    headers = {
        "X-Amzn-Bedrock-Input-Token-Count": "12",
        "x-amzn-bedrock-output-token-count": "7",
        "x-amzn-bedrock-cache-read-input-token-count": "100",
        "x-amzn-bedrock-invocation-latency": "900",
    }
    wanted = {"input_tokens": 112, "cache_read_tokens": 100, "output_tokens": 7}
    assert only(headers, "bedrock", "invoke") == wanted
    assert only({"ResponseMetadata": {"HTTPHeaders": headers}}) == wanted
    metrics = {"inputTokenCount": 12, "outputTokenCount": 7, "cacheReadInputTokenCount": 100}
    assert only([{"generation": "x"}, {"amazon-bedrock-invocationMetrics": metrics}]) == wanted
    event = {"metadata": {"usage": {"inputTokens": 4, "outputTokens": 2}, "metrics": {}}}
    assert only([{"messageStart": {}}, event], "bedrock") == {"input_tokens": 4, "output_tokens": 2}
    titan = {"inputTextTokenCount": 5, "results": [{"tokenCount": 61}]}
    assert only(titan, "bedrock") == {"input_tokens": 5, "output_tokens": 61}
    llama = {"generation": "x", "prompt_token_count": 25, "generation_token_count": 40}
    assert only(llama, "bedrock") == {"input_tokens": 25, "output_tokens": 40}
    two_lives = [{"ttl": "5m", "inputTokens": 1}, {"ttl": "1h", "inputTokens": 2}]
    written = {"inputTokens": 4, "cacheWriteInputTokens": 3, "cacheDetails": two_lives}
    assert only({"usage": written, "serviceTier": {"type": "priority"}}) == {
        "input_tokens": 7,
        "cache_write_tokens": 3,
        "cache_write_5m_tokens": 1,
        "cache_write_1h_tokens": 2,
    }
    assert refused({**headers, "x-amzn-bedrock-input-token-count": "1e3"}).endswith("-count")


def test_cohere_bills_units() -> None:
    end = {"type": "message-end", "delta": {"usage": {"billed_units": {"input_tokens": 4}}}}
    assert only([{"type": "message-start"}, end], "cohere") == {"input_tokens": 4}
    meta = {"billed_units": {"search_units": 3}}
    assert only({"results": [], "meta": meta}) == {"rerank_searches": 3}
    assert only({"meta": {"billed_units": {"classifications": 2}}}) == {"requests": 2}
    assert refused({"usage": {"tokens": {"input_tokens": 9}}}, "cohere") == "/response/usage"


def test_other_accents_of_chat() -> None:
    base = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
    for extra in (
        {"prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 12},
        {"num_cached_tokens": 8, "prompt_tokens_details": {"cached_tokens": 0}},
        {"cached_tokens": 8, "prompt_tokens_details": None},
    ):
        assert only({"usage": {**base, **extra}})["cache_read_tokens"] == 8
    qwen = {"cached_tokens": 2, "cache_creation": {"ephemeral_5m_input_tokens": 6}}
    assert only({"usage": {**base, "prompt_tokens_details": qwen}})["cache_write_5m_tokens"] == 6
    native = {"output": {}, "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}}
    assert only(native, "dashscope") == {"input_tokens": 3, "output_tokens": 2}
    ollama = {"model": "gemma3", "done": True, "prompt_eval_count": 26, "eval_count": 290}
    assert only([{"model": "gemma3", "done": False}, ollama]) == {
        "input_tokens": 26,
        "output_tokens": 290,
    }
    for api in (None, "embeddings"):
        assert only({"data": [], "usage": {"total_tokens": 6}}, "jina", api) == {"input_tokens": 6}


def test_a_cost_is_what_the_provider_says_it_charged() -> None:
    base = {"prompt_tokens": 1, "completion_tokens": 1}
    upstream = {"upstream_inference_cost": 0.5}
    for extra, nanos in (
        ({"cost": 1e-9}, 1),
        ({"cost": 0}, 0),
        ({"cost": 0.025, "is_byok": True, "cost_details": upstream}, 525_000_000),
        ({"cost": 0, "is_byok": True}, None),
        ({"cost_in_usd_ticks": 15}, 2),
        ({}, None),
    ):
        assert read({"usage": {**base, **extra}}, "openrouter")[0].cost_nanos == nanos
    exa = {"results": [{}], "costDollars": {"total": 0.007, "search": {"neural": 0.007}}}
    assert (read(exa)[0].cost_nanos, only(exa)) == (7_000_000, {"requests": 1})
    assert refused({"usage": {**base, "cost": -1}}) == "/response/usage/cost"
    assert refused({"usage": {**base, "cost": float("nan")}}) == "/response/usage/cost"


def test_credits_are_not_a_cost() -> None:
    tavily = {"query": "x", "results": [], "response_time": 1.67, "usage": {"credits": 2}}
    crawl = {"success": True, "creditsUsed": 2, "data": [{}, {}]}
    page = {"success": True, "data": {"metadata": {"creditsUsed": 1}}}
    assert [only(raw) for raw in (tavily, crawl, page)] == [
        {"requests": 1},
        {"requests": 1, "input_document_pages": 2},
        {"requests": 1, "input_document_pages": 1},
    ]
    assert all(read(raw)[0].cost_nanos is None for raw in (tavily, crawl, page))


def test_batch_lines_are_calls_of_their_own_at_batch_prices() -> None:
    chat = {"object": "chat.completion", "id": "c", "usage": {"prompt_tokens": 4}}
    message = {"type": "message", "usage": {"input_tokens": 4, "output_tokens": 0}}
    lines = [
        {"custom_id": "a", "response": {"status_code": 200, "body": chat}},
        {"custom_id": "b", "result": {"type": "succeeded", "message": message}},
        {"recordId": "c", "modelOutput": {"inputTextTokenCount": 4, "results": []}},
    ]
    for raw in (*lines, lines):
        found = read(raw)
        assert {counts(call)["input_tokens"] for call in found} == {4}
        assert {call.context["processing"] for call in found} == {"batch"}
    assert len(read(lines)) == 3


@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        (None, "/response"),
        ("text", "/response"),
        ([], "/response"),
        ({}, "/response"),
        ([["odd"]], "/response/0"),
        ({"error": {"message": "no", "type": "invalid_request_error"}}, "/response"),
        ({"choices": [], "usage": None}, "/response"),
        ({"choices": [], "usage": {}}, "/response"),
        ({"usage": []}, "/response/usage"),
        ({"usage": {"tokens": 5}}, "/response/usage"),
        ({"usage": {"prompt_tokens": None, "total_tokens": None}}, "/response/usage"),
        ({"usage": {"prompt_tokens": -1}}, "/response/usage/prompt_tokens"),
        ({"usage": {"prompt_tokens": 1.5}}, "/response/usage/prompt_tokens"),
        ({"usage": {"prompt_tokens": True}}, "/response/usage/prompt_tokens"),
        ({"usage": {"prompt_tokens": "1e3"}}, "/response/usage/prompt_tokens"),
        ({"usage": {"prompt_tokens": 2**53}}, "/response/usage/prompt_tokens"),
        ({"usage": {"prompt_tokens": 5, "total_tokens": 4}}, "/response/usage/total_tokens"),
        ({"usage": {"prompt_tokens": 5, "cached_tokens": 6}}, "/response/usage"),
        (
            {"usage": {"prompt_tokens": 5, "prompt_tokens_details": 3}},
            "/response/usage/prompt_tokens_details",
        ),
        ({"model": 7, "usage": {"prompt_tokens": 5}}, "/response/model"),
        ({"model": "a\x00", "usage": {"prompt_tokens": 5}}, "/response/model"),
        (
            {"chunks": [{}, {"usage": {"prompt_tokens": "-5"}}]},
            "/response/chunks/1/usage/prompt_tokens",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_at_its_place(raw: object, pointer: str) -> None:
    assert refused(raw) == pointer


def test_a_refusal_names_every_shape_and_key_that_was_tried() -> None:
    with pytest.raises(InvalidInput) as caught:
        read({"error": {}, "usage": {"other": 1}})
    assert all(reader.shape in caught.value.detail for reader in READERS)
    assert "prompt_tokens" in caught.value.detail
    assert "is an error" in caught.value.detail


def test_the_work_is_bounded() -> None:
    last = {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    chunks = [{"id": "a", "choices": [{"delta": {"content": "x"}}], "usage": None}] * 99_999
    assert only([*chunks, last]) == {"input_tokens": 3, "output_tokens": 2}
    deep: dict[str, Any] = last
    for _ in range(500):
        deep = {"response": deep}
    assert refused(deep) == "/response"
    advisor = {"type": "advisor_message", "model": "m", "input_tokens": 1}
    usage = {"input_tokens": 1, "output_tokens": 1, "iterations": [advisor] * 50_000}
    assert refused({"usage": usage}) == "/response/usage/iterations"
    assert refused([{"object": "list", **last["usage"]}] * 30_000) == "/response"
    wide: dict[str, Any] = {}
    for _ in range(7):
        wide = dict.fromkeys(("response", "body", "message", "data", "delta", "result"), wide)
    assert refused(wide) == "/response"


def gemini(name: str | None, prompt: int, **more: object) -> dict[str, object]:
    counts = {"promptTokenCount": prompt, "candidatesTokenCount": 1, "totalTokenCount": prompt + 1}
    named = {} if name is None else {"responseId": name}
    return named | {"candidates": [], "usageMetadata": counts} | more


def chat(name: str | None, prompt: int, **more: object) -> dict[str, object]:
    named = {} if name is None else {"id": name}
    return named | {"usage": {"prompt_tokens": prompt, "completion_tokens": 1}} | more


@pytest.mark.parametrize("wrapped", [lambda body: body, lambda body: {"response": body}])
@pytest.mark.parametrize("body", [gemini, chat])
def test_answers_of_different_names_are_different_calls(body: Any, wrapped: Any) -> None:
    """Put together as one stream's chunks, all but the last would be lost."""
    named = [wrapped(body(name, prompt)) for name, prompt in (("a", 7), ("b", 8), ("c", 9))]
    assert [counts(call)["input_tokens"] for call in read(named)] == [7, 8, 9]
    chunks = [body("a", 5), body("a", 6), body(None, 7), body("b", 8), body("b", 9)]
    assert [counts(call)["input_tokens"] for call in read(chunks)] == [7, 9]


def test_other_services_name_their_answers_too() -> None:
    converse = {"usage": {"inputTokens": 7, "outputTokens": 1}}
    bodies = [converse | {"ResponseMetadata": {"RequestId": name}} for name in ("a", "b")]
    assert len(read(bodies)) == 2
    billed = {"meta": {"billed_units": {"input_tokens": 7, "output_tokens": 1}}}
    assert len(read([billed | {"response_id": name} for name in ("a", "b")])) == 2
    assert len(read([billed | {"response_id": "a"}] * 2)) == 1


def test_a_stream_stays_one_call_whatever_its_chunks_are_called() -> None:
    """Only who counted and then is named otherwise is another: some name every chunk anew."""
    alone = [{"id": str(number), "choices": [{"delta": {}}]} for number in range(5)]
    assert only([*alone, chat("5", 9)])["input_tokens"] == 9
    assert only([chat(None, 5), chat("a", 9), chat(None, 10)])["input_tokens"] == 10
    events = [chat(f"event_{number}", number, type="usage") for number in (5, 9)]
    assert only(events)["input_tokens"] == 9
    steps = [chat("step_1", 5, object="thread.run.step"), chat("run_1", 9, object="thread.run")]
    assert only(steps)["input_tokens"] == 9
    whole = chat("a", 9, object="chat.completion.chunk", model="m")
    (call,) = read([whole, {"id": "b", "object": "chat.completion.chunk", "choices": []}])
    assert (call.model, counts(call)["input_tokens"]) == ("m", 9)
