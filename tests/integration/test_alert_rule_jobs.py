"""What the jobs behind alert rules tell, on both engines: each thing once, and why."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from app.alerts import outlook, recovered, watch
from app.alerts.tables import Alert, AlertRule
from app.core.clock import FrozenClock
from app.db.lease import note
from app.db.types import table_of
from app.runtime import Runtime
from tests.conftest import START

pytestmark = pytest.mark.anyio

Event = dict[str, Any]
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MONTH = {"metric": "cost_usd", "window": "month"}


def at(moment: datetime) -> str:
    return moment.isoformat()


def spend(user: str, moment: datetime, usd: str, model: str = "gpt-4o", **more: Any) -> Event:
    """A call that cost so much then."""
    call = {"user_id": user, "timestamp": at(moment), "provider": "openai", "model": model}
    return call | {"cost_usd": usd} | more


async def send(client: httpx.AsyncClient, events: list[Event]) -> None:
    for start in range(0, len(events), 5000):
        answer = await client.post("/v1/events?backfill=true", json=events[start : start + 5000])
        assert answer.json().get("rejected") == 0, answer.text


async def made(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> str:
    answer = await client.post(path, json=body)
    assert answer.status_code == 201, answer.text
    found: str = answer.json()["id"]
    return found


async def limit_of(client: httpx.AsyncClient, user: str, amount: Any, **more: Any) -> str:
    body = MONTH | {"name": "budget", "scope": {"user_id": user}, "amount": amount}
    return await made(client, "/v1/limits", body | more)


async def alerts(client: httpx.AsyncClient, query: str = "") -> list[dict[str, Any]]:
    answer = await client.get(f"/v1/alerts{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def foresee(runtime: Runtime, *, by_default: bool = True) -> int:
    return await outlook.foresee(runtime.db, runtime.clock.now(), by_default=by_default)


async def recover(runtime: Runtime, *, by_default: bool = True) -> int:
    now = runtime.clock.now()
    due = await recovered.is_due(runtime.db, now, by_default=by_default)
    told = await recovered.tell_recovered(runtime.db, now, by_default=by_default)
    assert due or not told
    return told


async def judge(runtime: Runtime) -> int:
    return await watch.watch(runtime.db, runtime.clock.now())


async def consistent(client: httpx.AsyncClient) -> None:
    answer = (await client.get("/v1/audit/consistency")).json()
    assert answer["consistent"], answer["differences"]


async def twice(runtime: Runtime, work: Callable[[Runtime], Awaitable[int]]) -> list[int]:
    """The job in two processes at once, as when one has lost its lease; and a third time."""
    now = runtime.clock.now()
    for name in (outlook.NAME, watch.NAME):  # a lease is there when its job is done
        await runtime.db.write(lambda tx, name=name: note(tx, name, "0", now))  # type: ignore[misc]
    found = sorted(await asyncio.gather(work(runtime), work(runtime)))
    return [*found, await work(runtime)]


# ---- forecasts --------------------------------------------------------------------------------


async def test_a_limit_that_will_be_passed_is_told_of_once_with_the_day(
    runtime: Runtime, client: httpx.AsyncClient
) -> None:
    """A dollar an hour since the 1st: 468.5 by now, so that 495 are spent on the 21st at 15:00."""
    limit_id = await limit_of(client, "alice", "495")
    first = datetime(2026, 11, 1, tzinfo=UTC)
    hours = (START.replace(minute=0) - first) // HOUR
    await send(client, [spend("alice", first + HOUR * n, "1") for n in range(hours)])
    await send(client, [spend("alice", START, "0.5")])
    assert await twice(runtime, foresee) == [0, 1, 0]
    found = (await alerts(client, "?type=limit_forecast"))[0]
    assert found["limit_id"] == limit_id
    assert found["threshold"] is None
    assert (found["type"], found["severity"]) == ("limit_forecast", "warning")
    assert found["title"] == "Will be passed: budget"
    assert found["message"] == (
        "At this pace the limit “budget” will be passed on the 21st at about 15:00 UTC. "
        "You have used $468.5 of $495, and it would be $720 when the month ends."
    )
    assert found["scope"] == {"user_id": "alice"}
    await consistent(client)


async def test_a_forecast_is_told_again_in_the_next_window(
    runtime: Runtime, client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    await limit_of(client, "alice", 50, metric="calls", window="week", thresholds=[])
    start = START - 21 * DAY
    await send(
        client, [{"user_id": "alice", "timestamp": at(start + HOUR * n)} for n in range(504)]
    )
    assert await foresee(runtime) == 0  # reached: nothing is to be foreseen
    clock.advance(timedelta(days=4))  # Tuesday of the week after
    await send(client, [{"user_id": "alice"}] * 20)
    assert await foresee(runtime) == 1
    assert await foresee(runtime) == 0
    clock.advance(timedelta(days=7))
    await send(client, [{"user_id": "alice"}] * 45)
    assert await foresee(runtime) == 1


@pytest.mark.parametrize(
    ("limit", "rules", "told"),
    [
        ({}, [], True),
        ({"action": "warn"}, [], False),
        ({"action": "warn"}, [{"scope": {"all": True}}], True),
        ({"action": "shadow"}, [{"scope": {"all": True}}], False),
        ({}, [{"scope": {"all": True}, "enabled": False}], False),
        ({}, [{"scope": {"all": True}, "metric": "calls", "enabled": False}], True),
        (
            {},
            [
                {"scope": {"user_id": "alice"}},
                {"scope": {"all": True}, "enabled": False},
            ],
            True,
        ),
        (
            {},
            [
                {"scope": {"user_id": "alice"}, "enabled": False},
                {"scope": {"all": True}},
            ],
            False,
        ),
        ({"window": "lifetime"}, [{"scope": {"all": True}}], False),
    ],
)
async def test_rules_decide_which_forecasts_are_told(
    runtime: Runtime,
    client: httpx.AsyncClient,
    limit: dict[str, Any],
    rules: list[dict[str, Any]],
    told: bool,
) -> None:
    await limit_of(client, "alice", "500", **limit)
    for rule in rules:
        await made(client, "/v1/alert-rules", {"name": "r", "type": "forecast"} | rule)
    await send(client, [spend("alice", START - HOUR * n, "1") for n in range(468)])
    assert await foresee(runtime) == int(told)
    if told and not rules:
        assert await foresee(runtime, by_default=False) == 0


async def test_forecasts_switched_off_by_settings_come_back_by_a_rule(
    runtime: Runtime, client: httpx.AsyncClient
) -> None:
    await limit_of(client, "alice", "500")
    await send(client, [spend("alice", START - HOUR * n, "1") for n in range(468)])
    assert await foresee(runtime, by_default=False) == 0
    rule = {"name": "r", "type": "forecast", "scope": {"user_id": "alice"}}
    await made(client, "/v1/alert-rules", rule)
    assert await foresee(runtime, by_default=False) == 1


async def test_limits_of_plans_teams_keys_and_all_are_foreseen_each_with_its_counter(
    runtime: Runtime, client: httpx.AsyncClient
) -> None:
    plan = (await client.get("/v1/plans")).json()["items"][0]["id"]
    scopes: list[dict[str, Any]] = [{"plan_id": plan}, {"all": True}]
    scopes += [{"team_id": "research"}, {"api_key_id": "k1"}]
    for scope in scopes:
        body = MONTH | {"name": str(sorted(scope)[0]), "scope": scope, "amount": "1200"}
        await made(client, "/v1/limits", body | {"thresholds": []})
    first = START.replace(minute=0) - HOUR * 468
    own = {"team_id": "research", "api_key_id": "k1"}
    events = [spend(user, first + HOUR * n, "1", **own) for n in range(469) for user in ("a", "b")]
    await send(client, events)
    assert await foresee(runtime) == 3  # each user alone will spend 730
    found = {one["message"].split("”")[0].split("“")[1] for one in await alerts(client)}
    assert found == {"all", "api_key_id", "team_id"}
    await send(client, [spend("a", START, "200")])
    await foresee(runtime)
    whose = [one["scope"] for one in await alerts(client, "?type=limit_forecast")]
    assert {"user_id": "a"} not in whose
    await send(client, [spend("a", START - HOUR, "450")])
    assert await foresee(runtime) == 1
    whose = [one["scope"] for one in await alerts(client, "?type=limit_forecast")]
    assert {"user_id": "a"} in whose


async def test_the_end_of_a_raise_is_foreseen(runtime: Runtime, client: httpx.AsyncClient) -> None:
    """A dollar an hour: 480 stands, 10,000 holds until the 25th, and 480 is passed by then."""
    limit_id = await limit_of(client, "alice", "480", thresholds=[])
    await client.post(
        f"/v1/limits/{limit_id}/raise", json={"amount": "2000", "until": "2026-11-25T00:00:00Z"}
    )
    first = datetime(2026, 11, 1, tzinfo=UTC)
    await send(client, [spend("alice", first + HOUR * n, "1") for n in range(469)])
    answer = (await client.get("/v1/users/alice/forecast")).json()
    assert answer["limits"][0]["passes_at"] == "2026-11-25T00:00:00Z"
    assert answer["limits"][0]["limit"] == "2000"
    assert await foresee(runtime) == 1


async def test_looking_again_is_due_after_ten_minutes_of_use(
    runtime: Runtime, client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    assert not await outlook.is_due(runtime.db, clock.now())
    await send(client, [spend("alice", START, "1")])
    assert await outlook.is_due(runtime.db, clock.now())
    await foresee(runtime)
    clock.advance(timedelta(minutes=9))
    assert not await outlook.is_due(runtime.db, clock.now())
    clock.advance(timedelta(minutes=1))
    assert await outlook.is_due(runtime.db, clock.now())
    clock.advance(timedelta(hours=3))
    await foresee(runtime)
    clock.advance(timedelta(hours=3))
    assert not await outlook.is_due(runtime.db, clock.now())


# ---- recovered --------------------------------------------------------------------------------


async def test_a_new_window_is_told_as_recovered_once(
    runtime: Runtime, client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    limit_id = await limit_of(client, "alice", 10, metric="calls", window="day")
    await send(client, [{"user_id": "alice"}] * 12)
    assert await recover(runtime) == 0
    clock.advance(timedelta(hours=11, minutes=30))
    assert await twice(runtime, recover) == [0, 1, 0]
    found = (await alerts(client, "?type=limit_recovered"))[0]
    assert (found["limit_id"], found["severity"], found["threshold"]) == (limit_id, "info", None)
    assert found["title"] == "Below the limit again: budget"
    assert found["message"] == "You have used 0 of 10 calls. Calls are allowed again."
    await send(client, [{"user_id": "alice"}] * 10)
    assert await recover(runtime) == 0
    clock.advance(DAY)
    assert await recover(runtime) == 1
    assert not await recovered.is_due(runtime.db, clock.now(), by_default=True)
    await consistent(client)


@pytest.mark.parametrize("how", ["raise", "amount", "unlimited"])
async def test_a_raise_or_another_amount_is_told_as_recovered_once(
    runtime: Runtime, client: httpx.AsyncClient, how: str
) -> None:
    limit_id = await limit_of(client, "alice", 10, metric="calls")
    await send(client, [{"user_id": "alice"}] * 12)
    assert await recover(runtime) == 0
    if how == "raise":
        body = {"amount": 20, "until": "2026-11-25T00:00:00Z"}
        assert (await client.post(f"/v1/limits/{limit_id}/raise", json=body)).status_code == 200
    else:
        amount = {"amount": 20 if how == "amount" else None}
        assert (await client.patch(f"/v1/limits/{limit_id}", json=amount)).status_code == 200
    assert await twice(runtime, recover) == [0, 1, 0]
    message = (await alerts(client, "?type=limit_recovered"))[0]["message"]
    used = "12 calls, and the limit is lifted" if how == "unlimited" else "12 of 20 calls"
    assert message == f"You have used {used}. Calls are allowed again."
    await consistent(client)


async def test_a_limit_that_only_warns_is_silent_unless_a_rule_asks(
    runtime: Runtime, client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    more = {"metric": "calls", "window": "day", "action": "warn"}
    await limit_of(client, "alice", 10, **more)
    await send(client, [{"user_id": "alice"}] * 12)
    clock.advance(DAY)
    assert await recover(runtime) == 0
    await send(client, [{"user_id": "alice"}] * 12)
    rule = {"name": "r", "type": "recovered", "scope": {"user_id": "alice"}}
    await made(client, "/v1/alert-rules", rule)
    clock.advance(DAY)
    assert await recover(runtime) == 1


@pytest.mark.parametrize("switch", ["setting", "rule"])
async def test_recovered_notices_can_be_switched_off(
    runtime: Runtime, client: httpx.AsyncClient, clock: FrozenClock, switch: str
) -> None:
    await limit_of(client, "alice", 10, metric="calls", window="day")
    if switch == "rule":
        rule = {"name": "r", "type": "recovered", "scope": {"all": True}, "enabled": False}
        await made(client, "/v1/alert-rules", rule)
    await send(client, [{"user_id": "alice"}] * 12)
    clock.advance(DAY)
    assert await recover(runtime, by_default=switch == "rule") == 0
    assert await recover(runtime) == 0  # it is settled, and no news later


async def test_what_was_over_long_ago_or_has_no_limit_any_more_is_settled_in_silence(
    runtime: Runtime, client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    await limit_of(client, "alice", 10, metric="calls", window="day")
    gone = await limit_of(client, "bob", 10, metric="calls", window="day")
    await send(client, [{"user_id": who} for who in ("alice", "bob") for _ in range(10)])
    await client.delete(f"/v1/limits/{gone}")
    clock.advance(timedelta(days=9))
    assert await recover(runtime) == 0
    asked = select(table_of(Alert).c.settled_at).where(table_of(Alert).c.threshold == 100)
    assert [row[0] for row in await runtime.db.read(lambda tx: tx.fetch(asked))] == [
        clock.now(),
        clock.now(),
    ]


async def test_what_is_left_of_a_threshold_whose_limit_went_is_removed(
    runtime: Runtime, client: httpx.AsyncClient
) -> None:
    body = {"name": "t", "type": "threshold", "scope": {"all": True}, "amount": "9"}
    for _ in range(2):
        await made(client, "/v1/alert-rules", MONTH | body)
    limits = (await client.get("/v1/limits")).json()["items"]
    await client.delete(f"/v1/limits/{limits[0]['id']}")
    await recover(runtime)
    asked = select(table_of(AlertRule).c.limit_id)
    rows = await runtime.db.read(lambda tx: tx.fetch(asked))
    assert [row[0] for row in rows] == [limits[1]["id"]]


async def test_many_limits_recover_page_by_page(
    runtime: Runtime,
    client: httpx.AsyncClient,
    clock: FrozenClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recovered, "AT_ONCE", 3)
    body = {"name": "d", "scope": {"all": True}, "metric": "calls", "window": "day", "amount": 1}
    await made(client, "/v1/limits", body)
    plan = (await client.get("/v1/plans")).json()["items"][0]["id"]
    await made(client, "/v1/limits", body | {"scope": {"plan_id": plan}})
    await send(client, [{"user_id": f"u{n}"} for n in range(10)])
    clock.advance(DAY)
    assert await recover(runtime) == 11
    assert await recover(runtime) == 0


# ---- anomalies --------------------------------------------------------------------------------


def steady(user: str, days: int, usd: str = "1", model: str = "gpt-4o-mini") -> list[Event]:
    end = START.replace(minute=0)
    return [spend(user, end - HOUR * n, usd, model) for n in range(1, days * 24 + 1)]


async def anomaly(client: httpx.AsyncClient, scope: dict[str, Any], **more: Any) -> str:
    rule = {"name": "odd spend", "type": "anomaly", "scope": scope, "min_amount": "2"}
    return await made(client, "/v1/alert-rules", rule | more)


async def test_a_burst_is_told_once_a_day_with_the_model_that_moved(
    runtime: Runtime, client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    rule_id = await anomaly(client, {"user_id": "alice"}, window="hour")
    await send(client, steady("alice", 28))
    assert await judge(runtime) == 0
    await send(client, [spend("alice", START - HOUR, "9", "gpt-4o")])
    assert await twice(runtime, judge) == [0, 1, 0]
    found = (await alerts(client, "?type=usage_anomaly"))[0]
    assert (found["limit_id"], found["threshold"], found["severity"]) == (rule_id, None, "warning")
    assert found["title"] == "Unusual use: odd spend"
    assert found["message"] == (
        "$10 on 2026-11-20 from 11:00 to 12:00 UTC; usual is $1. "
        "The model that moved most is openai gpt-4o: $9, usually $0."
    )
    assert found["billing_period"] == "2026-11"
    clock.advance(HOUR)
    await send(client, [spend("alice", START, "50", "gpt-4o")])
    assert await judge(runtime) == 0  # that day was told of
    clock.advance(DAY)
    await send(client, [spend("alice", START + DAY, "50", "gpt-4o")])
    assert await judge(runtime) == 1
    await consistent(client)


async def test_of_all_users_the_one_who_moved_is_named(
    runtime: Runtime, client: httpx.AsyncClient
) -> None:
    await anomaly(client, {"all": True})
    await send(client, steady("alice", 28) + steady("bob", 28, "2") + steady("carol", 28))
    assert await judge(runtime) == 0
    await send(client, [spend("carol", START - HOUR * 3, "70", "gpt-4o-mini")])
    assert await judge(runtime) == 1
    found = (await alerts(client))[0]
    assert found["scope"] == {"all": True}
    assert found["message"] == (
        "$118 on 2026-11-20 from 00:00 to 12:00 UTC; usual is $48. "
        "The model that moved most is openai gpt-4o-mini: $118, usually $48. "
        "The user that moved most is carol: $82, usually $12."
    )


async def test_of_a_plan_each_user_is_judged_alone_and_of_a_team_all_together(
    runtime: Runtime, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "USERS_AT_ONCE", 2)
    plan = (await client.get("/v1/plans")).json()["items"][0]["id"]
    await anomaly(client, {"plan_id": plan}, window="hour", metric="calls", min_amount=5)
    await anomaly(client, {"team_id": "research"}, window="hour", name="team")
    users = ("a", "b", "c", "d", "e")
    team = {"team_id": "research"}
    events = [one | team for user in users for one in steady(user, 7)]
    events += [spend("d", START - HOUR, "0.01") | team for _ in range(20)]
    await send(client, events)
    assert await judge(runtime) == 1
    found = (await alerts(client))[0]
    assert found["scope"] == {"user_id": "d"}
    assert found["message"].startswith(
        "21 calls on 2026-11-20 from 11:00 to 12:00 UTC; usual is 1."
    )
    await send(client, [spend("a", START - HOUR, "30") | team])
    assert await judge(runtime) == 1
    found = (await alerts(client))[0]
    assert found["scope"] == {"team_id": "research"}
    assert found["message"] == "$35.2 on 2026-11-20 from 11:00 to 12:00 UTC; usual is $5."


async def test_too_little_history_or_a_rule_switched_off_tells_nothing(
    runtime: Runtime, client: httpx.AsyncClient
) -> None:
    rule_id = await anomaly(client, {"user_id": "alice"}, window="hour")
    await send(client, [*steady("alice", 2), spend("alice", START - HOUR, "90")])
    assert await judge(runtime) == 0
    await send(client, steady("alice", 28))
    await client.patch(f"/v1/alert-rules/{rule_id}", json={"enabled": False})
    assert await judge(runtime) == 0
    assert not await watch.is_due(runtime.db, runtime.clock.now())
    await client.patch(f"/v1/alert-rules/{rule_id}", json={"enabled": True})
    assert await judge(runtime) == 1


async def test_looking_for_anomalies_is_due_when_an_hour_with_use_is_full(
    runtime: Runtime, client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    await send(client, [spend("alice", START, "1")])
    assert not await watch.is_due(runtime.db, clock.now())
    await anomaly(client, {"all": True})
    assert await watch.is_due(runtime.db, clock.now())
    await judge(runtime)
    assert not await watch.is_due(runtime.db, clock.now())
    clock.advance(HOUR)
    assert await watch.is_due(runtime.db, clock.now())
    await judge(runtime)
    clock.advance(HOUR)
    assert not await watch.is_due(runtime.db, clock.now())


# ---- on the way out ---------------------------------------------------------------------------


async def test_every_type_goes_out_by_webhook_to_who_asked_for_it(
    runtime: Runtime, client: httpx.AsyncClient
) -> None:
    hook = {"url": "https://93.184.215.14/hook", "event_types": ["alert.limit_forecast"]}
    hook_id = await made(client, "/v1/webhooks", hook)
    other = hook | {"event_types": ["alert.limit_recovered", "alert.usage_anomaly"]}
    other_id = await made(client, "/v1/webhooks", other)
    limit_id = await limit_of(client, "alice", "500")
    await send(client, [spend("alice", START - HOUR * n, "1") for n in range(468)])
    assert await foresee(runtime) == 1
    path = "/v1/webhooks/{}/deliveries"
    assert len((await client.get(path.format(hook_id))).json()["items"]) == 1
    assert (await client.get(path.format(other_id))).json()["items"] == []
    rule = {"name": "odd", "type": "anomaly", "scope": {"user_id": "alice"}, "window": "hour"}
    await made(client, "/v1/alert-rules", rule)
    await send(client, [spend("alice", START - HOUR, "60")])  # unusual, and the limit is reached
    assert await judge(runtime) == 1
    await client.patch(f"/v1/limits/{limit_id}", json={"amount": "1000"})
    assert await recover(runtime) == 1
    assert len((await client.get(path.format(other_id))).json()["items"]) == 2
    assert len((await client.get(path.format(hook_id))).json()["items"]) == 1
