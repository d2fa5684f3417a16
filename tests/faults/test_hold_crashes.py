"""P7, P8: killed servers and wrong clocks let nobody past a limit and leave nothing held."""

import asyncio
import random
import sys
import time
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from app.analytics.audit import prove
from app.core.clock import Clock
from app.db.engine import Database, Tx
from app.limits.tables import Counter
from tests.faults import service as live
from tests.faults.service import HEADERS, Service, serving

pytestmark = pytest.mark.fault
LIMIT, EACH, CALLERS = 2_000, 97, 64
SKEWED = """
from datetime import timedelta
from app.core.clock import Clock
real = Clock.now
Clock.now = lambda self: real(self) + timedelta(seconds={seconds})
from app.cli import app
app()
"""


def make_limit(service: Service) -> None:
    body = {"name": "l", "scope": {"user_id": "ann"}, "metric": "tokens", "window": "lifetime"}
    url, said = f"{service.base}/v1/limits", body | {"amount": LIMIT}
    answer = httpx.post(url, json=said, headers=HEADERS, trust_env=False)
    assert answer.status_code == 201


class Callers:
    """Each asks, then settles, releases, or dies; whoever gets no answer asks again."""

    def __init__(self, services: list[Service]) -> None:
        self.services, self.dice = services, random.Random(7)
        self.running, self.settled, self.granted = True, 0, 0
        self.worst = 0

    async def send(self, client: httpx.AsyncClient, path: str, body: Any) -> int:
        while True:
            base = self.dice.choice(self.services).base
            try:
                answer = await client.post(base + path, json=body)
            except httpx.HTTPError:
                await asyncio.sleep(0.05)
                continue
            if answer.status_code != 503:
                return answer.status_code
            await asyncio.sleep(0.05)

    async def caller(self, client: httpx.AsyncClient, number: int) -> None:
        turn = 0
        while self.running:
            turn += 1
            name = f"h{number}-{turn}"
            body = {"id": name, "user_id": "ann", "usage": {"input_tokens": EACH}, "ttl_s": 2}
            code = await self.send(client, "/v1/holds", body)
            if code == 429:
                await asyncio.sleep(0.05)
                continue
            assert code in (200, 201, 409), code  # 409: it expired before the answer was heard
            self.granted += 1
            ending = self.dice.random()
            if ending < 0.1:
                event = {"event": {"usage": {"input_tokens": 1}}}
                code = await self.send(client, f"/v1/holds/{name}/settle", event)
                assert code in (200, 201), code
                self.settled += 1
            elif ending < 0.8:
                assert await self.send(client, f"/v1/holds/{name}/release", None) == 200

    async def watch(self, db: Database) -> None:
        async def work(tx: Tx) -> int:
            query = select(func.coalesce(func.max(Counter.used + Counter.held), 0))
            return int((await tx.fetch(query))[0][0])

        while self.running:
            self.worst = max(self.worst, await db.read(work))
            await asyncio.sleep(0.01)

    async def run(self, db: Database) -> None:
        bounds = httpx.Limits(max_connections=CALLERS)
        async with httpx.AsyncClient(
            headers=HEADERS, trust_env=False, timeout=6, limits=bounds
        ) as client:
            watching = asyncio.create_task(self.watch(db))
            load = [asyncio.create_task(self.caller(client, n)) for n in range(CALLERS)]
            for _ in range(2):
                await asyncio.sleep(1)
                victim = self.dice.choice(self.services)
                await asyncio.to_thread(victim.kill)
                await asyncio.to_thread(victim.start)
            await asyncio.sleep(1)
            self.running = False
            await asyncio.gather(watching, *load)


@pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
def test_killed_at_any_moment_nobody_passes_the_limit_and_nothing_stays_held(url: str) -> None:
    with serving(url, 1 if url.startswith("sqlite") else 2) as services:
        make_limit(services[0])
        callers = Callers(services)

        async def work() -> None:
            db = Database.open(url)
            try:
                await callers.run(db)
                proof = await db.read(lambda tx: prove(tx, Clock().now()))
                assert proof.differences == []
            finally:
                await db.close()

        asyncio.run(work())
        assert callers.worst <= LIMIT
        assert callers.granted > 50
        time.sleep(2.1)
        path = f"{services[0].base}/v1/users/ann/limits"
        [state] = httpx.get(path, headers=HEADERS, trust_env=False).json()["items"]
        assert (state["used"], state["held"]) == (callers.settled, 0)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_servers_whose_clocks_are_twenty_minutes_apart_agree_when_a_hold_ends(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = [Service(url), Service(url)]
    try:
        for service, seconds in zip(services, (-600, 600), strict=True):
            script = SKEWED.format(seconds=seconds)
            monkeypatch.setattr(live, "TOLLGATE", (sys.executable, "-c", script))
            service.start()
        make_limit(services[0])

        def held(service: Service) -> int:
            path = f"{service.base}/v1/users/ann/limits"
            answer = httpx.get(path, headers=HEADERS, trust_env=False)
            found: int = answer.json()["items"][0]["held"]
            return found

        def ask(service: Service, name: str, tokens: int) -> int:
            body = {"id": name, "user_id": "ann", "usage": {"input_tokens": tokens}, "ttl_s": 4}
            path = f"{service.base}/v1/holds"
            return httpx.post(path, json=body, headers=HEADERS, trust_env=False).status_code

        for slow, (one, other) in enumerate((services, services[::-1])):
            assert ask(one, f"full-{slow}", LIMIT) == 201
            assert [held(one), held(other)] == [LIMIT, LIMIT]
            assert ask(other, f"more-{slow}", 1) == 429
            path = f"{other.base}/v1/holds/full-{slow}"
            status = httpx.get(path, headers=HEADERS, trust_env=False).json()["status"]
            assert status == "open"
            time.sleep(4.1)
            assert [held(one), held(other)] == [0, 0]
            assert ask(other, f"more-{slow}", LIMIT) == 201
            time.sleep(4.1)
    finally:
        for service in services:
            service.close()
