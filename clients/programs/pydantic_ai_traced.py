"""Agents of Pydantic AI: a tool in two turns, streams, embeddings, and models that refuse."""

import asyncio
import os

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic_ai import Agent, Embedder
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from tracing import request_of, traced

URL = os.environ["MODEL_URL"]


def look_up(word: str) -> str:
    """Say what a word means."""
    return f"The {word} is a star."


async def asked(model: Model) -> None:
    await Agent(model).run("Say some words.")
    await Agent(model, tools=[look_up]).run("What is the sun?")
    async with Agent(model).run_stream("Say some words.") as answer:
        async for _ in answer.stream_text():
            pass


async def refused(model: Model) -> None:
    try:
        await Agent(model).run("Say some words.")
    except ModelHTTPError:
        return
    raise SystemExit("a model that is refused was served")


async def talk(user: str) -> None:
    openai = AsyncOpenAI(base_url=f"{URL}/v1", api_key=f"sk-{user}", max_retries=0)
    anthropic = AsyncAnthropic(base_url=URL, api_key=f"sk-{user}", max_retries=0)
    async with openai, anthropic:
        provider = OpenAIProvider(openai_client=openai)
        await asked(OpenAIChatModel("gpt-4o-mini", provider=provider))
        await asked(OpenAIResponsesModel("gpt-4.1-mini", provider=provider))
        own = AnthropicProvider(anthropic_client=anthropic)
        await asked(AnthropicModel("claude-sonnet-4-5", provider=own))
        embeds = OpenAIEmbeddingModel("text-embedding-3-small", provider=provider)
        await Embedder(embeds).embed_query("words")
        for name in ("no-such-model", "busy-model", "broken-model"):
            await refused(OpenAIChatModel(name, provider=provider))


with traced():
    Agent.instrument_all()
    Embedder.instrument_all()
    for user in ("ada", "ben"):
        with request_of(user):
            asyncio.run(talk(user))
