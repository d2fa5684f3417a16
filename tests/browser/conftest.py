"""A real browser on a real service. Run with `make test-browser`; needs a chromium."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from app.demo.child import Service, serving
from tests.browser.filled import fill

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ROOT = Path(__file__).parents[2]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--screenshots",
        nargs="?",
        const=str(ROOT / "docs" / "images"),
        metavar="FOLDER",
        help="write pictures of the pages, to docs/images unless told",
    )


@pytest.fixture(scope="session")
def pictures(pytestconfig: pytest.Config) -> Path | None:
    """Where pictures are asked for."""
    folder = pytestconfig.getoption("--screenshots")
    if folder is None:
        return None
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a chromium: the one that CHROMIUM names, or one that is installed."""
    named = os.environ.get("CHROMIUM")
    found = shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.exit(
            f"no chromium at {named}"
            if named
            else "no chromium found; install one, or say where "
            "it is: make test-browser CHROMIUM=/path/to/chromium",
            returncode=2,
        )
    return found


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    """A browser without a window."""
    apart = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=chromium,
            args=[*apart, "--disable-gpu", "--disable-background-networking"],
            timeout=120_000,
        )
        yield found
        found.close()


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """A service with three months of usage."""
    with serving() as found:
        fill(found)
        yield found
