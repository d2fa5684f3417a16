"""Alert rules over HTTP, and the alerts of every scope."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.core.clock import FrozenClock

pytestmark = pytest.mark.anyio

PATH = "/v1/alert-rules"
BUDGET = {
    "name": "team budget",
    "type": "threshold",
    "scope": {"team_id": "research"},
    "metric": "cost_usd",
    "window": "month",
    "amount": "10.00",
    "thresholds": [50, 100],
}
ANOMALY = {"name": "odd", "type": "anomaly", "scope": {"all": True}}


async def made(client: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post(PATH, json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def bound(client: httpx.AsyncClient, user: str) -> dict[str, str]:
    body = {"name": "k", "scopes": ["read", "manage"], "user_id": user}
    key = (await client.post("/v1/api-keys", json=body)).json()["key"]
    return {"Authorization": f"Bearer {key}"}


async def test_a_threshold_is_a_limit_that_only_warns(client: httpx.AsyncClient) -> None:
    rule = await made(client, BUDGET)
    assert rule | {"id": "", "limit_id": "", "created_at": ""} == {
        **{"id": "", "name": "team budget", "type": "threshold", "limit_id": ""},
        **{"scope": {"team_id": "research"}, "metric": "cost_usd", "window": "month"},
        **{"amount": "10", "thresholds": [50, 100], "sensitivity": None, "min_amount": None},
        **{"enabled": True, "created_at": ""},
    }
    limit = (await client.get(f"/v1/limits/{rule['limit_id']}")).json()
    assert (limit["action"], limit["amount"], limit["thresholds"]) == ("warn", "10", [50, 100])
    event = {"user_id": "alice", "team_id": "research", "cost_usd": "12"}
    sent = await client.post("/v1/events", json=event)
    assert sent.status_code == 201
    ask = {"user_id": "alice", "team_id": "research", "cost_usd": "1"}
    assert (await client.post("/v1/limits/check", json=ask)).json()["allowed"] is True
    found = (await client.get("/v1/alerts")).json()["items"]
    assert [(one["threshold"], one["scope"], one["limit_id"]) for one in found] == [
        (threshold, {"team_id": "research"}, rule["limit_id"]) for threshold in (100, 50)
    ]
    assert (await client.get("/v1/users/alice/alerts")).json()["items"] == []
    removed = await client.delete(f"{PATH}/{rule['id']}")
    assert removed.status_code == 204
    assert (await client.get(f"/v1/limits/{rule['limit_id']}")).status_code == 404
    assert (await client.get(f"{PATH}/{rule['id']}")).status_code == 404
    assert len((await client.get("/v1/alerts")).json()["items"]) == 2


async def test_a_threshold_made_late_tells_at_once_what_it_has_reached(
    client: httpx.AsyncClient,
) -> None:
    await client.post("/v1/events", json=[{"user_id": "alice"}] * 9)
    body = BUDGET | {"scope": {"user_id": "alice"}, "metric": "calls", "amount": 10}
    rule = await made(client, body | {"thresholds": [80, 90, 100]})
    found = (await client.get("/v1/users/alice/alerts")).json()["items"]
    assert [one["threshold"] for one in found] == [90, 80]
    patched = await client.patch(f"{PATH}/{rule['id']}", json={"amount": 9})
    assert patched.json()["amount"] == 9
    found = (await client.get("/v1/users/alice/alerts")).json()["items"]
    assert [one["threshold"] for one in found] == [100, 90, 80]
    assert (await client.get("/v1/audit/consistency")).json()["consistent"]


async def test_a_threshold_switched_off_goes_on_counting_and_says_nothing(
    client: httpx.AsyncClient,
) -> None:
    body = BUDGET | {"scope": {"user_id": "alice"}, "metric": "calls", "amount": 10}
    rule = await made(client, body | {"enabled": False})
    assert rule["enabled"] is False
    await client.post("/v1/events", json=[{"user_id": "alice"}] * 10)
    assert (await client.get("/v1/users/alice/alerts")).json()["items"] == []
    on = await client.patch(f"{PATH}/{rule['id']}", json={"enabled": True})
    assert on.json()["enabled"] is True
    found = (await client.get("/v1/users/alice/alerts")).json()["items"]
    assert [one["threshold"] for one in found] == [100, 50]


async def test_a_threshold_says_what_its_limit_says_and_goes_with_it(
    client: httpx.AsyncClient,
) -> None:
    rule = await made(client, BUDGET)
    path = f"/v1/limits/{rule['limit_id']}"
    await client.patch(path, json={"amount": "20", "match": {"provider": "openai"}})
    assert (await client.get(f"{PATH}/{rule['id']}")).json()["amount"] == "20"
    await client.patch(f"{PATH}/{rule['id']}", json={"thresholds": [75]})
    limit = (await client.get(path)).json()
    assert (limit["match"], limit["thresholds"]) == ({"provider": "openai"}, [75])
    assert (await client.delete(path)).status_code == 204
    assert (await client.get(f"{PATH}/{rule['id']}")).status_code == 404
    assert (await client.get(PATH)).json()["items"] == []
    assert (await client.delete(f"{PATH}/{rule['id']}")).status_code == 404


async def test_an_anomaly_rule_has_defaults_and_changes(client: httpx.AsyncClient) -> None:
    rule = await made(client, ANOMALY)
    assert (rule["metric"], rule["window"], rule["sensitivity"], rule["min_amount"]) == (
        *("cost_usd", "day", 6, "1"),
    )
    path = f"{PATH}/{rule['id']}"
    refused = await client.patch(path, json={"metric": "calls"})
    assert refused.json()["errors"][0]["pointer"] == "/min_amount"
    changed = await client.patch(path, json={"metric": "calls", "min_amount": 50, "window": "hour"})
    assert changed.json() == rule | {"metric": "calls", "min_amount": 50, "window": "hour"}
    assert (await client.get(path)).json() == changed.json()
    back = await client.patch(path, json={"sensitivity": 9, "name": "n", "enabled": False})
    assert (back.json()["sensitivity"], back.json()["enabled"]) == (9, False)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"type": "other"}, "/type"),
        ({"name": ""}, "/name"),
        ({"scope": {}}, "/scope"),
        ({"scope": {"all": True, "user_id": "a"}}, "/scope"),
        ({"scope": {"plan_id": "none"}}, "/scope/plan_id"),
        ({"amount": None}, "/amount"),
        ({"amount": "-1"}, "/amount"),
        ({"amount": 1.5}, "/amount"),
        ({"amount": "ten"}, "/amount"),
        ({"metric": "calls"}, "/amount"),
        ({"metric": None}, "/metric"),
        ({"metric": "pages"}, "/metric"),
        ({"window": "year"}, "/window"),
        ({"window": None}, "/window"),
        ({"thresholds": [0]}, "/thresholds/0"),
        ({"thresholds": [80, 80]}, "/thresholds"),
        ({"limit_id": "lim_1"}, "/limit_id"),
        ({"sensitivity": 3}, "/sensitivity"),
        ({"min_amount": "3"}, "/min_amount"),
        ({"enabled": "yes"}, "/enabled"),
        ({"colour": "red"}, "/colour"),
    ],
)
async def test_a_threshold_that_makes_no_sense_is_refused(
    client: httpx.AsyncClient, body: dict[str, Any], pointer: str
) -> None:
    answer = await client.post(PATH, json=BUDGET | body)
    assert answer.status_code == 422, answer.text
    assert pointer in [one["pointer"] for one in answer.json()["errors"]]
    assert (await client.get(PATH)).json()["items"] == []
    assert (await client.get("/v1/limits")).json()["items"] == []


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"window": "month"}, "/window"),
        ({"amount": "1"}, "/amount"),
        ({"thresholds": [80]}, "/thresholds"),
        ({"sensitivity": 0}, "/sensitivity"),
        ({"min_amount": "x"}, "/min_amount"),
        ({"limit_id": "lim_1"}, "/limit_id"),
        ({"type": "forecast", "window": "hour"}, "/window"),
        ({"type": "forecast", "min_amount": "1"}, "/min_amount"),
        ({"type": "forecast", "limit_id": "none"}, "/limit_id"),
        ({"type": "forecast", "scope": {"plan_id": "none"}}, "/scope/plan_id"),
        ({"type": "recovered", "thresholds": [100]}, "/thresholds"),
    ],
)
async def test_other_rules_that_make_no_sense_are_refused(
    client: httpx.AsyncClient, body: dict[str, Any], pointer: str
) -> None:
    answer = await client.post(PATH, json=ANOMALY | body)
    assert answer.status_code == 422, answer.text
    assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]


async def test_rules_are_listed_in_pages_by_scope_and_type(client: httpx.AsyncClient) -> None:
    ids = [(await made(client, ANOMALY | {"name": str(n)}))["id"] for n in range(3)]
    own = {"scope": {"user_id": "alice"}, "type": "forecast"}
    mine = (await made(client, ANOMALY | own))["id"]
    seen: list[str] = []
    query = "?limit=2"
    while query:
        page = (await client.get(PATH + query)).json()
        seen += [one["id"] for one in page["items"]]
        query = page["next_cursor"] and f"?limit=2&cursor={page['next_cursor']}"
    assert sorted(seen) == sorted([*ids, mine])
    for asked in ("?user_id=alice", "?type=forecast"):
        found = (await client.get(PATH + asked)).json()["items"]
        assert [one["id"] for one in found] == [mine]
    for bad in ("?type=x", "?cursor=x", "?limit=0", "?user_id=a&team_id=b"):
        assert (await client.get(PATH + bad)).status_code == 422


async def test_a_bound_key_makes_and_sees_rules_of_its_own_user_only(
    client: httpx.AsyncClient,
) -> None:
    signed = await bound(client, "alice")
    theirs = await made(client, ANOMALY | {"scope": {"user_id": "bob"}})
    wide = await made(client, ANOMALY)
    limit = {"name": "l", "scope": {"user_id": "bob"}, "metric": "calls", "window": "day"}
    bobs = (await client.post("/v1/limits", json=limit | {"amount": 1})).json()["id"]
    for rule in (theirs, wide):
        path = f"{PATH}/{rule['id']}"
        assert (await client.get(path, headers=signed)).status_code == 404
        refused = await client.patch(path, json={"enabled": False}, headers=signed)
        assert refused.status_code == 404
        assert (await client.delete(path, headers=signed)).status_code == 404
    mine = ANOMALY | {"scope": {"user_id": "alice"}}
    own = (await client.post(PATH, json=mine, headers=signed)).json()
    assert (await client.post(PATH, json=ANOMALY, headers=signed)).status_code == 403
    moved = await client.patch(f"{PATH}/{own['id']}", json={"scope": {"all": True}}, headers=signed)
    assert moved.status_code == 403
    other = mine | {"type": "forecast", "limit_id": bobs}
    answer = await client.post(PATH, json=other, headers=signed)
    assert answer.json()["errors"][0]["pointer"] == "/limit_id"
    listed = (await client.get(PATH, headers=signed)).json()["items"]
    assert [one["id"] for one in listed] == [own["id"]]
    assert (await client.get(f"{PATH}?user_id=bob", headers=signed)).status_code == 403
    assert (await client.get("/v1/alerts", headers=signed)).status_code == 403


# ---- alerts, as they always were --------------------------------------------------------------


async def test_s1_9_and_d1_2_many_calls_raise_each_threshold_once(
    client: httpx.AsyncClient,
) -> None:
    """A limit of 100 calls and 120 calls, one by one: three alerts, not ninety-three."""
    limit = {"name": "calls", "scope": {"user_id": "alice"}, "metric": "calls", "window": "month"}
    await client.post("/v1/limits", json=limit | {"amount": 100, "match": {"provider": "openai"}})
    for _ in range(120):
        await client.post("/v1/events", json={"user_id": "alice", "provider": "openai"})
    found = (await client.get("/v1/users/alice/alerts")).json()["items"]
    assert [one["threshold"] for one in found] == [100, 90, 80]


async def test_s1_10_severity_type_and_texts_of_the_three_thresholds(
    client: httpx.AsyncClient,
) -> None:
    limit = {"name": "calls", "scope": {"user_id": "alice"}, "metric": "calls", "window": "month"}
    await client.post("/v1/limits", json=limit | {"amount": 2000})
    for count in (1600, 200, 200):
        await client.post("/v1/events", json=[{"user_id": "alice"}] * count)
    found = (await client.get("/v1/users/alice/alerts")).json()["items"]
    assert [(one["type"], one["severity"], one["title"]) for one in found] == [
        ("limit_reached", "error", "Limit reached: calls"),
        ("usage_warning", "warning", "Almost at the limit: calls"),
        ("usage_warning", "info", "80% used: calls"),
    ]
    assert [one["message"].split(" this")[0] for one in found] == [
        "You have used 2,000 of 2,000 calls",
        "You have used 1,800 of 2,000 calls",
        "You have used 1,600 of 2,000 calls",
    ]


async def test_s1_11_usage_shows_ten_unread_alerts_newest_first(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    limit = {"name": "calls", "scope": {"user_id": "alice"}, "metric": "calls", "window": "month"}
    for thresholds in ([10, 20, 30, 40, 50], [60, 70, 80, 90, 100]):
        body = limit | {"amount": 10, "thresholds": thresholds}
        await client.post("/v1/limits", json=body)
    await made(client, BUDGET | {"scope": {"user_id": "alice"}, "amount": "1", "thresholds": [1]})
    for _ in range(10):
        clock.advance(timedelta(minutes=1))
        await client.post("/v1/events", json={"user_id": "alice", "cost_usd": "0.1"})
    listed = (await client.get("/v1/users/alice/alerts")).json()["items"]
    assert len(listed) == 11
    await client.post(f"/v1/alerts/{listed[0]['id']}/read")
    shown = (await client.get("/v1/users/alice/usage")).json()["alerts"]
    assert [one["id"] for one in shown] == [one["id"] for one in listed[1:]]


async def test_d1_10_tokens_and_cost_alert_as_calls_do_whatever_the_provider(
    client: httpx.AsyncClient,
) -> None:
    amounts: dict[str, Any] = {"calls": 2, "tokens": 20, "cost_usd": "2"}
    for metric, amount in amounts.items():
        body = {"name": metric, "metric": metric, "amount": amount, "thresholds": [100]}
        await made(client, BUDGET | {"scope": {"user_id": "alice"}} | body)
    for provider in ("openai", "anthropic"):
        event = {"user_id": "alice", "provider": provider, "cost_usd": "1"}
        await client.post("/v1/events", json=event | {"usage": {"input_tokens": 10}})
    found = (await client.get("/v1/users/alice/alerts")).json()["items"]
    assert sorted(one["title"] for one in found) == [
        f"Limit reached: {metric}" for metric in ("calls", "cost_usd", "tokens")
    ]


async def test_d1_11_a_jump_over_three_thresholds_is_three_alerts_and_one_message(
    client: httpx.AsyncClient,
) -> None:
    hook = {"url": "https://93.184.215.14/hook"}
    hook_id = (await client.post("/v1/webhooks", json=hook)).json()["id"]
    body = BUDGET | {"scope": {"user_id": "alice"}, "metric": "calls", "amount": 10}
    await made(client, body | {"thresholds": [80, 90, 100]})
    for count in (7, 3):
        await client.post("/v1/events", json=[{"user_id": "alice"}] * count)
    found = (await client.get("/v1/users/alice/alerts")).json()["items"]
    assert [one["threshold"] for one in found] == [100, 90, 80]
    assert len({one["created_at"] for one in found}) == 1
    sent = (await client.get(f"/v1/webhooks/{hook_id}/deliveries")).json()["items"]
    assert len(sent) == 1


async def test_alerts_of_every_scope_are_listed_in_pages_and_by_type(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    for n, scope in enumerate(({"all": True}, {"team_id": "t"}, {"user_id": "alice"})):
        body = BUDGET | {"scope": scope, "metric": "calls", "amount": 2, "name": str(n)}
        await made(client, body)
    for _ in range(2):
        clock.advance(timedelta(minutes=1))
        await client.post("/v1/events", json={"user_id": "alice", "team_id": "t"})
    seen: list[dict[str, Any]] = []
    query = "?limit=4"
    while query:
        page = (await client.get(f"/v1/alerts{query}")).json()
        seen += page["items"]
        query = page["next_cursor"] and f"?limit=4&cursor={page['next_cursor']}"
    assert len({one["id"] for one in seen}) == len(seen) == 6
    assert [one["threshold"] for one in seen] == [100] * 3 + [50] * 3
    reached = (await client.get("/v1/alerts?type=limit_reached")).json()["items"]
    assert reached == seen[:3]
    whose = sorted(str(one["scope"]) for one in reached)
    assert whose == ["{'all': True}", "{'team_id': 't'}", "{'user_id': 'alice'}"]
    own = (await client.get("/v1/users/alice/alerts?type=usage_warning")).json()["items"]
    assert [one["threshold"] for one in own] == [50]
    await client.post(f"/v1/alerts/{seen[0]['id']}/read")
    unread = (await client.get("/v1/alerts?unread=true")).json()["items"]
    assert [one["id"] for one in unread] == [one["id"] for one in seen[1:]]
    for bad in ("type=x", "unread=perhaps", "cursor=x", "limit=1001"):
        assert (await client.get(f"/v1/alerts?{bad}")).status_code == 422


# ---- where a user is heading ------------------------------------------------------------------


async def test_a_users_forecast_shows_the_period_and_every_limit_that_ends(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    nobody = (await client.get("/v1/users/nobody/forecast")).json()
    assert nobody == {
        **{"billing_period": "2026-11", "period_ends_at": "2026-12-01T00:00:00Z"},
        **{"cost_usd": "0", "projected_cost_usd": None, "basis": "too_little", "limits": []},
        "as_of": "2026-11-20T12:30:00Z",
    }
    limit = {"name": "l", "scope": {"user_id": "alice"}, "metric": "cost_usd", "amount": "30"}
    ids = {}
    for window in ("hour", "day", "month", "lifetime"):
        answer = await client.post("/v1/limits", json=limit | {"window": window})
        ids[window] = answer.json()["id"]
        clock.advance(timedelta(minutes=15))
    clock.advance(timedelta(minutes=-90))
    start = clock.now() - timedelta(hours=240)
    events = [
        {
            "user_id": "alice",
            "cost_usd": "0.1",
            "timestamp": (start + timedelta(hours=n)).isoformat(),
        }
        for n in range(240)
    ]
    answer = await client.post("/v1/events", json=events)
    assert answer.status_code == 200
    found = (await client.get("/v1/users/alice/forecast")).json()
    assert (found["cost_usd"], found["projected_cost_usd"]) == ("24", "49.2")
    assert [one["id"] for one in found["limits"]] == [ids["day"], ids["month"]]
    day, month = found["limits"]
    assert (day["used"], day["projected"], day["passes_at"]) == ("1.2", "2.4", None)
    assert (day["basis"], day["resets_at"]) == ("recent_mean", "2026-11-21T00:00:00Z")
    assert (month["used"], month["projected"]) == ("24", "49.2")
    assert month["passes_at"] == "2026-11-23T00:00:00Z"
    signed = await bound(client, "bob")
    refused = await client.get("/v1/users/alice/forecast", headers=signed)
    assert refused.status_code == 403
