"""What one process decides about a key holds at once in every other."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta

import httpx
import pytest

from app.access.keys import KeyRing, create_key, get_key
from app.access.last_used import LastUsed
from app.access.manage import rotate_key
from app.core.clock import MICROSECOND, FrozenClock
from app.core.errors import RateLimited, Unauthenticated, Unavailable
from app.db.engine import Database, Tx
from app.pricing.catalog import Catalog
from app.runtime import Runtime, build
from tests.conftest import ADMIN, settings_for
from tests.integration.test_races import client_of

pytestmark = pytest.mark.anyio

EVENT = {"user_id": "alice"}
CHECKED = "/v1/limits/check"
Replicas = tuple[httpx.AsyncClient, httpx.AsyncClient]


@pytest.fixture
async def replicas(db_url: str, clock: FrozenClock, catalog: Catalog) -> AsyncIterator[Replicas]:
    """Two services on one database, each with its own memory of the keys."""
    async with AsyncExitStack() as stack:
        found = []
        for shard in (0, 1):
            settings = settings_for(db_url).model_copy(update={"shard": shard, "pool_size": 6})
            runtime = build(settings, clock=clock, catalog=catalog)
            await runtime.start()
            stack.push_async_callback(runtime.close)
            found.append(await stack.enter_async_context(client_of(runtime)))
        yield found[0], found[1]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def made(client: httpx.AsyncClient, **body: object) -> dict[str, str]:
    said = {"name": "k", "scopes": ["ingest", "check", "read"]} | body
    answer = await client.post("/v1/api-keys", json=said)
    assert answer.status_code == 201, answer.text
    found: dict[str, str] = answer.json()
    return found


async def statuses(client: httpx.AsyncClient, token: str) -> list[int]:
    """How the door of events, the door of checks and an ordinary route answer a key."""
    signed = bearer(token)
    answers = [
        await client.post("/v1/events", json=EVENT, headers=signed),
        await client.post(CHECKED, json=EVENT, headers=signed),
        await client.get("/v1/users/alice/limits", headers=signed),
    ]
    return [answer.status_code for answer in answers]


async def test_a_key_revoked_here_opens_nothing_there_from_the_answer_on(
    replicas: Replicas,
) -> None:
    here, there = replicas
    key = await made(here)
    assert await statuses(there, key["key"]) == [201, 200, 200]
    assert (await here.post(f"/v1/api-keys/{key['id']}/revoke")).status_code == 200
    assert await statuses(there, key["key"]) == [401, 401, 401]


async def test_each_door_alone_learns_that_a_key_was_revoked_elsewhere(
    replicas: Replicas,
) -> None:
    here, there = replicas
    for path in ("/v1/events", CHECKED, "/v1/holds"):
        key = await made(here)
        signed = bearer(key["key"])
        assert (await there.post(path, json=EVENT, headers=signed)).status_code < 300
        assert (await here.delete(f"/v1/api-keys/{key['id']}")).status_code == 204
        assert (await there.post(path, json=EVENT, headers=signed)).status_code == 401


async def test_scopes_taken_or_given_here_hold_there_at_once(replicas: Replicas) -> None:
    here, there = replicas
    key = await made(here)
    path = f"/v1/api-keys/{key['id']}"
    assert await statuses(there, key["key"]) == [201, 200, 200]
    assert (await here.patch(path, json={"scopes": ["read"]})).status_code == 200
    assert (await there.post("/v1/events", json=EVENT, headers=bearer(key["key"]))).json()[
        "scope"
    ] == "ingest"
    assert await statuses(there, key["key"]) == [403, 403, 200]
    assert (await here.patch(path, json={"scopes": ["ingest"]})).status_code == 200
    assert await statuses(there, key["key"]) == [201, 403, 403]
    assert (await here.patch(path, json={"scopes": ["check"]})).status_code == 200
    checked = await there.post(CHECKED, json=EVENT, headers=bearer(key["key"]))
    assert checked.status_code == 200


async def test_a_rate_raised_here_is_known_there_though_there_refuses_everything(
    replicas: Replicas,
) -> None:
    here, there = replicas
    key = await made(here, requests_per_minute=1)
    signed = bearer(key["key"])
    assert (await there.post("/v1/events", json=EVENT, headers=signed)).status_code == 201
    assert (await there.post("/v1/events", json=EVENT, headers=signed)).status_code == 429
    path = f"/v1/api-keys/{key['id']}"
    assert (await here.patch(path, json={"requests_per_minute": 2})).status_code == 200
    assert (await there.post("/v1/events", json=EVENT, headers=signed)).status_code == 201
    assert (await there.post("/v1/events", json=EVENT, headers=signed)).status_code == 429


async def test_a_key_ends_to_the_microsecond(replicas: Replicas, clock: FrozenClock) -> None:
    here, there = replicas
    ends = clock.now() + timedelta(hours=1, microseconds=7)
    key = await made(here, expires_at=ends.isoformat())
    clock.advance(ends - clock.now() - MICROSECOND)
    assert await statuses(there, key["key"]) == [201, 200, 200]
    clock.advance(MICROSECOND)
    for one in replicas:
        assert await statuses(one, key["key"]) == [401, 401, 401]


async def test_two_keys_are_good_for_the_overlap_of_a_rotation_and_then_one(
    replicas: Replicas, clock: FrozenClock
) -> None:
    here, there = replicas
    old = await made(here, user_id="alice")
    path = f"/v1/api-keys/{old['id']}/rotate"
    answer = await here.post(path, json={"overlap_s": 60})
    assert answer.status_code == 201, answer.text
    new = answer.json()
    assert new["replaces"] == old["id"]
    assert (new["user_id"], new["scopes"]) == ("alice", old["scopes"])
    for token in (old["key"], new["key"]):
        assert await statuses(there, token) == [201, 200, 200]
        bob = await there.post("/v1/events", json={"user_id": "bob"}, headers=bearer(token))
        assert bob.status_code == 403
    clock.advance(timedelta(seconds=60) - MICROSECOND)
    assert await statuses(there, old["key"]) == [201, 200, 200]
    clock.advance(MICROSECOND)
    assert await statuses(there, old["key"]) == [401, 401, 401]
    assert await statuses(there, new["key"]) == [201, 200, 200]
    again = await there.post(f"/v1/api-keys/{new['id']}/rotate", json={"overlap_s": 0})
    assert again.status_code == 201
    assert await statuses(here, new["key"]) == [401, 401, 401]
    assert await statuses(here, again.json()["key"]) == [201, 200, 200]


async def test_sessions_end_with_the_key_that_opened_them(replicas: Replicas) -> None:
    here, there = replicas
    key = await made(here)
    opened = await here.post("/v2/billing/meter_event_session", headers=bearer(key["key"]))
    signed = bearer(opened.json()["authentication_token"])
    assert (await there.post("/v1/events", json=EVENT, headers=signed)).status_code == 201
    assert (await here.post(f"/v1/api-keys/{key['id']}/revoke")).status_code == 200
    assert (await there.post("/v1/events", json=EVENT, headers=signed)).status_code == 401


# ---- when a key was last used -----------------------------------------------------------------


async def test_the_last_use_is_told_at_once_here_and_everywhere_once_written_down(
    runtime: Runtime, client: httpx.AsyncClient, clock: FrozenClock, db: Database
) -> None:
    key = await made(client)
    path = f"/v1/api-keys/{key['id']}"
    assert (await client.get(path)).json()["last_used_at"] is None
    clock.advance(timedelta(minutes=1))
    assert (
        await client.post("/v1/events", json=EVENT, headers=bearer(key["key"]))
    ).status_code == 201
    assert (await client.get(path)).json()["last_used_at"] == "2026-11-20T12:31:00Z"
    assert (await db.read(lambda tx: get_key(tx, key["id"]))).last_used_at is None
    await runtime.last_used.write()
    written = (await db.read(lambda tx: get_key(tx, key["id"]))).last_used_at
    assert written == clock.now()
    version = runtime.feed.version
    await runtime.db.glance(runtime.feed.catch_up)
    assert runtime.feed.version == version, "a use is no change of configuration"


async def test_a_use_that_cannot_be_written_is_kept_and_an_older_one_never_wins(
    runtime: Runtime, db: Database, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_key, _ = await db.write(
        lambda tx: create_key(
            tx, name="k", scopes=["read"], user_id=None, expires_at=None, now=clock.now()
        ),
        alone=True,
    )
    ring = KeyRing(ADMIN, clock.now())
    late, early = clock.now(), clock.now() - timedelta(hours=1)

    async def refuse(*_: object, **__: object) -> None:
        raise Unavailable("it is away")

    ring.uses.note(made_key.id, late)
    uses = LastUsed(runtime.db, ring.uses)
    with monkeypatch.context() as patch:
        patch.setattr(type(runtime.db), "write", refuse)
        with pytest.raises(Unavailable):
            await uses.write()
        await uses.close()
    await uses.close()
    assert (await db.read(lambda tx: get_key(tx, made_key.id))).last_used_at == late
    ring.uses.note(made_key.id, early)
    await uses.write()
    assert (await db.read(lambda tx: get_key(tx, made_key.id))).last_used_at == late


async def test_a_key_and_its_successor_share_one_allowance(
    db: Database, clock: FrozenClock
) -> None:
    """Rotating is no way to get twice the rate, and starts no minute anew."""
    ring = KeyRing(ADMIN, clock.now())
    now = clock.now()

    async def make(tx: Tx) -> tuple[str, str]:
        key, token = await create_key(
            *(tx,),
            name="k",
            scopes=["read"],
            user_id=None,
            expires_at=None,
            now=now,
            requests_per_minute=2,
        )
        return key.id, token

    async def rotate(tx: Tx, of: str, overlap: timedelta) -> tuple[str, str]:
        made_key, token, _ = await rotate_key(tx, await get_key(tx, of), overlap, None, now)
        return made_key.id, token

    key_id, old = await db.write(make, alone=True)
    await db.read(lambda tx: ring.reload(tx, set()))
    ring.admit(old, now)
    hour = timedelta(hours=1)
    new_id, new = await db.write(lambda tx: rotate(tx, key_id, hour), alone=True)
    await db.read(lambda tx: ring.reload(tx, set()))
    ring.admit(new, now)
    _, newest = await db.write(lambda tx: rotate(tx, new_id, timedelta()), alone=True)
    await db.read(lambda tx: ring.reload(tx, set()))
    for token in (old, newest):
        with pytest.raises(RateLimited):
            ring.admit(token, now + timedelta(seconds=59))
    with pytest.raises(Unauthenticated):
        ring.admit(new, now)
    ring.admit(newest, now + timedelta(seconds=60))
