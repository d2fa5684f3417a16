"""LangChain's models and agents, told by LangSmith or by OpenInference; the argument says which."""

import os
import sys

from anthropic import APIStatusError as AnthropicError
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.tools import tool
from langchain_core.tracers.langchain import wait_for_all_tracers
from langchain_openai import ChatOpenAI
from openai import APIStatusError
from tracing import request_of, traced

TOLD_BY = sys.argv[1]
URL = os.environ["MODEL_URL"]


@tool
def look_up(word: str) -> str:
    """Say what a word means."""
    return f"The {word} is a star."


def asked(model: BaseChatModel, user: str) -> None:
    whose = {"metadata": {"user_id": user, "session_id": f"session of {user}"}}
    model.invoke("Say some words.", config=whose)
    for _ in model.stream("Say some words.", config=whose):
        pass
    question = {"messages": [("user", "What is the sun?")]}
    create_agent(model, [look_up]).invoke(question, config=whose)


def refused(model: BaseChatModel, user: str) -> None:
    try:
        model.invoke("Say some words.", config={"metadata": {"user_id": user}})
    except (APIStatusError, AnthropicError):
        return
    raise SystemExit("a model that is refused was served")


def talk(user: str) -> None:
    said = {"base_url": f"{URL}/v1", "api_key": f"sk-{user}", "max_retries": 0}
    asked(ChatOpenAI(model="gpt-4o-mini", stream_usage=True, **said), user)
    own = said | {"base_url": URL, "max_tokens": 400}
    asked(ChatAnthropic(model="claude-sonnet-4-5", **own), user)
    ChatOpenAI(model="gpt-4.1-mini", use_responses_api=True, **said).invoke(
        "Say some words.", config={"metadata": {"user_id": user}}
    )
    for name in ("no-such-model", "busy-model", "broken-model"):
        refused(ChatOpenAI(model=name, **said), user)


with traced() as provider:
    if TOLD_BY == "openinference":
        from openinference.instrumentation.langchain import LangChainInstrumentor

        LangChainInstrumentor().instrument(tracer_provider=provider)
    for user in ("ada", "ben"):
        with request_of(user):
            talk(user)
    wait_for_all_tracers()
