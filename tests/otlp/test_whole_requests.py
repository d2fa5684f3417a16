"""However many calls a request tells of: it is recorded whole, or not at all and 503 says so."""

from typing import Any

import httpx
import pytest

from app.core.errors import Unavailable
from app.ingest.otlp import parts, settle
from tests.otlp.scenarios import call, send_spans, span, sums_of

pytestmark = pytest.mark.anyio
MANY = 1_200


def many(count: int = MANY) -> list[dict[str, Any]]:
    """So many calls of one user, each in a trace of its own."""
    return [
        call(
            1,
            trace=place,
            start_ms=place,
            end_ms=place + 100,
            user__id="alice",
            gen_ai__response__id=f"chatcmpl-{place:016d}",
        )
        for place in range(1, count + 1)
    ]


async def calls(client: httpx.AsyncClient) -> int:
    found: int = (await sums_of(client, "alice"))["alice"]["total_calls"]
    return found


async def test_a_request_that_is_answered_503_left_nothing_behind(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, seen = settle.keep, []

    async def failing(*args: Any) -> None:
        await kept(*args)
        seen.append(args)
        if len(seen) == 1:
            raise Unavailable("the database went away")

    monkeypatch.setattr(settle, "keep", failing)
    spans = many()
    answer = await send_spans(client, *spans)
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    assert await calls(client) == 0

    for _ in range(2):
        assert (await send_spans(client, *spans)).status_code == 200
        assert await calls(client) == MANY


async def test_many_calls_whose_user_is_known_from_before_are_booked_to_that_user(
    client: httpx.AsyncClient,
) -> None:
    """What was planned before the transaction gives way to what is found in it."""
    above = span(9, trace=1, user__id="bob")
    assert (await send_spans(client, above)).status_code == 200
    below = [
        call(
            place + 10,
            trace=1,
            parent=9,
            start_ms=500 * place,
            end_ms=500 * place + 100,
            gen_ai__response__id=f"chatcmpl-{place:016d}",
        )
        for place in range(300)
    ]
    assert (await send_spans(client, *below)).status_code == 200
    sums = await sums_of(client, "bob", "unknown")
    assert [sums[user]["total_calls"] for user in ("bob", "unknown")] == [300, 0]


async def test_a_request_beyond_the_bound_is_settled_in_parts(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "AT_ONCE", 100)
    spans = many(250)
    for _ in range(2):
        assert (await send_spans(client, *spans)).status_code == 200
        assert await calls(client) == 250
