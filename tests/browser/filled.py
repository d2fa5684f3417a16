"""Three months of usage, limits, holds and prices for the pages to show."""

from typing import Any

import httpx
import msgspec

from app.core.clock import Clock
from app.demo.child import Service
from app.demo.replay import replayed

BATCH = 2_000


def fill(service: Service) -> None:
    """Record the demo's usage, and what only management makes."""
    headers = {"Authorization": f"Bearer {service.admin_key}"}
    with httpx.Client(
        base_url=service.address, headers=headers, trust_env=False, timeout=120
    ) as client:

        def post(path: str, body: Any) -> Any:
            content = msgspec.json.encode(body)
            kind = {"Content-Type": "application/json"}
            answer = client.post(path, content=content, headers=kind)
            assert answer.is_success, f"{path}: {answer.text[:500]}"
            return answer.json()

        plan = post("/v1/plans", {"name": "team", "default": True})
        for limit in _limits(plan["id"]):
            post("/v1/limits", limit)
        events = replayed(Clock().now())
        for first in range(0, len(events), BATCH):
            post("/v1/events?backfill=true", events[first : first + BATCH])
        for number in range(6):
            post("/v1/events", _unpriced(number))
        post("/v1/holds", _call("bruno") | {"id": "open-hold", "ttl_s": 900})
        post("/v1/prices", _price())


def _limits(plan_id: str) -> list[dict[str, Any]]:
    budget = {"metric": "cost_usd", "window": "billing_period", "thresholds": [50, 80, 100]}
    return [
        budget
        | {"name": "budget", "scope": {"user_id": "alice"}, "amount": "3", "action": "block"},
        budget | {"name": "everyone", "scope": {"all": True}, "amount": "60", "action": "warn"},
        budget | {"name": "research", "scope": {"team_id": "research"}, "amount": "12"},
        {
            "name": "daily calls",
            "scope": {"plan_id": plan_id},
            "metric": "calls",
            "window": "day",
            "amount": 2_000,
        },
    ]


def _call(user_id: str) -> dict[str, Any]:
    return {
        "user_id": user_id,
        "provider": "openai",
        "model": "gpt-4o-mini",
        "usage": {"input_tokens": 1_000, "output_tokens": 500},
    }


def _unpriced(number: int) -> dict[str, Any]:
    return _call("dmitri") | {"id": f"unpriced-{number}", "provider": "acme", "model": "new-llm"}


def _price() -> dict[str, Any]:
    return {
        "provider": "acme",
        "model": "house-llm",
        "rates": {
            "input_tokens": {"usd": "0.20", "per": 1_000_000},
            "output_tokens": {"usd": "0.80", "per": 1_000_000},
        },
    }
