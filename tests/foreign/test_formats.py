"""What each format means by what it says, and how it is answered."""

import json
from datetime import timedelta

import httpx
import pytest

from app.core.clock import FrozenClock
from app.runtime import Runtime
from tests.foreign.captured import events_of
from tests.foreign.requests import EVENT, LAGO, RECORD, STRIPE, made_key, total_calls

pytestmark = pytest.mark.anyio


async def test_good_events_are_recorded_beside_bad_ones(client: httpx.AsyncClient) -> None:
    bad = {**EVENT, "id": "c2", "data": {**EVENT["data"], "prompt_tokens": -1}}
    late = {**EVENT, "id": "c3", "time": "1999-01-01T00:00:00Z"}
    kind = {"content-type": "application/cloudevents-batch+json"}
    body = json.dumps([bad, EVENT, late]).encode()
    answer = await client.post("/api/v1/events", content=body, headers=kind)
    assert answer.status_code == 207
    told = answer.json()
    assert (told["recorded"], told["rejected"]) == (1, 2)
    assert [one["pointer"] for one in told["results"]] == ["/0/data/prompt_tokens", "/2/time"]
    assert await total_calls(client) == 1


async def test_source_and_id_tell_a_repeat_even_with_other_content(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await client.post("/api/v1/events", json=EVENT)
    other = {**EVENT, "data": {"model": "gpt-4o", "cost": 0.0}}
    assert (await client.post("/api/v1/events", json=other)).status_code == 204
    elsewhere = {**EVENT, "source": "other"}
    assert (await client.post("/api/v1/events", json=elsewhere)).status_code == 204
    assert await total_calls(client) == 2
    assert runtime.foreign.tally.read()["cloudevents", "conflict"] == 1


async def test_halves_of_a_call_count_their_kind_of_token(client: httpx.AsyncClient) -> None:
    for kind, count in (("input", 1200), ("output", 340), ("cached", 50)):
        data = {"model": "gpt-4o", "type": kind, "tokens": count}
        event = {**EVENT, "id": kind, "data": data}
        assert (await client.post("/api/v1/events", json=event)).status_code == 204
    found = {event["id"]: event["usage"] for event in await events_of(client, "alice")}
    assert found["svc|input"] == {"input_tokens": 1200, "output_tokens": 0}
    assert found["svc|output"] == {"input_tokens": 0, "output_tokens": 340}
    assert found["svc|cached"]["cache_read_tokens"] == 50


async def test_what_is_no_model_call_counts_on_a_plain_meter(client: httpx.AsyncClient) -> None:
    event = {**EVENT, "type": "page_views", "data": {"value": "3", "path": "/"}}
    assert (await client.post("/api/v1/events", json=event)).status_code == 204
    bare = {name: value for name, value in EVENT.items() if name != "data"}
    assert (await client.post("/api/v1/events", json={**bare, "id": "c9"})).status_code == 204
    found = {one["model"]: one for one in await events_of(client, "alice")}
    assert found["page_views"]["usage"]["requests"] == 3
    assert found["prompt"]["usage"]["requests"] == 1
    assert found["prompt"]["provider"] == "meter"


async def test_a_plain_meter_may_have_a_price(client: httpx.AsyncClient) -> None:
    price = {
        "provider": "meter",
        "model": "page_views",
        "rates": {"requests": {"usd": "0.5", "per": 1000}},
    }
    assert (await client.post("/v1/prices", json=price)).status_code == 201
    event = {**EVENT, "type": "page_views", "data": {"value": 3}}
    await client.post("/api/v1/events", json=event)
    [found] = await events_of(client, "alice")
    assert (found["cost_usd"], found["cost_status"]) == ("0.0015", "priced")


async def test_lago_is_answered_as_lago_does(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/v1/events", json={"event": LAGO})
    assert answer.status_code == 200, answer.text
    told = answer.json()["event"]
    assert told["transaction_id"] == "x1"
    assert told["external_subscription_id"] == "alice"
    assert (told["code"], told["timestamp"]) == ("llm_tokens", "2026-11-21T01:00:00.250Z")
    again = (await client.post("/api/v1/events", json={"event": LAGO})).json()["event"]
    assert again["lago_id"] == told["lago_id"]
    changed = {**LAGO, "properties": {"model": "gpt-4o", "prompt_tokens": 99}}
    answer = await client.post("/api/v1/events", json={"event": changed})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_errors")
    assert "value_already_exist" in answer.text


async def test_a_batch_of_lagos_is_recorded_whole_or_not(client: httpx.AsyncClient) -> None:
    bad = {**LAGO, "transaction_id": None}
    answer = await client.post("/api/v1/events/batch", json={"events": [LAGO, bad]})
    assert answer.status_code == 422
    assert answer.json()["error_details"] == {"/events/1/transaction_id": ["value_is_mandatory"]}
    assert await total_calls(client) == 0


async def test_cents_are_cents(client: httpx.AsyncClient) -> None:
    event = {**LAGO, "precise_total_amount_cents": "0.64"}
    await client.post("/api/v1/events", json={"event": event})
    [found] = await events_of(client, "alice")
    assert (found["cost_usd"], found["cost_status"]) == ("0.0064", "provided")


async def test_litellm_may_send_lines_or_one_object(client: httpx.AsyncClient) -> None:
    second = {**RECORD, "litellm_call_id": "l2"}
    lines = f"{json.dumps(RECORD)}\n{json.dumps(second)}\n{{broken".encode()
    headers = {"content-type": "application/x-ndjson"}
    answer = await client.post("/v1/ingest/litellm", content=lines, headers=headers)
    assert answer.status_code == 207, answer.text
    assert (answer.json()["recorded"], answer.json()["rejected"]) == (2, 1)
    answer = await client.post("/v1/ingest/litellm", json={**RECORD, "litellm_call_id": "l3"})
    assert (answer.status_code, answer.json()["recorded"]) == (200, 1)


async def test_an_answer_from_litellms_cache_is_free(client: httpx.AsyncClient) -> None:
    hit = {**RECORD, "cache_hit": True, "response_cost": 0.0}
    await client.post("/v1/ingest/litellm", json=hit)
    [event] = await events_of(client, "alice")
    assert (event["cost_usd"], event["cost_status"]) == ("0", "provided")


async def test_litellms_words_for_errors_become_statuses(client: httpx.AsyncClient) -> None:
    told = {"error_code": "invalid_request_error", "error_class": "BadRequestError"}
    failed = {**RECORD, "status": "failure", "error_information": told}
    await client.post("/v1/ingest/litellm", json=failed)
    [event] = await events_of(client, "alice")
    assert (event["status_code"], event["error_message"]) == (400, "BadRequestError")


async def test_costs_far_apart_are_counted(client: httpx.AsyncClient, runtime: Runtime) -> None:
    wrong = {**RECORD, "response_cost": 0.5}
    await client.post("/v1/ingest/litellm", json=wrong)
    [event] = await events_of(client, "alice")
    assert event["cost_status"] == "priced"
    assert event["context"]["stated_cost_usd"] == "0.5"
    assert runtime.foreign.tally.read()["litellm", "drift"] == 1


async def test_a_user_that_nobody_names_is_the_keys_or_unknown(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    nobody = {name: value for name, value in RECORD.items() if name != "end_user"}
    await client.post("/v1/ingest/litellm", json=nobody)
    assert len(await events_of(client, "unknown")) == 1
    token = await made_key(runtime, "ingest", user_id="bob")
    await client.post(
        "/v1/ingest/litellm", json=nobody, headers={"authorization": f"Bearer {token}"}
    )
    assert len(await events_of(client, "bob")) == 1
    assert runtime.foreign.tally.read()["litellm", "unknown_user"] == 1


async def test_stripe_clients_find_what_was_wrong(client: httpx.AsyncClient) -> None:
    form = {"event_name": "m", "payload[value]": "a lot", "payload[stripe_customer_id]": "alice"}
    answer = await client.post("/v1/billing/meter_events", data=form)
    assert answer.status_code == 400
    told = answer.json()["error"]
    assert (told["type"], told["param"]) == ("invalid_request_error", "payload.value")
    for _ in range(2):
        answer = await client.post(
            "/v1/billing/meter_events",
            data=form | {"payload[value]": "7"},
            headers={"idempotency-key": "retry-1"},
        )
        assert answer.json()["payload"]["value"] == "7"
    assert await total_calls(client) == 1


async def test_a_stripe_session_may_only_record_and_only_for_minutes(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    token = await made_key(runtime, "ingest", user_id="alice")
    signed = {"authorization": f"Bearer {token}"}
    opened = (await client.post("/v2/billing/meter_event_session", headers=signed)).json()
    session = {"authorization": f"Bearer {opened['authentication_token']}"}
    events = {"events": [{**STRIPE, "identifier": "a"}, {**STRIPE, "identifier": "b"}]}
    for _ in range(2):
        answer = await client.post("/v2/billing/meter_event_stream", json=events, headers=session)
        assert (answer.status_code, answer.json()) == (200, {}), answer.text
    assert await total_calls(client) == 2
    assert (await client.get("/v1/analytics/totals", headers=session)).status_code == 403
    others = {"events": [{**STRIPE, "payload": {"value": 1, "stripe_customer_id": "bob"}}]}
    answer = await client.post("/v2/billing/meter_event_stream", json=others, headers=session)
    assert answer.status_code == 403
    clock.advance(timedelta(minutes=16))
    answer = await client.post("/v2/billing/meter_event_stream", json=events, headers=session)
    assert answer.status_code == 401


async def test_a_key_has_twenty_sessions_at_most(client: httpx.AsyncClient) -> None:
    statuses = [
        (await client.post("/v2/billing/meter_event_session")).status_code for _ in range(21)
    ]
    assert statuses == [200] * 20 + [429]


async def test_a_plain_meter_keeps_the_cost_that_is_stated(client: httpx.AsyncClient) -> None:
    event = {**EVENT, "type": "page_views", "data": {"value": 2, "cost": "0.25"}}
    assert (await client.post("/api/v1/events", json=event)).status_code == 204
    cents = {**LAGO, "properties": {}, "precise_total_amount_cents": "12.345"}
    assert (await client.post("/api/v1/events", json={"event": cents})).status_code == 200
    found = {one["model"]: one for one in await events_of(client, "alice")}
    assert found["page_views"]["cost_usd"] == "0.25"
    assert found["page_views"]["usage"]["requests"] == 2
    assert found["llm_tokens"]["cost_usd"] == "0.12345"
    assert {one["cost_status"] for one in found.values()} == {"provided"}


async def test_a_providers_response_as_data_tells_its_usage(client: httpx.AsyncClient) -> None:
    told = {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4}}
    data = {"model": "gpt-4o", "object": "chat.completion", "usage": told}
    assert (await client.post("/api/v1/events", json={**EVENT, "data": data})).status_code == 204
    [found] = await events_of(client, "alice")
    assert (found["usage"]["input_tokens"], found["usage"]["cache_read_tokens"]) == (10, 4)
    told["prompt_tokens"] = "many"  # type: ignore[assignment]
    answer = await client.post("/api/v1/events", json={**EVENT, "id": "c2", "data": data})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == "/data/usage/prompt_tokens"


async def test_an_outcome_may_be_told_in_strings(client: httpx.AsyncClient) -> None:
    form = {"event_name": "m", "payload[value]": "7", "payload[stripe_customer_id]": "alice"}
    outcome = {"payload[status_code]": "503", "payload[latency_ms]": "12.5"}
    answer = await client.post("/v1/billing/meter_events", data=form | outcome)
    assert answer.status_code == 200, answer.text
    [found] = await events_of(client, "alice")
    assert (found["status_code"], found["latency_ms"]) == (503, 12.5)
    answer = await client.post("/v1/billing/meter_events", data=form | {"payload[ttft_ms]": "soon"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "payload.ttft_ms")


async def test_a_stripe_stream_sent_again_counts_once_also_without_identifiers(
    client: httpx.AsyncClient,
) -> None:
    events = {"events": [STRIPE, STRIPE, {**STRIPE, "identifier": "s1"}]}
    for key in ("call-1", "call-1", "call-2"):
        answer = await client.post(
            "/v2/billing/meter_event_stream", json=events, headers={"idempotency-key": key}
        )
        assert answer.status_code == 200, answer.text
    assert await total_calls(client) == 5
