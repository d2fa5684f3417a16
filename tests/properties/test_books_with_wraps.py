"""The books against a model of them while logs wrap: nothing that moves a call changes a figure."""

import asyncio
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app.analytics.audit import prove
from app.analytics.repair import rebuild
from app.core.clock import FrozenClock
from app.db.engine import Tx
from app.pricing.catalog import Catalog
from app.retention.policy import Policy, set_policy
from app.retention.wrap import Parts, wrap
from app.runtime import build
from app.summaries.tables import PeriodTotal
from app.usage.tables import UsageEvent
from tests.conftest import ADMIN, settings_for
from tests.postgres import drop_database, new_database
from tests.properties.books import rows_of
from tests.served import served_alone

START = datetime(2026, 11, 29, 23, 40, 30, tzinfo=UTC)
USERS = ("ann", "bob", "c/d")
AGO = (None, 0, 1, 90, 3_700, 90_000, 3 * 86_400, 30 * 86_400)
WAITS = (1, 31, 1_800, 86_400)
SCOPES = ({"user_id": "ann"}, {"plan_id": "plan_default"}, {"team_id": "red"}, {"all": True})
WINDOWS = ("minute", "hour", "day", "week", "month", "billing_period", "lifetime")
Event = dict[str, Any]
EVENTS = st.fixed_dictionaries(
    {
        "user_id": st.sampled_from(USERS),
        "ago": st.sampled_from(AGO),
        "tokens": st.integers(0, 2_000),
        "cost": st.sampled_from((None, 123, 5_000_000)),
        "status_code": st.sampled_from((200, 500)),
    },
    optional={
        "team_id": st.sampled_from(("red", "blue")),
        "endpoint": st.sampled_from(("/chat", "/embed")),
        "latency_ms": st.sampled_from((1, 812.5)),
        "task_type": st.just("chat"),
    },
)


class Wrapping(RuleBasedStateMachine):
    """Events, prices, re-rates, wraps, restores, corrections, limits and time in any order."""

    seen: Counter[str]
    """What happened to wrapped calls, over all examples of a run."""

    def __init__(self, url: str, catalog: Catalog, folder: Path, drop: Callable[[], None]) -> None:
        super().__init__()
        self.drop, self.clock = drop, FrozenClock(START)
        self.bodies: dict[tuple[str, str], Event] = {}
        self.stand: dict[tuple[str, str], tuple[int, int, int] | None] = {}
        self.nanos_a_token = 0
        self.rated: set[tuple[str, str]] = set()
        self.runner = asyncio.Runner()
        known = settings_for(url).model_copy(update={"archive_url": str(folder)})
        self.runtime = build(known, clock=self.clock, catalog=catalog)
        self.runner.run(self.runtime.start())
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(served_alone(self.runtime)),
            base_url="http://test",
            headers={"Authorization": f"Bearer {ADMIN}"},
        )

    def teardown(self) -> None:
        self.runner.run(self.client.aclose())
        self.runner.run(self.runtime.close())
        self.runner.close()
        self.drop()

    def post(self, path: str, status: Iterable[int] = (200, 201), **body: Any) -> httpx.Response:
        answer = self.runner.run(self.client.post(path, json=body))
        assert answer.status_code in status, answer.text
        return answer

    @initialize(drawn=st.lists(EVENTS, min_size=6, max_size=12))
    def begin_with(self, drawn: list[Event]) -> None:
        self.send(drawn)

    @rule(drawn=st.lists(EVENTS, min_size=1, max_size=6))
    def send(self, drawn: list[Event]) -> None:
        for one in drawn:
            at = self.clock.now() - timedelta(seconds=one["ago"] or 0)
            body = {name: one[name] for name in one if name not in ("ago", "tokens", "cost")}
            body["id"] = f"{len(self.bodies)}"
            body["timestamp"] = at.isoformat()
            body["usage"] = {"input_tokens": one["tokens"], "output_tokens": 1}
            body |= {"provider": "p", "model": "m"}
            if one["cost"] is not None:
                body["cost_usd"] = f"0.{one['cost']:09d}"
            key = (body["user_id"], body["id"])
            self.post("/v1/events", **body)
            self.bodies[key] = body
            cost = one["cost"]
            if cost is None:
                self.rated.add(key)
                cost = one["tokens"] * self.nanos_a_token
            self.stand[key] = (1, one["tokens"], cost)

    def logged(self) -> set[tuple[str, str]]:
        """The events that are in the log, which are not wrapped."""

        async def work(tx: Tx) -> set[tuple[str, str]]:
            return {(row["user_id"], row["event_id"]) for row in await rows_of(tx, UsageEvent)}

        return self.runner.run(self.runtime.db.read(work))

    def picked(self, place: int, what: str = "") -> tuple[str, str]:
        """An event, every other time a wrapped one if there is any; `what` is noted of that."""
        wrapped = sorted(self.bodies.keys() - self.logged())
        if place % 2 and wrapped:
            self.seen[what] += 1
            return wrapped[place % len(wrapped)]
        return sorted(self.bodies)[place % len(self.bodies)]

    @precondition(lambda self: self.bodies)
    @rule(place=st.integers(0, 10**6))
    def send_again(self, place: int) -> None:
        body = self.bodies[self.picked(place)]
        if datetime.fromisoformat(body["timestamp"]) > self.clock.now() - timedelta(days=35):
            assert self.post("/v1/events", (200,), **body).json()["status"] == "duplicate"
            self.post("/v1/events", (409,), **body | {"status_code": 404})

    @rule(users=st.sets(st.sampled_from(USERS), min_size=1), keep=st.integers(0, 3))
    def wrap(self, users: set[str], keep: int) -> None:
        policy = Policy(keep, keep, 5)

        async def agree(tx: Tx) -> None:
            for user_id in users:
                await set_policy(tx, user_id, policy, self.clock.now())

        async def work() -> None:
            db = self.runtime.db
            await db.write(agree, alone=True)
            parts = Parts(db, self.runtime.store, self.clock, policy)
            for result in await wrap(parts, sorted(users)):
                self.seen["wrapped"] += result.wrapped_events

        self.runner.run(work())

    @rule(place=st.integers(0, 10**6))
    def restore(self, place: int) -> None:
        answer = self.runner.run(self.client.get("/v1/archives?state=sealed"))
        items = answer.json()["items"]
        if items:
            self.post(f"/v1/archives/{items[place % len(items)]['id']}/restore")
            self.seen["restored"] += 1

    @precondition(lambda self: self.bodies)
    @rule(place=st.integers(0, 10**6))
    def void(self, place: int) -> None:
        key = self.picked(place, "voided")
        self.post(f"{path_of(key)}/void", reason="sent by mistake")
        self.stand[key] = None

    def price(self, usd: int) -> None:
        free = {"usd": "0", "per": 1_000_000}
        rates = {"input_tokens": {"usd": str(usd), "per": 1_000_000}, "output_tokens": free}
        since = "2026-01-01T00:00:00Z"
        named = {"provider": "p", "model": "m", "effective_from": since}
        self.post("/v1/prices", **named, rates=rates)
        self.nanos_a_token = usd * 1_000

    @rule(user=st.sampled_from((None, *USERS)), usd=st.sampled_from((None, 1, 3, 20)))
    def rerate(self, user: str | None, usd: int | None) -> None:
        if usd is not None:
            self.price(usd)
        detailed = self.logged()
        self.seen["rated beside"] += len(self.bodies) - len(detailed)
        wanted = {} if user is None else {"user_id": user}
        self.post("/v1/rerates", filter=wanted, dry_run=False, reason="the list changed")
        for key in self.rated & detailed:
            standing = self.stand[key]
            if standing is not None and user in (None, key[0]) and self.nanos_a_token:
                self.stand[key] = (1, standing[1], standing[1] * self.nanos_a_token)

    @precondition(lambda self: self.bodies)
    @rule(place=st.integers(0, 10**6), tokens=st.integers(0, 999), ago=st.sampled_from(AGO))
    def correct(self, place: int, tokens: int, ago: int | None) -> None:
        key = self.picked(place, "corrected")
        fields: Event = {"usage": {"input_tokens": tokens, "output_tokens": 1}, "cost_usd": "1"}
        if ago is not None:
            fields["timestamp"] = (self.clock.now() - timedelta(seconds=ago)).isoformat()
        if self.stand[key] is None:
            self.post(f"{path_of(key)}/correct", (200, 201, 409), fields=fields, reason="r")
            return
        self.post(f"{path_of(key)}/correct", fields=fields, reason="r")
        self.stand[key] = (1, tokens, 10**9)
        self.rated.discard(key)

    @rule(
        scope=st.sampled_from(SCOPES),
        window=st.sampled_from(WINDOWS),
        metric=st.sampled_from(("calls", "tokens")),
        amount=st.sampled_from((None, 0, 3, 1_000)),
    )
    def limit(self, **drawn: Any) -> None:
        zone = random.Random(repr(drawn)).choice(("UTC", "Asia/Kathmandu"))
        self.post("/v1/limits", name="n", action="block", timezone=zone, **drawn)

    @rule(user=st.sampled_from(USERS))
    def reset(self, user: str) -> None:
        self.post(f"/v1/users/{user.replace('/', '%2F')}/usage/reset")

    @rule(seconds=st.sampled_from(WAITS))
    def wait(self, seconds: int) -> None:
        self.clock.advance(timedelta(seconds=seconds))

    @rule()
    def rebuild_finds_nothing(self) -> None:
        found = self.runner.run(rebuild(self.runtime.db, self.clock))
        assert found.differences == []

    @invariant()
    def books_agree(self) -> None:
        async def work(tx: Tx) -> None:
            proof = await prove(tx, self.clock.now())
            assert proof.differences == []
            totals: dict[str, list[int]] = {}
            for row in await rows_of(tx, PeriodTotal):
                kept = totals.setdefault(row["user_id"], [0, 0, 0])
                for place, name in enumerate(("calls", "input_tokens", "cost_nanos")):
                    kept[place] += row[name]
            expected: dict[str, list[int]] = {user_id: [0, 0, 0] for user_id, _ in self.bodies}
            for (user_id, _), standing in self.stand.items():
                for place, amount in enumerate(standing or ()):
                    expected[user_id][place] += amount
            assert totals == expected

        self.runner.run(self.runtime.db.read(work, within_s=60))


def path_of(key: tuple[str, str]) -> str:
    return f"/v1/users/{key[0].replace('/', '%2F')}/events/{key[1]}"


def run(machine: Callable[[], Wrapping], examples: int, *met: str) -> None:
    """Run so many examples, in which these things must have been met."""
    Wrapping.seen = Counter()
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=24,
            deadline=None,
            derandomize=True,
            database=None,
            phases=(Phase.generate,),  # add Phase.shrink to look into a failure; it takes minutes
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert not set(met) - set(+Wrapping.seen), Wrapping.seen


def test_p5_wrapping_changes_no_figure_on_sqlite(
    sqlite_template: Path, tmp_path: Path, catalog: Catalog
) -> None:
    def machine() -> Wrapping:
        path = tmp_path / "books.db"
        shutil.copy(sqlite_template, path)

        def drop() -> None:
            for left in tmp_path.glob("books.db*"):
                left.unlink()
            shutil.rmtree(tmp_path / "archives", ignore_errors=True)

        return Wrapping(f"sqlite:///{path}", catalog, tmp_path / "archives", drop)

    run(machine, 5, "wrapped", "restored", "voided", "corrected", "rated beside")


def test_p5_wrapping_changes_no_figure_on_postgresql(
    postgres_server: str, postgres_template: str, tmp_path: Path, catalog: Catalog
) -> None:
    def machine() -> Wrapping:
        url = new_database(postgres_server, postgres_template)

        def drop() -> None:
            drop_database(postgres_server, url)
            shutil.rmtree(tmp_path / "archives", ignore_errors=True)

        return Wrapping(url, catalog, tmp_path / "archives", drop)

    run(machine, 3, "wrapped", "restored", "voided")
