"""The list of users: who is in it, in which order, and what it says of each."""

import csv
import io
import re
from datetime import timedelta
from html import unescape

import httpx
import pytest

from app.core.clock import FrozenClock, rfc3339
from app.runtime import Runtime
from tests.conftest import ADMIN, START
from tests.dashboard.conftest import SignIn, call, send

pytestmark = pytest.mark.anyio

USERS = "/dashboard/users"


def listed(page: str) -> list[str]:
    """The users in the table of the page, from above."""
    found = re.findall(r'<td class="left"><a href="/dashboard/users/[^"]*">([^<]*)</a></td>', page)
    return [unescape(one) for one in found]


async def rows_of(browser: httpx.AsyncClient, query: str) -> list[dict[str, str]]:
    """The list as CSV."""
    answer = await browser.get(f"{USERS}?format=csv&{query}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(answer.text)))


async def set_limit(browser: httpx.AsyncClient, user_id: str, amount: str) -> None:
    limit = {"name": "budget", "scope": {"user_id": user_id}, "metric": "cost_usd"}
    limit |= {"window": "billing_period", "amount": amount, "action": "block"}
    headers = {"Authorization": f"Bearer {ADMIN}"}
    answer = await browser.post("/v1/limits", json=limit, headers=headers)
    assert answer.status_code == 201, answer.text


async def test_before_the_first_event_the_list_says_what_to_do(
    signed_in: httpx.AsyncClient,
) -> None:
    answer = await signed_in.get(USERS)
    assert answer.status_code == 200
    assert "No users yet" in answer.text
    assert "curl" in answer.text


async def test_each_order_puts_the_same_users_in_its_own_way(
    signed_in: httpx.AsyncClient, clock: FrozenClock
) -> None:
    big = {"input_tokens": 900_000, "output_tokens": 90_000}
    small = {"input_tokens": 10, "output_tokens": 1}
    hours_ago = [rfc3339(START - timedelta(hours=hours)) for hours in (5, 3, 1)]
    await send(
        signed_in,
        call("ann", id="a", usage=big, timestamp=hours_ago[0]),
        *(call("bob", id=f"b{n}", usage=small, timestamp=hours_ago[1]) for n in range(5)),
        *(call("cem", id=f"c{n}", timestamp=hours_ago[2]) for n in range(2)),
    )
    await set_limit(signed_in, "ann", "100")
    await set_limit(signed_in, "bob", "0.00001")
    for span in ("24h", "30d"):
        found = {
            order: listed((await signed_in.get(f"{USERS}?range={span}&sort={order}")).text)
            for order in ("spend", "calls", "tokens", "seen", "limit", "user")
        }
        assert found == {
            "spend": ["ann", "cem", "bob"],
            "calls": ["bob", "cem", "ann"],
            "tokens": ["ann", "cem", "bob"],
            "seen": ["cem", "bob", "ann"],
            "limit": ["bob", "ann"],
            "user": ["ann", "bob", "cem"],
        }


async def test_the_list_is_paged_without_a_gap_and_searched_by_how_ids_begin(
    signed_in: httpx.AsyncClient,
) -> None:
    names = [f"user-{n:03}" for n in range(60)]
    await send(signed_in, *(call(name, id=name) for name in names), call("other", id="other"))
    for query in ("sort=user", "sort=spend", "sort=spend&range=90d", "sort=spend&range=24h"):
        seen, href = [], f"{USERS}?{query}&q=user-"
        while href:
            page = (await signed_in.get(href)).text
            seen += listed(page)
            further = re.search(r'<a href="([^"]+)" rel="next">', page)
            href = unescape(further[1]) if further else ""
        assert seen == names
    assert listed((await signed_in.get(f"{USERS}?q=oth")).text) == ["other"]
    assert "Nobody found" in (await signed_in.get(f"{USERS}?q=User")).text


async def test_the_figures_of_a_row_are_those_of_the_api(signed_in: httpx.AsyncClient) -> None:
    failed = call("ann", id="bad", status_code=500)
    unknown = call("bob", id="u", provider="nobody", model="nothing-known")
    await send(signed_in, call("ann", id="ok"), failed, unknown)
    found = {row["User"]: row for row in await rows_of(signed_in, "sort=user")}
    assert found["ann"]["Spend"] == "0.00177"
    assert (found["ann"]["Share"], found["bob"]["Share"]) == ("100.0", "0.0")
    assert (found["ann"]["Calls"], found["ann"]["Errors"]) == ("2", "50.0")
    assert (found["ann"]["Tokens"], found["ann"]["Cached"]) == ("9200", "25.0")
    assert found["ann"]["Billing period"] == "2026-11"
    page = (await signed_in.get(USERS)).text
    assert "1 unpriced" in page
    assert "no limit" in page


async def test_a_user_near_a_limit_carries_its_percentage(signed_in: httpx.AsyncClient) -> None:
    await set_limit(signed_in, "ann", "0.001")
    await set_limit(signed_in, "bob", "0.0008")
    await send(signed_in, call("ann", id="1"), call("bob", id="2"))
    rows = await rows_of(signed_in, "")
    found = {row["User"]: (row["Status"], row["Percent"], row["Limit"]) for row in rows}
    assert found == {
        "ann": ("warning", "88.5", "budget"),
        "bob": ("limit reached", "110.62", "budget"),
    }
    assert "warning · 88.5%" in (await signed_in.get(USERS)).text


async def test_names_that_are_markup_or_a_formula_stay_text(signed_in: httpx.AsyncClient) -> None:
    names = ["<script>alert(1)</script>", "=1+1", "a/b?c#d"]
    await send(signed_in, *(call(name, id=name) for name in names))
    page = (await signed_in.get(USERS)).text
    assert "<script>alert" not in page
    assert "/dashboard/users/a%2Fb%3Fc%23d?" in page
    assert (await signed_in.get("/dashboard/users/a%2Fb%3Fc%23d")).status_code == 200
    assert "'=1+1" in {row["User"] for row in await rows_of(signed_in, "")}


async def test_a_key_that_is_bound_to_a_user_never_sees_the_list(
    signed_in_with: SignIn, runtime: Runtime
) -> None:
    browser = await signed_in_with("read", user_id="ann")
    answer = await browser.get(USERS)
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/users/ann")


async def test_what_nobody_can_be_called_is_refused(signed_in: httpx.AsyncClient) -> None:
    for query in ("q=%00", "q=%01", "cursor=x", "cursor=-1", "range=ever", "q=" + "x" * 300):
        answer = await signed_in.get(f"{USERS}?{query}")
        assert answer.status_code == 422, query
