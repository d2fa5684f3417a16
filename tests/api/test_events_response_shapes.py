"""Every provider's shapes through the front door: recorded with its usage, or refused in place."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.anyio

FIXTURE = Path(__file__).parents[1] / "fixtures" / "responses" / "shapes.json"
CASES: list[dict[str, Any]] = json.loads(FIXTURE.read_text())


def event(case: dict[str, Any], name: str) -> dict[str, Any]:
    hints: dict[str, Any] = {key: case[key] for key in ("provider", "api") if key in case}
    return {"id": name, "user_id": "ann", "response": case["raw"], **hints}


async def test_every_shape_is_recorded_with_its_usage_or_refused(client: httpx.AsyncClient) -> None:
    for place, case in enumerate(CASES):
        answer = await client.post("/v1/events", json=event(case, f"e{place}"))
        said = answer.json()
        if case["calls"] is None:
            assert answer.status_code == 422, case["name"]
            assert said["errors"][0]["pointer"].startswith("/response"), case["name"]
            continue
        total: Counter[str] = Counter()
        for call in case["calls"]:
            total.update(call)
        assert answer.status_code == 201, (case["name"], said)
        assert {k: v for k, v in said["usage"].items() if v} == dict(total), case["name"]
        assert len(said.get("calls", [said])) == len(case["calls"]), case["name"]


@pytest.mark.parametrize(
    ("model", "raw", "cost_usd"),
    [
        (
            "gpt-4.1-mini-2025-04-14",
            {"usage": {"prompt_tokens": 1000, "completion_tokens": 10}},
            "0.000416",
        ),
        (
            "claude-sonnet-4-5-20250929",
            {"type": "message", "usage": {"input_tokens": 1000, "output_tokens": 10}},
            "0.00315",
        ),
        (
            "gemini-2.5-flash",
            {"usageMetadata": {"promptTokenCount": 1000, "candidatesTokenCount": 1}},
            "0.0003025",
        ),
        (
            "command-a-03-2025",
            {"usage": {"billed_units": {"input_tokens": 1000.0, "output_tokens": 5.0}}},
            "0.00255",
        ),
    ],
)
async def test_a_response_of_an_unnamed_provider_still_has_its_price(
    client: httpx.AsyncClient, model: str, raw: dict[str, Any], cost_usd: str
) -> None:
    for sent in ({"model": model, "response": raw}, {"response": {"model": model, **raw}}):
        answer = await client.post("/v1/events", json={"user_id": "ann", **sent})
        assert (answer.status_code, answer.json()["cost_usd"]) == (201, cost_usd)
