"""The OpenAI Agents SDK under Logfire: a tool in two turns, streams, and models that refuse."""

import asyncio
import os

import logfire
from agents import (
    Agent,
    Model,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
)
from openai import APIStatusError, AsyncOpenAI

URL = os.environ["MODEL_URL"]


@function_tool
def look_up(word: str) -> str:
    """Say what a word means."""
    return f"The {word} is a star."


async def asked(model: Model) -> None:
    await Runner.run(Agent(name="short", model=model), "Say some words.")
    await Runner.run(Agent(name="tool", model=model, tools=[look_up]), "What is the sun?")
    streamed = Runner.run_streamed(Agent(name="stream", model=model), "Say some words.")
    async for _ in streamed.stream_events():
        pass


async def refused(model: Model) -> None:
    try:
        await Runner.run(Agent(name="short", model=model), "Say some words.")
    except APIStatusError:
        return
    raise SystemExit("a model that is refused was served")


async def talk(user: str) -> None:
    async with AsyncOpenAI(base_url=f"{URL}/v1", api_key=f"sk-{user}", max_retries=0) as client:
        await asked(OpenAIChatCompletionsModel("gpt-4o-mini", client))
        await asked(OpenAIResponsesModel("gpt-4.1-mini", client))
        for name in ("no-such-model", "busy-model", "broken-model"):
            await refused(OpenAIChatCompletionsModel(name, client))
            await refused(OpenAIResponsesModel(name, client))


logfire.configure(send_to_logfire=False, console=False, metrics=False)
logfire.instrument_openai_agents()
for user in ("ada", "ben"):
    with logfire.set_baggage(user_id=user):
        asyncio.run(talk(user))
logfire.shutdown()
