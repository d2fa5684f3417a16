"""The calls that each traced program makes: two people, blocking and awaited, streams too."""

import asyncio
import os
from collections.abc import Callable
from contextlib import AbstractContextManager

from openai import AsyncOpenAI, NotFoundError, OpenAI

MODEL = "gpt-4o-mini"
ASKED = [{"role": "user", "content": "Say some words."}]
URL = os.environ["MODEL_URL"]

Naming = Callable[[str], AbstractContextManager[object]]


def make_calls(naming: Naming) -> None:
    """Seven blocking calls for ada, one of them refused, and four awaited ones for ben.

    `naming` says for the calls within it whose they are, the way the program has for that.
    """
    with naming("ada"):
        _blocking(OpenAI(base_url=f"{URL}/v1", api_key="sk-ada", max_retries=0))
    with naming("ben"):
        asyncio.run(_awaited())


def _blocking(client: OpenAI) -> None:
    chat = client.chat.completions
    for _ in range(3):
        chat.create(model=MODEL, messages=ASKED, user="ada")
    for _ in chat.create(
        **{"model": MODEL, "messages": ASKED, "user": "ada", "stream": True},
        stream_options={"include_usage": True},
    ):
        pass
    client.embeddings.create(model="text-embedding-3-small", input="words", user="ada")
    client.responses.create(model="gpt-4.1-mini", input="Say some words.", user="ada")
    try:
        chat.create(model="no-such-model", messages=ASKED, user="ada")
    except NotFoundError:
        return
    raise SystemExit("an unknown model was served")


async def _awaited() -> None:
    async with AsyncOpenAI(base_url=f"{URL}/v1", api_key="sk-ben", max_retries=0) as client:
        chat = client.chat.completions
        both = [chat.create(model=MODEL, messages=ASKED, user="ben") for _ in range(2)]
        await asyncio.gather(*both)
        async for _ in await chat.create(
            **{"model": MODEL, "messages": ASKED, "user": "ben", "stream": True},
            stream_options={"include_usage": True},
        ):
            pass
        async for _ in await client.responses.create(
            model="gpt-4.1-mini", input="Say some words.", user="ben", stream=True
        ):
            pass
