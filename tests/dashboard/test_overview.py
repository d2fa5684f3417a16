"""The first page: what everyone used, beside the range before."""

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
from tests.dashboard.conftest import SignIn, call, send

pytestmark = pytest.mark.anyio
NASTY = "<script>alert('x')</script>"


def at(ago: timedelta) -> str:
    return rfc3339(START - ago)


def cards(page: str) -> dict[str, str]:
    """The values of a page's cards, by their labels."""
    found = re.findall(
        r'class="card-label">(?:<a[^>]*>)?([^<]+).*?class="card-value">([^<]*)', page, re.DOTALL
    )
    return {label: unescape(value) for label, value in found}


def drawn(page: str, name: str = "spend") -> dict[str, Any]:
    """What a chart is drawn from."""
    block = re.search(rf'<script type="application/json" id="{name}-data">(.*?)</script>', page)
    assert block, page
    found: dict[str, Any] = json.loads(block[1])
    return found


async def test_an_empty_service_says_how_to_send_the_first_event(
    signed_in: httpx.AsyncClient,
) -> None:
    page = await signed_in.get("/dashboard")
    assert page.status_code == 200
    assert "No usage yet" in page.text
    assert "http://test/v1/events" in page.text


async def test_the_cards_compare_a_range_with_the_one_before(
    signed_in: httpx.AsyncClient,
) -> None:
    await send(
        signed_in,
        call(id="a", cost_usd="3", timestamp=at(timedelta(hours=2))),
        call(id="b", cost_usd="1", timestamp=at(timedelta(days=1)), status_code=500),
        call(id="c", cost_usd="2", timestamp=at(timedelta(days=8))),
        call(id="d", cost_usd="5", timestamp=at(timedelta(days=20))),
    )
    page = (await signed_in.get("/dashboard?range=7d")).text
    found = cards(page)
    assert found["Spend"] == "$4.00"
    assert found["Calls"] == "2"
    assert found["Tokens"] == "9.2k"
    assert found["Error rate"] == "50%"
    assert "25% of the input cached" in page
    assert page.count("+100%") >= 3
    chart = drawn(page)
    assert len(chart["labels"]) == 7
    assert chart["series"] == [{"name": "openai", "values": [0, 0, 0, 0, 0, 1.0, 3.0]}]
    by_model = drawn((await signed_in.get("/dashboard?range=7d&by=model")).text)
    assert by_model["series"][0]["name"] == "gpt-4o-mini"


async def test_a_small_amount_is_never_nothing_and_an_unknown_price_is_a_warning(
    signed_in: httpx.AsyncClient,
) -> None:
    await send(
        signed_in,
        call(id="a", cost_usd="0.000195"),
        call("bo", id="b", provider="acme", model="new"),
    )
    page = (await signed_in.get("/dashboard?range=24h")).text
    assert cards(page)["Spend"] == "$0.000195"
    assert "$0.00<" not in page
    assert "1 call has no known price" in page
    assert ">unknown<" in page
    people = (await signed_in.get("/dashboard/overview/people")).text
    assert ">alice<" in people
    assert ">bo<" in people
    assert cards(people)["Active users"] == "2"


async def test_names_of_callers_are_text_wherever_they_stand(
    signed_in: httpx.AsyncClient,
) -> None:
    await send(
        signed_in,
        call(NASTY, id="a", cost_usd="1", provider="</script><b>", model=NASTY, endpoint=NASTY),
    )
    for address in (
        *("/dashboard", "/dashboard?by=model"),
        *("/dashboard/overview/people", "/dashboard/overview/endpoints"),
    ):
        page = (await signed_in.get(address)).text
        assert NASTY not in page
        assert "</script><b>" not in page
        assert NASTY in unescape(page) or "\\u003cscript" in page
    assert drawn((await signed_in.get("/dashboard")).text)["series"][0]["name"] == "</script><b>"


async def test_how_things_stand_now_is_told_on_the_side(
    signed_in: httpx.AsyncClient, clock: FrozenClock
) -> None:
    own = {"Authorization": f"Bearer {ADMIN}"}
    limit = {
        **{"name": "budget", "scope": {"user_id": "alice"}, "metric": "cost_usd"},
        **{"window": "month", "amount": "10", "action": "block"},
    }
    shadow = limit | {"name": "unseen", "action": "shadow", "amount": "1"}
    for one in (limit, shadow):
        assert (await signed_in.post("/v1/limits", json=one, headers=own)).status_code == 201
    for day in range(4):
        await send(signed_in, call(id=f"{day}", cost_usd="2.00", timestamp=at(timedelta(days=day))))
    hold = {"user_id": "alice", "cost_usd": "1", "ttl_s": 60}
    assert (await signed_in.post("/v1/holds", json=hold, headers=own)).status_code == 201
    page = (await signed_in.get("/dashboard/overview/standing")).text
    assert "budget · user alice" in page
    assert "unseen" not in page
    assert "90%" in page
    assert "$8.00 of $10.00, $1.00 held" in page
    assert "1 open hold reserves $1.00 now" in page
    assert "Forecast for the month" in page
    assert "of 100" in page
    clock.advance(timedelta(seconds=61))
    page = (await signed_in.get("/dashboard/overview/standing")).text
    assert "80%" in page
    assert "Nothing is held now" in page


async def test_every_table_can_be_taken_along_as_csv(signed_in: httpx.AsyncClient) -> None:
    await send(
        signed_in,
        call("=HYPERLINK(1)", id="a", cost_usd="0.5", model="=cmd|' /C calc'!A0"),
        call("bo", id="b", cost_usd="1", model="+1"),
    )
    models = await signed_in.get("/dashboard?format=csv&table=cost&range=24h")
    assert models.headers["content-type"].startswith("text/csv")
    assert models.headers["content-disposition"] == 'attachment; filename="tollgate-models-24h.csv"'
    assert "openai,'=cmd|' /C calc'!A0,1,0,4000,600,1000,0.5,0" in models.text
    assert "openai,'+1,1" in models.text
    days = await signed_in.get("/dashboard?format=csv&table=days&range=7d")
    assert days.text.splitlines()[-1] == "2026-11-20T00:00:00+00:00,1.5"
    people = await signed_in.get("/dashboard/overview/people?format=csv")
    assert people.text.splitlines()[2].startswith("'=HYPERLINK(1),$0.5")


@pytest.mark.parametrize(
    "query",
    [
        *("range=1y", "range=custom", "range=custom&from=2026-11-02&to=2026-11-01"),
        *("range=custom&from=0001-01-01&to=0002-01-01", "range=custom&from=x&to=2026-01-01"),
        *("range=custom&from=1990-01-01&to=2026-01-01", "by=user", "format=xls"),
    ],
)
async def test_a_range_that_is_none_is_refused_with_a_page(
    signed_in: httpx.AsyncClient, query: str
) -> None:
    page = await signed_in.get(f"/dashboard?{query}")
    assert page.status_code == 422
    assert page.headers["content-type"].startswith("text/html")
    assert "The request is not valid" in page.text


@pytest.mark.parametrize("name", ["24h", "7d", "30d", "90d", "month", "last_month"])
async def test_every_range_of_the_picker_has_its_page(
    signed_in: httpx.AsyncClient, name: str
) -> None:
    await send(signed_in, call(id="a"))
    page = await signed_in.get(f"/dashboard?range={name}")
    assert page.status_code == 200
    assert f'href="?range={name}" aria-current="true"' in page.text


async def test_a_bound_key_sees_its_own_page_alone(
    signed_in_with: SignIn, runtime: Runtime
) -> None:
    browser = await signed_in_with("read", user_id="al/ice ü")
    for address in ("/dashboard", "/dashboard/overview/people", "/dashboard/overview/standing"):
        answer = await browser.get(address)
        assert answer.status_code == 303
        assert answer.headers["location"] == "/dashboard/users/al%2Fice%20%C3%BC"
    part = await browser.get("/dashboard/overview/people", headers={"HX-Request": "true"})
    assert part.status_code == 401
    assert part.headers["hx-redirect"] == "/dashboard/users/al%2Fice%20%C3%BC"
