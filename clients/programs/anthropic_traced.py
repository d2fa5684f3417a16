"""Anthropic's client, which traces itself, under OpenLLMetry's instrumentation too."""

import asyncio
import os

from anthropic import Anthropic, AsyncAnthropic, NotFoundError
from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor
from tracing import request_of, traced

ASKED = [{"role": "user", "content": "Say some words."}]
WHOLE = {"model": "claude-sonnet-4-5", "max_tokens": 400, "messages": ASKED}
URL = os.environ["MODEL_URL"]


def blocking() -> None:
    client = Anthropic(base_url=URL, api_key="sk-ada", max_retries=0)
    said = {"metadata": {"user_id": "ada"}}
    client.messages.create(**WHOLE, **said)
    for _ in client.messages.create(**WHOLE, **said, stream=True):
        pass
    with client.messages.stream(**WHOLE, **said) as stream:
        stream.get_final_message()
    try:
        client.messages.create(**WHOLE | {"model": "no-such-model"}, **said)
    except NotFoundError:
        return
    raise SystemExit("an unknown model was served")


async def awaited() -> None:
    said = {"metadata": {"user_id": "ben"}}
    async with AsyncAnthropic(base_url=URL, api_key="sk-ben", max_retries=0) as client:
        await client.messages.create(**WHOLE, **said)
        async with client.messages.stream(**WHOLE, **said) as stream:
            await stream.get_final_message()


with traced() as provider:
    AnthropicInstrumentor().instrument(tracer_provider=provider)
    with request_of("ada"):
        blocking()
    with request_of("ben"):
        asyncio.run(awaited())
