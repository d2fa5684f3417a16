"""What the clients of each format find in a refusal: their own members, and the place."""

from typing import Any

import httpx
import pytest

from app.runtime import Runtime
from tests.foreign.requests import LAGO, STRIPE, made_key, total_calls

pytestmark = pytest.mark.anyio

FORM = {"event_name": "m", "payload[value]": "7", "payload[stripe_customer_id]": "alice"}
STRIPES: dict[str, dict[str, Any]] = {
    "/v1/billing/meter_events": {"data": FORM},
    "/v2/billing/meter_events": {"json": STRIPE},
    "/v2/billing/meter_event_session": {},
    "/v2/billing/meter_event_stream": {"json": {"events": [STRIPE]}},
}


@pytest.mark.parametrize("path", STRIPES)
async def test_stripes_clients_are_told_what_is_wrong_with_their_key(
    path: str, client: httpx.AsyncClient, runtime: Runtime
) -> None:
    reader = await made_key(runtime, "read")
    for key, status, code in (("wrong", 401, "unauthenticated"), (reader, 403, "forbidden")):
        signed = {"authorization": f"Bearer {key}"}
        answer = await client.post(path, headers=signed, **STRIPES[path])
        assert answer.status_code == status, answer.text
        told = answer.json()["error"]
        assert (told["type"], told["code"]) == ("invalid_request_error", code)
        assert told["message"]


@pytest.mark.parametrize("path", [path for path in STRIPES if "session" not in path])
async def test_stripes_clients_do_not_take_a_busy_service_for_a_recorded_event(
    path: str, client: httpx.AsyncClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime.intake, "_closing", True)
    answer = await client.post(path, **STRIPES[path])
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), answer.text
    assert answer.json()["error"]["type"] == "api_error"


@pytest.mark.parametrize("path", [path for path in STRIPES if "session" not in path])
async def test_stripes_clients_are_told_of_a_media_type_that_is_not_read(
    path: str, client: httpx.AsyncClient
) -> None:
    answer = await client.post(path, content=b"7", headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


async def test_stripes_identifier_for_another_event_is_named(client: httpx.AsyncClient) -> None:
    first = {**STRIPE, "identifier": "s1"}
    assert (await client.post("/v2/billing/meter_events", json=first)).status_code == 200
    other = {**first, "payload": {**STRIPE["payload"], "value": "8"}}
    answer = await client.post("/v2/billing/meter_events", json=other)
    assert answer.status_code == 409
    told = answer.json()["error"]
    assert (told["type"], told["param"]) == ("idempotency_error", "identifier")
    many = {"events": [{**STRIPE, "identifier": "s2"}, other]}
    answer = await client.post("/v2/billing/meter_event_stream", json=many)
    assert answer.status_code == 409
    assert answer.json()["error"]["param"] == "events.1.identifier"
    assert await total_calls(client) == 1


async def test_lagos_transaction_id_for_another_event_is_named(client: httpx.AsyncClient) -> None:
    assert (await client.post("/api/v1/events", json={"event": LAGO})).status_code == 200
    other = {**LAGO, "properties": {"value": 1}}
    answer = await client.post("/api/v1/events", json={"event": other})
    assert answer.status_code == 422
    assert answer.json()["error_details"] == {"/event/transaction_id": ["value_already_exist"]}
    many = {"events": [{**LAGO, "transaction_id": "x2"}, other]}
    answer = await client.post("/api/v1/events/batch", json=many)
    assert answer.status_code == 422
    assert answer.json()["error_details"] == {"/events/1/transaction_id": ["value_already_exist"]}
    assert await total_calls(client) == 1
