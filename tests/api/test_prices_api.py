"""Prices over HTTP."""

from decimal import Decimal

import httpx
import pytest

pytestmark = pytest.mark.anyio

CALL = {
    "provider": "openai",
    "model": "gpt-4o-mini",
    "usage": {"input_tokens": 1200, "output_tokens": 300},
}


async def test_an_estimate_is_what_the_event_will_cost_and_its_lines_sum_to_it(
    client: httpx.AsyncClient,
) -> None:
    found = (await client.post("/v1/prices/estimate", json=CALL)).json()
    assert found["cost_usd"] == "0.00036"
    assert found["cost_nano_usd"] == 360_000
    assert found["cost_status"] == "priced"
    assert found["price_ref"]
    assert sum(Decimal(line["amount_usd"]) for line in found["lines"]) == Decimal("0.00036")
    assert found["lines"][0].keys() == {
        *("unit", "quantity", "usd_per_block", "block", "amount_usd", "price_row"),
    }
    event = await client.post("/v1/events", json=CALL | {"user_id": "u"})
    assert event.json()["cost_usd"] == found["cost_usd"]
    split = {"input_tokens": 9, "cache_write_5m_tokens": 4}
    for path in ("prices/estimate", "events", "limits/check"):
        body = CALL | {"provider": "anthropic", "model": "claude-sonnet-4-5", "usage": split}
        if path != "prices/estimate":
            body |= {"user_id": "u"}
        assert (await client.post(f"/v1/{path}", json=body)).status_code < 300


async def test_an_unknown_model_has_no_price_rather_than_a_free_one(
    client: httpx.AsyncClient,
) -> None:
    found = (await client.post("/v1/prices/estimate", json=CALL | {"model": "zzz-1"})).json()
    assert found["cost_usd"] is None
    assert found["cost_nano_usd"] is None
    assert found["cost_status"] == "unpriced"
    assert found["lines"] == []


@pytest.mark.parametrize(
    ("change", "pointers"),
    [
        ({"usage": {"tokens": 1}}, ["/usage/tokens"]),
        ({"usage": {"input_tokens": -1, "x/y": 1}}, ["/usage/input_tokens", "/usage/x~1y"]),
        ({"usage": {"input_tokens": "10"}}, ["/usage/input_tokens"]),
        ({"usage": {"input_tokens": True}}, ["/usage/input_tokens"]),
        ({"usage": {"input_tokens": 1.5}}, ["/usage/input_tokens"]),
        ({"usage": {"input_tokens": [1]}}, ["/usage/input_tokens"]),
        ({"usage": {"input_tokens": 2**64}}, ["/usage/input_tokens"]),
        ({"usage": {"input_tokens": 1, "cache_read_tokens": 2}}, ["/usage/cache_read_tokens"]),
        ({"usage": {"audio_seconds": 0.1234567}}, ["/usage/audio_seconds"]),
        ({"model": "gpt-4o", "usage": {"input_tokens": 2**53 - 1}}, ["/usage"]),
        ({"usage": None}, ["/usage"]),
        ({"usage": []}, ["/usage"]),
        ({"model": 5}, ["/model"]),
        ({"provider": ""}, ["/provider"]),
        ({"timestamp": "2026-11-20T00:00:00"}, ["/timestamp"]),
        ({"timestamp": "9999-12-31T23:59:59-01:00"}, ["/timestamp"]),
        ({"context": {"a": 1}}, ["/context/a"]),
        ({"context": {str(number): "" for number in range(17)}}, ["/context"]),
        ({"price": 1}, ["/price"]),
    ],
)
async def test_what_is_wrong_with_an_estimate_is_named(
    client: httpx.AsyncClient, change: dict[str, object], pointers: list[str]
) -> None:
    answer = await client.post("/v1/prices/estimate", json=CALL | change)
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == pointers


@pytest.mark.parametrize("number", ["1e400", "NaN", "-Infinity", "1" * 5000])
async def test_numbers_that_are_none_are_refused(client: httpx.AsyncClient, number: str) -> None:
    body = '{"provider":"openai","model":"gpt-4o","usage":{"input_tokens":' + number + "}}"
    answer = await client.post(
        "/v1/prices/estimate", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422


async def test_estimates_need_check_or_read_and_respect_the_binding(
    client: httpx.AsyncClient,
) -> None:
    for scope, status in (("check", 200), ("read", 200), ("ingest", 403)):
        body = {"name": scope, "scopes": [scope], "user_id": "alice"}
        key = (await client.post("/v1/api-keys", json=body)).json()["key"]
        signed = {"Authorization": f"Bearer {key}"}
        answer = await client.post("/v1/prices/estimate", json=CALL, headers=signed)
        assert answer.status_code == status
        other = await client.post(
            "/v1/prices/estimate", json=CALL | {"user_id": "bob"}, headers=signed
        )
        assert other.status_code == 403


async def test_a_spelling_is_resolved(client: httpx.AsyncClient) -> None:
    query = {"provider": "openai", "model": "gpt-4o-mini", "at": "2026-11-01T00:00:00Z"}
    found = (await client.get("/v1/prices/resolve", params=query)).json()
    assert (found["provider"], found["model"], found["sure"]) == ("openai", "gpt-4o-mini", True)
    rates = {rate["counter"]: rate for rate in found["rates"]}
    assert rates["input_tokens"]["tiers"] == [{"above_input_tokens": 0, "usd": "0.15"}]
    nothing = await client.get("/v1/prices/resolve")
    assert nothing.status_code == 422
    assert nothing.json()["errors"][0]["pointer"] == "/model"
    unknown = await client.get("/v1/prices/resolve?provider=openai&model=zzz-1")
    assert unknown.status_code == 404
    naive = await client.get("/v1/prices/resolve?model=gpt-4o&at=2026-11-01T00:00:00")
    assert naive.status_code == 422
    assert naive.json()["errors"][0]["pointer"] == "/at"


async def test_models_come_in_pages(client: httpx.AsyncClient) -> None:
    names, cursor = [], None
    while True:
        query = {"limit": 1000} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/v1/models", params=query)).json()
        names += [(one["provider"], one["model"]) for one in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(names) == len(set(names)) > 500
    ours = (await client.get("/v1/models?provider=openai&limit=1000")).json()["items"]
    assert {one["provider"] for one in ours} == {"openai"}
    for bad in ("cursor=x", "limit=0", "limit=1001", "limit=a", "cursor=%D9%A1"):
        assert (await client.get(f"/v1/models?{bad}")).status_code == 422
