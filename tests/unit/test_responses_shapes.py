"""Answers in the shapes that each provider's API writes, with right, wrong and no hints."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.core.counters import as_mapping
from app.core.errors import InvalidInput
from app.ingest.responses.billed import Billed
from app.ingest.responses.read import read_response

FIXTURE = Path(__file__).parents[1] / "fixtures" / "responses" / "shapes.json"
Case = dict[str, Any]
CASES: dict[str, Case] = {case["name"]: case for case in json.loads(FIXTURE.read_text())}
SPEAKING = [name for name, case in CASES.items() if "hinted" not in case]
ALONE = [name for name, case in CASES.items() if isinstance(case["raw"], dict)]
SPELLINGS = {
    "anthropic": ("Anthropic", "claude", "vertex_ai", "amazon-bedrock"),
    "azure": ("azure_openai", "Azure OpenAI"),
    "bedrock": ("amazon-bedrock", "AWS"),
    "google": ("google-gla", "vertex_ai", "Gemini"),
    "openai": ("OpenAI", "open_ai", "some-gateway"),
}


def calls(raw: object, provider: str | None, api: str | None) -> list[dict[str, Any]] | None:
    """The counters of each call that are not zero; None where the answer is refused."""
    try:
        found = read_response(raw, provider=provider, api=api)
    except InvalidInput as refusal:
        (error,) = refusal.extra["errors"]
        assert error["pointer"].startswith("/response")
        return None
    return [{k: v for k, v in as_mapping(call.usage).items() if v} for call in found]


def only(raw: object, provider: str | None = None, api: str | None = None) -> Billed:
    (call,) = read_response(raw, provider=provider, api=api)
    return call


@pytest.mark.parametrize("name", CASES)
def test_an_answer_bills_what_its_provider_means(name: str) -> None:
    case = CASES[name]
    for provider in (case.get("provider"), *SPELLINGS.get(case.get("provider", ""), ())):
        assert calls(case["raw"], provider, case.get("api")) == case["calls"]


@pytest.mark.parametrize("name", SPEAKING)
def test_an_answer_speaks_for_itself(name: str) -> None:
    case = CASES[name]
    for provider, api in ((None, None), (case.get("provider"), None), (None, case.get("api"))):
        assert calls(case["raw"], provider, api) == case["calls"]


@pytest.mark.parametrize("name", ALONE)
def test_a_list_of_one_answer_bills_the_same(name: str) -> None:
    case = CASES[name]
    for raw in ([case["raw"]], {"chunks": [case["raw"]]}):
        assert calls(raw, case.get("provider"), case.get("api")) == case["calls"]


def test_a_model_refused_before_any_output_is_not_billed() -> None:
    def step(kind: str, model: str, given: int) -> Case:
        return {"type": kind, "model": model, "input_tokens": 10, "output_tokens": given}

    second = step("fallback_message", "claude-opus-4-8", 30)
    for given, models in ((0, ["claude-opus-4-8"]), (4, ["claude-opus-4-8", "claude-fable-5"])):
        passes = [step("message", "claude-fable-5", given), second]
        usage = {"input_tokens": 10, "output_tokens": 30, "iterations": passes}
        whole = {"type": "message", "model": "claude-opus-4-8", "usage": usage}
        for raw in (whole, usage):
            found = read_response(raw, provider="anthropic", api=None)
            assert [call.model for call in found] == models


def test_a_message_start_that_is_sent_twice_begins_one_message() -> None:
    def begin(name: str) -> Case:
        return {"type": "message_start", "message": {"id": name, "usage": {"input_tokens": 7}}}

    start, other = begin("m"), begin("n")
    end = {"type": "message_delta", "usage": {"output_tokens": 2}}
    once = {"input_tokens": 7, "output_tokens": 2}
    assert calls([start, start, end], "anthropic", None) == [once]
    assert calls([start, end, other, end], "anthropic", None) == [once, once]


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        *((12, 12), (12.0, 12), ("12", 12), (12.5, None), ("1e3", None), ("-1", None)),
        *(("", None), ("\u0661", None), (1e300, None), (float("inf"), None), ("9" * 17, None)),
    ],
)
def test_a_count_may_be_written_as_a_whole_float_or_as_digits(
    sent: object, read: int | None
) -> None:
    found = calls({"usage": {"prompt_tokens": sent, "completion_tokens": 1}}, "openai", None)
    assert found == (None if read is None else [{"input_tokens": read, "output_tokens": 1}])


def test_what_selects_a_price_is_reported_with_the_usage() -> None:
    chat = {"prompt_tokens": 1, "completion_tokens": 1}
    for raw, context in (
        ({"service_tier": "flex", "usage": chat}, {"service_tier": "flex"}),
        ({"usage": {**chat, "search_context_size": "high"}}, {"search_context_size": "high"}),
        (
            {"usage": {"inputTokens": 1, "outputTokens": 1}, "serviceTier": {"type": "priority"}},
            {"service_tier": "priority"},
        ),
        (
            {"usage": {"input_tokens": 1, "output_tokens": 1, "inference_geo": "us"}},
            {"inference_geo": "us"},
        ),
    ):
        assert only(raw).context == context


def test_a_charge_is_kept_whatever_it_is_for() -> None:
    video = {"video": {"url": "u"}, "usage": {"cost_in_usd_ticks": 4_000_000_000}}
    assert only(video, "xai", "videos").cost_nanos == 400_000_000
    picture = {"data": [{"url": "u"}], "usage": {"cost_in_usd_ticks": 200_000_000}}
    assert only(picture, "xai", "images").cost_nanos == 20_000_000
