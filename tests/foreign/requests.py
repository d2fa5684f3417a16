"""One small request of every format, and keys to send them with."""

from typing import Any

import httpx

from app.access.keys import create_key
from app.db.engine import Tx
from app.runtime import Runtime
from tests.foreign.captured import NOW

EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "c1",
    "source": "svc",
    "type": "prompt",
    "subject": "alice",
    "time": "2026-11-21T01:00:00Z",
    "data": {"model": "gpt-4o", "provider": "openai", "prompt_tokens": 12, "completion_tokens": 3},
}
LAGO = {
    "transaction_id": "x1",
    "external_subscription_id": "alice",
    "code": "llm_tokens",
    "timestamp": "1795222800.25",
    "properties": {"model": "gpt-4o", "prompt_tokens": "12", "completion_tokens": "3"},
}
RECORD = {
    "litellm_call_id": "l1",
    "status": "success",
    "model": "openai/gpt-4o",
    "custom_llm_provider": "openai",
    "end_user": "alice",
    "metadata": {"usage_object": {"prompt_tokens": 12, "completion_tokens": 3}},
}
STRIPE = {"event_name": "m", "payload": {"value": "7", "stripe_customer_id": "alice"}}
TRACE = {"id": "e1", "type": "trace-create", "body": {"id": "t1", "userId": "alice"}}
CALL = {
    "id": "e2",
    "type": "generation-create",
    "body": {"id": "g1", "traceId": "t1", "model": "gpt-4o", "usage": {"input": 12, "output": 3}},
}
DOORS: dict[str, Any] = {
    "/api/v1/events": EVENT,
    "/api/v1/events/batch": {"events": [LAGO]},
    "/v1/ingest/litellm": [RECORD],
    "/api/public/ingestion": {"batch": [TRACE, CALL]},
    "/v2/billing/meter_events": {**STRIPE, "identifier": "s1"},
    "/v2/billing/meter_event_stream": {"events": [{**STRIPE, "identifier": "s1"}]},
}
JSON = {"content-type": "application/json"}


async def made_key(
    runtime: Runtime, *scopes: str, user_id: str | None = None, name: str = "test"
) -> str:
    async def work(tx: Tx) -> str:
        found = await create_key(
            tx, name=name, scopes=scopes, user_id=user_id, expires_at=None, now=NOW
        )
        return found[1]

    return await runtime.db.write(work, alone=True)


async def total_calls(client: httpx.AsyncClient) -> int:
    calls: int = (await client.get("/v1/analytics/totals")).json()["total_calls"]
    return calls
