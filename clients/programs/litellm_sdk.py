"""LiteLLM as a library, with one of its callbacks; the argument says which."""

import asyncio
import os
import sys
import time

import litellm

CALLBACK = sys.argv[1]
WAIT_S = 8
"""LiteLLM gathers for five seconds."""
URL, SERVICE, KEY = (os.environ[name] for name in ("MODEL_URL", "TOLLGATE_URL", "TOLLGATE_KEY"))
ASKED = [{"role": "user", "content": "Say some words."}]
OPENAI = {"model": "openai/gpt-4o-mini", "api_base": f"{URL}/v1", "num_retries": 0}
USAGE_TOO = {"stream": True, "stream_options": {"include_usage": True}}
BEN = "ada" if CALLBACK == "otel" else "ben"
"""Its spans name no user, so the environment names one for all of them."""


def blocking() -> None:
    whose = {"user": "ada", "api_key": "sk-ada", "messages": ASKED}
    for _ in range(2):
        litellm.completion(**OPENAI, **whose)
    for _ in litellm.completion(**OPENAI, **whose, **USAGE_TOO):
        pass
    said = {"api_base": URL, "model": "anthropic/claude-sonnet-4-5", "max_tokens": 400}
    litellm.completion(**said, **whose)


async def awaited() -> None:
    whose = {"user": BEN, "api_key": f"sk-{BEN}", "messages": ASKED}
    await asyncio.gather(*(litellm.acompletion(**OPENAI, **whose) for _ in range(2)))
    async for _ in await litellm.acompletion(**OPENAI, **whose, **USAGE_TOO):
        pass
    said = {"api_base": URL, "model": "anthropic/claude-sonnet-4-5", "max_tokens": 400}
    await litellm.acompletion(**said, **whose)
    del whose["messages"]
    embeddings = {"model": "openai/text-embedding-3-small", "api_base": f"{URL}/v1"}
    await litellm.aembedding(**embeddings, **whose, input=["words"])
    if CALLBACK != "openmeter":
        answers = {"model": "openai/gpt-4.1-mini", "api_base": f"{URL}/v1"}
        await litellm.aresponses(**answers, **whose, input="Say some words.")
    try:
        unknown = {"model": "openai/no-such-model", "max_retries": 0, "messages": ASKED}
        await litellm.acompletion(**OPENAI | unknown, **whose)
    except (litellm.NotFoundError, litellm.BadRequestError):
        await asyncio.sleep(WAIT_S)
        return
    raise SystemExit("an unknown model was served")


os.environ |= {
    "OPENMETER_API_ENDPOINT": SERVICE,
    "OPENMETER_API_KEY": KEY,
    "GENERIC_LOGGER_ENDPOINT": f"{SERVICE}/v1/ingest/litellm",
    "GENERIC_LOGGER_HEADERS": f"Authorization=Bearer {KEY}",
    "OTEL_EXPORTER": "otlp_http",
    "OTEL_ENDPOINT": f"{SERVICE}/v1/traces",
    "OTEL_HEADERS": f"Authorization=Bearer {KEY}",
}
litellm.callbacks = [CALLBACK]
if CALLBACK == "openmeter":  # the others tell nothing of calls that block
    blocking()
asyncio.run(awaited())
if CALLBACK == "otel":
    time.sleep(WAIT_S)
