"""Metered clients of `openai` and `anthropic`: what is billed is what the models served."""

import gc
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import openai
import pytest
from stand_in import WORDS, StandIn

from tollgate_client import Tollgate, acting_for, meter
from tollgate_client.calls import Call
from tollgate_client.shapes import sent_of

HELLO: list[Any] = [{"role": "user", "content": "Say something."}]


@pytest.fixture
def chat(gate: Tollgate, models: StandIn, user: str) -> Any:
    client = openai.OpenAI(base_url=f"{models.url}/v1", api_key="k", max_retries=0)
    with client:
        yield gate.meter(client, user_id=user, task_type="test")


@pytest.fixture
def claude(gate: Tollgate, models: StandIn, user: str) -> Any:
    with anthropic.Anthropic(base_url=models.url, api_key="k", max_retries=0) as client:
        yield gate.meter(client, user_id=user)


@pytest.fixture
def billed(gate: Tollgate, user: str, said: Any) -> Callable[[], list[dict[str, Any]]]:
    """The user's events, oldest first, once everything has arrived."""

    def read() -> list[dict[str, Any]]:
        assert gate.flush()
        assert gate.stats.refused == 0
        return list(reversed(said(f"/v1/users/{user}/events")))

    return read


def counts(event: dict[str, Any]) -> tuple[int, int]:
    usage = event["usage"]
    return usage.get("input_tokens", 0), usage.get("output_tokens", 0)


def test_every_kind_of_call_is_billed_as_it_was_served(chat: Any, claude: Any, billed: Any) -> None:
    chat.chat.completions.create(model="gpt-4o-mini", messages=HELLO, user="100:20")
    chat.responses.create(model="gpt-4.1-mini", input="Hello", user="200:30")
    chat.embeddings.create(model="text-embedding-3-small", input="Hello", user="300:0")
    claude.messages.create(
        model="claude-sonnet-4-6", max_tokens=99, messages=HELLO, metadata={"user_id": "400:50"}
    )
    events = billed()
    assert [counts(one) for one in events] == [(100, 20), (200, 30), (300, 0), (407, 50)]
    assert [one["cost_status"] for one in events] == ["priced"] * 4
    assert [one["provider"] for one in events] == ["openai"] * 3 + ["anthropic"]
    assert [one["endpoint"] for one in events] == [
        *("/chat/completions", "/responses", "/embeddings", "/v1/messages")
    ]
    assert events[0]["usage"]["cache_read_tokens"] == 50
    assert events[1]["usage"]["web_searches"] == 1
    assert events[0]["task_type"] == "test"
    assert all(one["latency_ms"] > 0 for one in events)


def test_streams_are_billed_as_served_and_handed_on_as_asked(
    chat: Any, claude: Any, billed: Any, models: StandIn
) -> None:
    stream = chat.chat.completions.create(
        model="gpt-4o-mini", messages=HELLO, user="100:20", stream=True
    )
    assert "".join(one.choices[0].delta.content or "" for one in stream) == "".join(WORDS)
    assert models.requests[-1]["stream_options"] == {"include_usage": True}
    asked = chat.chat.completions.create(
        model="gpt-4o-mini",
        messages=HELLO,
        user="101:20",
        stream=True,
        stream_options={"include_usage": True},
    )
    assert list(asked)[-1].usage.prompt_tokens == 101
    list(chat.responses.create(model="gpt-4.1-mini", input="Hello", user="200:30", stream=True))
    list(
        claude.messages.create(
            model="claude-sonnet-4-6",
            max_tokens=99,
            messages=HELLO,
            stream=True,
            metadata={"user_id": "400:50"},
        )
    )
    events = billed()
    assert [counts(one) for one in events] == [(100, 20), (101, 20), (200, 30), (407, 50)]
    assert all(one["ttft_ms"] > 0 for one in events)
    assert not any("usage_estimated" in (one.get("tags") or {}) for one in events)


def test_the_helpers_of_the_libraries_are_metered(chat: Any, claude: Any, billed: Any) -> None:
    with claude.messages.stream(
        model="claude-sonnet-4-6", max_tokens=9, messages=HELLO, metadata={"user_id": "1:2"}
    ) as stream:
        assert stream.get_final_text() == "".join(WORDS)
    with chat.chat.completions.stream(model="gpt-4o-mini", messages=HELLO, user="3:4") as events:
        assert events.get_final_completion().choices[0].message.content == "".join(WORDS)
    with chat.responses.stream(model="gpt-4.1-mini", input="Hello", user="5:6") as events:
        assert events.get_final_response().usage.total_tokens == 11
    chat.with_options(timeout=9).chat.completions.create(
        model="gpt-4o-mini", messages=HELLO, user="7:8"
    )
    assert [counts(one) for one in billed()] == [(8, 2), (3, 4), (5, 6), (7, 8)]


def test_raw_answers_are_metered(chat: Any, claude: Any, billed: Any) -> None:
    raw = chat.chat.completions.with_raw_response
    answer = raw.create(model="gpt-4o-mini", messages=HELLO, user="1:2")
    assert answer.parse().usage.prompt_tokens == 1
    unread = chat.chat.completions.with_streaming_response
    with unread.create(model="gpt-4o-mini", messages=HELLO, user="3:4") as answer:
        assert json.loads(b"".join(answer.iter_bytes()))["usage"]["prompt_tokens"] == 3
    lines = claude.messages.with_streaming_response
    with lines.create(
        model="claude-sonnet-4-6",
        max_tokens=9,
        messages=HELLO,
        stream=True,
        metadata={"user_id": "5:6"},
    ) as answer:
        assert any("message_stop" in line for line in answer.iter_lines())
    assert [counts(one) for one in billed()] == [(1, 2), (3, 4), (12, 6)]


def test_who_stops_at_the_finish_reason_is_billed_exactly(chat: Any, billed: Any) -> None:
    for chunk in chat.chat.completions.create(
        model="gpt-4o-mini", messages=HELLO, user="100:20", stream=True
    ):
        if chunk.choices[0].finish_reason:
            break
    (event,) = billed()
    assert (counts(event), event.get("tags")) == ((100, 20), None) or not event["tags"]


def test_a_stream_that_breaks_is_estimated_and_says_so(
    chat: Any, claude: Any, billed: Any, gate: Tollgate
) -> None:
    with pytest.raises(openai.APIConnectionError):
        list(
            chat.chat.completions.create(
                model="gpt-4o-mini", messages=HELLO, user="100:20:cut", stream=True
            )
        )
    with pytest.raises(Exception):  # noqa: B017, PT011
        list(
            claude.messages.create(
                model="claude-sonnet-4-6",
                max_tokens=9,
                messages=HELLO,
                stream=True,
                metadata={"user_id": "400:50:cut"},
            )
        )
    first, second = billed()
    said = sum(map(len, WORDS[:4]))
    assert counts(first)[1] == -(-said // 4)
    assert 4 <= counts(first)[0] <= 10
    assert counts(second)[0] == 407, "the input was counted by the provider"
    assert [one["tags"]["usage_estimated"] for one in (first, second)] == ["the stream broke"] * 2
    assert all(one["status_code"] >= 400 for one in (first, second))
    assert gate.stats.estimated == 2


def test_a_stream_that_is_left_is_estimated_and_says_so(chat: Any, billed: Any) -> None:
    left = chat.chat.completions.create(
        model="gpt-4o-mini", messages=HELLO, user="100:20", stream=True
    )
    next(left)
    left.close()
    dropped = chat.responses.create(model="gpt-4.1-mini", input="Hi", user="100:20", stream=True)
    next(dropped)
    next(dropped)
    dropped.response.close()
    del dropped
    gc.collect()
    events = billed()
    assert [one["tags"]["usage_estimated"] for one in events] == [
        "the stream was closed",
        "the stream was left",
    ]
    assert [one["status_code"] for one in events] == [200, 200]


def test_a_failed_call_is_an_error_without_usage(chat: Any, billed: Any) -> None:
    with pytest.raises(openai.RateLimitError):
        chat.chat.completions.create(model="gpt-4o-mini", messages=HELLO, user="1:1:busy")
    away = chat.with_options(base_url="http://127.0.0.1:9/v1")
    with pytest.raises(openai.APIConnectionError):
        away.chat.completions.create(model="gpt-4o-mini", messages=HELLO)
    busy, lost = billed()
    assert (busy["status_code"], lost["status_code"]) == (429, 599)
    assert busy["error_message"] == "RateLimitError: rate_limit_exceeded"
    assert counts(busy) == counts(lost) == (0, 0)


def test_what_was_said_never_leaves_the_process(
    chat: Any, gate: Tollgate, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[bytes] = []
    monkeypatch.setattr(gate.delivery, "put", lambda line: lines.append(line) or 1)
    chat.chat.completions.create(model="gpt-4o-mini", messages=HELLO, user="1:1")
    chat.responses.create(model="gpt-4.1-mini", input="Hello", user="1:1")
    chat.embeddings.create(model="text-embedding-3-small", input="Hello", user="1:0")
    sent = b"".join(lines)
    assert len(lines) == 3
    for secret in (b"Say something", b"answer", b"private question", b"0.5", b'embedding":['):
        assert secret not in sent


def test_whose_call_it_is_may_be_told_around_it(
    gate: Tollgate, models: StandIn, user: str, said: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with openai.OpenAI(base_url=f"{models.url}/v1", api_key="k") as plain:
        client = meter(plain, gate)
        assert isinstance(client, openai.OpenAI)
        with acting_for(user):
            client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, user="9:9")
        client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, user="9:9")
        plain.chat.completions.create(model="gpt-4o-mini", messages=HELLO, user="9:9")
    assert gate.flush()
    assert [counts(one) for one in said(f"/v1/users/{user}/events")] == [(9, 9)]
    assert gate.stats.unmetered == 1
    assert "nobody said whose it is" in caplog.text


def test_only_such_clients_can_be_metered(gate: Tollgate, models: StandIn) -> None:
    with pytest.raises(TypeError, match="openai"):
        meter(object(), gate)
    with pytest.raises(TypeError, match="AsyncTollgate"):
        meter(openai.AsyncOpenAI(base_url=models.url, api_key="k"), gate, before="hold")


def test_a_client_of_azure_is_metered_as_azure(
    gate: Tollgate, models: StandIn, user: str, billed: Any
) -> None:
    with openai.AzureOpenAI(
        azure_endpoint=models.url, api_key="k", api_version="2024-10-21", max_retries=0
    ) as plain:
        client = gate.meter(plain, user_id=user)
        client.chat.completions.create(model="my-deployment", messages=HELLO, user="9:8")
    (event,) = billed()
    assert (event["provider"], counts(event)) == ("azure", (9, 8))


def test_a_response_in_the_background_is_counted_as_unmetered(
    gate: Tollgate, user: str, billed: Any
) -> None:
    sent = sent_of("/responses", {"model": "gpt-4.1-mini", "background": True})
    call = Call(gate, user, "openai", sent, {}, swallow=False)
    call.answered({"id": "resp_1", "object": "response", "status": "queued", "usage": None})
    assert billed() == []
    assert gate.stats.unmetered == 1


def test_many_threads_are_billed_exactly_what_was_served(
    chat: Any, models: StandIn, gate: Tollgate, user: str, said: Any
) -> None:
    before = len(models.served)

    def call(place: int) -> None:
        wish = {"model": "gpt-4o-mini", "messages": HELLO, "user": f"{place}:{place * 2}"}
        if place % 2:
            list(chat.chat.completions.create(**wish, stream=True))
        else:
            chat.chat.completions.create(**wish)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(1, 101)))
    assert gate.flush()
    served = models.served[before:]
    usage = said(f"/v1/users/{user}/usage")
    assert (usage["total_calls"], usage["input_tokens"], usage["output_tokens"]) == (
        len(served),
        sum(taken for taken, _ in served),
        sum(given for _, given in served),
    )
    assert len(served) == 100
