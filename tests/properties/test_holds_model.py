"""Holds, events, settles, releases, extensions, expiry and raises in any order, against a model.

The model is a list of holds and a few lines: what is held is the sum over the open ones.
"""

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import func, select

from app.analytics.audit import prove
from app.core.clock import FrozenClock
from app.db.engine import Tx
from app.limits import hold_ends
from app.limits.tables import HoldAmount
from app.pricing.catalog import Catalog
from app.runtime import build
from tests.conftest import ADMIN, settings_for
from tests.postgres import drop_database, new_database
from tests.served import served_alone

START = datetime(2026, 11, 20, 12, 30, 20, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
AMOUNT = 1_000
RAISED = 1_500
TOKENS = st.sampled_from((0, 1, 100, 333, 700, 1_000, 1_001))
TTLS = st.sampled_from((1, 15, 60, 600))
IDS = ("a", "b", "c", "d", "e")


@dataclass
class Held:
    """A hold in the model; `minute` is the window that it holds in."""

    tokens: int
    ttl_s: int
    minute: datetime
    expires_at: datetime
    state: str = "open"
    settled: dict[str, Any] | None = None


class Holds(RuleBasedStateMachine):
    """One user with a limit by the minute that blocks, and one for ever that only warns."""

    def __init__(self, url: str, catalog: Catalog, drop: Callable[[], None]) -> None:
        super().__init__()
        self.clock, self.drop = FrozenClock(START), drop
        self.holds: dict[str, Held] = {}
        self.used: dict[datetime, int] = {}
        self.raised_until = START
        self.numbers = 0
        self.runner = asyncio.Runner()
        self.runtime = build(settings_for(url), clock=self.clock, catalog=catalog)
        self.runner.run(self.runtime.start())
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(served_alone(self.runtime)),
            base_url="http://test",
            headers={"Authorization": f"Bearer {ADMIN}"},
        )
        body = {"name": "minute", "scope": {"user_id": "ann"}, "metric": "tokens"}
        made = self.post("/v1/limits", body | {"window": "minute", "amount": AMOUNT})
        self.limit_id = made.json()["id"]
        ever = {"name": "ever", "window": "lifetime", "amount": 1, "action": "warn"}
        assert self.post("/v1/limits", body | ever).status_code == 201

    def teardown(self) -> None:
        self.runner.run(self.client.aclose())
        self.runner.run(self.runtime.close())
        self.runner.close()
        self.drop()

    def post(self, path: str, body: Any = None) -> httpx.Response:
        return self.runner.run(self.client.post(path, json=body))

    # ---- the model ----

    @property
    def minute(self) -> datetime:
        return self.clock.now().replace(second=0, microsecond=0)

    @property
    def amount(self) -> int:
        return RAISED if self.clock.now() < self.raised_until else AMOUNT

    def state(self, hold: Held) -> str:
        gone = hold.state == "open" and hold.expires_at <= self.clock.now()
        return "expired" if gone else hold.state

    def held(self, minute: datetime | None) -> int:
        return sum(
            hold.tokens
            for hold in self.holds.values()
            if self.state(hold) == "open" and minute in (None, hold.minute)
        )

    def count(self, tokens: int) -> None:
        self.used[self.minute] = self.used.get(self.minute, 0) + tokens

    # ---- what may happen ----

    @rule(name=st.sampled_from(IDS), tokens=TOKENS, ttl_s=TTLS)
    def ask(self, name: str, tokens: int, ttl_s: int) -> None:
        known = self.holds.get(name)
        body = {"id": name, "user_id": "ann", "usage": {"input_tokens": tokens}, "ttl_s": ttl_s}
        answer = self.post("/v1/holds", body)
        if known is not None:
            same = (known.tokens, known.ttl_s) == (tokens, ttl_s)
            expected = 200 if same and self.state(known) == "open" else 409
            assert answer.status_code == expected, answer.text
            return
        free = self.amount - self.used.get(self.minute, 0) - self.held(self.minute)
        assert answer.status_code == (201 if tokens <= free else 429), answer.text
        if tokens <= free:
            until = self.clock.now() + timedelta(seconds=ttl_s)
            self.holds[name] = Held(tokens, ttl_s, self.minute, until)

    @precondition(lambda self: self.holds)
    @rule(pick=st.integers(0, 99), tokens=TOKENS, named=st.booleans())
    def settle(self, pick: int, tokens: int, named: bool) -> None:
        name = sorted(self.holds)[pick % len(self.holds)]
        hold = self.holds[name]
        event: dict[str, Any] = {"usage": {"input_tokens": tokens}}
        if named:
            event["id"] = f"event-{tokens}"
        answer = self.post(f"/v1/holds/{name}/settle", {"event": event})
        if hold.state == "open":
            taken = named and any(
                other.settled == event for other in self.holds.values() if other is not hold
            )
            assert answer.status_code == (409 if taken else 201), answer.text
            if not taken:
                hold.state, hold.settled = "settled", event
                self.count(tokens)
        else:
            expected = 200 if hold.settled == event else 409
            assert answer.status_code == expected, answer.text

    @rule(tokens=TOKENS, name=st.sampled_from((None, *IDS)))
    def event(self, tokens: int, name: str | None) -> None:
        self.numbers += 1
        body = {"user_id": "ann", "id": f"n{self.numbers}", "usage": {"input_tokens": tokens}}
        answer = self.post("/v1/events", body if name is None else body | {"hold_id": name})
        assert answer.status_code == 201
        self.count(tokens)
        hold = self.holds.get(name or "")
        if hold is not None and hold.state == "open":
            hold.state, hold.settled = "settled", body

    @precondition(lambda self: self.holds)
    @rule(pick=st.integers(0, 99))
    def release(self, pick: int) -> None:
        name = sorted(self.holds)[pick % len(self.holds)]
        hold = self.holds[name]
        answer = self.post(f"/v1/holds/{name}/release")
        assert answer.status_code == (409 if hold.state == "settled" else 200)
        if self.state(hold) == "open":
            hold.state = "released"

    @precondition(lambda self: self.holds)
    @rule(pick=st.integers(0, 99), ttl_s=TTLS)
    def extend(self, pick: int, ttl_s: int) -> None:
        name = sorted(self.holds)[pick % len(self.holds)]
        hold = self.holds[name]
        answer = self.post(f"/v1/holds/{name}/extend", {"ttl_s": ttl_s})
        assert answer.status_code == (200 if self.state(hold) == "open" else 409)
        if self.state(hold) == "open":
            hold.expires_at = self.clock.now() + timedelta(seconds=ttl_s)

    @rule(seconds=st.sampled_from((1, 14, 15, 45, 60, 700)))
    def wait(self, seconds: int) -> None:
        self.clock.advance(timedelta(seconds=seconds))

    @rule(seconds=st.sampled_from((1, 90)))
    def raise_limit(self, seconds: int) -> None:
        self.raised_until = self.clock.now() + timedelta(seconds=seconds)
        body = {"amount": RAISED, "until": self.raised_until.isoformat()}
        assert self.post(f"/v1/limits/{self.limit_id}/raise", body).status_code == 200

    @rule()
    def tidy(self) -> None:
        db, clock = self.runtime.db, self.clock
        self.runner.run(db.write(lambda tx: hold_ends.tidy(tx, clock)))

    # ---- what holds at every moment ----

    @invariant()
    def what_is_held_is_what_open_holds_hold(self) -> None:
        async def work() -> None:
            answer = await self.client.get("/v1/users/ann/limits")
            found = {one["name"]: one for one in answer.json()["items"]}
            shown = (found["minute"]["used"], found["minute"]["held"])
            assert shown == (self.used.get(self.minute, 0), self.held(self.minute))
            shown = (found["ever"]["used"], found["ever"]["held"])
            assert shown == (sum(self.used.values()), self.held(None))
            for name, hold in self.holds.items():
                answer = await self.client.get(f"/v1/holds/{name}")
                assert answer.json()["status"] == self.state(hold)

        self.runner.run(work())

    @invariant()
    def the_books_agree(self) -> None:
        async def work(tx: Tx) -> int:
            assert (await prove(tx, self.clock.now())).differences == []
            rows = await tx.fetch(select(func.coalesce(func.sum(HoldAmount.amount), 0)))
            return int(rows[0][0])

        assert self.runner.run(self.runtime.db.read(work)) >= self.held(None)


def run(machine: Callable[[], Holds], examples: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_holds_are_exact_after_every_step_on_sqlite(
    sqlite_template: Path, tmp_path: Path, catalog: Catalog
) -> None:
    def machine() -> Holds:
        path = tmp_path / "holds.db"
        shutil.copy(sqlite_template, path)

        def drop() -> None:
            for left in tmp_path.glob("holds.db*"):
                left.unlink()

        return Holds(f"sqlite:///{path}", catalog, drop)

    run(machine, 6)


def test_holds_are_exact_after_every_step_on_postgresql(
    postgres_server: str, postgres_template: str, catalog: Catalog
) -> None:
    def machine() -> Holds:
        url = new_database(postgres_server, postgres_template)
        return Holds(url, catalog, lambda: drop_database(postgres_server, url))

    run(machine, 3)
