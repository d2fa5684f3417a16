"""Making calls and reading what became of them, as any client would."""

from typing import Any

import httpx


def call(**said: Any) -> dict[str, Any]:
    """One ordinary call of alice's."""
    usage = {"input_tokens": 100, "output_tokens": 20}
    event = {"user_id": "alice", "provider": "openai", "model": "gpt-4o-mini", "usage": usage}
    return event | said


async def post(client: httpx.AsyncClient, *events: dict[str, Any]) -> list[dict[str, Any]]:
    """Send events in one array and give what became of each."""
    answer = await client.post("/v1/events?results=all", json=list(events))
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


async def make_limit(client: httpx.AsyncClient, amount: object, **more: object) -> dict[str, Any]:
    """A limit on alice's calls in her billing period."""
    body = {"name": "calls", "scope": {"user_id": "alice"}, "metric": "calls"}
    body |= {"window": "billing_period", "amount": amount}
    answer = await client.post("/v1/limits", json=body | more)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def read(client: httpx.AsyncClient, path: str, **query: str) -> dict[str, Any]:
    """What a GET below alice's name answers."""
    answer = await client.get(f"/v1/users/alice/{path}", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def may(client: httpx.AsyncClient, **more: object) -> dict[str, Any]:
    """What a check before alice's next call answers."""
    answer = await client.post("/v1/limits/check", json={"user_id": "alice"} | more)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found
