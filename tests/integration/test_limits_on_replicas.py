"""What one process decides about limits holds in the next batch and check of every other."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta

import httpx
import pytest

from app.core.clock import FrozenClock, rfc3339
from app.pricing.catalog import Catalog
from app.runtime import build
from tests.conftest import settings_for
from tests.integration.test_races import client_of

pytestmark = pytest.mark.anyio

LIMIT = {"name": "l", "metric": "calls", "window": "month"}


@pytest.fixture
async def replicas(
    db_url: str, clock: FrozenClock, catalog: Catalog
) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Two services on one database, each with its own memory of the configuration."""
    async with AsyncExitStack() as stack:
        found = []
        for shard in (0, 1):
            settings = settings_for(db_url).model_copy(update={"shard": shard, "pool_size": 6})
            runtime = build(settings, clock=clock, catalog=catalog)
            await runtime.start()
            stack.push_async_callback(runtime.close)
            found.append(await stack.enter_async_context(client_of(runtime)))
        yield found[0], found[1]


async def allowed(client: httpx.AsyncClient) -> bool:
    answer = await client.post("/v1/limits/check", json={"user_id": "alice"})
    found: bool = answer.json()["allowed"]
    return found


async def status(client: httpx.AsyncClient) -> str:
    answer = await client.post("/v1/events", json={"user_id": "alice"})
    assert answer.status_code == 201
    found: str = answer.json()["usage_status"]
    return found


async def test_d1_5_every_change_of_a_limit_holds_everywhere_at_once(
    replicas: tuple[httpx.AsyncClient, httpx.AsyncClient], clock: FrozenClock
) -> None:
    here, there = replicas
    assert [await status(one) for one in replicas] == ["active"] * 2
    for scope in ({"plan_id": "plan_default"}, {"user_id": "alice"}, {"all": True}):
        made = (await here.post("/v1/limits", json=LIMIT | {"scope": scope, "amount": 1})).json()
        path = f"/v1/limits/{made['id']}"
        assert not await allowed(there)
        assert await status(there) == "limit_reached"
        await there.patch(path, json={"amount": 1000})
        assert await allowed(here)
        assert await status(here) == "active"
        await here.patch(path, json={"amount": 1})
        until = clock.now() + timedelta(minutes=1)
        body = {"amount": 1000, "until": rfc3339(until)}
        await there.post(f"{path}/raise", json=body)
        assert [await allowed(one) for one in replicas] == [True, True]
        assert [await status(one) for one in replicas] == ["active"] * 2
        clock.advance(timedelta(minutes=1))
        assert [await allowed(one) for one in replicas] == [False, False]
        assert [await status(one) for one in replicas] == ["limit_reached"] * 2
        assert (await there.delete(path)).status_code == 204
        assert [await allowed(one) for one in replicas] == [True, True]
        assert [await status(one) for one in replicas] == ["active"] * 2
    proof = (await here.get("/v1/audit/consistency")).json()
    assert proof["differences"] == []


async def test_an_expiry_that_is_set_or_moved_holds_everywhere(
    replicas: tuple[httpx.AsyncClient, httpx.AsyncClient], clock: FrozenClock
) -> None:
    here, there = replicas
    assert [await allowed(one) for one in replicas] == [True, True]
    path, ends = "/v1/users/alice/subscription", clock.now() + timedelta(hours=1)
    body = {"plan_id": "plan_default", "expires_at": rfc3339(ends), "on_expiry": "refuse"}
    assert (await here.put(path, json=body)).status_code == 200
    clock.advance(timedelta(hours=1))
    assert [await allowed(one) for one in replicas] == [False, False]
    later = {"plan_id": "plan_default", "expires_at": rfc3339(ends + timedelta(days=9))}
    assert (await there.put(path, json=later)).status_code == 200
    assert [await allowed(one) for one in replicas] == [True, True]
