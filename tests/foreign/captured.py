"""Requests that real clients sent, and what they must become."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

FOLDER = Path(__file__).parents[1] / "fixtures" / "foreign"
MOVED = {"/v1/litellm/events": "/v1/ingest/litellm"}
NOW = datetime(2026, 11, 21, 2, tzinfo=UTC)
"""After the captures: they were made on two days, one of them long before."""


def captured(*clients: str) -> list[str]:
    """The names of these clients' scenarios."""
    return sorted(
        path.stem for path in FOLDER.glob("*.json") if path.stem.partition("-")[0] in clients
    )


def scenario(name: str) -> dict[str, Any]:
    """The requests of a scenario and the events that are expected."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


async def replay(client: httpx.AsyncClient, name: str) -> list[httpx.Response]:
    """Send the requests of a scenario again; the key is the test's."""
    answers = []
    for request in scenario(name)["requests"]:
        path = MOVED.get(request["path"], request["path"])
        answers.append(
            await client.request(
                request["method"],
                f"{path}?backfill=true",
                content=request["body"].encode(),
                headers=request["headers"],
            )
        )
    return answers


async def events_of(client: httpx.AsyncClient, user_id: str) -> list[dict[str, Any]]:
    """Every event of a user."""
    answer = await client.get(f"/v1/users/{user_id}/events?limit=1000")
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def figures(event: dict[str, Any]) -> dict[str, Any]:
    """What the captures expect of an event, of one of ours."""
    usage = event["usage"]
    unknown = (event.get("context") or {}).get("usage") == "unknown"
    failed = event["status_code"] >= 400
    counted = not unknown and not failed
    return {
        "user": event["user_id"],
        "model": event["model"],
        "input_tokens": usage.get("input_tokens", 0) if counted else None,
        "output_tokens": usage.get("output_tokens", 0) if counted else None,
        "cached_input_tokens": usage.get("cache_read_tokens", 0),
        "cache_write_tokens": usage.get("cache_write_tokens", 0),
        "reasoning_tokens": usage.get("output_reasoning_tokens", 0),
        "failed": failed,
        "usage_known": counted,
    }


def expected_figures(event: dict[str, Any]) -> dict[str, Any]:
    """The same of an event that a capture expects."""
    return {
        "user": event["user"],
        "model": event.get("requested_model", "").removeprefix("openai/"),
        "input_tokens": event.get("input_tokens"),
        "output_tokens": event.get("output_tokens"),
        "cached_input_tokens": event.get("cached_input_tokens") or 0,
        "cache_write_tokens": event.get("cache_write_tokens") or 0,
        "reasoning_tokens": event.get("reasoning_tokens") or 0,
        "failed": event["status"] == "error",
        "usage_known": event["usage_known"],
    }


def in_order(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events in an order that does not depend on when they came."""
    return sorted(events, key=lambda event: json.dumps(event, sort_keys=True))
