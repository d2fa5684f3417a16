"""The pages of one user: usage, events, alerts, subscription and periods, holds."""

import json
import re
from datetime import timedelta
from html import unescape
from typing import Any

import httpx
import pytest

from app.core.clock import FrozenClock, rfc3339
from app.runtime import Runtime
from tests.conftest import ADMIN, START
from tests.dashboard.conftest import SignIn, call, csrf_of, enter, send

pytestmark = pytest.mark.anyio

ANN = "/dashboard/users/ann"
BY_KEY = {"Authorization": f"Bearer {ADMIN}"}


async def api(browser: httpx.AsyncClient, method: str, path: str, body: Any = None) -> Any:
    """Ask the API with the admin key."""
    answer = await browser.request(method, path, json=body, headers=BY_KEY)
    assert answer.status_code < 300, answer.text
    return answer.json()


async def limit(browser: httpx.AsyncClient, amount: str, **more: Any) -> str:
    body = {"name": "monthly budget", "scope": {"user_id": "ann"}, "metric": "cost_usd"}
    body |= {"window": "billing_period", "amount": amount, "action": "block", **more}
    return str((await api(browser, "POST", "/v1/limits", body))["id"])


async def shown(browser: httpx.AsyncClient, path: str) -> str:
    answer = await browser.get(path)
    assert answer.status_code == 200, answer.text
    return answer.text


def drawn(page: str) -> dict[str, Any]:
    """The data of the page's chart."""
    found = re.search(r'<script type="application/json" id="trend-data">(.*?)</script>', page)
    assert found, page
    return dict(json.loads(found[1]))


def words(page: str) -> str:
    """What the page says, without its markup."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page)))


# ---- usage --------------------------------------------------------------------------------------


async def test_a_user_never_seen_has_a_page_that_says_what_to_do(
    signed_in: httpx.AsyncClient,
) -> None:
    page = await shown(signed_in, "/dashboard/users/o'hara%20%26%20co")
    assert "Nothing recorded of this user yet" in page
    assert "No limit applies" in page
    for tab in ("events", "alerts", "periods", "holds"):
        await shown(signed_in, f"/dashboard/users/o'hara%20%26%20co/{tab}")
    assert (await api(signed_in, "GET", "/v1/audit/consistency"))["consistent"]


async def test_usage_is_compared_with_the_range_before_and_drawn_by_model(
    signed_in: httpx.AsyncClient,
) -> None:
    before = rfc3339(START - timedelta(days=10))
    await send(
        signed_in,
        call("ann", id="1", timestamp=before),
        *(call("ann", id=f"n{n}") for n in range(2)),
        call("ann", id="o", model="gpt-4o"),
        call("ann", id="u", provider="acme", model="secret-1"),
    )
    await limit(signed_in, "0.02")
    page = await shown(signed_in, f"{ANN}?range=7d")
    said = words(page)
    assert "Calls 4 +300%" in said
    assert "1 call has no known price" in said
    assert "monthly budget" in said
    chart = drawn(page)
    assert [one["name"] for one in chart["series"]] == [
        "openai/gpt-4o",
        "openai/gpt-4o-mini",
        "acme/secret-1",
    ]
    assert chart["unit"] == "usd"
    assert len(chart["labels"]) == len(chart["series"][0]["values"]) == 7
    calls = drawn(await shown(signed_in, f"{ANN}?range=7d&show=calls"))
    assert [sum(one["values"]) for one in calls["series"]] == [2, 1, 1]
    table = await shown(signed_in, f"{ANN}?range=7d&format=csv")
    assert table.splitlines()[1].startswith("openai,gpt-4o,")


async def test_a_gauge_counts_what_is_held_and_links_to_no_other_user(
    signed_in: httpx.AsyncClient,
) -> None:
    await send(signed_in, call("ann", id="1"), call("bob", id="2"))
    await limit(signed_in, "0.01")
    hold = {"user_id": "ann", "id": "h1", "cost_usd": "0.005"}
    await api(signed_in, "POST", "/v1/holds", hold)
    said = words(await shown(signed_in, ANN))
    assert "$0.005 held" in said
    assert "58.8%" in said
    assert "bob" not in said


# ---- events -------------------------------------------------------------------------------------


async def test_events_are_filtered_paged_and_exported(signed_in: httpx.AsyncClient) -> None:
    times = [rfc3339(START - timedelta(minutes=n)) for n in range(60)]
    await send(
        signed_in,
        *(call("ann", id=f"e{n:02}", timestamp=time) for n, time in enumerate(times)),
        call("ann", id="bad", status_code=500, model="gpt-4o"),
    )
    first = await shown(signed_in, f"{ANN}/events")
    further = re.search(r'<a href="([^"]+)" rel="next">', first)
    assert further is not None
    second = await shown(signed_in, unescape(further[1]))
    ids = re.findall(r'/dashboard/users/ann/events/(e\d\d)"', first + second)
    assert ids == [f"e{n:02}" for n in range(60)]
    for query in ("status=error", "model=gpt-4o", "model=gpt-4o&provider=openai&status=error"):
        page = await shown(signed_in, f"{ANN}/events?{query}")
        assert re.findall(r"/dashboard/users/ann/events/([^\"?]+)\"", page) == ["bad"]
    table = await shown(signed_in, f"{ANN}/events?format=csv")
    assert len(table.splitlines()) == 62
    for query in ("status=odd", "cursor=odd", "provider=%00", "model=a%00", "range=custom"):
        assert (await signed_in.get(f"{ANN}/events?{query}")).status_code == 422, query
    for path in ("ann%00", "ann%01/periods", "ann/events/e%00", "ann/alerts?cursor=odd"):
        assert (await signed_in.get(f"/dashboard/users/{path}")).status_code == 422, path


async def test_wrapped_events_are_rows_with_their_counts(
    signed_in: httpx.AsyncClient, clock: FrozenClock
) -> None:
    await send(signed_in, *(call("ann", id=f"e{n}") for n in range(5)))
    clock.advance(timedelta(days=100))
    await enter(signed_in, ADMIN)
    await api(signed_in, "POST", "/v1/users/ann/logs/wrap", {})
    said = words(await shown(signed_in, f"{ANN}/events?range=custom&from=2026-11-01&to=2026-11-30"))
    assert "5 calls, 12:30 to 12:30 wrapped" in said
    one = words(await shown(signed_in, f"{ANN}/events/e3"))
    assert "wrapped" in one
    assert "input uncached text 3,000" in one
    assert (await signed_in.get(f"{ANN}/events/e9")).status_code == 404


async def test_a_corrected_event_costs_what_it_does_though_its_archive_is_gone(
    signed_in: httpx.AsyncClient, clock: FrozenClock, runtime: Runtime
) -> None:
    await send(signed_in, *(call("ann", id=f"e{n}") for n in range(3)))
    clock.advance(timedelta(days=100))
    await enter(signed_in, ADMIN)
    await api(signed_in, "POST", "/v1/users/ann/logs/wrap", {})
    fields = {"reason": "counted twice", "fields": {"usage": {"input_tokens": 1000}}}
    await api(signed_in, "POST", "/v1/users/ann/events/e0/correct", fields)
    amount = {"reason": "agreed upon", "cost_usd": "0.5"}
    await api(signed_in, "POST", "/v1/users/ann/events/e1/correct", amount)
    [archive] = (await api(signed_in, "GET", "/v1/archives", None))["items"]
    await runtime.store.remove(archive["path"])
    assert "$0.00015" in words(await shown(signed_in, f"{ANN}/events/e0"))
    assert "$0.500885. The rest of it lies in archive" in words(
        await shown(signed_in, f"{ANN}/events/e1")
    )
    assert "$0.000885. The rest of it lies in archive" in words(
        await shown(signed_in, f"{ANN}/events/e2")
    )


async def test_an_event_tells_how_it_came_to_its_cost(signed_in: httpx.AsyncClient) -> None:
    await send(
        signed_in,
        call("ann", id="a/b", tags={"env": "prod"}),
        call("ann", id="u", provider="acme", model="secret-1"),
    )
    page = await shown(signed_in, f"{ANN}/events/a%2Fb")
    said = words(page)
    assert "input uncached text 3,000 $0.15 1,000,000 $0.00045" in said
    assert "$0.000885" in said
    assert '{"env": "prod"}' in said or '{"env":"prod"}' in said
    entry = re.search(r'href="(/dashboard/prices/entry\?id=[^"]+)"', page)
    assert entry is not None
    assert "gpt-4o-mini" in await shown(signed_in, unescape(entry[1]))
    unknown = await shown(signed_in, f"{ANN}/events/u")
    assert "/dashboard/prices/new?provider=acme&amp;model=secret-1" in unknown


async def test_a_correction_says_only_what_was_changed_and_a_void_takes_all_back(
    signed_in: httpx.AsyncClient,
) -> None:
    await send(signed_in, call("ann", id="e"), call("ann", id="other"))
    token = await csrf_of(signed_in)
    here = f"{ANN}/events/e"
    page = await shown(signed_in, here)
    sent = {
        name: unescape(value)
        for name, value in re.findall(r'<input[^>]*? name="([^"]+)"[^>]*? value="([^"]*)"', page)
        if name.startswith(("usage_", "was_", "provider", "model"))
    }
    assert sent["usage_input_tokens"] == "4000"
    said = sent | {"csrf": token, "usage_input_tokens": "2000", "reason": "counted twice"}
    answer = await signed_in.post(f"{here}/correct", data=said)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{here}?done=corrected")
    found = await api(signed_in, "GET", "/v1/users/ann/events/e")
    assert found["usage"] == {
        "input_tokens": 2000,
        "cache_read_tokens": 1000,
        "output_tokens": 600,
    }
    credit = {"csrf": token, "amount_usd": "-0.0001", "reason": "credit"}
    answer = await signed_in.post(f"{here}/correct", data=credit)
    assert answer.status_code == 303, answer.text
    said_now = words(await shown(signed_in, here))
    assert "counted twice" in said_now
    assert "cost changed by $-0.0001" in said_now
    answer = await signed_in.post(f"{here}/void", data={"csrf": token, "reason": "a test"})
    assert answer.headers["location"] == f"{here}?done=voided"
    assert (await api(signed_in, "GET", "/v1/users/ann/usage"))["total_calls"] == 1
    assert "voided" in words(await shown(signed_in, f"{ANN}/events"))
    assert (await api(signed_in, "GET", "/v1/audit/consistency"))["consistent"]
    changes = (await api(signed_in, "GET", "/v1/audit/changes?kind=event"))["items"]
    assert [(one["action"], one["via"]) for one in changes] == [
        ("void", "dashboard"),
        ("amount", "dashboard"),
        ("correct", "dashboard"),
    ]


async def test_a_correction_that_means_nothing_is_told_beside_its_field(
    signed_in: httpx.AsyncClient,
) -> None:
    await send(signed_in, call("ann", id="e"))
    token = await csrf_of(signed_in)
    for said, told in (
        ({"usage_input_tokens": "lots", "was_usage_input_tokens": "4000"}, "a whole number"),
        ({"usage_input_tokens": "10", "usage_cache_read_tokens": "99"}, "cache_read_tokens"),
        ({"amount_usd": "much"}, "money is a decimal string"),
        ({}, "name at least one field"),
    ):
        body = {"csrf": token, "reason": "why"} | said
        answer = await signed_in.post(f"{ANN}/events/e/correct", data=body)
        assert answer.status_code == 422, said
        assert told in words(answer.text), said
    answer = await signed_in.post(f"{ANN}/events/e/void", data={"csrf": token, "reason": " "})
    assert answer.status_code == 422


# ---- the other tabs -----------------------------------------------------------------------------


async def test_alerts_are_marked_as_read_by_who_may_see_them(
    signed_in_with: SignIn, runtime: Runtime
) -> None:
    browser = await signed_in_with("read", user_id="ann")
    await limit(browser, "0.0005")
    await send(browser, call("ann", id="1"))
    page = await shown(browser, f"{ANN}/alerts")
    alert = re.findall(r'name="alert_id" value="([^"]+)"', page)
    assert f"Alerts ({len(alert)})" in page
    token = await csrf_of_page(page)
    answer = await browser.post(f"{ANN}/alerts/read", data={"csrf": token, "alert_id": alert[0]})
    assert answer.status_code == 303
    assert alert[0] not in await shown(browser, f"{ANN}/alerts")
    for body in ({"alert_id": alert[0]}, {"alert_id": alert[0], "csrf": "another"}):
        assert (await browser.post(f"{ANN}/alerts/read", data=body)).status_code == 403


async def csrf_of_page(page: str) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', page)
    assert found, page
    return unescape(found[1])


async def test_a_renewal_begins_a_period_and_keeps_the_one_before(
    signed_in: httpx.AsyncClient, clock: FrozenClock
) -> None:
    await send(signed_in, call("ann", id="1"))
    clock.advance(timedelta(hours=1))
    token = await csrf_of(signed_in)
    said = words(await shown(signed_in, f"{ANN}/periods"))
    assert "calendar" not in said
    assert "2026-11 running" in said
    answer = await signed_in.post(f"{ANN}/periods/renew", data={"csrf": token})
    assert answer.headers["location"] == f"{ANN}/periods?done=renewed"
    await send(signed_in, call("ann", id="2"), call("ann", id="3"))
    table = (await shown(signed_in, f"{ANN}/periods?format=csv")).splitlines()
    assert [row.split(",")[5] for row in table[1:]] == ["2", "1"]
    changes = (await api(signed_in, "GET", "/v1/audit/changes?kind=subscription"))["items"]
    assert [(one["action"], one["via"], one["ref"]) for one in changes] == [
        ("renew", "dashboard", "ann")
    ]


async def test_a_hold_is_shown_with_what_it_holds_and_released(
    signed_in: httpx.AsyncClient,
) -> None:
    await limit(signed_in, "0.01")
    hold = {"user_id": "ann", "id": "h/1", "cost_usd": "0.005", "provider": "openai"}
    await api(signed_in, "POST", "/v1/holds", hold)
    said = words(await shown(signed_in, f"{ANN}/holds"))
    assert "$0.005 of “monthly budget”" in said
    token = await csrf_of(signed_in)
    body = {"csrf": token, "hold_id": "h/1"}
    answer = await signed_in.post(f"{ANN}/holds/release", data=body)
    assert answer.headers["location"] == f"{ANN}/holds?done=released"
    assert "Nothing is held" in await shown(signed_in, f"{ANN}/holds")
    body = {"csrf": token, "hold_id": "nobody's"}
    assert (await signed_in.post(f"{ANN}/holds/release", data=body)).status_code == 404


# ---- who may ------------------------------------------------------------------------------------


async def test_a_bound_key_sees_its_own_pages_and_changes_nothing(signed_in_with: SignIn) -> None:
    browser = await signed_in_with("read", "manage", "check", user_id="ann")
    await send(browser, call("ann", id="e"), call("bob", id="e"))
    tabs = ("", "/events", "/events/e", "/alerts", "/periods", "/holds")
    for tab in tabs:
        page = await shown(browser, f"{ANN}{tab}")
        assert "bob" not in page
        assert "/void" not in page
        answer = await browser.get(f"/dashboard/users/bob{tab}")
        assert (answer.status_code, answer.headers["location"]) == (303, ANN)
    token = await csrf_of_page(await shown(browser, ANN))
    for act in ("events/e/void", "events/e/correct", "periods/renew"):
        for user in ("ann", "bob"):
            body = {"csrf": token, "reason": "why"}
            answer = await browser.post(f"/dashboard/users/{user}/{act}", data=body)
            assert answer.status_code in (303, 403), act
    assert (await api(browser, "GET", "/v1/users/ann/events/e"))["voided"] is False


async def test_a_key_without_the_scope_is_shown_no_button_and_may_not_post(
    signed_in_with: SignIn,
) -> None:
    browser = await signed_in_with("read")
    await send(browser, call("ann", id="e"))
    page = await shown(browser, f"{ANN}/events/e")
    assert "/void" not in page
    token = await csrf_of_page(page)
    for act in ("events/e/void", "events/e/correct", "periods/renew", "holds/release"):
        body = {"csrf": token, "reason": "why", "hold_id": "h"}
        assert (await browser.post(f"{ANN}/{act}", data=body)).status_code == 403, act
