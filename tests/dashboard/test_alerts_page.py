"""Pages of alerts, rules and webhooks."""

import json
import re
from datetime import timedelta
from html import unescape
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, update

from app.alerts.guard import Guard
from app.alerts.tables import Delivery, Message
from app.core.clock import FrozenClock
from app.runtime import Runtime
from tests.dashboard.conftest import SignIn, call, csrf_of, send
from tests.dashboard.test_limits_page import NASTY, api, limit_on, log_of, post
from tests.receivers import Says, receiving, set_library_clock, verified

pytestmark = pytest.mark.anyio
HOME, RULES, HOOKS = "/dashboard/alerts", "/dashboard/alerts/rules", "/dashboard/alerts/webhooks"
PUBLIC = "https://93.184.215.14/hook"


@pytest.fixture
def opened(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Guard:
    """Webhooks may lead to this machine."""
    monkeypatch.setattr(runtime.guard, "allow_http", True)
    monkeypatch.setattr(runtime.guard, "_allow_private", True)
    return runtime.guard


async def test_unread_alerts_come_first_and_are_marked_as_read(
    signed_in: httpx.AsyncClient,
) -> None:
    await limit_on(signed_in, name=NASTY, scope={"user_id": "alice"}, thresholds=[50, 100])
    await send(signed_in, call(id="1"), call(id="2"))
    page = (await signed_in.get(HOME)).text
    assert "2 unread" in page
    assert NASTY not in page
    assert NASTY in unescape(page)
    ids = re.findall(r'hx-post="/dashboard/alerts/([^/]+)/read"', page)
    assert len(ids) == 2
    headers = {"HX-Request": "true", "X-CSRF-Token": await csrf_of(signed_in)}
    row = await signed_in.post(f"{HOME}/{ids[0]}/read", headers=headers)
    assert row.status_code == 200
    assert row.text.strip().startswith("<tr>")
    assert "Mark as read" not in row.text
    assert "1 unread" in (await signed_in.get(HOME)).text
    assert (await post(signed_in, f"{HOME}/{ids[1]}/read", {})).status_code == 303
    assert "Nothing unread" in (await signed_in.get(HOME)).text
    both = (await signed_in.get(HOME, params={"state": "all", "scope": "user", "of": "alice"})).text
    assert both.count("read <time") == 2
    assert (
        len((await signed_in.get(HOME, params={"state": "all", "format": "csv"})).text.split("\n"))
        == 4
    )


async def test_marking_all_as_read_keeps_to_what_was_listed(
    signed_in: httpx.AsyncClient, clock: FrozenClock
) -> None:
    for name in ("alice", "bob"):
        await limit_on(signed_in, scope={"user_id": name}, thresholds=[50, 100])
        await send(signed_in, call(name, id="1"), call(name, id="2"))
    asked = {"severity": "error", "type": "", "scope": "user", "of": "alice"}
    page = (await signed_in.get(HOME, params={"state": "unread", **asked})).text
    until = re.search(r'name="until" value="([^"]+)"', page)
    assert until
    clock.advance(timedelta(minutes=1))
    assert (await post(signed_in, f"{HOME}/read", asked | {"until": until[1]})).status_code == 303
    left = (await api(signed_in, "GET", "/v1/alerts?unread=true"))["items"]
    assert sorted((one["scope"]["user_id"], one["severity"]) for one in left) == [
        ("alice", "info"),
        ("bob", "error"),
        ("bob", "info"),
    ]
    assert (await post(signed_in, f"{HOME}/read", asked | {"until": "soon"})).status_code == 422


async def test_a_rule_is_made_switched_and_removed(
    signed_in: httpx.AsyncClient, runtime: Runtime
) -> None:
    form = {
        "name": "odd spend",
        "type": "anomaly",
        "scope": "all",
        "scope_of": "",
        "metric": "cost_usd",
        "window": "week",
        "sensitivity": "8",
        "min_amount": "2.50",
        "thresholds": "",
        "amount": "",
        "limit_id": "",
        "enabled": "yes",
    }
    refused = await post(signed_in, RULES, form)
    assert refused.status_code == 422
    assert "one of hour, day" in refused.text
    assert (await post(signed_in, RULES, form | {"window": "day"})).status_code == 303
    rule = (await api(signed_in, "GET", "/v1/alert-rules"))["items"][0]
    assert (rule["sensitivity"], rule["min_amount"], rule["enabled"]) == (8, "2.5", True)
    assert "8 deviations and $2.50 above usual" in (await signed_in.get(RULES)).text
    path = f"{RULES}/{rule['id']}"
    assert (await post(signed_in, f"{path}/switch", {"enabled": "no"})).status_code == 303
    rule = await api(signed_in, "GET", f"/v1/alert-rules/{rule['id']}")
    assert (rule["enabled"], rule["sensitivity"]) == (False, 8)
    assert (await post(signed_in, f"{path}/delete", {})).status_code == 303
    assert (await api(signed_in, "GET", "/v1/alert-rules"))["items"] == []
    log = await log_of(runtime, "alert_rule")
    assert [(one.via, one.action) for one in log] == [
        *(("dashboard", "create"), ("dashboard", "change"), ("dashboard", "delete"))
    ]


async def test_a_webhooks_secret_is_shown_once_and_its_address_never(
    signed_in: httpx.AsyncClient, runtime: Runtime
) -> None:
    form = {"url": f"{PUBLIC}?token=unspoken", "kind": "webhook", "description": "pager"}
    form |= {"scope": "team", "scope_of": "core", "alert.limit_reached": "yes"}
    made = await post(signed_in, HOOKS, form)
    assert made.status_code == 201, made.text
    secret = re.search(r"whsec_[A-Za-z0-9+/=]+", unescape(made.text))
    assert secret
    hook = (await api(signed_in, "GET", "/v1/webhooks"))["items"][0]
    assert hook["event_types"] == ["alert.limit_reached"]
    assert hook["scope"] == {"team_id": "core"}
    path = f"{HOOKS}/{hook['id']}"
    for url in (HOOKS, path):
        page = (await signed_in.get(url)).text
        assert secret[0] not in page
        assert "unspoken" not in page
    turned = await post(signed_in, f"{path}/rotate-secret", {"overlap_h": "1"})
    newer = re.search(r"whsec_[A-Za-z0-9+/=]+", unescape(turned.text))
    assert newer
    assert newer[0] != secret[0]
    too_long = await post(signed_in, f"{path}/rotate-secret", {"overlap_h": "1000"})
    assert too_long.status_code == 422
    change = {"url": "", "description": "phones", "scope": "all", "scope_of": ""}
    assert (await post(signed_in, path, change)).status_code == 303
    assert (await post(signed_in, f"{path}/switch", {"enabled": "no"})).status_code == 303
    hook = await api(signed_in, "GET", f"/v1/webhooks/{hook['id']}")
    assert hook["url"] == f"{PUBLIC}?…"
    assert (hook["description"], hook["enabled"], hook["scope"]) == ("phones", False, {"all": True})
    assert (await post(signed_in, f"{path}/delete", {})).status_code == 303
    log = await log_of(runtime, "webhook")
    assert [one.action for one in log] == [
        *("create", "rotate_secret", "change", "change", "delete")
    ]
    assert "unspoken" not in json.dumps([(one.before, one.after) for one in log])


async def test_a_webhook_into_this_network_is_refused_beside_its_field(
    signed_in: httpx.AsyncClient,
) -> None:
    refused = await post(signed_in, HOOKS, {"url": "https://127.0.0.1/", "scope": "all"})
    assert refused.status_code == 422
    assert "field-wrong" in refused.text
    assert (await api(signed_in, "GET", "/v1/webhooks"))["items"] == []


async def test_a_test_message_tells_what_the_receiver_said(
    signed_in: httpx.AsyncClient,
    opened: Guard,
    clock: FrozenClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_library_clock(monkeypatch, clock)
    with receiving() as receiver:
        made = await post(signed_in, HOOKS, {"url": receiver.url, "scope": "all"})
        secret = re.search(r"whsec_[A-Za-z0-9+/=]+", unescape(made.text))
        assert secret
        hook = (await api(signed_in, "GET", "/v1/webhooks"))["items"][0]["id"]
        headers = {"HX-Request": "true", "X-CSRF-Token": await csrf_of(signed_in)}
        part = await signed_in.post(f"{HOOKS}/{hook}/test", headers=headers)
        assert "Delivered: the receiver answered 200" in part.text
        assert "<html" not in part.text
        assert verified(secret[0], receiver.got[0])["type"] == "webhook.test"
        receiver.answers = [Says(500, NASTY.encode())]
        whole = await post(signed_in, f"{HOOKS}/{hook}/test", {})
        assert "Not delivered: answered 500" in whole.text
        assert NASTY not in whole.text


async def test_what_was_given_up_is_listed_and_sent_again(
    signed_in: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    hook = (await api(signed_in, "POST", "/v1/webhooks", {"url": PUBLIC}))["id"]
    await _given_up(runtime, clock, hook, 3)
    page = (await signed_in.get(f"{HOOKS}/{hook}", params={"state": "dead"})).text
    assert page.count("given up") >= 3
    assert "answered 500" in page
    assert re.search(r">3<", (await signed_in.get(HOOKS)).text)
    again = f"{HOOKS}/{hook}/deliveries/dlv_0/retry"
    assert (await post(signed_in, again, {})).status_code == 303
    assert await _states(signed_in, hook) == ["dead", "dead", "pending"]
    assert (await post(signed_in, f"{HOOKS}/{hook}/retry-dead", {})).status_code == 303
    assert await _states(signed_in, hook) == ["pending"] * 3
    assert (await log_of(runtime, "webhook"))[-1].after == {"deliveries": 2}


async def _states(browser: httpx.AsyncClient, hook: str) -> list[str]:
    found = await api(browser, "GET", f"/v1/webhooks/{hook}/deliveries")
    return sorted(one["state"] for one in found["items"])


async def _given_up(runtime: Runtime, clock: FrozenClock, hook: str, number: int) -> None:
    """Have messages there that the receiver did not take."""
    now = clock.now()
    body = json.dumps({"type": "alert.limit_reached", "data": {"alerts": []}})
    messages: list[dict[str, Any]] = [
        {
            "id": f"msg_{one}",
            "created_at": now,
            "type": "alert.limit_reached",
            "scope_key": "user:alice",
            "payload": body,
        }
        for one in range(number)
    ]
    deliveries = [
        {
            "id": f"dlv_{one}",
            "message_id": f"msg_{one}",
            "webhook_id": hook,
            "created_at": now,
            "state": "dead",
        }
        for one in range(number)
    ]

    async def work(tx: Any) -> None:
        await tx.run(insert(Message), messages)
        await tx.run(insert(Delivery), deliveries)
        await tx.run(
            update(Delivery).values(attempts=9, last_status=500, last_error="answered 500")
        )

    await runtime.db.write(work)


async def test_who_may_only_read_may_mark_as_read_and_make_nothing(
    signed_in_with: SignIn, client: httpx.AsyncClient
) -> None:
    hook = (await api(client, "POST", "/v1/webhooks", {"url": PUBLIC}))["id"]
    reader = await signed_in_with("read")
    for url in (RULES, HOOKS, f"{HOOKS}/{hook}/test", f"{HOOKS}/{hook}/delete"):
        assert (await post(reader, url, {"url": PUBLIC})).status_code == 403
    assert "Send a test" not in (await reader.get(f"{HOOKS}/{hook}")).text
    everything = {"until": "2026-11-20T12:30:00Z"}
    assert (await post(reader, f"{HOME}/read", everything)).status_code == 303
    assert (await reader.post(f"{HOME}/read", data=everything)).status_code == 403
