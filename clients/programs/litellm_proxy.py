"""LiteLLM's proxy with one of its callbacks, asked by OpenAI's client; the argument says which."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
from openai import APIStatusError, AsyncOpenAI, OpenAI

CALLBACK = sys.argv[1]
WAIT_S = 8
"""LiteLLM gathers for five seconds."""
START_S = 120
URL, SERVICE, KEY = (os.environ[name] for name in ("MODEL_URL", "TOLLGATE_URL", "TOLLGATE_KEY"))
ASKED = [{"role": "user", "content": "Say some words."}]
CHAT = {"model": "chat", "messages": ASKED}


def config() -> str:
    openai = {"api_base": f"{URL}/v1", "api_key": "sk-proxy", "max_retries": 0}
    models = {
        "chat": {"model": "openai/gpt-4o-mini"} | openai,
        "claude": {"model": "anthropic/claude-sonnet-4-5"} | openai | {"api_base": URL},
        "vectors": {"model": "openai/text-embedding-3-small"} | openai,
        "answers": {"model": "openai/gpt-4.1-mini"} | openai,
        "gone": {"model": "openai/no-such-model"} | openai | {"api_key": "sk-ada"},
    }
    return json.dumps(
        {
            "model_list": [
                {"model_name": name, "litellm_params": said} for name, said in models.items()
            ],
            "litellm_settings": {"callbacks": [CALLBACK], "num_retries": 0},
            "general_settings": {"custom_auth": "litellm_auth.authenticate"},
            "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        }
    )


def start(port: int) -> "subprocess.Popen[bytes]":
    """The proxy, once it serves."""
    Path("config.yaml").write_text(config())
    shutil.copy(Path(__file__).parent / "litellm_auth.py", ".")
    said = {
        "LITELLM_MASTER_KEY": "sk-master-3b9e0f5d7a1c48269d2e6f8b0c4a7e15",
        "OPENMETER_API_ENDPOINT": SERVICE,
        "OPENMETER_API_KEY": KEY,
        "GENERIC_LOGGER_ENDPOINT": f"{SERVICE}/v1/ingest/litellm",
        "GENERIC_LOGGER_HEADERS": f"Authorization=Bearer {KEY}",
        "OTEL_EXPORTER": "otlp_http",
        "OTEL_ENDPOINT": f"{SERVICE}/v1/traces",
        "OTEL_HEADERS": f"Authorization=Bearer {KEY}",
    }
    program = Path(sys.executable).parent / "litellm"
    process = subprocess.Popen(
        [program, *("--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port))],
        env=os.environ | said,
    )
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            httpx.get(f"http://127.0.0.1:{port}/health/liveliness", timeout=5).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.5)
        else:
            return process
    process.kill()
    raise SystemExit("the proxy does not serve")


def blocking(base: str) -> None:
    client = OpenAI(base_url=base, api_key="sk-ada", max_retries=0)
    for _ in range(2):
        client.chat.completions.create(**CHAT, user="ada")
    for _ in client.chat.completions.create(**CHAT, user="ada", stream=True):
        pass
    client.chat.completions.create(**CHAT | {"model": "claude", "max_tokens": 400}, user="ada")
    client.embeddings.create(model="vectors", input=["words"], user="ada")
    if CALLBACK != "openmeter":
        client.responses.create(model="answers", input="Say some words.", user="ada")
    try:
        client.chat.completions.create(**CHAT | {"model": "gone"}, user="ada")
    except APIStatusError:
        return
    raise SystemExit("an unknown model was served")


async def awaited(base: str) -> None:
    async with AsyncOpenAI(base_url=base, api_key="sk-ben", max_retries=0) as client:
        chat = client.chat.completions
        await asyncio.gather(*(chat.create(**CHAT, user="ben") for _ in range(3)))
        async for _ in await chat.create(
            **CHAT, user="ben", stream=True, stream_options={"include_usage": True}
        ):
            pass


with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    port = found.getsockname()[1]
proxy = start(port)
try:
    blocking(f"http://127.0.0.1:{port}/v1")
    asyncio.run(awaited(f"http://127.0.0.1:{port}/v1"))
    time.sleep(WAIT_S)
finally:
    proxy.terminate()
    proxy.wait(30)
