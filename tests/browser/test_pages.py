"""Every page in a browser: it fits, it makes no complaints, and everybody can use it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect

from app.demo.child import Service

PAGES = {
    "overview": "/dashboard",
    "users": "/dashboard/users",
    "user": "/dashboard/users/alice",
    "events": "/dashboard/users/alice/events",
    "prices": "/dashboard/prices",
    "limits": "/dashboard/limits",
    "alerts": "/dashboard/alerts",
    "system": "/dashboard/system",
}
KEPT = {
    ("overview", "wide", "light"): "overview.png",
    ("overview", "phone", "dark"): "phone.png",
    ("user", "wide", "light"): "user.png",
    ("limits", "wide", "dark"): "limits.png",
}
"""The pictures that the documentation shows."""
SIZES = {"wide": (1280, 900), "phone": (390, 844)}
Theme = Literal["light", "dark"]
THEMES: tuple[Theme, ...] = ("light", "dark")
PATIENCE_MS = 60_000
GRAVE = ("serious", "critical")

Walker = tuple[BrowserContext, str, str]


@pytest.fixture(scope="module")
def cookies(browser: Browser, service: Service) -> list[object]:
    """What a browser holds once somebody has signed in."""
    context = browser.new_context(base_url=service.address)
    page = context.new_page()
    page.goto("/dashboard")
    page.get_by_label("API key").fill(service.admin_key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1, name="Overview")).to_be_visible(timeout=PATIENCE_MS)
    found: list[object] = list(context.cookies())
    context.close()
    return found


@pytest.fixture(params=[(size, theme) for size in SIZES for theme in THEMES], ids="-".join)
def walker(
    request: pytest.FixtureRequest, browser: Browser, service: Service, cookies: list[object]
) -> Iterator[Walker]:
    """A signed-in browser of one size and theme."""
    size, theme = request.param
    width, height = SIZES[size]
    context = browser.new_context(
        base_url=service.address,
        viewport={"width": width, "height": height},
        color_scheme=theme,
        timezone_id="Europe/Berlin",
    )
    context.set_default_timeout(PATIENCE_MS)
    context.add_cookies(cookies)  # type: ignore[arg-type]
    yield context, size, theme
    context.close()


def open_page(context: BrowserContext, path: str) -> tuple[Page, list[str]]:
    """The page once everything on it has come, and what the browser complained of."""
    page, complaints = context.new_page(), []

    def note(kind: str, text: str) -> None:
        complaints.append(f"{kind}: {text}")

    page.on("console", lambda said: note(said.type, said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: note("error", str(error)))
    page.on("requestfailed", lambda failed: note("failed", failed.url))
    answer = page.goto(path, wait_until="networkidle")
    assert answer is not None
    assert answer.status == 200, f"{path}: {answer.status}"
    expect(page.locator(".later")).to_have_count(0, timeout=PATIENCE_MS)
    return page, complaints


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_makes_no_complaint_and_hinders_nobody(
    walker: Walker, name: str, pictures: Path | None
) -> None:
    context, size, theme = walker
    page, complaints = open_page(context, PAGES[name])
    assert complaints == []
    wider = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert wider <= 0, f"{wider} px wider than the window"
    found = Axe().run(page).response["violations"]
    grave = [
        f"{one['id']}: {node['html'][:200]} {node.get('failureSummary', '')[:200]}"
        for one in found
        if one["impact"] in GRAVE
        for node in one["nodes"]
    ]
    assert grave == []
    kept = KEPT.get((name, size, theme))
    if pictures is not None and kept is not None:
        page.screenshot(path=pictures / kept)


def test_charts_are_drawn_and_times_are_told_in_the_readers_zone(walker: Walker) -> None:
    page, _ = open_page(walker[0], "/dashboard")
    drawn = page.evaluate(
        "[...document.querySelectorAll('canvas[data-chart]')].every((one) => Chart.getChart(one))"
    )
    assert drawn
    titles = page.locator("time[datetime]").evaluate_all("(times) => times.map((t) => t.title)")
    assert titles
    assert all("where you are" in title for title in titles)


def test_the_picker_is_reached_and_used_by_keyboard(walker: Walker) -> None:
    page, _ = open_page(walker[0], "/dashboard")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "7 days":
            break
    page.keyboard.press("Enter")
    page.wait_for_url("**/dashboard?range=7d")
    expect(page.locator(".picker-ranges [aria-current]")).to_have_text("7 days")
    summary = page.locator(".picker-custom summary")
    summary.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("From")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_label("From")).to_be_hidden()


def test_the_theme_is_kept_once_it_is_chosen(walker: Walker) -> None:
    context, _, theme = walker
    page, _ = open_page(context, "/dashboard")
    page.get_by_role("button", name="Theme").click()
    other = "light" if theme == "dark" else "dark"
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", other)


def test_signing_out_ends_the_session(browser: Browser, service: Service) -> None:
    context = browser.new_context(base_url=service.address)
    page = context.new_page()
    page.goto("/dashboard/users?range=7d")
    page.get_by_label("API key").fill(service.admin_key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/dashboard/users?range=7d", timeout=PATIENCE_MS)
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/dashboard/sign-in", timeout=PATIENCE_MS)
    page.goto("/dashboard")
    expect(page.get_by_label("API key")).to_be_visible()
    context.close()
