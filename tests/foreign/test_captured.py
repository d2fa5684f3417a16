"""What real clients sent becomes exactly the calls that were made."""

import httpx
import pytest

from app.runtime import Runtime
from tests.foreign.captured import (
    captured,
    events_of,
    expected_figures,
    figures,
    in_order,
    replay,
    scenario,
)

pytestmark = pytest.mark.anyio

OF_CALLS = captured(
    *("cloudevents_py", "lago_py", "openmeter_node", "openmeter_py", "litellm_sdk", "litellm_proxy")
)


@pytest.mark.parametrize("name", OF_CALLS)
async def test_a_captured_scenario_becomes_its_events_however_often_it_is_sent(
    name: str, client: httpx.AsyncClient
) -> None:
    expected = scenario(name)["expected"]
    if not expected:
        return
    users = sorted({event["user"] for event in expected})
    seen = []
    for _ in range(2):
        for answer in await replay(client, name):
            assert answer.status_code < 300, answer.text
        found = [event for user in users for event in await events_of(client, user)]
        assert in_order([figures(event) for event in found]) == in_order(
            [expected_figures(event) for event in expected]
        )
        seen.append([(event["id"], event["cost_usd"], event["cost_status"]) for event in found])
    assert seen[0] == seen[1]
    for event in found:
        said = event["context"] or {}
        if said.get("usage") == "unknown":
            assert event["cost_status"] in ("unpriced", "provided")
            assert event["cost_usd"] != "0"
    totals = (await client.get("/v1/analytics/totals")).json()
    assert totals["total_calls"] == len(expected), totals
    audit = (await client.get("/v1/audit/consistency")).json()
    assert audit["consistent"], audit


@pytest.mark.parametrize("name", captured("cloudevents_py", "openmeter_node", "lago_py"))
async def test_ids_are_the_sources_own(name: str, client: httpx.AsyncClient) -> None:
    expected = scenario(name)["expected"]
    await replay(client, name)
    for event in expected:
        stored = {one["id"] for one in await events_of(client, event["user"])}
        assert event["suggested_idempotency_key"] in stored


async def test_the_gateways_cost_counts_where_it_saw_more_than_it_tells(
    client: httpx.AsyncClient,
) -> None:
    await replay(client, "litellm_proxy-openmeter")
    [claude] = await events_of(client, "alice")
    assert (claude["cost_usd"], claude["cost_status"]) == ("0.006975", "provided")
    assert claude["context"] == {"stated_cost_usd": "0.006975", "priced_cost_usd": "0.012"}
    [responses] = await events_of(client, "end-11")
    assert (responses["cost_usd"], responses["context"]["usage"]) == ("0.00512", "unknown")
    assert responses["id"].startswith("sha256:")


async def test_a_cost_of_zero_beside_tokens_is_no_cost(client: httpx.AsyncClient) -> None:
    await replay(client, "litellm_sdk-openmeter_unpriced")
    found = {event["model"]: event for event in await events_of(client, "user-p")}
    known = found["claude-sonnet-4-20250514"]
    assert (known["cost_usd"], known["cost_status"]) == ("0.012", "priced")
    private = found["my-own-model"]
    assert (private["cost_usd"], private["cost_status"]) == (None, "unpriced")


async def test_a_full_record_of_litellm_keeps_what_it_tells(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await replay(client, "litellm_proxy-generic_api")
    expected = {
        f"litellm|{one['suggested_idempotency_key'].removeprefix('litellm:')}": one
        for one in scenario("litellm_proxy-generic_api")["expected"]
    }
    found = await events_of(client, "alice") + await events_of(client, "bob")
    assert {event["id"] for event in found} == set(expected)
    for event in found:
        want = expected[event["id"]]
        assert event["session_id"] == want["session"]
        assert event["team_id"] == want["tags"]["team"]
        assert event["api_key_id"] == want["tags"]["api_key_hash"]
        assert event["provider"] == want["provider"]
        assert abs(event["latency_ms"] - want["latency_ms"]) < 0.01
        if want["status"] == "error":
            assert event["status_code"] == want["http_status"]
            assert event["error_message"] == want["error_type"]
        else:
            assert event["cost_status"] == "priced"
            stated = event["context"]["stated_cost_usd"]
            assert abs(float(event["cost_usd"]) - want["client_cost_usd"]) < 1e-9
            assert abs(float(stated) - want["client_cost_usd"]) < 1e-9
    assert runtime.foreign.tally.read()["litellm", "recorded"] == 11
    assert ("litellm", "drift") not in runtime.foreign.tally.read()


async def test_bad_cloudevents_are_answered_as_the_capture_expects(
    client: httpx.AsyncClient,
) -> None:
    answers = await replay(client, "cloudevents_py-bad")
    assert [answer.status_code for answer in answers] == [400, 400, 400, 400]
    for answer in answers:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["errors"]


async def test_stripes_plain_meters_and_token_meters_are_counted(
    client: httpx.AsyncClient,
) -> None:
    for _ in range(2):
        for name in captured("stripe_py"):
            for answer in await replay(client, name):
                assert answer.status_code == 200, answer.text
    found = {event["id"]: event for event in await events_of(client, "cus_42")}
    assert sorted(found) == ["st-fx01-1", "st-fx01-2-input", "st-fx01-2-output", "st-fx01-4"]
    assert found["st-fx01-1"]["provider"] == "meter"
    assert found["st-fx01-1"]["model"] == "ai_tokens"
    assert found["st-fx01-1"]["usage"]["requests"] == 1540
    assert found["st-fx01-2-input"]["usage"]["input_tokens"] == 1200
    assert found["st-fx01-2-output"]["usage"]["output_tokens"] == 340
    assert found["st-fx01-2-input"]["provider"] == "openai"
    assert found["st-fx01-2-input"]["cost_usd"] == "0.003"
