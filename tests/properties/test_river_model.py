"""The whole river against a model of it: whatever is sent, in whatever order, however often."""

import asyncio
import json
import shutil
from collections.abc import Callable, Mapping
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

from app.core.clock import FrozenClock
from app.pricing.catalog import Catalog
from app.runtime import build
from tests.conftest import ADMIN, settings_for
from tests.postgres import drop_database, new_database
from tests.properties.books import books_in, books_of, everything_in, limits_in, log_in
from tests.served import served_alone

START = datetime(2026, 11, 29, 23, 40, 30, tzinfo=UTC)
USERS = ("ann", "bob", "c/d")
NANOS_PER_TOKEN = {"input_tokens": 150, "cache_read_tokens": 75 - 150, "output_tokens": 600}
"""The price of gpt-4o-mini: cached input is half of input, and contained in it."""
AGO = (0, 1, 90, 3_700, 90_000, 3 * 86_400, 30 * 86_400, -240)
WAITS = (0.000001, 1, 31, 1_800, 86_400, 3 * 86_400)
Event = dict[str, Any]

COUNTS = st.integers(0, 2_000)
PRICES = st.sampled_from(("priced", "priced", "unpriced", "provided"))
EVENTS = st.fixed_dictionaries(
    {
        "user_id": st.sampled_from(USERS),
        "id": st.sampled_from(("1", "2", "3", "x/y", "é")),
        "ago": st.sampled_from((None, *AGO)),
        "price": PRICES,
        "input_tokens": COUNTS,
        "cached": st.integers(0, 100),
        "output_tokens": COUNTS,
    },
    optional={
        "status_code": st.sampled_from((200, 399, 400, 503)),
        "latency_ms": st.sampled_from((0, 0.001, 1, 1.001, 812.5, 2e6)),
        "ttft_ms": st.sampled_from((0, 190.25)),
        "endpoint": st.sampled_from(("", "/chat", "/embed")),
        "task_type": st.sampled_from(("", "chat")),
        "team_id": st.sampled_from(("red", "blue")),
        "api_key_id": st.just("k1"),
        "backend": st.sampled_from(("gpu-1", "gpu-2")),
        "pool": st.just("eu"),
    },
)
LIMITS = st.fixed_dictionaries(
    {
        "name": st.just("limit"),
        "scope": st.sampled_from(
            (
                *({"user_id": "ann"}, {"user_id": "c/d"}, {"plan_id": "plan_default"}),
                *({"team_id": "red"}, {"api_key_id": "k1"}, {"all": True}),
            )
        ),
        "match": st.sampled_from(
            (
                *({}, {}, {"provider": "openai"}, {"endpoint": "/chat"}),
                {"provider": "OpenAI", "model": "openai/GPT-4o-mini"},
            )
        ),
        "action": st.sampled_from(("block", "block", "warn", "shadow")),
        "timezone": st.sampled_from(("UTC", "Asia/Tokyo", "Asia/Kathmandu", "Pacific/Honolulu")),
        "metric": st.sampled_from(("calls", "tokens", "input_tokens", "output_tokens")),
        "window": st.sampled_from(
            ("minute", "hour", "day", "week", "month", "billing_period", "lifetime")
        ),
        "amount": st.sampled_from((None, 0, 3, 1_000, 10_000)),
        "thresholds": st.sampled_from(([80, 90, 100], [1, 100, 1000], [])),
    }
)
BUDGETS = st.tuples(LIMITS, st.sampled_from(("0", "0.0005", "1.25"))).map(
    lambda pair: pair[0] | {"metric": "cost_usd", "amount": pair[1]}
)


class Model:
    """The service in a dictionary: the first event under a key is the one that counts."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Event] = {}
        self.bodies: dict[tuple[str, str], Event] = {}

    def fate(self, body: Event, seen: Mapping[tuple[str, str], Event]) -> str:
        key = (body["user_id"], body["id"])
        known = self.bodies.get(key, seen.get(key))
        return "recorded" if known is None else "duplicate" if known == body else "conflict"

    def fates(self, bodies: list[Event]) -> list[str]:
        """What becomes of each of these, sent together."""
        seen: dict[tuple[str, str], Event] = {}
        found = []
        for body in bodies:
            found.append(self.fate(body, seen))
            seen.setdefault((body["user_id"], body["id"]), body)
        return found

    def record(self, body: Event, now: datetime) -> None:
        key = (body["user_id"], body["id"])
        if key not in self.bodies:
            self.bodies[key], self.rows[key] = body, row_of(body, now)


def body_of(drawn: Event, now: datetime) -> Event:
    """The event as it is sent."""
    body = {name: value for name, value in drawn.items() if name not in _OURS}
    cached = min(drawn["cached"], drawn["input_tokens"])
    usage = {"input_tokens": drawn["input_tokens"], "output_tokens": drawn["output_tokens"]}
    body["usage"] = usage | ({"cache_read_tokens": cached} if cached else {})
    priced = drawn["price"] != "unpriced"
    body |= {"provider": "openai", "model": "gpt-4o-mini"} if priced else {"provider": "nobody"}
    if drawn["price"] == "provided":
        body["cost_usd"] = "0.000000123"
    if drawn["ago"] is not None:
        body["timestamp"] = (now - timedelta(seconds=drawn["ago"])).isoformat()
    return body


_OURS = ("ago", "price", "input_tokens", "output_tokens", "cached")


def row_of(body: Event, now: datetime) -> Event:
    """The log row that an event must become, as far as anything is counted by it."""
    usage = body["usage"]
    cost = None
    if "cost_usd" in body:
        cost = 123
    elif "model" in body:
        cost = sum(nanos * usage.get(name, 0) for name, nanos in NANOS_PER_TOKEN.items())
    at = datetime.fromisoformat(body["timestamp"]) if "timestamp" in body else now
    row = {"model": "", "status_code": 200, **body, **usage, "timestamp": at, "cost_nanos": cost}
    for name in ("latency", "ttft"):
        ms = body.get(f"{name}_ms")
        row[f"{name}_us"] = None if ms is None else round(ms * 1000)
    return row


def usd(nanos: int) -> str:
    text = f"{nanos // 10**9}.{nanos % 10**9:09d}".rstrip("0")
    return text.rstrip(".")


class River(RuleBasedStateMachine):
    """Events, limits and time, in any order; the books are checked after every step."""

    def __init__(self, url: str, catalog: Catalog, drop: Callable[[], None]) -> None:
        super().__init__()
        self.clock, self.model, self.drop = FrozenClock(START), Model(), drop
        self.sent: list[Event] = []
        self.runner = asyncio.Runner()
        self.runtime = build(settings_for(url), clock=self.clock, catalog=catalog)
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

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.runner.run(self.client.post(path, **body))

    @rule(drawn=EVENTS)
    def one(self, drawn: Event) -> None:
        self.send(body_of(drawn, self.clock.now()))

    @rule(drawn=EVENTS)
    def one_without_an_id(self, drawn: Event) -> None:
        body = body_of(drawn, self.clock.now())
        del body["id"]
        answer = self.post("/v1/events", json=body)
        assert answer.status_code == 201
        self.model.record(body | {"id": answer.json()["id"]}, self.clock.now())

    @precondition(lambda self: self.sent)
    @rule(place=st.integers(0, 10**6))
    def again(self, place: int) -> None:
        self.send(self.sent[place % len(self.sent)])

    def send(self, body: Event) -> None:
        key = (body["user_id"], body["id"])
        fate = self.model.fate(body, {})
        answer = self.post("/v1/events", json=body)
        codes = {"recorded": 201, "duplicate": 200, "conflict": 409}
        if too_old(body, self.clock.now()):
            assert answer.status_code == 422
            return
        assert answer.status_code == codes[fate], answer.text
        self.sent.append(body)
        self.model.record(body, self.clock.now())
        if fate != "conflict":
            row, receipt = self.model.rows[key], answer.json()
            cost = row["cost_nanos"]
            assert receipt["status"] == fate
            assert receipt["cost_usd"] == (None if cost is None else usd(cost))
            assert datetime.fromisoformat(receipt["timestamp"]) == row["timestamp"]
            assert receipt["billing_period"] == f"{row['timestamp']:%Y-%m}"

    @rule(
        drawn=st.lists(EVENTS, min_size=1, max_size=8),
        lines=st.booleans(),
        atomic=st.booleans(),
    )
    def many(self, drawn: list[Event], lines: bool, atomic: bool) -> None:
        bodies = [body_of(one, self.clock.now()) for one in drawn]
        fates = self.model.fates(bodies)
        query = f"?results=all&atomic={str(atomic).lower()}"
        texts = [json.dumps(body) for body in bodies]
        content = "\n".join(texts) if lines else f"[{','.join(texts)}]"
        kind = {"Content-Type": "application/x-ndjson" if lines else "application/json"}
        answer = self.post(f"/v1/events{query}", content=content, headers=kind)
        if atomic and "conflict" in fates:
            assert answer.status_code == 409
            return
        shown = ["rejected" if fate == "conflict" else fate for fate in fates]
        assert [one["status"] for one in answer.json()["results"]] == shown
        refused = fates.count("conflict")
        code = 200 if not refused else 422 if refused == len(fates) else 207
        assert answer.status_code == code
        cost = 0
        for body, fate in zip(bodies, fates, strict=True):
            self.model.record(body, self.clock.now())
            if fate == "recorded":
                cost += self.model.rows[body["user_id"], body["id"]]["cost_nanos"] or 0
                self.sent.append(body)
        assert answer.json()["cost_usd"] == usd(cost)

    @rule(body=LIMITS | BUDGETS)
    def limit(self, body: Event) -> None:
        answer = self.post("/v1/limits", json=body)
        assert answer.status_code == 201, answer.text

    @rule(seconds=st.sampled_from(WAITS))
    def wait(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))

    @rule(user=st.sampled_from((*USERS, "nobody")))
    def look(self, user: str) -> None:
        async def work() -> None:
            before = await everything_in(self.runtime.db)
            own = f"/v1/users/{user.replace('/', '%2F')}"
            for path in ("usage", "usage/trends", "events", "limits", "alerts", "subscription"):
                answer = await self.client.get(f"{own}/{path}")
                assert answer.status_code == 200, answer.text
            asked = await self.client.post("/v1/limits/check", json={"user_id": user})
            assert asked.status_code == 200
            assert await everything_in(self.runtime.db) == before

        self.runner.run(work())

    @invariant()
    def books_are_those_of_the_model(self) -> None:
        async def work() -> None:
            db = self.runtime.db
            log = await log_in(db)
            assert log.keys() == self.model.rows.keys()
            for key, row in self.model.rows.items():
                for name in _COMPARED & row.keys():
                    assert (log[key][name] or 0) == (row[name] or 0), name
            stored = await books_in(db)
            assert stored == books_of(self.model.rows.values(), await limits_in(db))

        self.runner.run(work())


_COMPARED = frozenset(
    (
        *("timestamp", "provider", "model", "status_code", "cost_nanos", "input_tokens"),
        *("output_tokens", "cache_read_tokens", "latency_us", "ttft_us", "endpoint"),
        *("task_type", "team_id", "api_key_id", "backend", "pool"),
    )
)


def too_old(body: Event, now: datetime) -> bool:
    """Sent again so late that the acceptance window has passed over it."""
    at = body.get("timestamp")
    return at is not None and datetime.fromisoformat(at) < now - timedelta(days=35)


def run(machine: Callable[[], River], examples: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            database=None,
            phases=(Phase.generate,),  # add Phase.shrink to look into a failure; it takes minutes
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_books_are_exact_after_every_step_on_sqlite(
    sqlite_template: Path, tmp_path: Path, catalog: Catalog
) -> None:
    def machine() -> River:
        path = tmp_path / "river.db"
        shutil.copy(sqlite_template, path)

        def drop() -> None:
            for left in tmp_path.glob("river.db*"):
                left.unlink()

        return River(f"sqlite:///{path}", catalog, drop)

    run(machine, 10)


def test_the_books_are_exact_after_every_step_on_postgresql(
    postgres_server: str, postgres_template: str, catalog: Catalog
) -> None:
    def machine() -> River:
        url = new_database(postgres_server, postgres_template)
        return River(url, catalog, lambda: drop_database(postgres_server, url))

    run(machine, 5)
