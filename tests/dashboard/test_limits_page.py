"""Pages of limits and plans: found, made, changed, raised and removed by forms."""

import re
from datetime import timedelta
from html import unescape
from typing import Any

import httpx
import pytest

from app.access.changelog import Change, list_changes
from app.core.clock import FrozenClock
from app.dashboard.limits_page import shown_limits
from app.limits.manage import get_limit
from app.runtime import Runtime
from tests.conftest import ADMIN
from tests.dashboard.conftest import SignIn, call, csrf_of, send

pytestmark = pytest.mark.anyio
HOME, PLANS = "/dashboard/limits", "/dashboard/limits/plans"
NASTY = "<script>alert('x')</script>"
BUDGET = {
    "name": "monthly budget",
    "scope": "user",
    "scope_of": "alice",
    "metric": "cost_usd",
    "amount": "$1,000.50",
    "window": "month",
    "timezone": "Europe/Berlin",
    "action": "block",
    "thresholds": "80, 100",
    "provider": "openai",
    "model": "",
    "endpoint": "",
}


async def post(browser: httpx.AsyncClient, url: str, form: dict[str, Any]) -> httpx.Response:
    """Send a form of the page."""
    return await browser.post(url, data=form | {"csrf": await csrf_of(browser)})


async def api(browser: httpx.AsyncClient, method: str, url: str, body: Any = None) -> Any:
    """What the API answers to the admin key."""
    headers = {"Authorization": f"Bearer {ADMIN}"}
    answer = await browser.request(method, url, json=body, headers=headers)
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


async def log_of(runtime: Runtime, kind: str) -> list[Change]:
    """What was written down about things of this kind, oldest first."""
    rows = await runtime.db.read(lambda tx: list_changes(tx, kind, None, None, None, 100))
    return rows[::-1]


async def limit_on(browser: httpx.AsyncClient, **more: Any) -> str:
    body = {"name": "calls", "scope": {"all": True}, "metric": "calls", "window": "day"}
    made = await api(browser, "POST", "/v1/limits", body | {"amount": 2} | more)
    return str(made["id"])


async def test_a_limit_is_made_changed_raised_and_removed_by_forms(
    signed_in: httpx.AsyncClient, runtime: Runtime
) -> None:
    made = await post(signed_in, HOME, BUDGET)
    assert made.status_code == 303, made.text
    path = made.headers["location"].partition("?")[0]
    limit_id = path.rpartition("/")[2]
    limit = await api(signed_in, "GET", f"/v1/limits/{limit_id}")
    assert (limit["amount"], limit["timezone"]) == ("1000.5", "Europe/Berlin")
    assert (limit["scope"], limit["match"]) == ({"user_id": "alice"}, {"provider": "openai"})
    page = (await signed_in.get(made.headers["location"])).text
    assert "counts from the start" in page
    assert "$1,000.50" in page

    form = (await signed_in.get(f"{path}/edit")).text
    assert 'value="1000.5"' in form
    changed = BUDGET | {"amount": "2", "action": "warn", "thresholds": ""}
    assert (await post(signed_in, path, changed)).status_code == 303
    limit = await api(signed_in, "GET", f"/v1/limits/{limit_id}")
    assert (limit["amount"], limit["action"], limit["thresholds"]) == ("2", "warn", [])
    assert "Nothing is refused by a limit that warns" in (await signed_in.get(path)).text

    raised = {"amount": "", "until": "2026-11-24T08:00", "reason": "launch"}
    assert (await post(signed_in, f"{path}/raise", raised)).status_code == 303
    limit = await api(signed_in, "GET", f"/v1/limits/{limit_id}")
    assert (limit["amount"], limit["raised_until"]) == (None, "2026-11-24T08:00:00Z")
    assert "launch" in (await signed_in.get(path)).text
    assert (await post(signed_in, f"{path}/end-raise", {})).status_code == 303
    assert (await api(signed_in, "GET", f"/v1/limits/{limit_id}"))["raised_until"] is None

    gone = await post(signed_in, f"{path}/delete", {})
    assert "The limit is gone" in (await signed_in.get(gone.headers["location"])).text
    assert (await signed_in.get(path)).status_code == 404

    log = await log_of(runtime, "limit")
    assert [one.action for one in log] == ["create", "change", "raise", "end_raise", "delete"]
    assert {(one.via, one.key_name, one.ref) for one in log} == {
        ("dashboard", "TOLLGATE_ADMIN_KEY", limit_id)
    }
    assert log[1].before is not None
    assert log[1].after is not None
    assert (log[1].before["amount"], log[1].after["amount"]) == ("1000.5", "2")


async def test_what_is_wrong_stands_beside_its_field_and_nothing_is_made(
    signed_in: httpx.AsyncClient,
) -> None:
    for field, value, said in (
        ("amount", "a lot", "money is a decimal string"),
        ("timezone", "Mars/Olympus", "no such IANA time zone"),
        ("thresholds", "80, often", "a whole number is expected"),
        ("scope_of", "", "at least 1 character"),
        ("metric", "smiles", "Input should be"),
    ):
        answer = await post(signed_in, HOME, BUDGET | {"name": NASTY, field: value})
        assert answer.status_code == 422, (field, answer.text)
        assert said in unescape(answer.text), field
        assert NASTY not in answer.text
        assert NASTY in unescape(answer.text)
    assert (await api(signed_in, "GET", "/v1/limits"))["items"] == []
    limit_id = await limit_on(signed_in)
    late = {"amount": "3", "until": "2020-01-01T00:00", "reason": ""}
    answer = await post(signed_in, f"{HOME}/{limit_id}/raise", late)
    assert answer.status_code == 422
    assert "must lie ahead" in answer.text


async def test_limits_are_found_by_what_they_say_page_by_page_and_as_csv(
    signed_in: httpx.AsyncClient, clock: FrozenClock
) -> None:
    for number in range(27):
        clock.advance(timedelta(seconds=1))
        await limit_on(signed_in, name=f"bound {number:02}", action="warn" if number else "block")
    first = (await signed_in.get(HOME)).text
    assert re.findall(r">(bound \d\d)<", first) == [f"bound {n:02}" for n in range(26, 1, -1)]
    more = re.search(r'href="([^"]*cursor=[^"]*)"', first)
    assert more
    second = (await signed_in.get(unescape(more[1]))).text
    assert re.findall(r">(bound \d\d)<", second) == ["bound 01", "bound 00"]
    found = (await signed_in.get(HOME, params={"q": "BOUND 1", "action": "warn"})).text
    assert len(re.findall(r">(bound 1\d)<", found)) == 10
    assert "bound 00" in (await signed_in.get(HOME, params={"action": "block"})).text
    assert "No limit matches" in (await signed_in.get(HOME, params={"q": "%_"})).text
    table = (await signed_in.get(HOME, params={"format": "csv"})).text.splitlines()
    assert len(table) == 28
    assert table[0].startswith("id,name,scope,")


async def test_a_shadow_tells_what_it_would_have_refused(signed_in: httpx.AsyncClient) -> None:
    limit_id = await limit_on(signed_in, action="shadow")
    page = (await signed_in.get(f"{HOME}/{limit_id}")).text
    assert "would have refused nothing" in page
    await send(signed_in, *(call(id=str(number)) for number in range(5)))
    page = (await signed_in.get(f"{HOME}/{limit_id}")).text
    assert "3 calls were used beyond it" in page
    assert "would refuse now" in (await signed_in.get(HOME)).text


async def test_a_gauge_is_full_when_the_limit_is_reached(signed_in: httpx.AsyncClient) -> None:
    limit_id = await limit_on(signed_in, metric="tokens", amount=1_000_000)
    for tokens, percent in ((999_999, "99.9%"), (1, "100%")):
        await send(signed_in, call("ann", id=percent, usage={"input_tokens": tokens}))
        page = (await signed_in.get(f"{HOME}/{limit_id}")).text
        assert f'tone-{"bad" if percent == "100%" else "warn"}">{percent}</span>' in page
        assert f'<span class="quiet">{percent}</span>' in (await signed_in.get(HOME)).text


async def test_a_plans_limit_shows_the_user_whose_running_period_is_fullest(
    signed_in: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    plan = (await api(signed_in, "GET", "/v1/plans"))["items"][0]["id"]
    limit_id = await limit_on(
        signed_in, scope={"plan_id": plan}, window="billing_period", amount=100
    )
    await send(signed_in, *(call("old", id=str(number)) for number in range(9)))
    clock.advance(timedelta(hours=1))
    await api(signed_in, "POST", "/v1/users/old/subscription/renew")
    await send(signed_in, call("old", id="a"), call("bob", id="b"), call("bob", id="c"))
    rule = await runtime.db.read(lambda tx: get_limit(tx, limit_id))
    shown = (await runtime.db.read(lambda tx: shown_limits(tx, [rule], clock, 20)))[0]
    assert [(one.scope_key, one.used) for one in shown.fills] == [("user:bob", 2), ("user:old", 1)]
    page = (await signed_in.get(f"{HOME}/{limit_id}")).text
    assert "/dashboard/users/bob" in page
    for url in (HOME, f"{PLANS}/{plan}"):
        part = re.search(r'hx-get="([^"]+)"', (await signed_in.get(url)).text)
        assert part
        assert "/dashboard/users/bob" in (await signed_in.get(part[1])).text


@pytest.mark.parametrize("window", ["hour", "billing_period", "lifetime"])
async def test_the_fill_of_a_limit_is_what_the_api_says_of_it(
    signed_in: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock, window: str
) -> None:
    scopes: tuple[dict[str, Any], ...] = ({"user_id": "alice"}, {"all": True}, {"team_id": "core"})
    ids = [await limit_on(signed_in, scope=scope, window=window, amount=9) for scope in scopes]
    await send(signed_in, call(id="1", team_id="core"), call(id="2", team_id="core"))
    hold = {"id": "h", "user_id": "alice", "team_id": "core", "model": "gpt-4o-mini"}
    await api(signed_in, "POST", "/v1/holds", hold | {"provider": "openai"})
    rules = [await runtime.db.read(lambda tx, one=one: get_limit(tx, one)) for one in ids]
    shown = await runtime.db.read(lambda tx: shown_limits(tx, rules, clock))
    assert [(one.used, one.held) for one in shown] == [(2, 1)] * 3
    assert [one.resets_at is None for one in shown] == [window == "lifetime"] * 3


async def test_a_plan_is_made_changed_and_removed_and_lists_its_users(
    signed_in: httpx.AsyncClient, runtime: Runtime
) -> None:
    made = await post(signed_in, PLANS, {"name": "pro"})
    path = made.headers["location"].partition("?")[0]
    plan_id = path.rpartition("/")[2]
    taken = await post(signed_in, PLANS, {"name": "pro"})
    assert taken.status_code == 409
    assert "another plan has this name" in taken.text
    assert (await post(signed_in, path, {"name": ""})).status_code == 422
    assert (await post(signed_in, path, {"name": "pro 2", "default": "yes"})).status_code == 303
    plan = await api(signed_in, "GET", f"/v1/plans/{plan_id}")
    assert (plan["name"], plan["default"]) == ("pro 2", True)
    assert (await post(signed_in, f"{path}/delete", {})).status_code == 409
    await send(signed_in, call("carol", id="1"))
    page = (await signed_in.get(path)).text
    assert "/dashboard/users/carol" in page
    assert "carol" in (await signed_in.get(path, params={"format": "csv"})).text
    listed = (await signed_in.get(PLANS)).text
    assert re.search(r"pro 2</a>.*?default.*?>0<.*?>1<", listed, re.DOTALL)
    spare = (await post(signed_in, PLANS, {"name": "spare"})).headers["location"].partition("?")[0]
    assert (await post(signed_in, f"{spare}/delete", {})).status_code == 303
    assert [one.action for one in await log_of(runtime, "plan")] == [
        *("create", "change", "create", "delete")
    ]


async def test_who_may_only_read_sees_no_forms_and_cannot_post(
    signed_in_with: SignIn, client: httpx.AsyncClient
) -> None:
    limit_id = await limit_on(client)
    reader = await signed_in_with("read")
    page = (await reader.get(f"{HOME}/{limit_id}")).text
    assert "/delete" not in page
    assert "Raise" not in page
    assert "New limit" not in (await reader.get(HOME)).text
    for url in (HOME, f"{HOME}/{limit_id}", f"{HOME}/{limit_id}/delete", PLANS):
        assert (await post(reader, url, BUDGET)).status_code == 403
    manager = await signed_in_with("read", "manage")
    forged = await manager.post(f"{HOME}/{limit_id}/delete", data={"csrf": "guessed"})
    assert forged.status_code == 403
    assert (await post(manager, f"{HOME}/{limit_id}/delete", {})).status_code == 303
