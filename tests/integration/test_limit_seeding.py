"""A limit's counter is the sum of what it matches in its window, whenever the limit was made."""

import asyncio
import random
from collections import Counter as Tally
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from app.alerts.tables import Alert
from app.core.clock import FrozenClock
from app.db.engine import Tx
from app.limits import manage, seed
from app.limits.counters import measured, percent_reached
from app.limits.known import Rule, rule_of
from app.limits.seed import Seen
from app.limits.tables import Counter, Limit
from app.limits.windows import WINDOWS, window_of
from app.plans.known import load
from app.runtime import Runtime
from app.usage.tables import UsageEvent

pytestmark = pytest.mark.anyio

USERS = ("alice", "bob", "c/d", "eve")
TEAMS = (None, "red", "blue")
KEYS = (None, "k1")
MODELS = ("gpt-4o", "gpt-4o-mini")
SPELLED = "openai/GPT-4o"
ZONES = ("UTC", "UTC", "Europe/Berlin", "Asia/Kathmandu", "America/Los_Angeles")
METRICS = ("calls", "tokens", "input_tokens", "output_tokens", "cost_usd")
CHANGED = ("scope", "match", "window", "timezone", "thresholds", "action")
CounterKey = tuple[str, str, datetime]


def in_scope(rule: Rule, event: Seen, plan_id: str) -> bool:
    return rule.scope_key in (
        *("all", f"user:{event.user_id}", f"plan:{plan_id}"),
        *(f"team:{event.team_id}", f"key:{event.api_key_id}"),
    )


async def recomputed(tx: Tx) -> tuple[dict[CounterKey, int], dict[CounterKey, int]]:
    """Every counter that is not zero: as stored, and as the log and the limits say."""
    rows = await tx.fetch(
        select(Counter.scope_key, Counter.limit_id, Counter.window_start, Counter.used)
    )
    stored = {tuple(row[:3]): row.used for row in rows if row.used}
    limits = [rule_of(row) for row in await tx.fetch(select(*manage.COLUMNS))]
    columns = (getattr(UsageEvent, name) for name in Seen._fields)
    expected: Tally[CounterKey] = Tally()
    for row in await tx.fetch(select(*columns)):
        event = Seen._make(row)
        event = event._replace(
            input_tokens=event.input_tokens or 0, output_tokens=event.output_tokens or 0
        )
        agreement = (await load(tx, [event.user_id]))[event.user_id]
        terms, period = agreement.terms_at(event.timestamp), agreement.period_at(event.timestamp)
        for rule in limits:
            start, end = window_of(rule.window, event.timestamp, period, rule.timezone)
            if (
                end > rule.counts_from
                and in_scope(rule, event, terms.plan_id)
                and rule.matches(event.provider, event.model, event.endpoint)
            ):
                own = f"user:{event.user_id}"
                whose = own if rule.scope_key.startswith("plan:") else rule.scope_key
                expected[whose, rule.id, start] += measured(rule.metric, event)
    return stored, {key: used for key, used in expected.items() if used}  # type: ignore[return-value]


async def missing_alerts(tx: Tx) -> list[tuple[object, ...]]:
    """Thresholds that a counter has passed without an alert."""
    columns = (Alert.scope_key, Alert.limit_id, Alert.window_start, Alert.threshold)
    raised = {tuple(row) for row in await tx.fetch(select(*columns))}
    rules = {row.id: rule_of(row) for row in await tx.fetch(select(*manage.COLUMNS))}
    columns = (Counter.scope_key, Counter.limit_id, Counter.window_start, Counter.used)
    return [
        (*row[:3], threshold)
        for row in await tx.fetch(select(*columns))
        for rule in [rules[row.limit_id]]
        for threshold in rule.thresholds
        if rule.amount is not None
        and rule.action != "shadow"
        and percent_reached(row.used, rule.amount, threshold)
        and (*row[:3], threshold) not in raised
    ]


class World:
    """Random things that people and machines do, over HTTP."""

    def __init__(self, client: httpx.AsyncClient, clock: FrozenClock, seed: int) -> None:
        self.client, self.clock, self.dice = client, clock, random.Random(seed)
        self.limits: list[str] = []
        self.plans = ["plan_default"]

    async def events(self) -> None:
        dice, now = self.dice, self.clock.now()
        batch = []
        for _ in range(dice.randint(1, 8)):
            ago = dice.choice((-290, -60, 0, 0, 0, 30, 3600, 86_400, 20 * 86_400))
            event: dict[str, Any] = {
                "user_id": dice.choice(USERS),
                "timestamp": (now - timedelta(seconds=ago)).isoformat(),
                "provider": "openai",
                "model": dice.choice(MODELS),
                "endpoint": dice.choice(("/chat", "/embed")),
                "usage": {"input_tokens": dice.randint(0, 50), "output_tokens": 7},
            }
            for name, value in (("team_id", dice.choice(TEAMS)), ("api_key_id", dice.choice(KEYS))):
                if value is not None:
                    event[name] = value
            batch.append(event)
        answer = await self.client.post("/v1/events", json=batch)
        assert answer.json()["rejected"] == 0, answer.text

    def draft(self) -> dict[str, Any]:
        dice = self.dice
        scope = dice.choice(
            (
                {"user_id": dice.choice(USERS)},
                {"plan_id": dice.choice(self.plans)},
                {"team_id": "red"},
                {"api_key_id": "k1"},
                {"all": True},
            )
        )
        match = dice.choice(({}, {}, {"model": SPELLED}, {"endpoint": "/chat"}))
        metric = dice.choice(METRICS)
        amount: object = "0.0001" if metric == "cost_usd" else dice.choice((0, 5, 60, None))
        return {
            "name": "l",
            "scope": scope,
            "match": match,
            "metric": metric,
            "window": dice.choice(WINDOWS),
            "timezone": dice.choice(ZONES),
            "action": dice.choice(("block", "block", "warn", "shadow")),
            "amount": amount,
            "thresholds": dice.choice(([80, 100], [1, 50, 250])),
        }

    async def create(self) -> None:
        answer = await self.client.post("/v1/limits", json=self.draft())
        assert answer.status_code == 201, answer.text
        self.limits.append(answer.json()["id"])

    async def change(self) -> None:
        if self.limits:
            draft = self.draft()
            path = f"/v1/limits/{self.dice.choice(self.limits)}"
            if self.dice.random() < 0.4:
                answer = await self.client.put(path, json=draft)
            else:
                kept = self.dice.sample(CHANGED, 1)
                answer = await self.client.patch(path, json={name: draft[name] for name in kept})
            assert answer.status_code == 200, answer.text

    async def delete(self) -> None:
        if self.limits and self.dice.random() < 0.5:
            path = self.limits.pop(self.dice.randrange(len(self.limits)))
            assert (await self.client.delete(f"/v1/limits/{path}")).status_code == 204

    async def plan(self) -> None:
        if len(self.plans) < 3:
            body = {"name": f"p{len(self.plans)}"}
            self.plans.append((await self.client.post("/v1/plans", json=body)).json()["id"])

    async def agree(self) -> None:
        dice, user = self.dice, self.dice.choice(USERS)
        body = {
            "plan_id": dice.choice(self.plans),
            "interval": dice.choice(("day", "week", "month", "year")),
            "timezone": dice.choice(("UTC", "Europe/Berlin")),
        }
        if dice.random() < 0.5:
            body["anchor"] = dice.choice(("2026-11-20T12:00:00Z", "2025-01-31T10:00:00Z"))
        if dice.random() < 0.4:
            ahead = timedelta(minutes=10, hours=dice.choice((0, 1, 30)))
            body["expires_at"] = (self.clock.now() + ahead).isoformat()
            body["on_expiry"] = dice.choice(("fallback", "renew", "refuse"))
        elif dice.random() < 0.2:
            body["starts_at"] = (self.clock.now() + timedelta(hours=7)).isoformat()
        answer = await self.client.put(f"/v1/users/{user}/subscription", json=body)
        assert answer.status_code == 200, answer.text

    async def reset(self) -> None:
        path = f"/v1/users/{self.dice.choice(USERS)}/usage/reset"
        assert (await self.client.post(path)).status_code == 200

    async def wait(self) -> None:
        seconds = self.dice.choice((0.000001, 1, 29, 61, 1800, 90_000))
        self.clock.advance(timedelta(seconds=seconds))


@pytest.mark.parametrize("seed", range(5))
async def test_counters_are_what_the_log_says_whatever_was_configured_when(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock, seed: int
) -> None:
    world = World(client, clock, seed)
    deeds = [
        *(world.events, world.events, world.events, world.create, world.create),
        *(world.change, world.delete, world.plan, world.agree, world.reset, world.wait),
    ]
    for step in range(90):
        deed = world.dice.choice(deeds)
        await deed()
        stored, expected = await runtime.db.read(recomputed)
        assert stored == expected, f"after step {step}, {deed.__name__}"
    orphans = select(func.count()).select_from(Counter)
    orphans = orphans.where(Counter.limit_id.not_in(select(Limit.id)))
    assert (await runtime.db.read(lambda tx: tx.fetch(orphans)))[0][0] == 0


@pytest.mark.parametrize("seed", range(3))
async def test_a_threshold_reached_has_its_alert_though_the_limit_came_later(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock, seed: int
) -> None:
    world = World(client, clock, seed)
    deeds = [world.events, world.create, world.change, world.delete, world.agree, world.reset]
    for step in range(60):
        deed = world.dice.choice(deeds)
        await deed()
        assert await runtime.db.read(missing_alerts) == [], f"after step {step}, {deed.__name__}"


async def test_limits_made_while_events_arrive_count_each_of_them_once(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    world = World(client, clock, 11)
    for _ in range(4):
        deeds = [world.events() for _ in range(12)] + [world.create() for _ in range(3)]
        deeds += [world.reset(), world.agree(), world.change()]
        world.dice.shuffle(deeds)
        await asyncio.gather(*deeds)
        stored, expected = await runtime.db.read(recomputed)
        assert stored == expected
    assert stored


async def test_the_log_is_read_in_chunks(
    client: httpx.AsyncClient,
    runtime: Runtime,
    clock: FrozenClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(seed, "CHUNK", 3)
    world = World(client, clock, 7)
    for _ in range(4):
        await world.events()
    for _ in range(8):
        await world.create()
    stored, expected = await runtime.db.read(recomputed)
    assert stored == expected
    assert stored


async def test_a_sum_beyond_what_can_be_counted_is_refused(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    most = {"usage": {"input_tokens": 2**53 - 1}, "cost_usd": "0"}
    for hours in range(33):  # no total of one user or one hour passes it
        at = (clock.now() - timedelta(hours=hours)).isoformat()
        batch = [most | {"user_id": f"u{hours}", "timestamp": at}] * 32
        assert (await client.post("/v1/events", json=batch)).status_code == 200
    limit = {"name": "l", "scope": {"all": True}, "metric": "tokens", "window": "month"}
    answer = await client.post("/v1/limits", json=limit | {"amount": 1})
    assert answer.status_code == 409
    assert (await client.get("/v1/limits")).json()["items"] == []


async def test_limits_are_seeded_from_totals_where_they_can_tell(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is read for odd hours, minutes, and what totals are not kept by; else never."""
    world = World(client, clock, 3)
    for _ in range(12):
        await world.events()
    read: list[str] = []
    original = seed._from_calls

    async def watched(tx: Tx, rule: Rule, *rest: Any) -> Any:
        read.append(rule.name)
        return await original(tx, rule, *rest)

    monkeypatch.setattr(seed, "_from_calls", watched)
    limit = {"metric": "tokens", "amount": None, "window": "month"}
    told: list[dict[str, Any]] = [
        {"scope": {"all": True}},
        {"scope": {"all": True}, "match": {"model": SPELLED}, "timezone": "Asia/Tokyo"},
        {"scope": {"all": True}, "match": {"endpoint": "/chat"}},
        {"scope": {"all": True}, "window": "billing_period"},
        {"scope": {"team_id": "red"}, "window": "hour"},
        {"scope": {"api_key_id": "k1"}, "window": "lifetime"},
        {"scope": {"plan_id": "plan_default"}, "window": "billing_period"},
        {"scope": {"plan_id": "plan_default"}, "match": {"provider": "OpenAI"}, "window": "day"},
        {"scope": {"user_id": "alice"}, "window": "week", "timezone": "Europe/Berlin"},
    ]
    for number, change in enumerate(told):
        answer = await client.post("/v1/limits", json=limit | {"name": f"t{number}"} | change)
        assert answer.status_code == 201, answer.text
    assert read == []
    for change in (
        {"scope": {"all": True}, "window": "minute"},
        {"scope": {"team_id": "red"}, "match": {"model": SPELLED}},
        {"scope": {"plan_id": "plan_default"}, "match": {"endpoint": "/chat"}},
    ):
        assert (await client.post("/v1/limits", json=limit | {"name": "l"} | change)).is_success
    assert len(read) == 3
    stored, expected = await runtime.db.read(recomputed)
    assert stored == expected


async def test_only_users_whose_terms_change_within_an_hour_are_read_from_the_log(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(client, clock, 5)
    for _ in range(10):
        await world.events()
    clock.advance(timedelta(minutes=6))
    assert (await client.post("/v1/users/bob/usage/reset")).status_code == 200
    for _ in range(10):
        await world.events()
    read: list[list[str]] = []
    original = seed._from_calls

    async def watched(tx: Tx, rule: Rule, since: datetime, users: list[str]) -> Any:
        read.append(users)
        return await original(tx, rule, since, users)

    monkeypatch.setattr(seed, "_from_calls", watched)
    limit = {"name": "l", "metric": "calls", "amount": None, "scope": {"plan_id": "plan_default"}}
    for window in ("billing_period", "month", "week"):
        assert (await client.post("/v1/limits", json=limit | {"window": window})).is_success
    assert read == [["bob"], ["bob"]]  # for the month and the week: the new period begins at 12:36
    stored, expected = await runtime.db.read(recomputed)
    assert stored == expected
