"""Events that carry the provider's raw response, over HTTP; some of them bill several calls."""

import gzip
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.runtime import Runtime
from tests.properties.books import assert_balanced

pytestmark = pytest.mark.anyio

RAW: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "fixtures" / "raw_responses.json").read_text()
)
CHAT = {"id": "c", "user_id": "ann", "provider": "openai", "response": RAW["openai_chat"]}
ADVISED = {
    "id": "a",
    "user_id": "ann",
    "provider": "anthropic",
    "response": RAW["anthropic_advised"],
}
OWN = {
    "id": "a",
    "model": "claude-sonnet-4-6",
    "usage": {"input_tokens": 2172, "cache_read_tokens": 412, "output_tokens": 531},
    "cost_usd": "0.0133686",
    "cost_status": "priced",
}
ADVISOR = {
    "id": "a#2",
    "model": "claude-opus-4-6",
    "usage": {"input_tokens": 823, "output_tokens": 1612},
    "cost_usd": "0.044415",
    "cost_status": "priced",
}
OTHER = {"user_id": "ann", "usage": {"input_tokens": 7}}


async def send(client: httpx.AsyncClient, *events: Any, query: str = "") -> httpx.Response:
    return await client.post(f"/v1/events{query}", json=list(events))


async def listed(client: httpx.AsyncClient, user: str = "ann") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.get(f"/v1/users/{user}/events")).json()["items"]
    return sorted(found, key=lambda one: str(one["id"]))


async def test_a_response_says_model_and_usage(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/events", json=CHAT)
    assert answer.status_code == 201
    assert answer.json() == {
        "id": "c",
        "status": "recorded",
        "user_id": "ann",
        "timestamp": "2026-11-20T12:30:00Z",
        "billing_period": "2026-11",
        "usage": {"input_tokens": 50, "output_tokens": 15},
        "cost_usd": "0.000044",
        "cost_status": "priced",
        "usage_status": "active",
    }
    (row,) = await listed(client)
    assert row["model"] == "gpt-4.1-mini-2025-04-14"
    assert row["usage"] == {"input_tokens": 50, "output_tokens": 15}


async def test_a_response_that_bills_two_models_makes_a_row_for_each(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    event = ADVISED | {"hold_id": "h", "latency_ms": 900, "tags": {"env": "prod"}}
    answer = await client.post("/v1/events", json=event)
    assert answer.status_code == 201
    receipt = answer.json()
    assert receipt["usage"] == {
        "input_tokens": 2995,
        "cache_read_tokens": 412,
        "output_tokens": 2143,
    }
    assert receipt["cost_usd"] == answer.headers["x-tollgate-cost-usd"] == "0.0577836"
    assert receipt["cost_status"] == "priced"
    assert receipt["calls"] == [OWN, ADVISOR]
    rows = await listed(client)
    assert [{name: row[name] for name in OWN} for row in rows] == [OWN, ADVISOR]
    assert [row["hold_id"] for row in rows] == ["h", None]
    assert [row["latency_ms"] for row in rows] == [900, None]
    assert [row["tags"] for row in rows] == [{"env": "prod"}] * 2
    assert (await client.get("/v1/users/ann/events/a%232")).json()["model"] == ADVISOR["model"]
    await assert_balanced(runtime.db)


async def test_sent_again_in_another_order_it_is_the_same_event(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    first = await client.post("/v1/events", json=ADVISED)
    turned = {name: ADVISED[name] for name in reversed(ADVISED)}
    turned["response"] = dict(reversed(RAW["anthropic_advised"].items()))
    again = await client.post(
        "/v1/events",
        content=json.dumps(turned, indent=2),
        headers={"Content-Type": "application/json"},
    )
    assert again.status_code == 200
    assert again.json() == first.json() | {"status": "duplicate"}
    assert len(await assert_balanced(runtime.db)) == 2


@pytest.mark.parametrize("first", [ADVISED, ADVISED | {"response": RAW["openai_chat"]}])
async def test_another_response_under_the_same_id_is_a_conflict_and_leaves_nothing(
    client: httpx.AsyncClient, runtime: Runtime, first: dict[str, Any]
) -> None:
    await client.post("/v1/events", json=first)
    before = await listed(client)
    changed = json.loads(json.dumps(ADVISED))
    changed["response"]["usage"]["iterations"][0]["output_tokens"] += 1
    for answer in (await client.post("/v1/events", json=changed), await send(client, changed)):
        assert answer.status_code == (409 if "type" in answer.json() else 422)
    assert await listed(client) == before
    await assert_balanced(runtime.db)


async def test_one_taken_id_refuses_the_whole_event(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await client.post("/v1/events", json=OTHER | {"id": "a#2"})
    answer = await client.post("/v1/events", json=ADVISED)
    assert answer.status_code == 409
    assert answer.json()["id"] == "a#2"
    many = await send(client, ADVISED, OTHER | {"id": "b"})
    assert many.status_code == 207
    (refused,) = many.json()["results"]
    assert (refused["index"], refused["id"], refused["pointer"]) == (0, "a", "/0/id")
    assert refused["detail"].endswith("a#2")
    assert [row["id"] for row in await listed(client)] == ["a#2", "b"]
    await assert_balanced(runtime.db)


async def test_within_one_batch_the_first_to_come_has_the_ids(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    later = OTHER | {"id": "a#2"}
    earlier = OTHER | {"id": "z#2"}
    bodies = [ADVISED, later, ADVISED, earlier, ADVISED | {"id": "z"}, OTHER | {"id": "z"}]
    answer = await send(client, *bodies, query="?results=all")
    fates = [one["status"] for one in answer.json()["results"]]
    assert fates == ["recorded", "rejected", "duplicate", "recorded", "rejected", "recorded"]
    assert sorted(row["id"] for row in await listed(client)) == ["a", "a#2", "z", "z#2"]
    await assert_balanced(runtime.db)


async def test_a_batch_counts_events_and_sums_calls(client: httpx.AsyncClient) -> None:
    bad = CHAT | {"id": "x", "response": {"nothing": "here"}}
    both = CHAT | {"id": "y", "usage": {"input_tokens": 1}}
    answer = await send(client, OTHER | {"id": "o"}, ADVISED, CHAT, bad, both, query="?results=all")
    assert answer.status_code == 207
    summary = answer.json()
    assert (summary["recorded"], summary["duplicates"], summary["rejected"]) == (3, 0, 2)
    assert summary["cost_usd"] == "0.0578276"
    results = summary["results"]
    assert [one["index"] for one in results] == list(range(5))
    assert results[1]["calls"] == [OWN, ADVISOR]
    assert results[1]["cost_usd"] == "0.0577836"
    assert "calls" not in results[2]
    assert results[3]["pointer"].startswith("/3/response")
    assert results[4]["pointer"] == "/4/usage"
    again = (await send(client, ADVISED, CHAT, query="?results=all")).json()
    assert (again["recorded"], again["duplicates"], again["cost_usd"]) == (0, 2, "0")
    assert again["results"][0]["calls"] == [OWN, ADVISOR]


async def test_usage_and_response_together_are_refused_naming_both(
    client: httpx.AsyncClient,
) -> None:
    answer = await client.post("/v1/events", json=CHAT | {"usage": {"input_tokens": 1}})
    assert answer.status_code == 422
    assert [one["pointer"] for one in answer.json()["errors"]] == ["/usage", "/response"]


async def test_a_response_of_null_is_none(client: httpx.AsyncClient) -> None:
    event = {"id": "n", "user_id": "ann", "model": "gpt-4o-mini", "response": None}
    first = await client.post("/v1/events", json=event)
    assert first.json()["usage"] == {"input_tokens": 0, "output_tokens": 0, "requests": 1}
    del event["response"]
    again = await client.post("/v1/events", json=event)
    assert again.json()["status"] == "duplicate"


async def test_an_atomic_batch_with_a_conflict_records_nothing(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await client.post("/v1/events", json=OTHER | {"id": "z#2"})
    bodies = [ADVISED, CHAT, ADVISED | {"id": "z"}]
    answer = await send(client, *bodies, query="?atomic=true")
    assert answer.status_code == 409
    assert answer.json()["errors"][0]["pointer"] == "/2/id"
    assert [row["id"] for row in await listed(client)] == ["z#2"]
    taken = await send(client, *bodies[:2], query="?atomic=true")
    assert taken.json()["recorded"] == 2
    await assert_balanced(runtime.db)


async def test_the_callers_cost_is_booked_once_and_wins(client: httpx.AsyncClient) -> None:
    receipt = (await client.post("/v1/events", json=ADVISED | {"cost_usd": "0.25"})).json()
    assert (receipt["cost_usd"], receipt["cost_status"]) == ("0.25", "provided")
    costs = [(one["cost_usd"], one["cost_status"]) for one in receipt["calls"]]
    assert costs == [("0.25", "provided"), ("0", "provided")]


async def test_a_cost_that_the_response_states_wins_over_the_price(
    client: httpx.AsyncClient,
) -> None:
    event = {"user_id": "ann", "provider": "openrouter", "response": RAW["openrouter_chat"]}
    receipt = (await client.post("/v1/events", json=event)).json()
    assert (receipt["cost_usd"], receipt["cost_status"]) == ("0.00256995", "provided")
    stated = (await client.post("/v1/events", json=event | {"cost_usd": "0.1"})).json()
    assert stated["cost_usd"] == "0.1"


async def test_the_cost_of_an_event_is_unknown_if_that_of_one_call_is(
    client: httpx.AsyncClient,
) -> None:
    event = json.loads(json.dumps(ADVISED))
    event["response"]["usage"]["iterations"][1]["model"] = "nobody-knows-1"
    answer = await client.post("/v1/events", json=event)
    receipt = answer.json()
    assert (receipt["cost_usd"], receipt["cost_status"]) == (None, "unpriced")
    assert [one["cost_usd"] for one in receipt["calls"]] == ["0.0133686", None]
    assert "x-tollgate-cost-usd" not in answer.headers
    batch = (await send(client, event | {"id": "b"})).json()
    assert batch["cost_usd"] == "0.0133686"


async def test_the_callers_model_names_the_first_call_and_its_context_gives_way(
    client: httpx.AsyncClient,
) -> None:
    context = {"service_tier": "priority", "region": "eu"}
    event = ADVISED | {"model": "my-deployment", "context": context}
    receipt = (await client.post("/v1/events", json=event)).json()
    assert [one["model"] for one in receipt["calls"]] == ["my-deployment", ADVISOR["model"]]
    (row, _) = await listed(client)
    assert row["context"] == {"service_tier": "standard", "region": "eu"}


async def test_without_an_id_the_calls_share_the_one_that_is_made(
    client: httpx.AsyncClient,
) -> None:
    event = {name: value for name, value in ADVISED.items() if name != "id"}
    receipt = (await client.post("/v1/events", json=event)).json()
    assert [one["id"] for one in receipt["calls"]] == [receipt["id"], f"{receipt['id']}#2"]
    named = await client.post("/v1/events", json=event, headers={"Idempotency-Key": "k"})
    assert [one["id"] for one in named.json()["calls"]] == ["k", "k#2"]
    again = await client.post("/v1/events", json=event, headers={"Idempotency-Key": "k"})
    assert again.json() == named.json() | {"status": "duplicate"}
    longest = "x" * 512
    long = (await client.post("/v1/events", json=ADVISED | {"id": longest})).json()
    assert long["calls"][1]["id"] == f"{longest}#2"
    assert (await client.get(f"/v1/users/ann/events/{longest}%232")).status_code == 200


async def test_lines_and_gzip_are_read_alike(client: httpx.AsyncClient) -> None:
    lines = "\n".join(json.dumps(one) for one in (ADVISED, CHAT)).encode()
    headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}
    answer = await client.post(
        "/v1/events?results=all", content=gzip.compress(lines), headers=headers
    )
    assert answer.json()["recorded"] == 2
    assert answer.json()["results"][0]["calls"] == [OWN, ADVISOR]


async def test_one_event_of_an_array_may_not_pass_a_mebibyte_either(
    client: httpx.AsyncClient,
) -> None:
    long = CHAT | {"id": "l", "response": RAW["openai_chat"] | {"text": "x" * (1 << 20)}}
    assert (await client.post("/v1/events", json=long)).status_code == 413
    answer = await send(client, long, CHAT)
    assert answer.status_code == 207
    assert answer.json()["results"][0]["pointer"].startswith("/0")
    lines = {"Content-Type": "application/x-ndjson"}
    body = f"{json.dumps(long)}\n{json.dumps(CHAT)}"
    told = await client.post("/v1/events", content=body, headers=lines)
    assert told.status_code == 207
    assert told.json()["results"][0]["pointer"] == "/0"


async def test_half_a_character_in_one_item_refuses_that_item(client: httpx.AsyncClient) -> None:
    body = f'[{json.dumps(CHAT)}, {{"user_id": "\\ud800"}} , {json.dumps(ADVISED)}]'
    answer = await client.post(
        "/v1/events", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 207
    summary = answer.json()
    assert summary["recorded"] == 2
    assert [one["pointer"] for one in summary["results"]] == ["/1/user_id"]


async def test_a_key_given_twice_is_pointed_at_wherever_it_is(client: httpx.AsyncClient) -> None:
    body = '[{"user_id":"u"},{"user_id":"u","response":{"usage":[{"a/b":{"k":1,"k":2}}]}}]'
    answer = await client.post(
        "/v1/events", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.json()["results"][0]["pointer"] == "/1/response/usage/0/a~1b/k"
