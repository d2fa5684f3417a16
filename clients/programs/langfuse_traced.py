"""OpenAI's client under Langfuse's wrapper, which sends OpenTelemetry to its own address."""

import importlib
import os

os.environ |= {
    "LANGFUSE_HOST": os.environ["TOLLGATE_URL"],
    "LANGFUSE_BASE_URL": os.environ["TOLLGATE_URL"],
    "LANGFUSE_PUBLIC_KEY": "any",
    "LANGFUSE_SECRET_KEY": os.environ["TOLLGATE_KEY"],
}

from calls import make_calls
from langfuse import get_client, propagate_attributes


def whose(user: str) -> object:
    return propagate_attributes(user_id=user, session_id=f"session of {user}")


importlib.import_module("langfuse.openai")  # wraps OpenAI's clients
make_calls(whose)
get_client().shutdown()
