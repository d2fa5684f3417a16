"""P9: what was crossed is told, at least once, under one id, signed, to a real receiver."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from app.alerts.deliver import Courier, deliver_due
from app.alerts.deliveries import LEASE, claim, due, forget_messages
from app.alerts.guard import Guard
from app.alerts.schedule import DELAYS_S, Outcome
from app.alerts.sender import Letter, Post, Sender
from app.alerts.signing import new_secret
from app.alerts.tables import Alert, Delivery, DeliveryAttempt, Message
from app.core.clock import FrozenClock
from app.db.engine import Database, Tx
from app.main import create_asgi
from app.pricing.catalog import Catalog
from app.runtime import Runtime, build
from app.usage.tables import UsageEvent
from tests.conftest import ADMIN, settings_for
from tests.receivers import Receiver, Says, receiving, set_library_clock, verified

pytestmark = pytest.mark.anyio
CERTIFICATE = Path(__file__).parents[1] / "fixtures" / "hooks_test.pem"


@pytest.fixture
async def runtime(db_url: str, clock: FrozenClock, catalog: Catalog) -> AsyncIterator[Runtime]:
    """A service that may send to this machine."""
    opened = {"webhooks_allow_private": True, "webhooks_allow_http": True}
    settings = settings_for(db_url).model_copy(update=opened)
    found = build(settings, clock=clock, catalog=catalog)
    await found.start()
    yield found
    await found.close()


@pytest.fixture
async def client(runtime: Runtime) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_asgi(runtime), raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {ADMIN}"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://test", headers=headers
    ) as found:
        yield found


@pytest.fixture
def receiver(clock: FrozenClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    set_library_clock(monkeypatch, clock)
    with receiving() as found:
        yield found


async def hook(client: httpx.AsyncClient, url: str, **more: Any) -> dict[str, Any]:
    answer = await client.post("/v1/webhooks", json={"url": url} | more)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def limit(client: httpx.AsyncClient, scope: dict[str, Any], amount: int = 10) -> None:
    body = {"name": "ten", "scope": scope, "metric": "calls", "window": "month", "amount": amount}
    answer = await client.post("/v1/limits", json=body)
    assert answer.status_code == 201, answer.text


async def use(client: httpx.AsyncClient, calls: int, user: str = "alice", **more: Any) -> None:
    answer = await client.post("/v1/events", json=[{"user_id": user} | more] * calls)
    assert answer.json()["recorded"] == calls, answer.text


async def send(runtime: Runtime) -> int:
    return await deliver_due(runtime.db, runtime.clock, runtime.sender)


async def deliveries(client: httpx.AsyncClient, hook_id: str, query: str = "") -> list[Any]:
    answer = await client.get(f"/v1/webhooks/{hook_id}/deliveries{query}")
    assert answer.status_code == 200, answer.text
    found: list[Any] = answer.json()["items"]
    return found


async def count(db: Database, table: Any) -> int:
    async def work(tx: Tx) -> int:
        return int((await tx.fetch(select(func.count()).select_from(table)))[0][0])

    return await db.read(work)


# ---- what is written, and what arrives ----------------------------------------------------------


async def test_d1_2_d1_11_a_jump_over_three_thresholds_is_three_alerts_and_one_message(
    runtime: Runtime, client: httpx.AsyncClient, receiver: Receiver
) -> None:
    made = await hook(client, receiver.url)
    await limit(client, {"user_id": "alice"})
    await use(client, 7)
    assert await send(runtime) == 0
    await use(client, 3)
    assert await count(runtime.db, Alert) == 3
    assert await count(runtime.db, Message) == 1
    assert await send(runtime) == 1
    (got,) = receiver.got
    body = verified(made["secret"], got)
    assert body["type"] == "alert.limit_reached"
    assert body["data"]["scope"] == {"user_id": "alice"}
    assert [one["threshold"] for one in body["data"]["alerts"]] == [80, 90, 100]
    assert {one["used"] for one in body["data"]["alerts"]} == {10}
    stored = (await client.get("/v1/users/alice/alerts")).json()["items"]
    assert {one["id"] for one in stored} == {one["id"] for one in body["data"]["alerts"]}
    await use(client, 20)  # long beyond: nothing is crossed again
    assert await send(runtime) == 0
    assert await count(runtime.db, Alert) == 3


async def test_s1_20_an_alert_says_when_it_was_sent_first(
    runtime: Runtime, client: httpx.AsyncClient, receiver: Receiver, clock: FrozenClock
) -> None:
    made = await hook(client, receiver.url)
    await limit(client, {"user_id": "alice"})
    await use(client, 8)
    alert = (await client.get("/v1/users/alice/alerts")).json()["items"][0]
    assert alert["sent_at"] is None
    clock.advance(timedelta(seconds=3))
    await send(runtime)
    (one,) = await deliveries(client, made["id"])
    clock.advance(timedelta(hours=1))
    await client.post(f"/v1/deliveries/{one['id']}/retry")
    assert await send(runtime) == 1
    alert = (await client.get("/v1/users/alice/alerts")).json()["items"][0]
    assert alert["sent_at"] == "2026-11-20T12:30:03Z"
    read = await client.post(f"/v1/alerts/{alert['id']}/read")
    assert read.json() == alert | {"read": True}


async def test_without_a_webhook_that_wants_it_only_the_alert_is_written(
    runtime: Runtime, client: httpx.AsyncClient, receiver: Receiver
) -> None:
    await limit(client, {"user_id": "alice"})
    await use(client, 8)
    assert await count(runtime.db, Alert) == 1
    assert await count(runtime.db, Message) == 0
    await hook(client, receiver.url, scope={"user_id": "bob"})
    await hook(client, receiver.url, event_types=["alert.limit_reached"])
    await hook(client, receiver.url, enabled=False)
    await use(client, 1)
    assert await count(runtime.db, Alert) == 2
    assert await count(runtime.db, Message) == 0
    await use(client, 1)
    assert await count(runtime.db, Message) == 1
    assert await count(runtime.db, Delivery) == 1


async def test_a_webhook_gets_the_alerts_of_its_scope_and_its_types(
    runtime: Runtime, client: httpx.AsyncClient, receiver: Receiver
) -> None:
    wanted = {
        "everything": {},
        "alice": {"scope": {"user_id": "alice"}},
        "core": {"scope": {"team_id": "core"}},
        "warnings": {"event_types": ["alert.usage_warning"]},
    }
    ids = {}
    for name, more in wanted.items():
        ids[name] = (await hook(client, f"{receiver.url}/{name}", **more))["id"]
    await limit(client, {"user_id": "alice"}, 1)
    await limit(client, {"team_id": "core"}, 2)
    await limit(client, {"all": True}, 4)
    await use(client, 2, team_id="core")
    await use(client, 2, "bob")
    await send(runtime)
    paths = sorted(got.path.rpartition("/")[2] for got in receiver.got)
    assert paths.count("everything") == 3
    assert paths.count("warnings") == 3  # a jump tells of the warnings on its way
    assert paths.count("alice") == paths.count("core") == 1
    assert {len(await deliveries(client, one)) for one in ids.values()} == {1, 3}


async def test_alert_and_message_are_one_commit_with_the_usage(
    runtime: Runtime, client: httpx.AsyncClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hook(client, receiver.url)
    await limit(client, {"user_id": "alice"}, 1)

    async def broken(*_: Any) -> None:
        raise RuntimeError("a fault after everything else was written")

    event = {"user_id": "alice", "id": "e"}
    with monkeypatch.context() as patch:
        patch.setattr("app.alerts.outbox._append_deliveries", broken)
        assert (await client.post("/v1/events", json=event)).status_code == 500
    tables = (UsageEvent, Alert, Message, Delivery)
    assert [await count(runtime.db, table) for table in tables] == [0, 0, 0, 0]
    assert (await client.post("/v1/events", json=event)).status_code == 201
    assert [await count(runtime.db, table) for table in tables] == [1, 3, 1, 1]
    assert (await client.post("/v1/events", json=event)).status_code == 200
    assert [await count(runtime.db, table) for table in tables] == [1, 3, 1, 1]


# ---- retries ------------------------------------------------------------------------------------


async def test_a_receiver_that_fails_gets_it_again_under_the_same_id(
    runtime: Runtime, client: httpx.AsyncClient, receiver: Receiver, clock: FrozenClock
) -> None:
    receiver.answers = [Says(500, b"out \x00of order"), Says(503), Says(500), Says(200, b"thanks")]
    made = await hook(client, receiver.url)
    await limit(client, {"user_id": "alice"})
    await use(client, 8)
    for seen, wait_s in enumerate((0, 5, 30, 120), 1):
        clock.advance(timedelta(seconds=wait_s * 0.89))
        assert await send(runtime) == (1 if wait_s == 0 else 0)  # not before its time
        clock.advance(timedelta(seconds=wait_s * 0.22))
        assert await send(runtime) == (0 if wait_s == 0 else 1)
        assert len(receiver.got) == seen
        assert verified(made["secret"], receiver.got[-1])
    assert len({got.id for got in receiver.got}) == 1
    assert len({got.body for got in receiver.got}) == 1
    assert len({got.headers["webhook-timestamp"] for got in receiver.got}) == 4
    (one,) = await deliveries(client, made["id"], "?state=delivered")
    assert [attempt["status"] for attempt in one["attempts"]] == [500, 503, 500, 200]
    assert one["attempts"][0]["response"] == "out  of order"
    assert (one["last_response"], one["next_attempt_at"]) == ("thanks", None)
    clock.advance(timedelta(days=2))
    assert await send(runtime) == 0


async def test_after_a_day_it_is_dead_and_a_replay_revives_it(
    runtime: Runtime, client: httpx.AsyncClient, receiver: Receiver, clock: FrozenClock
) -> None:
    receiver.answers = [Says(500)]
    made = await hook(client, receiver.url)
    await limit(client, {"user_id": "alice"})
    await use(client, 8)
    for _ in range(len(DELAYS_S) + 1):
        assert await send(runtime) == 1
        clock.advance(timedelta(hours=9))
    assert await send(runtime) == 0
    (dead,) = await deliveries(client, made["id"], "?state=dead")
    assert dead["attempt_count"] == len(DELAYS_S) + 1
    assert dead["next_attempt_at"] is None
    again = await client.post(f"/v1/deliveries/{dead['id']}/retry")
    assert again.json()["state"] == "pending"
    for _ in range(12):  # a full round of attempts again, of which the log keeps the last twenty
        await send(runtime)
        clock.advance(timedelta(hours=9))
    (dead,) = await deliveries(client, made["id"], "?state=dead")
    assert dead["attempt_count"] == 22
    assert [one["attempt"] for one in dead["attempts"]] == list(range(3, 23))
    receiver.answers = [Says(200)]
    await client.post(f"/v1/deliveries/{dead['id']}/retry")
    assert await send(runtime) == 1
    assert len(await deliveries(client, made["id"], "?state=delivered")) == 1
    assert len({got.id for got in receiver.got}) == 1


async def test_a_receiver_that_is_gone_gets_nothing_more(
    runtime: Runtime, client: httpx.AsyncClient, receiver: Receiver
) -> None:
    receiver.answers = [Says(410)]
    made = await hook(client, receiver.url)
    await limit(client, {"user_id": "alice"})
    await use(client, 8)
    assert await send(runtime) == 1
    found = (await client.get(f"/v1/webhooks/{made['id']}")).json()
    assert found["enabled"] is False
    assert "410" in found["disabled_reason"]
    await use(client, 2)
    assert await send(runtime) == 0
    assert len(await deliveries(client, made["id"])) == 1
    again = await client.patch(f"/v1/webhooks/{made['id']}", json={"enabled": True})
    assert again.json()["disabled_reason"] is None


async def test_a_redirect_is_not_followed(
    runtime: Runtime, client: httpx.AsyncClient, receiver: Receiver
) -> None:
    with receiving() as elsewhere:
        receiver.answers = [Says(status, b"", (("Location", elsewhere.url),)) for status in _MOVED]
        made = await hook(client, receiver.url)
        for status in _MOVED:
            told = (await client.post(f"/v1/webhooks/{made['id']}/test")).json()
            assert (told["delivered"], told["status"]) == (False, status)
            assert "redirects are not followed" in told["error"]
        assert elsewhere.got == []


_MOVED = (301, 302, 303, 307, 308)


async def test_a_huge_or_endless_answer_is_cut(
    runtime: Runtime, client: httpx.AsyncClient, receiver: Receiver
) -> None:
    receiver.answers = [Says(200, b"x" * 10_000_000)]
    made = await hook(client, receiver.url)
    told = (await client.post(f"/v1/webhooks/{made['id']}/test")).json()
    assert told["delivered"] is True
    assert told["response"] == "x" * 1024


# ---- several senders, several receivers ---------------------------------------------------------


class Counting(Sender):
    """Takes a while, and counts what it sends at once."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.now: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self.gate = asyncio.Event()

    async def send(self, letter: Letter, now: Any) -> Outcome:
        self.now[letter.url] = self.now.get(letter.url, 0) + 1
        self.most[letter.url] = max(self.most.get(letter.url, 0), self.now[letter.url])
        if "slow" in letter.url:
            await self.gate.wait()
        await asyncio.sleep(0)
        self.now[letter.url] -= 1
        self.sent.append(f"{letter.url} {letter.message_id}")
        return Outcome(1, 200, "")

    async def close(self) -> None:
        """There is nothing to let go."""


async def test_two_senders_at_once_send_each_message_once(
    runtime: Runtime, client: httpx.AsyncClient, receiver: Receiver
) -> None:
    await hook(client, receiver.url)
    for user in range(30):
        await limit(client, {"user_id": f"u{user}"}, 1)
    for user in range(30):
        await use(client, 1, f"u{user}")
    sender = Counting()
    others = [Database.open(runtime.settings.database_url) for _ in range(2)]
    couriers = [Courier(db, runtime.clock, sender) for db in (runtime.db, *others)]
    try:
        for _ in range(60):
            for begun in await asyncio.gather(*(courier.step() for courier in couriers)):
                assert begun <= 4
            await asyncio.gather(*(courier.idle() for courier in couriers))
            if len(sender.sent) == 30:
                break
        assert len(sender.sent) == len(set(sender.sent)) == 30
    finally:
        for db in others:
            await db.close()


async def test_a_slow_receiver_holds_up_itself_alone(
    runtime: Runtime, client: httpx.AsyncClient, receiver: Receiver
) -> None:
    slow = (await hook(client, f"{receiver.url}/slow"))["url"]
    quick = (await hook(client, f"{receiver.url}/quick"))["url"]
    sender = Counting()
    courier = Courier(runtime.db, runtime.clock, sender, in_flight=8)
    for user in range(12):
        await limit(client, {"user_id": f"u{user}"}, 1)
        await use(client, 1, f"u{user}")
    for _ in range(200):
        await courier.step()
        await asyncio.sleep(0.005)
        if len(sender.sent) == 12:
            break
    assert all(one.startswith(quick) for one in sender.sent)
    assert len(sender.sent) == 12
    assert sender.most[slow] == 2
    sender.gate.set()
    while await courier.step() or courier._tasks:
        await courier.idle()
    assert len(set(sender.sent)) == 24


async def test_what_a_dead_sender_had_claimed_is_sent_when_its_claim_has_run_out(
    runtime: Runtime, client: httpx.AsyncClient, receiver: Receiver, clock: FrozenClock
) -> None:
    made = await hook(client, receiver.url)
    await limit(client, {"user_id": "alice"})
    await use(client, 8)

    async def work(tx: Tx) -> int:
        found = await due(tx, {made["id"]: 5}, clock.now())
        return len(await claim(tx, [one for one, _ in found], "dead", clock.now()))

    assert await runtime.db.write(work) == 1
    assert await send(runtime) == 0
    clock.advance(LEASE)
    assert await send(runtime) == 1
    assert verified(made["secret"], receiver.got[0])


async def test_what_was_sent_but_not_noted_is_sent_again_under_the_same_id(
    runtime: Runtime,
    client: httpx.AsyncClient,
    receiver: Receiver,
    clock: FrozenClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await hook(client, receiver.url)
    await limit(client, {"user_id": "alice"})
    await use(client, 8)

    async def broken(*_: Any) -> None:
        raise RuntimeError("the process ends here")

    with monkeypatch.context() as patch:
        patch.setattr("app.alerts.deliver.finish", broken)
        await send(runtime)
    clock.advance(LEASE)
    await send(runtime)
    assert len(receiver.got) == 2
    assert len({got.id for got in receiver.got}) == 1


# ---- the guard, at every attempt ----------------------------------------------------------------


async def test_a_name_that_turns_inward_after_it_was_judged_is_refused(
    clock: FrozenClock, receiver: Receiver
) -> None:
    answers = [["93.184.215.14"], ["127.0.0.1"], ["93.184.215.14", "127.0.0.1"]]
    asked: list[str] = []

    async def resolve(host: str, _port: int) -> list[str]:
        asked.append(host)
        return answers.pop(0)

    guard = Guard(resolve=resolve, allow_http=True)
    url = f"http://rebinding.example:{receiver.port}/hook"
    await guard.judge_url(url)
    post = Post(guard, clock)
    letter = Letter("msg_1", "{}", "webhook", url, (new_secret(),))
    for _ in range(2):
        outcome = await post.send(letter, clock.now())
        assert outcome.status is None
        assert "not public" in (outcome.error or "")
    await post.close()
    assert receiver.got == []
    assert asked == ["rebinding.example"] * 3  # one question per attempt: what it says is used


async def test_tls_is_with_the_name_and_the_connection_with_the_judged_address(
    clock: FrozenClock,
) -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        return ["::1", "127.0.0.1"]  # nobody listens on the first

    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(CERTIFICATE)
    trusting = ssl.create_default_context(cafile=str(CERTIFICATE))
    guard = Guard(resolve=resolve, allow_private=True)
    with receiving(serving) as receiver:
        post = Post(guard, clock, context=trusting)
        told = {}
        for name in ("hooks.test", "other.test"):
            url = f"https://{name}:{receiver.port}/hook"
            letter = Letter("msg_1", "{}", "webhook", url, (new_secret(),))
            told[name] = await post.send(letter, clock.now())
        await post.close()
        assert (told["hooks.test"].status, told["hooks.test"].error) == (200, None)
        assert told["other.test"].status is None
        assert [got.headers["host"] for got in receiver.got] == [f"hooks.test:{receiver.port}"]


async def test_a_receiver_that_says_nothing_is_given_up_on(
    clock: FrozenClock, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.alerts.sender.TIMEOUT_S", 0.2)
    receiver.answers = [Says(200, slowly_s=1.0)]
    post = Post(Guard(allow_private=True, allow_http=True), clock)
    letter = Letter("msg_1", "{}", "webhook", receiver.url, (new_secret(),))
    assert "no answer" in ((await post.send(letter, clock.now())).error or "")
    await post.close()


# ---- people's channels --------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")
async def test_a_channel_gets_one_text_for_all_alerts_of_a_jump(
    runtime: Runtime, client: httpx.AsyncClient, receiver: Receiver
) -> None:
    made = await hook(client, f"json://127.0.0.1:{receiver.port}/x", kind="apprise")
    assert made["secret"] is None
    assert made["url"] == "json://…"
    await limit(client, {"user_id": "alice"})
    await use(client, 10)
    receiver.answers = [Says(302, b"", (("Location", receiver.url),)), Says(500), Says(200)]
    assert await send(runtime) == 1
    (one,) = await deliveries(client, made["id"])
    assert one["state"] == "pending"
    assert len(receiver.got) == 1  # not followed
    for _ in range(2):
        await client.post(f"/v1/deliveries/{one['id']}/retry")
        await send(runtime)
    (one,) = await deliveries(client, made["id"])
    assert one["state"] == "delivered"
    text = receiver.got[-1].body.decode()
    assert "Limit reached: ten (alice)" in text
    assert "80% used: ten" in text


# ---- tidying ------------------------------------------------------------------------------------


async def test_old_messages_go_and_what_waits_stays(
    runtime: Runtime, client: httpx.AsyncClient, receiver: Receiver, clock: FrozenClock
) -> None:
    receiver.answers = [Says(200), Says(500)]
    await hook(client, receiver.url)
    for user in ("alice", "bob"):
        await limit(client, {"user_id": user})
        await use(client, 8, user)
        await send(runtime)
    assert await count(runtime.db, Message) == 2
    clock.advance(timedelta(days=31))
    await runtime.courier.tidy()
    assert await count(runtime.db, Message) == await count(runtime.db, Delivery) == 1
    assert await count(runtime.db, DeliveryAttempt) == 1
    assert not await runtime.db.write(lambda tx: forget_messages(tx, clock.now(), 10))
