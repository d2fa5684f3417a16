"""Keys over HTTP."""

import json
from datetime import timedelta

import httpx
import pytest

from app.core.clock import FrozenClock

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def made(client: httpx.AsyncClient, **body: object) -> dict[str, str]:
    answer = await client.post("/v1/api-keys", json={"name": "k", "scopes": ["read"]} | body)
    assert answer.status_code == 201, answer.text
    found: dict[str, str] = answer.json()
    return found


async def test_a_key_is_shown_once_and_opens_what_its_scopes_say(
    client: httpx.AsyncClient,
) -> None:
    key = await made(client, name="reader", scopes=["read", "check"], user_id="a/b")
    assert key.keys() == {
        *("id", "key", "prefix", "name", "scopes", "user_id", "created_at", "expires_at"),
    }
    assert key["scopes"] == ["check", "read"]
    assert key["created_at"] == "2026-11-20T12:30:00Z"
    assert key["key"].startswith(key["prefix"])
    listed = (await client.get("/v1/api-keys")).json()
    assert listed["next_cursor"] is None
    assert [one["id"] for one in listed["items"]] == [key["id"]]
    assert key["key"] not in str(listed)
    signed = bearer(key["key"])
    assert (await client.get("/v1/users/a%2Fb/limits", headers=signed)).status_code == 200
    other = await client.get("/v1/users/bob/limits", headers=signed)
    assert other.status_code == 403
    refused = await client.post("/v1/plans", json={"name": "x"}, headers=signed)
    assert refused.status_code == 403
    assert refused.json()["scope"] == "manage"
    assert (await client.get("/v1/api-keys", headers=signed)).status_code == 403
    assert (await client.get("/v1/api-keys", headers={"Authorization": ""})).status_code == 401


@pytest.mark.parametrize("way", ["revoke", "delete"])
async def test_a_revoked_key_opens_nothing_from_the_answer_on(
    client: httpx.AsyncClient, way: str
) -> None:
    key = await made(client)
    signed = bearer(key["key"])
    assert (await client.get("/v1/users/u/limits", headers=signed)).status_code == 200
    path = f"/v1/api-keys/{key['id']}"
    if way == "revoke":
        gone = await client.post(f"{path}/revoke")
        assert gone.status_code == 200
        assert gone.json()["revoked_at"] == "2026-11-20T12:30:00Z"
        assert (await client.post(f"{path}/revoke")).json() == gone.json()
    else:
        assert (await client.delete(path)).status_code == 204
        assert (await client.delete(path)).status_code == 404
    assert (await client.get("/v1/users/u/limits", headers=signed)).status_code == 401
    assert (await client.post("/v1/api-keys/none/revoke")).status_code == 404


async def test_a_key_expires(client: httpx.AsyncClient, clock: FrozenClock) -> None:
    key = await made(client, expires_at="2026-11-20T14:00:00+01:00")
    assert key["expires_at"] == "2026-11-20T13:00:00Z"
    signed = bearer(key["key"])
    assert (await client.get("/v1/users/u/limits", headers=signed)).status_code == 200
    clock.advance(timedelta(minutes=30))
    assert (await client.get("/v1/users/u/limits", headers=signed)).status_code == 401


async def test_a_bound_admin_key_cannot_make_a_free_one(client: httpx.AsyncClient) -> None:
    key = await made(client, scopes=["admin"], user_id="alice")
    answer = await client.post(
        "/v1/api-keys", json={"name": "x", "scopes": ["admin"]}, headers=bearer(key["key"])
    )
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"name": "a\u0000"}, "/name"),
        ({"name": "\ud800"}, "/name"),
        ({"name": 1}, "/name"),
        ({"scopes": []}, "/scopes"),
        ({"scopes": "read"}, "/scopes"),
        ({"scopes": ["root"]}, "/scopes/0"),
        ({"user_id": ""}, "/user_id"),
        ({"user_id": "x" * 257}, "/user_id"),
        ({"user_id": "\u00e4" * 256 + "x"}, "/user_id"),
        ({"expires_at": "2027-01-01T00:00:00"}, "/expires_at"),
        ({"expires_at": 1_800_000_000}, "/expires_at"),
        ({"expires_at": "0001-01-01T00:00:00+14:00"}, "/expires_at"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"colour": "red"}, "/colour"),
    ],
)
async def test_what_is_wrong_with_a_key_is_named(
    client: httpx.AsyncClient, change: dict[str, object], pointer: str
) -> None:
    body = json.dumps({"name": "k", "scopes": ["read"]} | change)
    answer = await client.post("/v1/api-keys", content=body, headers=JSON)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b'{"name":"k","name":"l","scopes":["read"]}', "application/json", 422),
        (b"{", "application/json", 422),
        (b"\xff", "application/json", 422),
        (b"[" * 20_000, "application/json", 422),
        (b'{"name":' + b"1" * 5_000 + b"}", "application/json", 422),
        (b"", "application/json", 422),
        (b"name=k", "application/x-www-form-urlencoded", 415),
        (b" " * 70_000, "application/json", 413),
    ],
)
async def test_a_body_is_read_exactly(
    client: httpx.AsyncClient, content: bytes, kind: str, status: int
) -> None:
    answer = await client.post("/v1/api-keys", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("key_id", ["%00", "%FF", "a%0Ab", "x" * 200])
async def test_no_id_is_a_server_error(client: httpx.AsyncClient, key_id: str) -> None:
    for path in ("api-keys", "limits", "plans"):
        assert (await client.delete(f"/v1/{path}/{key_id}")).status_code in (404, 422)
    assert (await client.post(f"/v1/alerts/{key_id}/read")).status_code in (404, 422)
    for end in ("limits", "alerts", "subscription"):
        assert (await client.get(f"/v1/users/{key_id}/{end}")).status_code in (200, 404, 422)
