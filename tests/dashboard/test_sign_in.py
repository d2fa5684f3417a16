"""In and out of the dashboard, and who gets no further than the door."""

from datetime import timedelta

import httpx
import pytest
from sqlalchemy import func, select

from app.access.keys import list_keys, revoke_key
from app.access.tables import DashboardSession
from app.core.clock import Clock, FrozenClock
from app.dashboard.refusal import own_path
from app.dashboard.sessions import make_link, use_link
from app.dashboard.tries import FROM_ONE_ADDRESS, network_of
from app.db.engine import Database
from app.runtime import Runtime
from app.start import prepare
from tests.conftest import ADMIN, PATIENCE_S, settings_for
from tests.dashboard.conftest import SignIn, csrf_of, enter, new_key

pytestmark = pytest.mark.anyio


async def sessions(runtime: Runtime) -> int:
    query = select(func.count()).select_from(DashboardSession)
    found: int = (await runtime.db.read(lambda tx: tx.fetch(query)))[0][0]
    return found


async def test_nobody_sees_a_page_before_signing_in(browser: httpx.AsyncClient) -> None:
    for address in ("/dashboard", "/dashboard/overview/people?range=7d", "/dashboard/users"):
        answer = await browser.get(address)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/dashboard/sign-in?next=%2Fdashboard")
    shown = {"Authorization": f"Bearer {ADMIN}"}  # a key opens the API, and no page
    assert (await browser.get("/dashboard", headers=shown)).status_code == 303
    part = {"HX-Request": "true", "HX-Current-URL": "http://test/dashboard/users?range=7d"}
    answer = await browser.get("/dashboard/overview/people", headers=part)
    assert answer.status_code == 401
    where = "/dashboard/sign-in?next=%2Fdashboard%2Fusers%3Frange%3D7d"
    assert answer.headers["hx-redirect"] == where


async def test_a_key_signs_in_and_goes_on_to_the_page_that_was_asked_for(
    browser: httpx.AsyncClient,
) -> None:
    asked = await browser.get("/dashboard?range=7d", follow_redirects=True)
    assert 'value="/dashboard?range=7d"' in asked.text
    answer = await browser.post(
        "/dashboard/sign-in", data={"key": f" {ADMIN} ", "next": "/dashboard?range=7d"}
    )
    assert answer.status_code == 303
    assert answer.headers["location"] == "/dashboard?range=7d"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Path=/dashboard" in cookie
    assert "Max-Age=43200" in cookie
    assert "Secure" not in cookie
    assert ADMIN not in cookie
    assert (await browser.get("/dashboard")).status_code == 200


async def test_the_cookie_stays_on_https_where_that_is_spoken(browser: httpx.AsyncClient) -> None:
    behind = {"X-Forwarded-Proto": "https"}
    answer = await browser.post("/dashboard/sign-in", data={"key": ADMIN}, headers=behind)
    assert "; Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("key", ["", "tg_wrong", "x" * 600, "\u00fc"])
async def test_a_wrong_key_learns_nothing(browser: httpx.AsyncClient, key: str) -> None:
    answer = await browser.post("/dashboard/sign-in", data={"key": key})
    assert answer.status_code == 401
    assert "That key does not open the dashboard." in answer.text
    assert "set-cookie" not in answer.headers


async def test_keys_that_may_not_read_or_have_ended_are_told_the_same(
    browser: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    _, writing = await new_key(runtime, clock, ["ingest"])
    gone_id, gone = await new_key(runtime, clock, ["read"])
    await runtime.db.write(lambda tx: revoke_key(tx, gone_id, clock.now()), alone=True)
    for key in (writing, gone):
        answer = await browser.post("/dashboard/sign-in", data={"key": key})
        assert answer.status_code == 401
        assert "That key does not open the dashboard." in answer.text


async def test_a_revoked_key_ends_its_sessions_at_once(
    browser: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    key_id, key = await new_key(runtime, clock, ["read"])
    await enter(browser, key)
    assert (await browser.get("/dashboard")).status_code == 200
    await runtime.db.write(lambda tx: revoke_key(tx, key_id, clock.now()), alone=True)
    answer = await browser.get("/dashboard")
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/dashboard/sign-in")


async def test_a_session_lasts_twelve_hours_and_is_then_removed(
    signed_in: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    clock.advance(timedelta(hours=11, minutes=59))
    assert (await signed_in.get("/dashboard")).status_code == 200
    clock.advance(timedelta(minutes=1))
    assert (await signed_in.get("/dashboard")).status_code == 303
    await enter(signed_in, ADMIN)
    assert await sessions(runtime) == 1


async def test_signing_out_needs_the_forms_token_and_ends_the_session(
    signed_in: httpx.AsyncClient, runtime: Runtime
) -> None:
    csrf = await csrf_of(signed_in)
    for given in ({}, {"csrf": ""}, {"csrf": csrf.swapcase()}, {"csrf": "\u00fc"}):
        answer = await signed_in.post("/dashboard/sign-out", data=given)
        assert answer.status_code in (403, 415)
        assert await sessions(runtime) == 1
    kept = dict(signed_in.cookies)
    answer = await signed_in.post("/dashboard/sign-out", data={"csrf": csrf})
    assert answer.status_code == 303
    assert await sessions(runtime) == 0
    signed_in.cookies.update(kept)
    assert (await signed_in.get("/dashboard")).status_code == 303


async def test_a_form_of_another_session_is_refused(
    signed_in: httpx.AsyncClient, runtime: Runtime
) -> None:
    stale = await csrf_of(signed_in)
    await enter(signed_in, ADMIN)
    answer = await signed_in.post("/dashboard/sign-out", data={"csrf": stale})
    assert answer.status_code == 403
    assert "load the page again" in answer.text


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}],
)
async def test_another_site_cannot_sign_anybody_in(
    browser: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    for address in ("/dashboard/sign-in", "/dashboard/sign-in/link"):
        answer = await browser.post(address, data={"key": ADMIN, "token": "t"}, headers=headers)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers


async def test_tries_are_counted_by_address(browser: httpx.AsyncClient, runtime: Runtime) -> None:
    for _ in range(FROM_ONE_ADDRESS):
        answer = await browser.post("/dashboard/sign-in", data={"key": "tg_wrong"})
        assert answer.status_code == 401
    answer = await browser.post("/dashboard/sign-in", data={"key": ADMIN})
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "60"
    assert await sessions(runtime) == 0


def test_addresses_of_one_customer_are_counted_together() -> None:
    assert network_of("2001:db8:1:2:3::4") == network_of("2001:db8:1:2:ffff::1")
    assert network_of("2001:db8:1:2::1") != network_of("2001:db8:1:3::1")
    assert network_of("::ffff:10.0.0.1") == network_of("10.0.0.1")
    assert network_of("a unix socket") == "unknown"


@pytest.mark.parametrize(
    "address",
    [
        *("https://evil.example", "//evil.example", "/\\evil.example", "/dashboard//evil.example"),
        *("/dashboard\\@evil.example", "/dashboard.evil.example", "/dashboard/../v1/keys"),
        *("javascript:alert(1)", "/v1/events", "", "/dashboard\r\nX: y", "dashboard"),
        *("/dashboard/sign-in", "/dashboard/sign-out?a", "/dashboard/" + "x" * 3_000),
    ],
)
def test_nobody_is_sent_away_from_the_dashboard(address: str) -> None:
    assert own_path(address) == "/dashboard"


def test_pages_of_ours_are_gone_back_to() -> None:
    for address in ("/dashboard", "/dashboard/users/a%2Fb?range=7d", "/dashboard?range=7d"):
        assert own_path(address) == address


# ---- links that work once -----------------------------------------------------------------------


async def linked(runtime: Runtime, clock: FrozenClock, key_id: str = "key_environment") -> str:
    return await runtime.db.write(lambda tx: make_link(tx, key_id, clock.now()))


async def test_a_link_signs_in_once_and_looking_at_it_does_not_use_it_up(
    browser: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    token = await linked(runtime, clock)
    for _ in range(2):
        seen = await browser.get(f"/dashboard/sign-in/link?token={token}")
        assert seen.status_code == 200
        assert token in seen.text
        assert "set-cookie" not in seen.headers
    first = await browser.post("/dashboard/sign-in/link", data={"token": token})
    assert first.status_code == 303
    assert (await browser.get("/dashboard")).status_code == 200
    again = await browser.post("/dashboard/sign-in/link", data={"token": token})
    assert again.status_code == 401
    assert "was used, or is too old" in again.text


async def test_a_link_is_good_for_a_quarter_of_an_hour_and_for_a_live_key(
    browser: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    old = await linked(runtime, clock)
    key_id, _ = await new_key(runtime, clock, ["admin"])
    orphan = await linked(runtime, clock, key_id)
    await runtime.db.write(lambda tx: revoke_key(tx, key_id, clock.now()), alone=True)
    assert (
        await browser.post("/dashboard/sign-in/link", data={"token": orphan})
    ).status_code == 401
    clock.advance(timedelta(minutes=15))
    for token in (old, "", "unknown", "x" * 500):
        answer = await browser.post("/dashboard/sign-in/link", data={"token": token})
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers


# ---- forms --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"key=a&key=b", "application/x-www-form-urlencoded", 422),
        (b"key=%ff", "application/x-www-form-urlencoded", 422),
        (b"key=%00", "application/x-www-form-urlencoded", 422),
        (b"a=b&" * 600, "application/x-www-form-urlencoded", 422),
        (b"key=" + b"x" * 70_000, "application/x-www-form-urlencoded", 413),
        (b'{"key": "a"}', "application/json", 415),
        (b"", "", 415),
    ],
)
async def test_a_form_is_read_strictly(
    browser: httpx.AsyncClient, body: bytes, kind: str, status: int
) -> None:
    answer = await browser.post("/dashboard/sign-in", content=body, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")


async def test_a_key_without_manage_may_look_and_a_bound_one_at_its_own(
    signed_in_with: SignIn,
) -> None:
    browser = await signed_in_with("read")
    assert (await browser.get("/dashboard")).status_code == 200
    bound = await signed_in_with("read", user_id="alice")
    assert (await bound.get("/dashboard")).headers["location"] == "/dashboard/users/alice"


async def test_a_start_in_a_terminal_makes_a_link_and_any_first_start_does(db_url: str) -> None:
    settings = settings_for(db_url).model_copy(update={"admin_key": None})
    clock = Clock()
    first = await prepare(settings, clock)
    assert first.admin_key is not None
    assert first.sign_in is not None
    assert (await prepare(settings, clock)).sign_in is None
    again = await prepare(settings, clock, interactive=True)
    assert again.admin_key is None
    db = Database.open(db_url, patience_s=PATIENCE_S)
    try:
        for token in (first.sign_in, again.sign_in):
            assert token is not None
            key_id = await db.write(lambda tx, token=token: use_link(tx, token, clock.now()))
            assert key_id == (await db.read(list_keys))[0].id
    finally:
        await db.close()
