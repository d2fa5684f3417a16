"""One call of a model, by hand, for programs whose client only tells of calls."""

import os
from typing import Any

import httpx

USERS = ("ada", "ben", "ada")


def ask(user: str, model: str = "gpt-4o-mini") -> tuple[int, dict[str, Any]]:
    """Ask for words; the status, and the answer or what is wrong."""
    body = {"model": model, "user": user, "messages": [{"role": "user", "content": "Say words."}]}
    address = os.environ["MODEL_URL"] + "/v1/chat/completions"
    answer = httpx.post(address, json=body, trust_env=False, timeout=30)
    found: dict[str, Any] = answer.json()
    return answer.status_code, found


def flat(user: str, model: str = "gpt-4o-mini") -> tuple[str, dict[str, Any]]:
    """Ask, and say it with the names that metering clients are given: an id, and properties."""
    status, answer = ask(user, model)
    usage = answer.get("usage", {})
    said = {
        "provider": "openai",
        "model": model,
        "status_code": status,
        "prompt_tokens": usage.get("prompt_tokens", 0),
        "completion_tokens": usage.get("completion_tokens", 0),
        "cached_tokens": usage.get("prompt_tokens_details", {}).get("cached_tokens", 0),
        "reasoning_tokens": usage.get("completion_tokens_details", {}).get("reasoning_tokens", 0),
    }
    return answer.get("id", f"failed-{user}-{model}"), said
