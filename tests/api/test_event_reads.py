"""`GET /v1/users/{user_id}/events` over HTTP."""

from typing import Any

import httpx
import pytest

from app.access.keys import create_key
from app.core.clock import FrozenClock
from app.runtime import Runtime

pytestmark = pytest.mark.anyio
FULL: dict[str, Any] = {
    "id": "full",
    "user_id": "alice",
    "timestamp": "2026-11-20T11:00:00.5Z",
    "provider": "openai",
    "model": "gpt-4o-mini",
    "usage": {"input_tokens": 1200, "output_tokens": 300, "audio_seconds": 1.5},
    "cost_usd": "0.25",
    "endpoint": "/v1/chat/completions",
    "method": "POST",
    "status_code": 500,
    "error_message": "overloaded",
    "retry_count": 2,
    "latency_ms": 812.5,
    "ttft_ms": 190.25,
    "request_bytes": 10,
    "response_bytes": 20,
    "user_agent": "curl/8",
    "ip_address": "127.0.0.1",
    "team_id": "research",
    "api_key_id": "k1",
    "session_id": "s1",
    "task_type": "chat",
    "backend": "gpu-1",
    "pool": "blue",
    "hold_id": "h1",
    "tags": {"env": "prod", '$.odd"name[0]': "yes"},
    "context": {"service_tier": "flex"},
}


async def post(client: httpx.AsyncClient, *events: dict[str, Any]) -> None:
    answer = await client.post("/v1/events", json=list(events))
    assert answer.status_code == 200, answer.text


async def ids(client: httpx.AsyncClient, user: str = "alice", **query: Any) -> list[str]:
    answer = await client.get(f"/v1/users/{user}/events", params=query)
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


async def test_an_event_is_read_as_it_was_sent(client: httpx.AsyncClient) -> None:
    await post(client, FULL)
    listed = (await client.get("/v1/users/alice/events")).json()
    assert listed == {
        "items": [
            FULL
            | {
                "kind": "event",
                "timestamp": "2026-11-20T11:00:00.500000Z",
                "cost_status": "provided",
                "price_ref": "",
                "billing_period": "2026-11",
                "recorded_at": "2026-11-20T12:30:00Z",
                "late": False,
                "voided": False,
                "corrections": 0,
            }
        ],
        "next_cursor": None,
    }
    one = await client.get("/v1/users/alice/events/full")
    assert one.status_code == 200
    assert one.json() == listed["items"][0]


async def test_what_was_not_sent_is_null(client: httpx.AsyncClient) -> None:
    await post(client, {"id": "bare", "user_id": "alice"})
    item = (await client.get("/v1/users/alice/events/bare")).json()
    assert item["provider"] is item["model"] is item["cost_usd"] is item["latency_ms"] is None
    assert item["cost_status"] == "unpriced"
    assert item["usage"] == {"input_tokens": 0, "output_tokens": 0, "requests": 1}
    assert item["tags"] == item["context"] == {}


async def test_pages_give_every_event_once_newest_first(client: httpx.AsyncClient) -> None:
    times = [f"2026-11-20T11:00:{second // 3:02d}Z" for second in range(20)]  # ties of three
    await post(
        client,
        *({"id": f"e{n:02d}", "user_id": "alice", "timestamp": at} for n, at in enumerate(times)),
        {"id": "other", "user_id": "bob"},
    )
    found: list[str] = []
    query: dict[str, Any] = {"limit": 7}
    sizes = []
    while True:
        page = (await client.get("/v1/users/alice/events", params=query)).json()
        sizes.append(len(page["items"]))
        found += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert found == [f"e{n:02d}" for n in reversed(range(20))]
    assert sizes == [7, 7, 6]
    assert await ids(client, limit=20) == found


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"from": "2026-11-20T11:00:00Z"}, ["c", "b"]),
        ({"to": "2026-11-20T11:00:00Z"}, ["a"]),
        ({"from": "2026-11-20T10:00:00Z", "to": "2026-11-20T12:00:00Z"}, ["b", "a"]),
        ({"from": "2026-11-20T12:00:00+01:00"}, ["c", "b"]),
        ({"provider": "openai"}, ["b", "a"]),
        ({"provider": ""}, ["c"]),
        ({"model": "gpt-4o"}, ["a"]),
        ({"endpoint": "/chat"}, ["b"]),
        ({"status": "ok"}, ["c", "a"]),
        ({"status": "error"}, ["b"]),
        ({"team_id": "t1"}, ["b"]),
        ({"session_id": "s1"}, ["a"]),
        ({"task_type": "chat"}, ["c"]),
        ({"tag.env": "prod"}, ["b", "a"]),
        ({"tag.env": "prod", "tag.a.b": "x"}, ["b"]),
        ({'tag.$.odd"name[0]': "yes"}, ["c"]),
        ({"tag.env": "dev"}, []),
        ({"provider": "openai", "status": "error"}, ["b"]),
    ],
)
async def test_each_filter(
    client: httpx.AsyncClient, query: dict[str, str], expected: list[str]
) -> None:
    await post(
        client,
        {
            "id": "a",
            "user_id": "alice",
            "timestamp": "2026-11-20T10:00:00Z",
            "provider": "openai",
            "model": "gpt-4o",
            "session_id": "s1",
            "tags": {"env": "prod"},
        },
        {
            "id": "b",
            "user_id": "alice",
            "timestamp": "2026-11-20T11:00:00Z",
            "provider": "openai",
            "model": "gpt-4o-mini",
            "endpoint": "/chat",
            "status_code": 400,
            "team_id": "t1",
            "tags": {"env": "prod", "a.b": "x"},
        },
        {
            "id": "c",
            "user_id": "alice",
            "timestamp": "2026-11-20T12:00:00Z",
            "task_type": "chat",
            "tags": {'$.odd"name[0]': "yes"},
        },
    )
    assert await ids(client, **query) == expected


async def test_a_plus_that_came_as_a_space_is_understood(client: httpx.AsyncClient) -> None:
    await post(client, FULL)
    raw = "/v1/users/alice/events?from=2026-11-20T12:00:00+01:00&to=2026-11-20T12:00:01+01:00"
    assert [item["id"] for item in (await client.get(raw)).json()["items"]] == ["full"]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("from=2026-11-20T12:00:00", "from"),
        ("from=yesterday", "from"),
        ("to=0001-01-01T00:00:00%2B14:00", "to"),
        ("from=2026-11-20T12:00:00Z&to=2026-11-19T12:00:00Z", "to"),
        ("status=maybe", "status"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=many", "limit"),
        ("cursor=", "cursor"),
        ("cursor=nonsense", "cursor"),
        ("cursor=%C3%A9", "cursor"),
        ("cursor=OTk5OTk5OTk5OTk5OTk5OTk5OTk6ZQ", "cursor"),
        ("cursor=MTc6AA", "cursor"),
        ("colour=red", "colour"),
        ("tag.=x", "tag."),
        ("provider=a&provider=b", "provider"),
        ("provider=%00", "provider"),
        ("tag.env=%00", "tag.env"),
    ],
)
async def test_a_bad_query_is_refused_and_named(
    client: httpx.AsyncClient, query: str, name: str
) -> None:
    answer = await client.get(f"/v1/users/alice/events?{query}")
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"/{name}"]
    assert name in answer.json()["detail"]


async def test_ids_may_hold_slashes(client: httpx.AsyncClient) -> None:
    odd = {"id": "x/usage", "user_id": "org/alice/events/e"}
    await post(client, odd, {"id": "b", "user_id": "a/b"})
    listed = await client.get("/v1/users/org%2Falice%2Fevents%2Fe/events")
    assert [item["id"] for item in listed.json()["items"]] == ["x/usage"]
    one = await client.get("/v1/users/org%2falice%2Fevents%2Fe/events/x%2Fusage")
    assert one.json()["id"] == "x/usage"
    assert (await client.get("/v1/users/a/b/events")).json()["items"][0]["id"] == "b"
    assert (await client.get("/v1/users/a/b/events/b")).json()["user_id"] == "a/b"


async def test_an_event_that_is_not_there_is_404(client: httpx.AsyncClient) -> None:
    await post(client, FULL)
    for path in ("/v1/users/alice/events/none", "/v1/users/bob/events/full"):
        answer = await client.get(path)
        assert answer.status_code == 404
        assert answer.json()["type"] == "/docs/problems#not-found"
    assert (await client.get("/v1/users/a%00/events")).status_code == 422
    assert (await client.get("/v1/users/a/events/%00")).status_code == 422
    assert (await client.get("/v1/users/a/events/x?y=1")).status_code == 422
    assert await ids(client, "bob") == []


async def test_a_key_sees_only_what_it_may(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await post(client, FULL)

    async def key(scope: str, user_id: str | None) -> dict[str, str]:
        _, token = await runtime.db.write(
            lambda tx: create_key(
                tx, name="k", scopes=[scope], user_id=user_id, expires_at=None, now=clock.now()
            ),
            alone=True,
        )
        return {"Authorization": f"Bearer {token}"}

    alices, bobs, writes = (
        await key("read", "alice"),
        await key("read", "bob"),
        await key("ingest", None),
    )
    for path in (
        "/v1/users/alice/events",
        "/v1/users/alice/events/full",
        "/v1/users/alice/usage",
        "/v1/users/alice/usage/trends",
    ):
        assert (await client.get(path, headers=alices)).status_code == 200
        assert (await client.get(path, headers=bobs)).status_code == 403
        refused = await client.get(path, headers=writes)
        assert refused.status_code == 403
        assert refused.json()["scope"] == "read"
        assert (await client.get(path, headers={"Authorization": ""})).status_code == 401
    audit = "/v1/audit/consistency"
    assert (await client.get(audit, headers=alices)).status_code == 403
    assert (await client.get(audit, headers=await key("read", None))).status_code == 200
