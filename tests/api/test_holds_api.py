"""Reserve, settle, release, extend: over HTTP, as the documentation promises it."""

from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from app.access.keys import create_key
from app.analytics.audit import prove
from app.core.clock import FrozenClock
from app.runtime import Runtime
from tests.conftest import START

pytestmark = pytest.mark.anyio

MINI = {"provider": "openai", "model": "gpt-4o-mini"}
Json = dict[str, Any]


async def limit(client: httpx.AsyncClient, metric: str, amount: Any, **more: Any) -> Json:
    body = {"name": metric, "scope": {"user_id": "alice"}, "metric": metric, "window": "month"}
    answer = await client.post("/v1/limits", json=body | {"amount": amount} | more)
    assert answer.status_code == 201, answer.text
    found: Json = answer.json()
    return found


async def ask(client: httpx.AsyncClient, code: int = 201, **said: Any) -> Json:
    answer = await client.post("/v1/holds", json={"user_id": "alice", **MINI} | said)
    assert answer.status_code == code, answer.text
    found: Json = answer.json()
    return found


async def settle(client: httpx.AsyncClient, hold: str, code: int = 201, **event: Any) -> Json:
    answer = await client.post(f"/v1/holds/{hold}/settle", json={"event": event})
    assert answer.status_code == code, answer.text
    found: Json = answer.json()
    return found


async def standing(client: httpx.AsyncClient, name: str = "tokens") -> tuple[Any, Any]:
    answer = await client.get("/v1/users/alice/limits")
    found = {one["name"]: one for one in answer.json()["items"]}[name]
    return found["used"], found["held"]


async def assert_proven(runtime: Runtime) -> None:
    proof = await runtime.db.read(lambda tx: prove(tx, runtime.clock.now()))
    assert proof.differences == []


async def test_a_hold_is_held_settled_and_given_back(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    made = await limit(client, "tokens", 1000)
    await limit(client, "cost_usd", "1")
    hold = await ask(client, usage={"input_tokens": 400, "output_tokens": 100}, ttl_s=60)
    assert hold["status"] == "open"
    assert hold["expires_at"] == "2026-11-20T12:31:00Z"
    assert hold["estimated_cost_usd"] == "0.00012"
    assert hold["estimate"]["basis"] == "usage"
    by_metric = {one["metric"]: one for one in hold["held"]}
    assert by_metric["cost_usd"]["amount"] == "0.00012"
    assert by_metric["tokens"] == {
        "limit_id": made["id"],
        "name": "tokens",
        "metric": "tokens",
        "window": "month",
        "scope": {"user_id": "alice"},
        "window_start": "2026-11-01T00:00:00Z",
        "resets_at": "2026-12-01T00:00:00Z",
        "amount": 500,
    }
    assert await standing(client) == (0, 500)
    await assert_proven(runtime)
    receipt = await settle(client, hold["id"], usage={"input_tokens": 300})
    assert receipt["id"] == f"settle:{hold['id']}"
    assert await standing(client) == (300, 0)
    ended = (await client.get(f"/v1/holds/{hold['id']}")).json()
    assert (ended["status"], ended["settled_event_id"]) == ("settled", receipt["id"])
    event = (await client.get(f"/v1/users/alice/events/{receipt['id']}")).json()
    assert (event["provider"], event["model"]) == ("openai", "gpt-4o-mini")
    await assert_proven(runtime)


async def test_what_does_not_fit_is_told_by_which_limit_and_holds_nothing(
    client: httpx.AsyncClient,
) -> None:
    await limit(client, "tokens", 1000)
    await limit(client, "calls", 1)
    await ask(client, usage={"input_tokens": 400})
    answer = await client.post("/v1/holds", json={"user_id": "alice", "id": "h", **MINI})
    assert answer.status_code == 429
    problem = answer.json()
    assert problem["type"] == "/docs/problems#limit-reached"
    assert {problem["binding"]["name"]} <= {"tokens", "calls"}
    assert int(answer.headers["Retry-After"]) == 86_400
    assert await standing(client) == (0, 400)
    assert await standing(client, "calls") == (0, 1)
    assert (await client.get("/v1/holds/h")).status_code == 404


async def test_a_denied_id_may_try_again(client: httpx.AsyncClient) -> None:
    await limit(client, "calls", 1)
    first = await ask(client, id="one", usage={})
    await ask(client, 429, id="two", usage={})
    assert (await client.post(f"/v1/holds/{first['id']}/release")).json()["status"] == "released"
    await ask(client, 201, id="two", usage={})


@pytest.mark.parametrize("action", ["warn", "shadow"])
async def test_a_limit_that_does_not_block_holds_and_denies_nothing(
    client: httpx.AsyncClient, action: str
) -> None:
    await limit(client, "tokens", 10, action=action)
    await ask(client, usage={"input_tokens": 400})
    await ask(client, usage={"input_tokens": 400})
    assert await standing(client) == (0, 800)


async def test_the_same_hold_asked_again_is_the_same_hold(client: httpx.AsyncClient) -> None:
    await limit(client, "tokens", 1000)
    first = await ask(client, id="h", usage={"input_tokens": 400})
    assert await ask(client, 200, id="h", usage={"input_tokens": 400}) == first
    assert await standing(client) == (0, 400)
    other = await ask(client, 409, id="h", usage={"input_tokens": 401})
    assert other["type"] == "/docs/problems#id-reused"
    await settle(client, "h")
    ended = await ask(client, 409, id="h", usage={"input_tokens": 400})
    assert ended["type"] == "/docs/problems#hold-closed"


async def test_a_settle_sent_again_is_a_duplicate_and_another_one_is_refused(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await limit(client, "tokens", 1000)
    await ask(client, id="h", usage={"input_tokens": 400})
    first = await settle(client, "h", usage={"input_tokens": 10})
    again = await settle(client, "h", 200, usage={"input_tokens": 10})
    assert again == first | {"status": "duplicate"}
    for other in ({"usage": {"input_tokens": 11}}, {"id": "else", "usage": {"input_tokens": 10}}):
        refused = await settle(client, "h", 409, **other)
        assert refused["type"] == "/docs/problems#hold-closed"
    assert await standing(client) == (10, 0)
    await assert_proven(runtime)


async def test_an_event_may_name_its_hold(client: httpx.AsyncClient, runtime: Runtime) -> None:
    """Through the ordinary way in: the first one frees, later ones are counted and free nothing."""
    await limit(client, "tokens", 1000)
    for hold in ("h", "g"):
        await ask(client, id=hold, usage={"input_tokens": 400})
    event = {"user_id": "alice", **MINI, "usage": {"input_tokens": 100}, "hold_id": "h"}
    batch = [event | {"id": "1"}, event | {"id": "2"}, event | {"id": "1"}]
    answer = await client.post("/v1/events", json=batch)
    assert (answer.json()["recorded"], answer.json()["duplicates"]) == (2, 1)
    assert await standing(client) == (200, 400)
    assert (await client.get("/v1/holds/h")).json()["settled_event_id"] == "1"
    unknown = await client.post("/v1/events", json=event | {"id": "3", "hold_id": "nobody's"})
    assert unknown.status_code == 201
    assert await standing(client) == (300, 400)
    await assert_proven(runtime)


async def test_more_than_was_held_is_counted_in_full(client: httpx.AsyncClient) -> None:
    await limit(client, "tokens", 1000)
    await ask(client, id="h", usage={"input_tokens": 400})
    await settle(client, "h", usage={"input_tokens": 5000})
    assert await standing(client) == (5000, 0)


async def test_an_expired_hold_holds_nothing_and_can_still_be_settled(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await limit(client, "tokens", 1000)
    await ask(client, id="h", usage={"input_tokens": 900}, ttl_s=10)
    clock.advance(timedelta(seconds=10))
    assert await standing(client) == (0, 0)
    checked = await client.post("/v1/limits/check", json={"user_id": "alice"})
    assert checked.json()["limits"][0]["held"] == 0
    assert (await client.get("/v1/holds/h")).json()["status"] == "expired"
    await assert_proven(runtime)
    await ask(client, usage={"input_tokens": 900}, ttl_s=60)
    assert await standing(client) == (0, 900)
    await settle(client, "h", usage={"input_tokens": 50})
    assert await standing(client) == (50, 900)
    assert (await client.get("/v1/holds/h")).json()["status"] == "settled"
    await assert_proven(runtime)


async def test_a_hold_may_be_extended_until_it_expires(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await limit(client, "tokens", 1000)
    await ask(client, id="h", usage={"input_tokens": 900}, ttl_s=10)
    clock.advance(timedelta(seconds=9))
    longer = await client.post("/v1/holds/h/extend", json={"ttl_s": 100})
    assert longer.json()["expires_at"] == "2026-11-20T12:31:49Z"
    clock.advance(timedelta(seconds=99))
    assert await standing(client) == (0, 900)
    await assert_proven(runtime)
    clock.advance(timedelta(seconds=1))
    assert await standing(client) == (0, 0)
    late = await client.post("/v1/holds/h/extend", json={"ttl_s": 100})
    assert (late.status_code, late.json()["state"]) == (409, "expired")


async def test_a_released_hold_cannot_be_settled_but_its_usage_can_be_sent(
    client: httpx.AsyncClient,
) -> None:
    await limit(client, "tokens", 1000)
    await ask(client, id="h", usage={"input_tokens": 900})
    for _ in range(2):
        released = await client.post("/v1/holds/h/release?user_id=alice")
        assert (released.status_code, released.json()["status"]) == (200, "released")
    assert await standing(client) == (0, 0)
    assert (await settle(client, "h", 409))["state"] == "released"
    event = {"user_id": "alice", "usage": {"input_tokens": 3}, "hold_id": "h"}
    assert (await client.post("/v1/events", json=event)).status_code == 201
    assert await standing(client) == (3, 0)
    await ask(client, id="g", usage={})
    await settle(client, "g")
    assert (await client.post("/v1/holds/g/release")).status_code == 409


async def test_amounts_are_freed_in_the_window_they_were_held_in(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await limit(client, "tokens", 1000, window="minute")
    await ask(client, id="h", usage={"input_tokens": 900})
    clock.advance(timedelta(minutes=1))
    await ask(client, id="g", usage={"input_tokens": 800})
    await settle(client, "h", usage={"input_tokens": 30})
    assert await standing(client) == (30, 800)
    await assert_proven(runtime)


async def test_without_usage_the_longest_answer_of_the_model_is_held(
    client: httpx.AsyncClient,
) -> None:
    await limit(client, "output_tokens", 100_000)
    await limit(client, "input_tokens", 100_000)
    hold = await ask(client)
    assert hold["estimate"]["basis"] == "model_maximum"
    assert hold["estimate"]["output_tokens"] == 16_384
    assert hold["estimated_cost_usd"] == "0.0098304"
    assert await standing(client, "output_tokens") == (0, 16_384)
    assert await standing(client, "input_tokens") == (0, 0)


async def test_of_an_unknown_model_one_call_is_held_and_the_answer_says_so(
    client: httpx.AsyncClient,
) -> None:
    await limit(client, "calls", 5)
    await limit(client, "tokens", 100)
    hold = await ask(client, provider="acme", model="roadrunner")
    assert hold["estimate"]["basis"] == "unknown"
    assert [one["metric"] for one in hold["held"]] == ["calls"]
    event = {"user_id": "alice", "usage": {"input_tokens": 100}}
    await client.post("/v1/events", json=event)
    await ask(client, 429, provider="acme", model="roadrunner")  # nothing is left to start with


async def test_a_stated_cost_is_held_as_it_is(client: httpx.AsyncClient) -> None:
    await limit(client, "cost_usd", "1")
    answer = await client.post("/v1/holds", json={"user_id": "alice", "cost_usd": "0.4"})
    assert answer.json()["estimate"]["basis"] == "stated"
    assert answer.headers["X-Tollgate-Cost-USD"] == "0.4"
    assert answer.headers["X-Tollgate-Remaining-USD"] == "0.6"
    assert await standing(client, "cost_usd") == ("0", "0.4")


async def test_a_raise_lets_more_holds_in_until_it_ends(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    made = await limit(client, "tokens", 100)
    await ask(client, usage={"input_tokens": 100}, ttl_s=86_400)
    await ask(client, 429, usage={"input_tokens": 1})
    until = (START + timedelta(hours=1)).isoformat()
    raised = {"amount": 150, "until": until}
    assert (await client.post(f"/v1/limits/{made['id']}/raise", json=raised)).status_code == 200
    await ask(client, usage={"input_tokens": 50}, ttl_s=86_400)
    clock.advance(timedelta(hours=1))
    await ask(client, 429, usage={"input_tokens": 0})


async def test_alerts_tell_of_what_was_used_and_not_of_what_is_held(
    client: httpx.AsyncClient,
) -> None:
    await limit(client, "tokens", 100, thresholds=[50, 100])
    await ask(client, id="h", usage={"input_tokens": 100})
    assert (await client.get("/v1/users/alice/alerts")).json()["items"] == []
    await settle(client, "h", usage={"input_tokens": 60})
    alerts = (await client.get("/v1/users/alice/alerts")).json()["items"]
    assert [one["threshold"] for one in alerts] == [50]


async def test_deleting_a_limit_forgets_what_was_held_of_it(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    made = await limit(client, "tokens", 1000)
    await ask(client, id="h", usage={"input_tokens": 400})
    assert (await client.delete(f"/v1/limits/{made['id']}")).status_code == 204
    await assert_proven(runtime)
    await limit(client, "tokens", 1000)
    await settle(client, "h", usage={"input_tokens": 1})
    assert await standing(client) == (1, 0)
    await assert_proven(runtime)


async def test_changing_what_a_limit_counts_forgets_what_was_held_of_it(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    made = await limit(client, "tokens", 1000)
    await ask(client, id="h", usage={"input_tokens": 400})
    changed = await client.patch(f"/v1/limits/{made['id']}", json={"window": "day"})
    assert changed.status_code == 200
    assert await standing(client) == (0, 0)
    await settle(client, "h", usage={"input_tokens": 1})
    assert await standing(client) == (1, 0)
    await assert_proven(runtime)


async def test_open_holds_are_listed_newest_first(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    for number in range(5):
        await ask(client, id=f"h{number}", ttl_s=60 if number else 1)
        clock.advance(timedelta(seconds=1))
    await settle(client, "h3")
    first = (await client.get("/v1/users/alice/holds?limit=2")).json()
    assert [one["id"] for one in first["items"]] == ["h4", "h2"]
    rest = await client.get(f"/v1/users/alice/holds?limit=2&cursor={first['next_cursor']}")
    assert [one["id"] for one in rest.json()["items"]] == ["h1"]
    assert rest.json()["next_cursor"] is None


async def test_a_hold_belongs_to_its_user(client: httpx.AsyncClient, runtime: Runtime) -> None:
    """Ids are unique per user; a key that is bound to another user does not learn of it."""

    async def make(tx: Any) -> str:
        made = await create_key(
            *(tx,), name="b", scopes=("check",), user_id="bob", expires_at=None, now=START
        )
        return made[1]

    token = await runtime.db.write(make, alone=True)
    bob = {"Authorization": f"Bearer {token}"}
    await ask(client, id="h")
    assert (await client.get("/v1/holds/h", headers=bob)).status_code == 404
    for path in ("release", "settle"):
        body: Json | None = {"event": {}} if path == "settle" else None
        answer = await client.post(f"/v1/holds/h/{path}", json=body, headers=bob)
        assert answer.status_code == 404
    mine = await client.post("/v1/holds", json={"user_id": "bob", "id": "h"}, headers=bob)
    assert mine.status_code == 201
    assert (await client.get("/v1/holds/h", headers=bob)).json()["user_id"] == "bob"
    assert (await client.get("/v1/holds/h")).status_code == 422
    assert (await client.get("/v1/holds/h?user_id=alice")).json()["user_id"] == "alice"
    other = await client.post("/v1/holds/h/settle", json={"event": {"user_id": "carol"}})
    assert other.status_code == 404


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/user_id"),
        ({"user_id": "alice", "ttl_s": 0}, "/ttl_s"),
        ({"user_id": "alice", "ttl_s": 86_401}, "/ttl_s"),
        ({"user_id": "alice", "ttl_s": True}, "/ttl_s"),
        ({"user_id": "alice", "usage": {"input_tokens": -1}}, "/usage/..."),
        ({"user_id": "alice", "usage": {"nonsense": 1}}, "/usage/nonsense"),
        ({"user_id": "alice", "cost_usd": "-1"}, "/cost_usd"),
        ({"user_id": "alice", "id": ""}, "/id"),
        ({"user_id": "alice", "id": "a\u0000"}, "/id"),
        ({"user_id": "alice", "amount": 3}, "/amount"),
    ],
)
async def test_a_bad_hold_is_told_where(
    client: httpx.AsyncClient, body: Json, pointer: str
) -> None:
    answer = await client.post("/v1/holds", json=body)
    assert answer.status_code == 422, answer.text
    found = answer.json()["errors"][0]["pointer"]
    assert found == pointer or (pointer.endswith("...") and found.startswith("/usage"))


async def test_a_call_of_any_age_settles_its_hold_as_a_backfill(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await limit(client, "tokens", 1000)
    hold = await ask(client, usage={"input_tokens": 10})
    event = {"timestamp": "2026-03-01T00:00:00Z", "usage": {"input_tokens": 7}}
    await settle(client, hold["id"], 422, **event)
    path, body = f"/v1/holds/{hold['id']}/settle", {"event": event}
    answer = await client.post(f"{path}?backfill=true", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.json()["billing_period"] == "2026-03"
    assert await standing(client) == (0, 0)
    assert (await client.post(f"{path}?back=true", json=body)).status_code == 422
    await assert_proven(runtime)


@pytest.mark.parametrize(
    ("event", "pointer"),
    [
        ({"usage": {"input_tokens": -1}}, "/event/usage/input_tokens"),
        ({"hold_id": "other"}, "/event/hold_id"),
        ({"user_id": 3}, "/event/user_id"),
        ({"nonsense": 3}, "/event/nonsense"),
        ({"timestamp": "2020-01-01T00:00:00Z"}, "/event/timestamp"),
    ],
)
async def test_a_bad_settle_is_told_where_and_leaves_the_hold(
    client: httpx.AsyncClient, event: Json, pointer: str
) -> None:
    await ask(client, id="h")
    refused = await settle(client, "h", 422, **event)
    assert refused["errors"][0]["pointer"] == pointer
    assert (await client.get("/v1/holds/h")).json()["status"] == "open"


async def test_retry_after_counts_to_the_reset(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    await limit(client, "calls", 0, window="minute")
    clock.advance(timedelta(seconds=12.5))
    answer = await client.post("/v1/holds", json={"user_id": "alice"})
    assert answer.status_code == 429
    resets_at = datetime.fromisoformat(answer.json()["binding"]["resets_at"])
    left = resets_at - clock.now()
    assert 0 <= int(answer.headers["Retry-After"]) - left.total_seconds() < 1.01


async def test_what_is_held_of_a_lifetime_has_no_reset(client: httpx.AsyncClient) -> None:
    await limit(client, "tokens", 1000, window="lifetime")
    made = await ask(client, id="h", usage={"input_tokens": 400})
    found = (await client.get("/v1/holds/h?user_id=alice")).json()
    assert found["held"][0]["resets_at"] is made["held"][0]["resets_at"] is None
