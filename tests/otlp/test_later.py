"""What arrives later completes the event of its call: by a correction, never by a second event."""

import asyncio
from datetime import timedelta

import httpx
import pytest

from app.core.clock import FrozenClock
from app.ingest.otlp import context
from app.runtime import Runtime
from tests.otlp.scenarios import call, events_of, send_spans, span, sums_of

pytestmark = pytest.mark.anyio
ANSWER = "chatcmpl-0123456789abcdef"


async def test_a_user_named_by_a_parent_that_arrives_later_gets_the_event(
    client: httpx.AsyncClient,
) -> None:
    await send_spans(client, call(3, parent=2))
    assert (await sums_of(client, "unknown"))["unknown"]["total_calls"] == 1
    await send_spans(client, span(1, ai__settings__context__userId="alice"))
    assert (await sums_of(client, "unknown"))["unknown"]["total_calls"] == 1
    await send_spans(client, span(2, parent=1))

    sums = await sums_of(client, "unknown", "alice")
    assert sums["unknown"]["total_calls"] == 0
    assert sums["unknown"]["total_cost_usd"] == "0"
    assert sums["alice"]["total_calls"] == 1
    [event] = await events_of(client, "alice")
    assert event["cost_usd"] == "0.0064"
    await send_spans(client, call(3, parent=2), span(2, parent=1))
    assert await sums_of(client, "unknown", "alice") == sums


async def test_cached_tokens_that_only_a_later_wrapper_knows_correct_the_event(
    client: httpx.AsyncClient,
) -> None:
    inner = call(2, parent=1, scope="opentelemetry.instrumentation.openai_v2", user__id="alice")
    outer = call(
        1,
        scope="pydantic-ai",
        end_ms=110,
        gen_ai__usage__cache_read__input_tokens=1024,
        user__id="alice",
    )
    await send_spans(client, inner)
    assert [one["cost_usd"] for one in await events_of(client, "alice")] == ["0.0064"]
    await send_spans(client, outer)

    [event] = await events_of(client, "alice")
    assert event["cost_usd"] == "0.00512"
    assert event["usage"]["cache_read_tokens"] == 1024
    sums = await sums_of(client, "alice")
    assert sums["alice"]["total_cost_usd"] == "0.00512"
    history = (await client.get(f"/v1/users/alice/events/{event['id']}")).json()
    assert history["corrections"]


async def test_a_wrapper_turns_out_to_sum_up_when_its_second_call_arrives(
    client: httpx.AsyncClient,
) -> None:
    outer = call(1, tokens=(2400, 680), end_ms=500, user__id="alice")
    await send_spans(client, outer)
    await send_spans(client, call(2, parent=1, start_ms=10, end_ms=90, user__id="alice"))
    assert (await sums_of(client, "alice"))["alice"]["total_calls"] == 1
    await send_spans(client, call(3, parent=1, start_ms=100, end_ms=190, user__id="alice"))

    sums = await sums_of(client, "alice")
    assert (sums["alice"]["total_calls"], sums["alice"]["input_tokens"]) == (2, 2400)


async def test_twins_in_different_traces_and_requests_are_one_call(
    client: httpx.AsyncClient,
) -> None:
    one = call(1, trace=1, scope="a", gen_ai__response__id=ANSWER, user__id="alice")
    other = call(
        2,
        trace=2,
        scope="b",
        end_ms=103,
        gen_ai__response__id=ANSWER,
        gen_ai__usage__cache_read__input_tokens=1024,
        user__id="alice",
    )
    await asyncio.gather(send_spans(client, one), send_spans(client, other))
    [event] = await events_of(client, "alice")
    assert event["usage"]["cache_read_tokens"] == 1024
    assert event["id"].endswith(ANSWER)


async def test_the_same_id_at_another_time_or_from_one_library_is_another_call(
    client: httpx.AsyncClient,
) -> None:
    for place, (scope, start_ms) in enumerate((("a", 0), ("b", 5000), ("a", 10_000)), 1):
        for name in ("chatcmpl-417", ANSWER):
            await send_spans(
                client,
                call(
                    place,
                    trace=len(name) * 10 + place,
                    scope=scope,
                    start_ms=start_ms,
                    end_ms=start_ms + 100,
                    gen_ai__response__id=name,
                    user__id="alice",
                ),
            )
    assert len(await events_of(client, "alice")) == 6


async def test_calls_alike_at_one_moment_of_one_library_stay_two(
    client: httpx.AsyncClient,
) -> None:
    await send_spans(client, *(call(place, trace=place, user__id="alice") for place in range(1, 5)))
    assert len(await events_of(client, "alice")) == 4


async def test_a_success_without_usage_is_kept_and_has_no_price(client: httpx.AsyncClient) -> None:
    await send_spans(client, call(1, tokens=(0, 0), user__id="alice"))
    [event] = await events_of(client, "alice")
    assert (event["cost_status"], event["cost_usd"]) == ("unpriced", None)
    assert event["context"]["usage"] == "unknown"


async def test_somebodys_own_correction_has_the_last_word(client: httpx.AsyncClient) -> None:
    await send_spans(client, call(2, parent=1, user__id="alice"))
    [event] = await events_of(client, "alice")
    path = f"/v1/users/alice/events/{event['id']}/void"
    assert (await client.post(path, json={"reason": "a test call"})).status_code == 200
    await send_spans(client, call(1, gen_ai__usage__cache_read__input_tokens=4, user__id="alice"))
    assert await events_of(client, "alice") == []
    assert (await sums_of(client, "alice"))["alice"]["total_calls"] == 0


async def test_what_was_told_is_forgotten_after_minutes_and_its_events_are_still_known(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    spans = [
        call(2, parent=1, gen_ai__response__id=ANSWER, user__id="alice"),
        span(1, session__id="s"),
    ]
    await send_spans(client, *spans)
    clock.advance(timedelta(minutes=31))
    assert await runtime.db.read(lambda tx: context.is_old(tx, clock.now()))
    assert await runtime.db.write(lambda tx: context.forget(tx, clock.now())) == 2
    assert not await runtime.db.read(lambda tx: context.is_old(tx, clock.now()))

    before = await sums_of(client, "alice")
    await send_spans(client, *spans)
    assert await sums_of(client, "alice") == before


async def test_a_thousand_spans_at_once_and_again_from_eight_senders(
    client: httpx.AsyncClient,
) -> None:
    spans = [
        call(place, trace=place, start_ms=place, end_ms=place + 50, user__id=f"u{place % 3}")
        for place in range(1, 601)
    ]
    batches = [spans[place::8] for place in range(8)]
    answers = await asyncio.gather(
        *(send_spans(client, *batch) for batch in (*batches, *batches)),
        send_spans(client, *spans),
    )
    assert {answer.status_code for answer in answers} == {200}
    sums = await sums_of(client, "u0", "u1", "u2")
    assert [each["total_calls"] for each in sums.values()] == [200, 200, 200]


@pytest.mark.parametrize("end_ms", range(100, 220, 10))
async def test_twins_without_an_answers_id_are_found_whenever_they_end(
    client: httpx.AsyncClient, end_ms: int
) -> None:
    """Both in traces of their own, in two requests, 2 ms apart."""
    first = call(1, scope="app.framework", end_ms=end_ms, user__id="alice")
    second = call(2, trace=2, scope="openinference.openai", end_ms=end_ms + 2, user__id="alice")
    await send_spans(client, first)
    await send_spans(client, second)
    assert (await sums_of(client, "alice"))["alice"]["total_calls"] == 1


async def test_a_late_parent_of_one_twin_leaves_what_the_other_says(
    client: httpx.AsyncClient,
) -> None:
    """The user stands on one of them alone, and the parent comes in a third request."""
    inner = call(2, parent=1, scope="opentelemetry.instrumentation.openai_v2", end_ms=101)
    other = call(3, trace=2, scope="openinference.openai", user__id="alice")
    outer = call(1, scope="app.framework", end_ms=300)
    await send_spans(client, inner, other)
    [before] = await events_of(client, "alice", "unknown")
    await send_spans(client, outer)
    [event] = await events_of(client, "alice", "unknown")
    assert (event["user"], event["id"]) == ("alice", before["id"])


async def test_twins_are_alike_where_one_counts_in_its_own_way(client: httpx.AsyncClient) -> None:
    """LangSmith's span of a call has LangChain's usage alone, the provider's library its own."""
    told = '{"input_tokens": 1200, "output_tokens": 340, "input_token_details": {"cache_read": 7}}'
    outer = call(
        1,
        scope="langsmith",
        gen_ai__usage__input_tokens=None,
        gen_ai__usage__output_tokens=None,
        langsmith__metadata__usage_metadata=told,
        user__id="alice",
    )
    inner = call(2, scope="com.anthropic.sdk.python", end_ms=101, user__id="alice")
    await send_spans(client, outer)
    await send_spans(client, inner)
    [event] = await events_of(client, "alice")
    assert event["usage"] == {"input_tokens": 1200, "output_tokens": 340, "cache_read_tokens": 7}
