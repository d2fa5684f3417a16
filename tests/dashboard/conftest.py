"""Browsers that are signed in, and usage for their pages to show."""

import re
from collections.abc import Awaitable, Callable, Sequence
from html import unescape
from typing import Any

import httpx
import pytest

from app.access.keys import create_key
from app.core.clock import FrozenClock
from app.runtime import Runtime
from tests.conftest import ADMIN

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SignIn = Callable[..., Awaitable[httpx.AsyncClient]]


@pytest.fixture
def browser(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """A browser that shows no key and is not signed in."""
    client.headers.pop("authorization")
    return client


@pytest.fixture
async def signed_in(browser: httpx.AsyncClient) -> httpx.AsyncClient:
    """A browser that is signed in with the admin key."""
    await enter(browser, ADMIN)
    return browser


@pytest.fixture
def signed_in_with(browser: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock) -> SignIn:
    """Sign a browser in with a new key of these scopes, bound to a user or not."""

    async def sign_in(*scopes: str, user_id: str | None = None) -> httpx.AsyncClient:
        await enter(browser, (await new_key(runtime, clock, scopes, user_id))[1])
        return browser

    return sign_in


async def new_key(
    runtime: Runtime, clock: FrozenClock, scopes: Sequence[str], user_id: str | None = None
) -> tuple[str, str]:
    """The id of a new key, and the key."""
    key, token = await runtime.db.write(
        lambda tx: create_key(
            tx, name="hers", scopes=scopes, user_id=user_id, expires_at=None, now=clock.now()
        ),
        alone=True,
    )
    return key.id, token


async def enter(browser: httpx.AsyncClient, key: str) -> httpx.Response:
    """Sign in by the form."""
    answer = await browser.post("/dashboard/sign-in", data={"key": key})
    assert answer.status_code == 303, answer.text
    return answer


async def csrf_of(browser: httpx.AsyncClient) -> str:
    """The token that the forms of a page carry."""
    answer = await browser.get("/dashboard/overview/endpoints")
    answer = (
        await browser.get("/dashboard", follow_redirects=True) if answer.is_redirect else answer
    )
    page = answer.text if "csrf" in answer.text else (await browser.get("/dashboard")).text
    found = re.search(r'name="csrf" value="([^"]+)"', page)
    assert found, page
    return unescape(found[1])


async def send(runtime_client: httpx.AsyncClient, *events: dict[str, Any]) -> None:
    """Record events with the admin key."""
    answer = await runtime_client.post(
        "/v1/events", json=list(events), headers={"Authorization": f"Bearer {ADMIN}"}
    )
    assert answer.status_code == 200, answer.text


def call(user_id: str = "alice", **more: Any) -> dict[str, Any]:
    """An event as a client sends it."""
    return {
        "user_id": user_id,
        "provider": "openai",
        "model": "gpt-4o-mini",
        "usage": {"input_tokens": 4_000, "cache_read_tokens": 1_000, "output_tokens": 600},
        **more,
    }
