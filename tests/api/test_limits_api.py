"""Limits over HTTP."""

import json
from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.core.clock import FrozenClock

pytestmark = pytest.mark.anyio

LIMIT = {
    "name": "daily calls",
    "scope": {"user_id": "alice"},
    "metric": "calls",
    "window": "day",
    "amount": 10,
}
JSON = {"Content-Type": "application/json"}


async def limit(client: httpx.AsyncClient, **change: object) -> dict[str, Any]:
    answer = await client.post("/v1/limits", json=LIMIT | change)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def event(client: httpx.AsyncClient, user: str = "alice", **more: object) -> None:
    body = {"user_id": user, "provider": "openai", "model": "gpt-4o-mini"}
    body |= {"usage": {"input_tokens": 100, "output_tokens": 20}}  # type: ignore[dict-item]
    assert (await client.post("/v1/events", json=body | more)).status_code == 201


async def used(client: httpx.AsyncClient, user: str = "alice") -> dict[str, object]:
    answer = await client.get(f"/v1/users/{user}/limits")
    assert answer.status_code == 200, answer.text
    return {item["name"]: item["used"] for item in answer.json()["items"]}


async def alerted(client: httpx.AsyncClient, user: str = "alice") -> list[int]:
    items = (await client.get(f"/v1/users/{user}/alerts")).json()["items"]
    return sorted(item["threshold"] for item in items)


async def test_a_limit_is_made_read_and_deleted(client: httpx.AsyncClient) -> None:
    made = await limit(client)
    assert made == {
        "id": made["id"],
        "name": "daily calls",
        "scope": {"user_id": "alice"},
        "match": {},
        "metric": "calls",
        "window": "day",
        "timezone": "UTC",
        "amount": 10,
        "standing_amount": 10,
        "raised_until": None,
        "action": "block",
        "thresholds": [80, 90, 100],
        "created_at": "2026-11-20T12:30:00Z",
    }
    path = f"/v1/limits/{made['id']}"
    assert (await client.get(path)).json() == made
    assert (await client.delete(path)).status_code == 204
    assert (await client.get(path)).status_code == 404
    assert (await client.patch(path, json={"amount": 1})).status_code == 404
    assert (await client.delete(path)).status_code == 404
    assert await used(client) == {}


async def test_every_scope_can_be_set_and_listed(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    scopes: list[dict[str, object]] = [
        {"plan_id": "plan_default"},
        {"user_id": "a/b:c"},
        {"team_id": "red"},
        {"api_key_id": "k"},
        {"all": True},
    ]
    made = []
    for scope in scopes:
        made.append(await limit(client, scope=scope))
        clock.advance(timedelta(seconds=1))
    assert [one["scope"] for one in made] == scopes
    for one, scope in zip(made[:4], scopes, strict=False):
        found = (await client.get("/v1/limits", params=scope)).json()
        assert found["items"] == [one]
    assert (await client.get("/v1/limits?user_id=a&team_id=b")).status_code == 422
    first = (await client.get("/v1/limits?limit=3")).json()
    rest = (await client.get(f"/v1/limits?limit=3&cursor={first['next_cursor']}")).json()
    assert first["items"] + rest["items"] == made
    assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    ("metric", "amount", "shown"),
    [
        ("calls", 0, 0),
        ("calls", None, None),
        ("tokens", 2**63 - 1, 2**63 - 1),
        ("cost_usd", "100.00", "100"),
        ("cost_usd", "0.000000001", "0.000000001"),
        ("cost_usd", 5, "5"),
        ("cost_usd", 0, "0"),
        ("cost_usd", "9223372036.854775807", "9223372036.854775807"),
    ],
)
async def test_an_amount_comes_back_as_it_went_in(
    client: httpx.AsyncClient, metric: str, amount: object, shown: object
) -> None:
    made = await limit(client, metric=metric, amount=amount)
    assert made["amount"] == shown
    item = (await client.get("/v1/users/alice/limits")).json()["items"][0]
    assert item["limit"] == shown
    assert item["allowed"] is (shown not in (0, "0"))


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"name": None}, "/name"),
        ({"name": "\ud800"}, "/name"),
        ({"scope": {}}, "/scope"),
        ({"scope": None}, "/scope"),
        ({"scope": []}, "/scope"),
        ({"scope": {"user_id": "a", "all": True}}, "/scope"),
        ({"scope": {"all": False}}, "/scope/all"),
        ({"scope": {"user_id": 1}}, "/scope/user_id"),
        ({"scope": {"user_id": "a\u0000"}}, "/scope/user_id"),
        ({"scope": {"plan_id": "none"}}, "/scope/plan_id"),
        ({"scope": {"org_id": "x"}}, "/scope/org_id"),
        ({"match": {"region": "eu"}}, "/match/region"),
        ({"match": {"model": ["gpt-4o"]}}, "/match/model"),
        ({"match": None}, "/match"),
        ({"metric": "dollars"}, "/metric"),
        ({"metric": ["calls"]}, "/metric"),
        ({"window": "fortnight"}, "/window"),
        ({"timezone": "Nowhere/City"}, "/timezone"),
        ({"timezone": "../etc/passwd"}, "/timezone"),
        ({"timezone": ""}, "/timezone"),
        ({"timezone": None}, "/timezone"),
        ({"timezone": 1}, "/timezone"),
        ({"amount": -1}, "/amount"),
        ({"amount": True}, "/amount"),
        ({"amount": "10"}, "/amount"),
        ({"amount": 1.5}, "/amount"),
        ({"amount": 2**63}, "/amount"),
        ({"amount": 2**64}, "/amount"),
        ({"amount": [10]}, "/amount"),
        ({"amount": {"usd": 1}}, "/amount"),
        ({"amount": float("inf")}, "/amount"),
        ({"amount": float("nan")}, "/amount"),
        ({"metric": "cost_usd", "amount": "-1"}, "/amount"),
        ({"metric": "cost_usd", "amount": "1e3"}, "/amount"),
        ({"metric": "cost_usd", "amount": "NaN"}, "/amount"),
        ({"metric": "cost_usd", "amount": "0.0000000001"}, "/amount"),
        ({"metric": "cost_usd", "amount": "9223372036.854775808"}, "/amount"),
        ({"metric": "cost_usd", "amount": "9" * 100}, "/amount"),
        ({"metric": "cost_usd", "amount": 9223372037}, "/amount"),
        ({"metric": "cost_usd", "amount": 1.5}, "/amount"),
        ({"action": "explode"}, "/action"),
        ({"thresholds": [0]}, "/thresholds/0"),
        ({"thresholds": [1001]}, "/thresholds/0"),
        ({"thresholds": ["80"]}, "/thresholds/0"),
        ({"thresholds": [True]}, "/thresholds/0"),
        ({"thresholds": [80, 80]}, "/thresholds"),
        ({"thresholds": list(range(1, 22))}, "/thresholds"),
        ({"thresholds": 80}, "/thresholds"),
        ({"colour": "red"}, "/colour"),
    ],
)
async def test_what_is_wrong_with_a_limit_is_named(
    client: httpx.AsyncClient, change: dict[str, object], pointer: str
) -> None:
    body = json.dumps(LIMIT | change)
    answer = await client.post("/v1/limits", content=body, headers=JSON)
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert (await client.get("/v1/limits")).json()["items"] == []


@pytest.mark.parametrize("field", ["name", "scope", "metric", "window", "amount"])
async def test_what_a_limit_needs_is_named(client: httpx.AsyncClient, field: str) -> None:
    body = {name: value for name, value in LIMIT.items() if name != field}
    answer = await client.post("/v1/limits", json=body)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"/{field}"]


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1" * 5000, "NaN"])
async def test_numbers_that_are_none_are_refused(client: httpx.AsyncClient, number: str) -> None:
    body = json.dumps(LIMIT).replace("10", number)
    answer = await client.post("/v1/limits", content=body, headers=JSON)
    assert answer.status_code == 422


async def test_a_limit_counts_what_its_running_window_holds_already(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    yesterday = (clock.now() - timedelta(days=1)).isoformat()
    ahead = (clock.now() + timedelta(minutes=4)).isoformat()
    await event(client, timestamp=yesterday)
    await event(client, model="gpt-4o")
    await event(client, timestamp=ahead)
    await limit(client)
    await limit(client, name="minute", window="minute")
    await limit(client, name="month", window="month", metric="tokens")
    await limit(client, name="ever", window="lifetime", scope={"all": True}, metric="input_tokens")
    await limit(client, name="model", match={"model": "gpt-4o"}, window="billing_period")
    await limit(client, name="cost", scope={"plan_id": "plan_default"}, metric="cost_usd")
    counted = await used(client)
    assert counted.pop("cost") not in ("0", None)
    assert counted == {"daily calls": 2, "minute": 1, "month": 360, "ever": 300, "model": 1}
    clock.advance(timedelta(minutes=4))
    assert (await used(client))["minute"] == 1
    await event(client, timestamp=yesterday)
    assert (await used(client))["daily calls"] == 2


async def test_thresholds_reached_already_alert_once_when_a_limit_is_made_or_changed(
    client: httpx.AsyncClient,
) -> None:
    for _ in range(9):
        await event(client)
    made = await limit(client)
    assert await alerted(client) == [80, 90]
    path = f"/v1/limits/{made['id']}"
    assert (await client.patch(path, json={"amount": 9})).json()["amount"] == 9
    assert await alerted(client) == [80, 90, 100]
    await client.patch(path, json={"amount": 1000})
    await client.patch(path, json={"thresholds": [50], "amount": 9})
    assert await alerted(client) == [50, 80, 90, 100]
    await client.patch(path, json={"name": "renamed", "action": "warn"})
    assert await alerted(client) == [50, 80, 90, 100]
    assert (await client.delete(path)).status_code == 204
    assert await alerted(client) == [50, 80, 90, 100]


async def test_a_limit_that_counts_something_else_starts_anew(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    await event(client, model="gpt-4o")
    await event(client)
    made = await limit(client, amount=2)
    assert await alerted(client) == [80, 90, 100]
    path = f"/v1/limits/{made['id']}"
    clock.advance(timedelta(minutes=1))
    changed = (await client.patch(path, json={"match": {"model": "gpt-4o"}})).json()
    assert changed["match"] == {"model": "gpt-4o"}
    assert changed["created_at"] == made["created_at"]
    assert await used(client) == {"daily calls": 1}
    assert await alerted(client) == []
    await event(client, model="gpt-4o")
    assert await alerted(client) == [80, 90, 100]
    assert (await client.patch(path, json={"metric": "cost_usd"})).status_code == 422
    money = await client.patch(path, json={"metric": "cost_usd", "amount": "5"})
    assert money.json()["amount"] == "5"
    whole = await client.put(path, json=LIMIT | {"scope": {"user_id": "bob"}})
    amounts = {"amount": 10, "standing_amount": 10}
    assert whole.json() == made | {"scope": {"user_id": "bob"}} | amounts
    assert await used(client) == {}
    assert await used(client, "bob") == {"daily calls": 0}
    await event(client, "bob")
    assert await used(client, "bob") == {"daily calls": 1}


async def test_a_bound_key_decides_about_its_own_user_only(client: httpx.AsyncClient) -> None:
    body = {"name": "k", "scopes": ["manage", "read"], "user_id": "alice"}
    key = (await client.post("/v1/api-keys", json=body)).json()["key"]
    signed = {"Authorization": f"Bearer {key}"}
    others = await limit(client, scope={"all": True})
    own = await client.post("/v1/limits", json=LIMIT, headers=signed)
    assert own.status_code == 201
    for scope in ({"user_id": "bob"}, {"all": True}, {"plan_id": "plan_default"}):
        answer = await client.post("/v1/limits", json=LIMIT | {"scope": scope}, headers=signed)
        assert answer.status_code == 403
        path = f"/v1/limits/{own.json()['id']}"
        moved = await client.patch(path, json={"scope": scope}, headers=signed)
        assert moved.status_code == 403
    path = f"/v1/limits/{others['id']}"
    assert (await client.get(path, headers=signed)).status_code == 404
    assert (await client.patch(path, json={"amount": 1}, headers=signed)).status_code == 404
    assert (await client.delete(path, headers=signed)).status_code == 404
    assert (await client.get("/v1/limits", headers=signed)).json()["items"] == [own.json()]
    assert (await client.get("/v1/limits?user_id=bob", headers=signed)).status_code == 403


async def test_a_checks_limits_are_those_of_the_users_list(client: httpx.AsyncClient) -> None:
    await limit(client)
    await event(client)
    check = await client.post("/v1/limits/check", json={"user_id": "alice"})
    listed = await client.get("/v1/users/alice/limits")
    assert listed.json() == {"items": check.json()["limits"], "next_cursor": None}


async def test_the_ordinary_door_checks_as_the_lean_one_does(client: httpx.AsyncClient) -> None:
    await limit(client)
    for body, status in (({"user_id": "alice"}, 200), ({"user_id": ""}, 422)):
        lean = await client.post("/v1/limits/check", json=body)
        inner = client._transport.app._inner  # type: ignore[attr-defined]
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(inner), base_url="http://test", headers=client.headers
        ) as ordinary:
            found = await ordinary.post("/v1/limits/check", json=body)
        assert (found.status_code, lean.status_code) == (status, status)
        assert found.json() | {"instance": ""} == lean.json() | {"instance": ""}


async def test_every_route_is_in_openapi_with_examples(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]

    def has_example(schema: dict[str, Any]) -> bool:
        if "$ref" in schema:
            return has_example(schemas[schema["$ref"].rsplit("/", 1)[-1]])
        items = schema.get("properties", {}).get("items")
        return "examples" in schema or (items is not None and has_example(items["items"]))

    for path, methods in {
        "/v1/limits": {"get", "post"},
        "/v1/limits/{limit_id}": {"get", "put", "patch", "delete"},
        "/v1/limits/{limit_id}/raise": {"post", "delete"},
        "/v1/limits/{limit_id}/raises": {"get"},
        "/v1/limits/check": {"post"},
        "/v1/users/{user_id}/limits": {"get"},
        "/v1/users/{user_id}/alerts": {"get"},
        "/v1/alerts/{alert_id}/read": {"post"},
        "/v1/plans": {"get", "post"},
        "/v1/plans/{plan_id}": {"get", "put", "patch", "delete"},
        "/v1/users/{user_id}/subscription": {"get", "put"},
        "/v1/users/{user_id}/subscription/renew": {"post"},
        "/v1/users/{user_id}/usage/reset": {"post"},
        "/v1/api-keys": {"get", "post"},
        "/v1/api-keys/{key_id}": {"delete"},
        "/v1/api-keys/{key_id}/revoke": {"post"},
        "/v1/prices/estimate": {"post"},
        "/v1/prices/resolve": {"get"},
        "/v1/models": {"get"},
    }.items():
        assert methods <= document["paths"][path].keys(), path
        for method in methods:
            operation = document["paths"][path][method]
            bodies = [operation["requestBody"]] if "requestBody" in operation else []
            bodies += [
                operation["responses"][code]
                for code in ("200", "201")
                if method != "delete" and code in operation["responses"]
            ]
            for body in bodies:
                schema = body["content"]["application/json"]["schema"]
                assert has_example(schema), (path, method)


@pytest.mark.parametrize(
    ("used", "percent", "status", "thresholds"),
    [
        (799_999, 79.99, "active", []),
        (800_000, 80.0, "warning", [80]),
        (999_999, 99.99, "warning", [80, 90]),
        (1_000_000, 100.0, "limit_reached", [80, 90, 100]),
    ],
)
async def test_no_percentage_nor_status_is_told_before_it_is_reached(
    client: httpx.AsyncClient, used: int, percent: float, status: str, thresholds: list[int]
) -> None:
    await limit(client, metric="tokens", amount=1_000_000, name="tokens")
    call = {"user_id": "alice", "usage": {"input_tokens": used}}
    receipt = (await client.post("/v1/events", json=call)).json()
    assert receipt["usage_status"] == status
    one_more = {"user_id": "alice", "usage": {"input_tokens": 1}}
    verdict = (await client.post("/v1/limits/check", json=one_more)).json()
    assert (verdict["usage_status"], verdict["allowed"]) == (status, used < 1_000_000)
    assert verdict["limits"][0]["percent_used"] == percent
    usage = (await client.get("/v1/users/alice/usage")).json()
    assert (usage["usage_status"], usage["usage_percentages"]) == (status, {"tokens": percent})
    [state] = (await client.get("/v1/users/alice/limits")).json()["items"]
    assert state["percent_used"] == percent
    assert await alerted(client) == thresholds


async def test_a_lifetime_has_no_instant_at_which_it_resets(client: httpx.AsyncClient) -> None:
    await limit(client, window="lifetime", amount=0)
    [state] = (await client.get("/v1/users/alice/limits")).json()["items"]
    assert state["resets_at"] is None
    verdict = (await client.post("/v1/limits/check", json={"user_id": "alice"})).json()
    assert verdict["binding"]["resets_at"] is verdict["limits"][0]["resets_at"] is None
    assert verdict["message"] == "the limit “daily calls” leaves 0 of 0 calls in all"
    usage = (await client.get("/v1/users/alice/usage")).json()
    assert usage["limits"][0]["resets_at"] is None
    refused = await client.post("/v1/holds", json={"user_id": "alice", "usage": {}})
    assert refused.status_code == 429, refused.text
    assert refused.json()["binding"]["resets_at"] is None
    assert "9999" not in refused.text
