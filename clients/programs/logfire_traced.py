"""OpenAI's and Anthropic's clients under Logfire, which sends nothing to its own service."""

import asyncio
import os

import logfire
from anthropic import Anthropic, AsyncAnthropic
from calls import make_calls

ASKED = [{"role": "user", "content": "Say some words."}]
WHOLE = {"model": "claude-sonnet-4-5", "max_tokens": 400, "messages": ASKED}
URL = os.environ["MODEL_URL"]


def whose(user: str) -> object:
    """Logfire passes on a user as baggage; no span is around the calls."""
    return logfire.set_baggage(user_id=user)


def blocking() -> None:
    client = Anthropic(base_url=URL, api_key="sk-ada", max_retries=0)
    client.messages.create(**WHOLE)
    with client.messages.stream(**WHOLE) as stream:
        stream.get_final_message()


async def awaited() -> None:
    async def streamed() -> None:
        async with client.messages.stream(**WHOLE) as stream:
            await stream.get_final_message()

    async with AsyncAnthropic(base_url=URL, api_key="sk-ben", max_retries=0) as client:
        await asyncio.gather(streamed(), streamed(), client.messages.create(**WHOLE))


logfire.configure(send_to_logfire=False, console=False, metrics=False)
logfire.instrument_openai()
logfire.instrument_anthropic()
make_calls(whose)
with whose("ada"):
    blocking()
with whose("ben"):
    asyncio.run(awaited())
logfire.shutdown()
