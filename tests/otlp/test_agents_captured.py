"""What coding agents really sent of two calls each is those two calls, however often it is sent."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.core.clock import FrozenClock
from tests.otlp.scenarios import events_of, record, send_records, sums_of

pytestmark = pytest.mark.anyio
FOLDER = Path(__file__).parents[1] / "fixtures" / "agents"
AGENTS = sorted(path.stem for path in FOLDER.glob("*.json"))
PROVIDERS = {"claude": "anthropic", "codex": "openai", "gemini": "google"}


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(datetime(2026, 11, 21, 18, tzinfo=UTC))


def captured(agent: str) -> dict[str, Any]:
    """The requests of an agent, and the calls that its model server answered."""
    found: dict[str, Any] = json.loads((FOLDER / f"{agent}.json").read_text())
    return found


async def replay(client: httpx.AsyncClient, agent: str) -> None:
    for sent in captured(agent)["requests"]:
        body = sent["body"]
        content = base64.b64decode(body) if isinstance(body, str) else json.dumps(body).encode()
        headers = {"content-type": sent["content_type"]}
        answer = await client.post(sent["path"], content=content, headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.content in (b"", b"{}")


@pytest.mark.parametrize("agent", AGENTS)
async def test_its_calls_are_those_that_were_served(client: httpx.AsyncClient, agent: str) -> None:
    for _ in range(2):
        await replay(client, agent)

    events = await events_of(client, "ada", "unknown")
    assert {(one["user"], one["provider"]) for one in events} == {("ada", PROVIDERS[agent])}
    found = [
        {
            "model": one["model"],
            "input_tokens": one["usage"]["input_tokens"],
            "output_tokens": one["usage"]["output_tokens"],
            "cached_tokens": one["usage"].get("cache_read_tokens", 0),
        }
        for one in reversed(events)
    ]
    assert found == captured(agent)["served"]
    assert all(one["cost_status"] == "priced" and one["session_id"] for one in events)
    assert (await sums_of(client, "ada"))["ada"]["total_calls"] == 2


async def test_the_cost_that_claude_code_states_is_compared_with_ours(
    client: httpx.AsyncClient,
) -> None:
    await replay(client, "claude")
    found = (await client.get("/v1/analytics/drift?days=1")).json()
    assert (found["events"], found["events_over_5_percent"]) == (2, 0)
    assert found["stated_cost_usd"] == "0.0092802"


async def test_a_request_of_codex_that_was_refused_is_a_failed_call(
    client: httpx.AsyncClient,
) -> None:
    told = {"event__name": "codex.api_request", "model": "gpt-5-codex", "duration_ms": "12"}
    whose = {"service__name": "codex_exec", "user__id": "ada"}
    fine = record(resource=whose, **told, http__response__status_code="200")
    refused = record(resource=whose, time_ms=5, **told, http__response__status_code="429")
    await send_records(client, fine, refused)
    [event] = await events_of(client, "ada")
    assert (event["status_code"], event["model"]) == (429, "gpt-5-codex")
