"""The middleware: who is asked about, who is served, and who is told to come back later."""

from typing import Any

import httpx
import pytest

from tests.faults.service import ADMIN, Service
from tollgate_client import AsyncTollgate, TollgateMiddleware
from tollgate_client.users import current_user

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the user that calls would be billed to."""
    body = (current_user() or "nobody").encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def asked(gate: AsyncTollgate, header: str | None, **options: Any) -> httpx.Response:
    wrapped = TollgateMiddleware(app, gate=gate, **({"user": "X-User"} | options))
    transport = httpx.ASGITransport(wrapped)
    headers = {} if header is None else {"x-user": header}
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as http:
        return await http.get("/", headers=headers)


async def test_a_user_with_room_is_served_and_known_within(service: Service, user: str) -> None:
    async with AsyncTollgate(service.base, ADMIN) as gate:
        assert (await asked(gate, user)).text == user
        assert (await asked(gate, None)).text == "nobody"
        assert (await asked(gate, None, user=lambda scope: user)).text == user
        assert current_user() is None


async def test_a_spent_limit_is_answered_429(service: Service, user: str, limit: Any) -> None:
    limit(scope={"user_id": user}, amount=0, window="day")
    async with AsyncTollgate(service.base, ADMIN) as gate:
        answer = await asked(gate, user)
    assert (answer.status_code, answer.json()["binding"]["limit"]) == (429, 0)
    assert answer.headers["content-type"] == "application/problem+json"
    assert 1 <= int(answer.headers["retry-after"]) <= 86_400


async def test_a_limit_that_never_resets_is_asked_about_again_in_a_day(
    service: Service, user: str, limit: Any
) -> None:
    limit(scope={"user_id": user}, amount=0, window="lifetime")
    async with AsyncTollgate(service.base, ADMIN) as gate:
        answer = await asked(gate, user)
    assert (answer.status_code, answer.json()["binding"]["resets_at"]) == (429, None)
    assert answer.headers["retry-after"] == "86400"


async def test_what_is_asked_may_be_read_from_the_request(
    service: Service, user: str, limit: Any
) -> None:
    limit(scope={"user_id": user}, amount=0, match={"model": "gpt-4o"})
    async with AsyncTollgate(service.base, ADMIN) as gate:
        for model, status in (("gpt-4o", 429), ("gpt-4o-mini", 200)):
            said = {"provider": "openai", "model": model}
            answer = await asked(gate, user, ask=lambda scope, said=said: said)
            assert answer.status_code == status


async def test_without_the_service_the_choice_decides() -> None:
    away = "http://127.0.0.1:9"
    async with AsyncTollgate(away, "k", on_error="open", timeout_s=0.3) as gate:
        assert (await asked(gate, "u")).status_code == 200
        assert gate.stats.let_through == 1
    async with AsyncTollgate(away, "k", on_error="closed", timeout_s=0.3) as gate:
        answer = await asked(gate, "u")
        assert (answer.status_code, int(answer.headers["retry-after"]) >= 1) == (503, True)
