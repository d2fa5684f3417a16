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
        *("expires_soon", "requests_per_minute", "replaces"),
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


async def test_a_key_with_a_week_left_says_so(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    key = await made(client, expires_at="2026-11-27T12:30:01Z")
    path = f"/v1/api-keys/{key['id']}"
    assert not (await client.get(path)).json()["expires_soon"]
    clock.advance(timedelta(seconds=1))
    assert (await client.get(path)).json()["expires_soon"]
    assert [one["expires_soon"] for one in (await client.get("/v1/api-keys")).json()["items"]] == [
        True
    ]
    clock.advance(timedelta(days=7))
    assert not (await client.get(path)).json()["expires_soon"]


async def test_a_change_of_a_key_says_only_what_changes(client: httpx.AsyncClient) -> None:
    key = await made(client, scopes=["read", "check"], requests_per_minute=10)
    path = f"/v1/api-keys/{key['id']}"
    changed = await client.patch(path, json={"name": "renamed"})
    assert changed.status_code == 200, changed.text
    assert changed.json() == (await client.get(path)).json()
    assert changed.json()["name"] == "renamed"
    assert changed.json()["scopes"] == ["check", "read"]
    assert changed.json()["requests_per_minute"] == 10
    ends = "2026-12-24T00:00:00Z"
    said = {"requests_per_minute": None, "expires_at": ends, "scopes": ["ingest"]}
    changed = await client.patch(path, json=said)
    shown = {name: changed.json()[name] for name in said}
    assert shown == said
    assert (await client.patch(path, json={"expires_at": None})).json()["expires_at"] is None
    assert (await client.patch(path, json={})).status_code == 200
    assert key["key"] not in changed.text
    await client.post(f"{path}/revoke")
    assert (await client.patch(path, json={"name": "x"})).status_code == 409
    assert (await client.patch("/v1/api-keys/none", json={"name": "x"})).status_code == 404


async def test_a_rotated_key_and_the_new_one_name_each_other(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    ends = "2026-12-24T00:00:00Z"
    rights = {
        "name": "gateway",
        "scopes": ["check", "ingest"],
        "user_id": "alice",
        "expires_at": ends,
        "requests_per_minute": 60,
    }
    old = await made(client, **rights)
    answer = await client.post(f"/v1/api-keys/{old['id']}/rotate", json={})
    assert answer.status_code == 201, answer.text
    new = answer.json()
    assert new["key"] != old["key"]
    assert {name: new[name] for name in rights} == rights
    shown = (await client.get(f"/v1/api-keys/{old['id']}")).json()
    assert (shown["replaced_by"], shown["replaces"]) == (new["id"], None)
    assert shown["expires_at"] == "2026-11-21T12:30:00Z"
    shown = (await client.get(f"/v1/api-keys/{new['id']}")).json()
    assert (shown["replaced_by"], shown["replaces"]) == (None, old["id"])
    again = await client.post(f"/v1/api-keys/{old['id']}/rotate", json={})
    assert again.status_code == 409
    assert again.json()["replaced_by"] == new["id"]
    clock.advance(timedelta(days=40))
    late = await client.post(f"/v1/api-keys/{new['id']}/rotate", json={})
    assert late.status_code == 409


async def test_an_overlap_is_never_longer_than_the_key_had_left(
    client: httpx.AsyncClient,
) -> None:
    key = await made(client, expires_at="2026-11-20T13:00:00Z")
    body = {"overlap_s": 86_400, "expires_at": None}
    new = (await client.post(f"/v1/api-keys/{key['id']}/rotate", json=body)).json()
    assert new["expires_at"] is None
    old = (await client.get(f"/v1/api-keys/{key['id']}")).json()
    assert old["expires_at"] == "2026-11-20T13:00:00Z"
    at_once = await client.post(f"/v1/api-keys/{new['id']}/rotate", json={"overlap_s": 0})
    assert at_once.status_code == 201
    gone = (await client.get(f"/v1/api-keys/{new['id']}")).json()
    assert gone["revoked_at"] == "2026-11-20T12:30:00Z"


async def test_a_key_may_rotate_itself(client: httpx.AsyncClient) -> None:
    key = await made(client, scopes=["admin"])
    path = f"/v1/api-keys/{key['id']}/rotate"
    new = await client.post(path, json={"overlap_s": 0}, headers=bearer(key["key"]))
    assert new.status_code == 201
    assert (await client.get("/v1/plans", headers=bearer(key["key"]))).status_code == 401
    assert (await client.get("/v1/plans", headers=bearer(new.json()["key"]))).status_code == 200


async def test_the_key_of_the_environment_is_changed_in_the_environment(
    client: httpx.AsyncClient,
) -> None:
    path = "/v1/api-keys/key_environment"
    for answer in (
        await client.post(f"{path}/rotate", json={}),
        await client.patch(path, json={"name": "x"}),
        await client.post(f"{path}/revoke"),
        await client.delete(path),
    ):
        assert answer.status_code == 409
        assert "TOLLGATE_ADMIN_KEY" in answer.json()["detail"]
    assert (await client.get("/v1/plans")).status_code == 200


async def test_keys_are_listed_in_pages(client: httpx.AsyncClient, clock: FrozenClock) -> None:
    for number in range(5):
        await made(client, name=f"{number}")
        clock.advance(timedelta(seconds=number % 2))
    names, cursor = [], ""
    while True:
        page = (await client.get(f"/v1/api-keys?limit=2{cursor}")).json()
        names += [one["name"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert sorted(names) == ["0", "1", "2", "3", "4"]
    assert names[0] == "4"


@pytest.mark.parametrize(
    ("method", "end", "body", "pointer"),
    [
        ("PATCH", "", {"scopes": []}, "/scopes"),
        ("PATCH", "", {"scopes": None}, "/scopes"),
        ("PATCH", "", {"name": None}, "/name"),
        ("PATCH", "", {"name": ""}, "/name"),
        ("PATCH", "", {"user_id": "alice"}, "/user_id"),
        ("PATCH", "", {"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ("PATCH", "", {"requests_per_minute": 0}, "/requests_per_minute"),
        ("PATCH", "", {"requests_per_minute": 2**63}, "/requests_per_minute"),
        ("PATCH", "", {"requests_per_minute": 1.5}, "/requests_per_minute"),
        ("POST", "/rotate", {"overlap_s": -1}, "/overlap_s"),
        ("POST", "/rotate", {"overlap_s": "60"}, "/overlap_s"),
        ("POST", "/rotate", {"overlap_s": 2**63}, "/overlap_s"),
        ("POST", "/rotate", {"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
    ],
)
async def test_what_is_wrong_with_a_change_is_named(
    client: httpx.AsyncClient, method: str, end: str, body: dict[str, object], pointer: str
) -> None:
    key = await made(client)
    answer = await client.request(method, f"/v1/api-keys/{key['id']}{end}", json=body)
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


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
