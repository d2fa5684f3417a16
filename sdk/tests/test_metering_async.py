"""Metered clients that await, and clients that ask first."""

import asyncio
from typing import Any

import anthropic
import openai
import pytest
from stand_in import WORDS, StandIn

from tests.faults.service import ADMIN, Service
from tollgate_client import AsyncTollgate, LimitReached, Tollgate

HELLO: list[Any] = [{"role": "user", "content": "Say something."}]
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_every_kind_of_awaited_call_is_billed_as_it_was_served(
    service: Service, models: StandIn, user: str, said: Any
) -> None:
    async with (
        AsyncTollgate(service.base, ADMIN, on_error="closed") as gate,
        openai.AsyncOpenAI(base_url=f"{models.url}/v1", api_key="k", max_retries=0) as plain,
        anthropic.AsyncAnthropic(base_url=models.url, api_key="k", max_retries=0) as plain_claude,
    ):
        chat = gate.meter(plain, user_id=user)
        claude = gate.meter(plain_claude, user_id=lambda: user)
        model = "gpt-4o-mini"
        await chat.chat.completions.create(model=model, messages=HELLO, user="1:2")
        await chat.responses.create(model="gpt-4.1-mini", input="Hi", user="3:4")
        stream = await chat.chat.completions.create(
            model=model, messages=HELLO, user="5:6", stream=True
        )
        words = [one.choices[0].delta.content or "" async for one in stream]
        assert "".join(words) == "".join(WORDS)
        async with claude.messages.stream(
            model="claude-sonnet-4-6",
            max_tokens=9,
            messages=HELLO,
            metadata={"user_id": "7:8"},
        ) as message:
            assert await message.get_final_text() == "".join(WORDS)
        stopped = await chat.chat.completions.create(
            model=model, messages=HELLO, user="9:10", stream=True
        )
        async for chunk in stopped:
            if chunk.choices[0].finish_reason:
                break
        cut = await chat.chat.completions.create(
            model=model, messages=HELLO, user="9:9:cut", stream=True
        )
        with pytest.raises(openai.APIConnectionError):
            async for _ in cut:
                pass
        assert await gate.flush()
        assert (gate.stats.refused, gate.stats.unmetered) == (0, 0)
    events = list(reversed(await asyncio.to_thread(said, f"/v1/users/{user}/events")))
    found = [(one["usage"]["input_tokens"], one["usage"]["output_tokens"]) for one in events]
    assert found[:5] == [(1, 2), (3, 4), (5, 6), (14, 8), (9, 10)]
    assert [bool(one.get("tags")) for one in events] == [False] * 5 + [True]


async def test_a_call_under_a_hold_is_let_in_or_refused_before_it_is_made(
    service: Service, models: StandIn, user: str, limit: Any, said: Any
) -> None:
    await asyncio.to_thread(limit, scope={"user_id": user}, amount=2)
    made = len(models.requests)
    async with (
        AsyncTollgate(service.base, ADMIN, on_error="closed") as gate,
        openai.AsyncOpenAI(base_url=f"{models.url}/v1", api_key="k", max_retries=0) as plain,
    ):
        chat = gate.meter(plain, user_id=user, before="hold")

        async def one() -> bool:
            try:
                await chat.chat.completions.create(
                    model="gpt-4o-mini", messages=HELLO, max_tokens=50, user="5:5"
                )
            except LimitReached as error:
                return error.binding is None
            return True

        assert sum(await asyncio.gather(*(one() for _ in range(6)))) == 2
        assert await gate.flush()
    assert len(models.requests) - made == 2
    usage = await asyncio.to_thread(said, f"/v1/users/{user}/usage")
    assert usage["total_calls"] == 2
    assert await asyncio.to_thread(said, f"/v1/users/{user}/holds") == []


def test_a_failed_call_under_a_hold_leaves_nothing_held(
    gate: Tollgate, models: StandIn, user: str, limit: Any, said: Any
) -> None:
    limit(scope={"user_id": user}, amount=1_000_000, metric="tokens")
    with openai.OpenAI(base_url=f"{models.url}/v1", api_key="k", max_retries=0) as plain:
        chat = gate.meter(plain, user_id=user, before="hold")
        with pytest.raises(openai.RateLimitError):
            chat.chat.completions.create(model="gpt-4o-mini", messages=HELLO, user="1:1:busy")
        list(
            chat.chat.completions.create(
                model="gpt-4o-mini", messages=HELLO, user="5:5", stream=True
            )
        )
    assert gate.flush()
    assert said(f"/v1/users/{user}/holds") == []
    (state,) = said(f"/v1/users/{user}/limits")
    assert (state["used"], state["held"]) == (10, 0)


def test_a_check_before_the_call_refuses_it(
    gate: Tollgate, models: StandIn, user: str, limit: Any
) -> None:
    limit(scope={"user_id": user}, amount=0)
    with openai.OpenAI(base_url=f"{models.url}/v1", api_key="k") as plain:
        chat = gate.meter(plain, user_id=user, before="check")
        with pytest.raises(LimitReached) as told:
            chat.chat.completions.create(model="gpt-4o-mini", messages=HELLO)
    assert told.value.retry_after_s is not None
