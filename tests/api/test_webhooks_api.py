"""Webhooks over HTTP."""

import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks.webhooks import WebhookVerificationError

from app.alerts.webhooks import MOST_WEBHOOKS
from app.core.clock import FrozenClock
from app.main import create_asgi
from app.pricing.catalog import Catalog
from app.runtime import Runtime, build
from tests.conftest import ADMIN, settings_for
from tests.receivers import Receiver, Says, receiving, set_library_clock, verified

pytestmark = pytest.mark.anyio
PUBLIC = "https://93.184.215.14/hook"
PAGE = Path(__file__).parents[2] / "docs" / "webhooks.md"


@pytest.fixture
async def opened(
    db_url: str, clock: FrozenClock, catalog: Catalog
) -> AsyncIterator[httpx.AsyncClient]:
    """A service that may send to this machine."""
    change = {"webhooks_allow_private": True, "webhooks_allow_http": True}
    settings = settings_for(db_url).model_copy(update=change)
    runtime: Runtime = build(settings, clock=clock, catalog=catalog)
    await runtime.start()
    transport = httpx.ASGITransport(create_asgi(runtime), raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {ADMIN}"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://test", headers=headers
    ) as found:
        yield found
    await runtime.close()


@pytest.fixture
def receiver(clock: FrozenClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    set_library_clock(monkeypatch, clock)
    with receiving() as found:
        yield found


async def hook(client: httpx.AsyncClient, url: str = PUBLIC, **more: Any) -> dict[str, Any]:
    answer = await client.post("/v1/webhooks", json={"url": url} | more)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_webhook_is_made_shown_changed_and_removed(client: httpx.AsyncClient) -> None:
    given = {"event_types": ["alert.limit_reached"], "scope": {"team_id": "core"}}
    made = await hook(client, f"{PUBLIC}?token=hidden", **given, description="pager")
    assert made.pop("secret").startswith("whsec_")
    assert made == {
        "id": made["id"],
        "kind": "webhook",
        "url": f"{PUBLIC}?…",
        **given,
        "enabled": True,
        "disabled_reason": None,
        "description": "pager",
        "created_at": "2026-11-20T12:30:00Z",
    }
    path = f"/v1/webhooks/{made['id']}"
    assert (await client.get(path)).json() == made
    change = {"enabled": False, "url": PUBLIC, "event_types": [], "scope": {"all": True}}
    changed = await client.patch(path, json=change)
    assert changed.json() == made | change
    assert (await client.patch(path, json={})).json() == made | change
    assert (await client.get("/v1/webhooks")).json()["items"] == [made | change]
    assert (await client.delete(path)).status_code == 204
    for gone in (client.get(path), client.delete(path), client.patch(path, json={})):
        assert (await gone).status_code == 404
    for verb in ("test", "rotate-secret"):
        assert (await client.post(f"{path}/{verb}", json={})).status_code == 404
    assert (await client.get(f"{path}/deliveries")).status_code == 404
    assert (await client.post("/v1/deliveries/none/retry")).status_code == 404


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/url"),
        ({"url": ""}, "/url"),
        ({"url": "http://93.184.215.14/"}, "/url"),
        ({"url": "https://127.0.0.1/"}, "/url"),
        ({"url": "https://169.254.169.254/latest/meta-data"}, "/url"),
        ({"url": "https://[::ffff:127.0.0.1]/"}, "/url"),
        ({"url": "https://user:hunter2@93.184.215.14/"}, "/url"),
        ({"url": "https://nobody.invalid/"}, "/url"),
        ({"url": "x" * 3000}, "/url"),
        ({"url": "https://h\ud800.example/"}, "/url"),
        ({"url": PUBLIC, "kind": "apprise"}, "/url"),
        ({"url": "syslog://", "kind": "apprise"}, "/url"),
        ({"url": "jsons://10.0.0.1/x", "kind": "apprise"}, "/url"),
        ({"url": PUBLIC, "kind": "carrier pigeon"}, "/kind"),
        ({"url": PUBLIC, "event_types": ["alert.other"]}, "/event_types/0"),
        ({"url": PUBLIC, "event_types": ["alert.limit_reached"] * 2}, "/event_types"),
        ({"url": PUBLIC, "scope": {}}, "/scope"),
        ({"url": PUBLIC, "scope": {"user_id": "a", "all": True}}, "/scope"),
        ({"url": PUBLIC, "scope": {"all": False}}, "/scope/all"),
        ({"url": PUBLIC, "scope": {"user_id": "a\x00"}}, "/scope/user_id"),
        ({"url": PUBLIC, "enabled": "yes"}, "/enabled"),
        ({"url": PUBLIC, "description": "x" * 257}, "/description"),
        ({"url": PUBLIC, "secret": "whsec_mine"}, "/secret"),
    ],
)
@pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")
async def test_what_is_wrong_is_named(
    client: httpx.AsyncClient, body: dict[str, Any], pointer: str
) -> None:
    content = json.dumps(body).encode()
    kind = {"Content-Type": "application/json"}
    answer = await client.post("/v1/webhooks", content=content, headers=kind)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert "hunter2" not in answer.text


async def test_a_change_is_judged_as_a_new_one_is(client: httpx.AsyncClient) -> None:
    path = f"/v1/webhooks/{(await hook(client))['id']}"
    for url in ("https://10.0.0.1/", "slack://a/b/c"):
        answer = await client.patch(path, json={"url": url})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/url"
    for overlap in (-1, 8 * 24 * 3600, "1", 1.5, None):
        answer = await client.post(f"{path}/rotate-secret", json={"overlap_s": overlap})
        assert answer.status_code == 422
    for bad in ("state=lost", "limit=0", "cursor=x"):
        assert (await client.get(f"{path}/deliveries?{bad}")).status_code == 422


async def test_there_may_be_a_hundred_webhooks_listed_in_pages(client: httpx.AsyncClient) -> None:
    made = [(await hook(client))["id"] for _ in range(MOST_WEBHOOKS)]
    answer = await client.post("/v1/webhooks", json={"url": PUBLIC})
    assert answer.status_code == 409
    seen: list[str] = []
    query = "?limit=40"
    while True:
        page = (await client.get(f"/v1/webhooks{query}")).json()
        seen += [one["id"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        query = f"?limit=40&cursor={page['next_cursor']}"
    assert sorted(seen) == sorted(made)
    assert len(set(seen)) == MOST_WEBHOOKS


async def test_a_test_message_is_signed_and_tells_what_the_receiver_said(
    opened: httpx.AsyncClient, receiver: Receiver
) -> None:
    made = await hook(opened, receiver.url, enabled=False)
    receiver.answers = [Says(200, b"hello"), Says(500, b"no")]
    for status, said, delivered in ((200, "hello", True), (500, "no", False)):
        told = (await opened.post(f"/v1/webhooks/{made['id']}/test")).json()
        assert (told["status"], told["response"]) == (status, said)
        assert told["delivered"] is delivered
        assert receiver.got[-1].id == told["message_id"]
    body = verified(made["secret"], receiver.got[0])
    assert body["type"] == "webhook.test"
    assert receiver.got[0].headers["content-type"] == "application/json"
    assert (await opened.get(f"/v1/webhooks/{made['id']}/deliveries")).json()["items"] == []
    receiver.close()
    told = (await opened.post(f"/v1/webhooks/{made['id']}/test")).json()
    assert (told["delivered"], told["status"]) == (False, None)


async def test_an_old_secret_signs_beside_the_new_one_until_its_overlap_has_run(
    opened: httpx.AsyncClient, receiver: Receiver, clock: FrozenClock
) -> None:
    made = await hook(opened, receiver.url)
    path = f"/v1/webhooks/{made['id']}"
    first = made["secret"]
    second = (await opened.post(f"{path}/rotate-secret", json={"overlap_s": 60})).json()["secret"]
    third = (await opened.post(f"{path}/rotate-secret", json={"overlap_s": 600})).json()["secret"]
    assert len({first, second, third}) == 3

    async def accepted() -> list[bool]:
        await opened.post(f"{path}/test")
        found = []
        for secret in (first, second, third):
            try:
                found.append(bool(verified(secret, receiver.got[-1])))
            except WebhookVerificationError:
                found.append(False)
        return found

    assert await accepted() == [True, True, True]
    clock.advance(timedelta(seconds=60))
    assert await accepted() == [False, True, True]
    clock.advance(timedelta(seconds=540))
    assert await accepted() == [False, False, True]
    last = (await opened.post(f"{path}/rotate-secret", json={"overlap_s": 0})).json()["secret"]
    assert await accepted() == [False, False, False]
    assert verified(last, receiver.got[-1])
    shown = (await opened.get(path)).text + (await opened.get("/v1/webhooks")).text
    assert not any(secret in shown for secret in (first, second, third, last))


async def test_deliveries_come_newest_first_in_pages(
    opened: httpx.AsyncClient, receiver: Receiver, clock: FrozenClock
) -> None:
    made = await hook(opened, receiver.url)
    for user in range(5):
        clock.advance(timedelta(seconds=1))
        body = {"name": "n", "scope": {"user_id": f"u{user}"}, "metric": "calls", "amount": 1}
        assert (await opened.post("/v1/limits", json=body | {"window": "day"})).status_code == 201
        await opened.post("/v1/events", json={"user_id": f"u{user}"})
    seen: list[dict[str, Any]] = []
    query = "?state=pending&limit=2"
    while True:
        page = (await opened.get(f"/v1/webhooks/{made['id']}/deliveries{query}")).json()
        seen += page["items"]
        if page["next_cursor"] is None:
            break
        query = f"?state=pending&limit=2&cursor={page['next_cursor']}"
    assert len({one["id"] for one in seen}) == len(seen) == 5
    times = [one["created_at"] for one in seen]
    assert times == sorted(times, reverse=True)
    assert seen[0] | {"id": "", "message_id": ""} == {
        "id": "",
        "message_id": "",
        "webhook_id": made["id"],
        "created_at": "2026-11-20T12:30:05Z",
        "state": "pending",
        "next_attempt_at": "2026-11-20T12:30:05Z",
        "attempt_count": 0,
        "last_status": None,
        "last_response": None,
        "last_error": None,
        "delivered_at": None,
        "attempts": [],
    }


async def test_the_snippet_in_the_docs_verifies_what_we_send(
    opened: httpx.AsyncClient, receiver: Receiver
) -> None:
    snippet = PAGE.read_text(encoding="utf-8").split("```python\n", 1)[1].split("```", 1)[0]
    made = await hook(opened, receiver.url)
    await opened.post(f"/v1/webhooks/{made['id']}/test")
    (got,) = receiver.got
    names: dict[str, Any] = {}
    exec(compile(snippet, str(PAGE), "exec"), names)
    assert names["accept"](made["secret"], got.body, dict(got.headers))["type"] == "webhook.test"
    with pytest.raises(WebhookVerificationError):
        names["accept"](made["secret"], got.body + b" ", dict(got.headers))
