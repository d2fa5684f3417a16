"""`POST /v1/events` over HTTP."""

import httpx
import pytest

pytestmark = pytest.mark.anyio

EVENT = {
    "id": "e1",
    "user_id": "alice",
    "provider": "openai",
    "model": "gpt-4o-mini",
    "usage": {"input_tokens": 1200, "output_tokens": 300},
}


async def test_one_event_is_recorded_once(client: httpx.AsyncClient) -> None:
    first = await client.post("/v1/events", json=EVENT)
    assert first.status_code == 201
    assert first.json() == {
        "id": "e1",
        "status": "recorded",
        "user_id": "alice",
        "timestamp": "2026-11-20T12:30:00Z",
        "billing_period": "2026-11",
        "usage": {"input_tokens": 1200, "output_tokens": 300},
        "cost_usd": "0.00036",
        "cost_status": "priced",
        "usage_status": "active",
    }
    again = await client.post("/v1/events", json=EVENT)
    assert again.status_code == 200
    assert again.json() == first.json() | {"status": "duplicate"}


async def test_another_body_under_the_same_id_is_a_conflict(client: httpx.AsyncClient) -> None:
    await client.post("/v1/events", json=EVENT)
    other = await client.post("/v1/events", json=EVENT | {"usage": {"input_tokens": 1}})
    assert other.status_code == 409
    assert other.headers["content-type"] == "application/problem+json"
    assert other.json()["type"] == "/docs/problems#id-reused"


MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'%s{"user_id":"bom"}', "application/json"),
        (b'%s[{"user_id":"bom"}]', "application/json"),
        (b'%s{"user_id":"bom"}\n', "application/x-ndjson"),
        (b'%s\r\n{"user_id":"bom"}', "application/x-ndjson"),
    ],
)
async def test_a_byte_order_mark_before_the_body_says_nothing(
    client: httpx.AsyncClient, body: bytes, kind: str
) -> None:
    answer = await client.post("/v1/events", content=body % MARK, headers={"Content-Type": kind})
    assert answer.status_code in (200, 201), answer.text
    assert len((await client.get("/v1/users/bom/events")).json()["items"]) == 1
    twice = await client.post(
        "/v1/events", content=body % (MARK * 2), headers={"Content-Type": kind}
    )
    assert twice.status_code in (207, 422)


@pytest.mark.parametrize("path", ["/v1/limits/check", "/v1/holds", "/v1/prices/estimate"])
async def test_other_bodies_may_begin_with_a_byte_order_mark(
    client: httpx.AsyncClient, path: str
) -> None:
    body = b'{"user_id":"bom","provider":"openai","model":"gpt-4o-mini","usage":{"requests":1}}'
    headers = {"Content-Type": "application/json"}
    answer = await client.post(path, content=MARK + body, headers=headers)
    assert answer.status_code in (200, 201), answer.text


async def test_a_user_may_be_called_by_any_256_characters(client: httpx.AsyncClient) -> None:
    """Four bytes each, and no two alike, so that no index can hold them in less."""
    user = "".join(chr(0x1F300 + number) for number in range(256))
    hold = "".join(chr(0x20000 + number) for number in range(128))
    amounts = {"name": "all", "metric": "calls", "window": "month", "amount": 9, "action": "block"}
    limit = await client.post("/v1/limits", json=amounts | {"scope": {"user_id": user}})
    assert limit.status_code == 201, limit.text
    named = EVENT | {"user_id": user, "id": hold * 2}
    assert (await client.post("/v1/events", json=named)).status_code == 201
    asked = {"user_id": user, "provider": "openai", "model": "gpt-4o-mini", "id": hold}
    made = await client.post("/v1/holds", json=asked)
    assert made.status_code == 201, made.text
    event = {"event": {"user_id": user, "usage": {"requests": 1}, "task_type": hold[:64]}}
    settled = await client.post(f"/v1/holds/{hold}/settle", json=event)
    assert settled.status_code == 201, settled.text
    usage = (await client.get(f"/v1/users/{user}/usage")).json()
    assert usage["total_calls"] == 2
    assert [one["used"] for one in usage["limits"]] == [2]
    assert len((await client.get(f"/v1/users/{user}/events")).json()["items"]) == 2
    longer = await client.post("/v1/events", json=EVENT | {"user_id": user + "x"})
    assert longer.json()["errors"][0]["pointer"] == "/user_id"
    too_long = await client.post("/v1/holds", json=asked | {"id": hold + "x"})
    assert too_long.json()["errors"][0]["pointer"] == "/id"


async def test_an_idempotency_key_is_read_as_its_id_would_be(client: httpx.AsyncClient) -> None:
    for name in ("käse-✓", "plain"):
        body = {key: value for key, value in EVENT.items() if key != "id"}
        header = {"Idempotency-Key": name.encode()}
        first = await client.post("/v1/events", json=body | {"id": name})
        again = await client.post("/v1/events", json=body, headers=header)
        assert (first.status_code, again.status_code) == (201, 200)
        assert again.json() == first.json() | {"status": "duplicate"}
    latin = await client.post("/v1/events", json=body, headers={"Idempotency-Key": b"k\xe4se"})
    assert latin.json()["id"] == "käse"


@pytest.mark.parametrize("path", ["/v1/events", "/v1/events?atomic=false"])
async def test_two_idempotency_keys_say_nothing(client: httpx.AsyncClient, path: str) -> None:
    body = {key: value for key, value in EVENT.items() if key != "id"}
    kind = ("Content-Type", "application/json")
    for other, status in (("b", 422), ("a", 201)):
        headers = [kind, ("Idempotency-Key", "a"), ("Idempotency-Key", other)]
        answer = await client.post(path, json=body, headers=headers)
        assert answer.status_code == status, answer.text
        if status == 422:
            assert answer.json()["errors"][0]["pointer"] == "/Idempotency-Key"


async def test_a_batch_says_what_it_cost(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/events", json=[EVENT, EVENT | {"id": "e2"}])
    assert answer.headers["x-tollgate-cost-usd"] == answer.json()["cost_usd"] == "0.00072"


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/v1/events", EVENT | {"tags": {"k" * 65: "x"}}, "/tags"),
        ("/v1/events", EVENT | {"tags": {"k": "x" * 513}}, "/tags"),
        (
            "/v1/analytics/query",
            {"measures": ["calls"], "filters": {"provider": "a\x07"}},
            "/filters/provider",
        ),
        ("/v1/analytics/query", {"measures": ["calls"], "filters": {"foo": "x"}}, "/filters/foo"),
        ("/v1/analytics/query", {"measures": ["nope"]}, "/measures/0"),
        ("/v1/analytics/query", {}, "/measures"),
        ("/v1/plans", {"name": "x", "a/b~c": 1}, "/a~1b~0c"),
        ("/v1/prices", {"provider": "x", "model": "y", "rates": {"a/b": {}}}, "/rates/a~1b"),
    ],
)
async def test_a_pointer_leads_into_what_was_sent(
    client: httpx.AsyncClient, path: str, body: dict[str, object], pointer: str
) -> None:
    answer = await client.post(path, json=body)
    assert answer.status_code == 422
    found = answer.json()
    assert pointer in [one["pointer"] for one in found["errors"]], found
    for internal in ("$", "[key]", "function-", "constrained"):
        assert internal not in answer.text


async def test_a_key_of_another_user_is_told_where_that_user_stands(
    client: httpx.AsyncClient,
) -> None:
    asked = {"name": "bound", "scopes": ["ingest"], "user_id": "bob"}
    key = (await client.post("/v1/api-keys", json=asked)).json()["key"]
    headers = {"Authorization": f"Bearer {key}"}
    mixed = [EVENT | {"user_id": "bob"}, EVENT]
    for body, at in ((mixed, "/1/user_id"), ([EVENT, EVENT], "/0/user_id")):
        answer = await client.post("/v1/events", json=body, headers=headers)
        assert answer.json()["results"][0]["pointer"] == at
    whole = await client.post("/v1/events?atomic=true", json=[EVENT], headers=headers)
    assert whole.status_code == 403
    assert whole.json()["errors"][0]["pointer"] == "/0/user_id"


async def test_whose_hold_is_to_be_settled_is_said_in_the_event(client: httpx.AsyncClient) -> None:
    for user in ("alice", "bob"):
        asked = {"user_id": user, "id": "same", "provider": "openai", "model": "gpt-4o-mini"}
        assert (await client.post("/v1/holds", json=asked)).status_code == 201
    answer = await client.post("/v1/holds/same/settle", json={"event": {}})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/event/user_id"


async def test_a_hold_that_does_not_fit_says_what_is_left(client: httpx.AsyncClient) -> None:
    limit = {"name": "l", "scope": {"user_id": "alice"}, "metric": "cost_usd", "window": "month"}
    limit |= {"amount": "0.01", "action": "block"}
    assert (await client.post("/v1/limits", json=limit)).status_code == 201
    answer = await client.post("/v1/holds", json={"user_id": "alice", "cost_usd": "0.02"})
    assert answer.status_code == 429
    assert answer.headers["x-tollgate-remaining-usd"] == "0.01"
