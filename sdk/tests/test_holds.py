"""Asking and holding before a call, and what happens when nobody can be asked."""

import time
from typing import Any

import httpx
import pytest

from tests.faults.service import ADMIN, HEADERS, Service
from tollgate_client import AsyncTollgate, LimitReached, Refused, Tollgate, Unavailable

AWAY = "http://127.0.0.1:9"
CALL: dict[str, Any] = {
    "provider": "openai",
    "model": "gpt-4o-mini",
    "usage": {"input_tokens": 100, "output_tokens": 100},
}


def test_a_check_tells_where_the_limit_stands(gate: Tollgate, user: str, limit: Any) -> None:
    assert gate.check(user_id=user, **CALL).allowed
    limit(scope={"user_id": user}, amount=150, metric="tokens")
    verdict = gate.check(user_id=user, **CALL)
    assert not verdict.allowed
    assert verdict.binding is not None
    assert (verdict.binding.limit, verdict.binding.remaining) == (150, 150)
    assert verdict.known


def test_a_hold_is_settled_with_what_was_used(
    gate: Tollgate, user: str, limit: Any, said: Any
) -> None:
    limit(scope={"user_id": user}, amount=1000, metric="tokens")
    with gate.hold(user_id=user, **CALL) as hold:
        (state,) = said(f"/v1/users/{user}/limits")
        assert (state["used"], state["held"]) == (0, 200)
        hold.used(usage={"input_tokens": 90, "output_tokens": 10}, latency_ms=3)
    (state,) = said(f"/v1/users/{user}/limits")
    assert (state["used"], state["held"]) == (100, 0)
    (event,) = said(f"/v1/users/{user}/events")
    assert (event["id"], event["model"]) == (hold.event_id, "gpt-4o-mini")


def test_a_hold_is_released_when_the_call_fails(
    gate: Tollgate, user: str, limit: Any, said: Any
) -> None:
    limit(scope={"user_id": user}, amount=1000, metric="tokens")
    with pytest.raises(ZeroDivisionError), gate.hold(user_id=user, **CALL):
        raise ZeroDivisionError
    (state,) = said(f"/v1/users/{user}/limits")
    assert (state["used"], state["held"]) == (0, 0)
    with pytest.raises(ZeroDivisionError), gate.hold(user_id=user, **CALL) as hold:
        raise ZeroDivisionError(hold.used(usage={"input_tokens": 7}))
    (state,) = said(f"/v1/users/{user}/limits")
    assert (state["used"], state["held"]) == (7, 0)


def test_a_hold_that_does_not_fit_is_refused(gate: Tollgate, user: str, limit: Any) -> None:
    limit(scope={"user_id": user}, amount=150, metric="tokens")
    with pytest.raises(LimitReached) as told, gate.hold(user_id=user, **CALL):
        pytest.fail("the call was made")
    assert told.value.binding is not None
    assert told.value.binding.limit == 150
    assert told.value.retry_after_s is not None
    assert told.value.retry_after_s > 0


def test_a_hold_outlives_its_time_while_the_call_runs(
    gate: Tollgate, user: str, limit: Any, said: Any
) -> None:
    limit(scope={"user_id": user}, amount=1000, metric="tokens")
    with gate.hold(user_id=user, ttl_s=1, **CALL) as hold:
        time.sleep(2.2)
        (state,) = said(f"/v1/users/{user}/limits")
        assert state["held"] == 200
    assert said(f"/v1/holds/{hold.id}")["status"] == "released"


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_awaiting_client_checks_and_holds(service: Service, user: str) -> None:
    async with AsyncTollgate(service.base, ADMIN, on_error="closed") as gate:
        assert (await gate.check(user_id=user, **CALL)).allowed
        async with gate.hold(user_id=user, **CALL) as hold:
            hold.used(usage={"input_tokens": 5})
        assert gate.stats.delivered == 1
        with pytest.raises(ZeroDivisionError):
            async with gate.hold(user_id=user, **CALL) as hold:
                raise ZeroDivisionError
    async with httpx.AsyncClient(headers=HEADERS, trust_env=False) as http:
        answer = await http.get(f"{service.base}/v1/holds/{hold.id}")
    assert answer.json()["status"] == "released"


def test_a_wrong_question_is_refused_whatever_the_choice(service: Service) -> None:
    with Tollgate(service.base, ADMIN, on_error="open") as gate:
        with pytest.raises(Refused) as told:
            gate.check(user_id="u", usage={"no_such_counter": 1})
        assert told.value.status == 422
        assert told.value.errors


def test_open_lets_calls_through_and_counts_them(caplog: pytest.LogCaptureFixture) -> None:
    gate = Tollgate(AWAY, "k", on_error="open", timeout_s=0.3, close_within_s=0.1)
    verdict = gate.check(user_id="u")
    assert (verdict.allowed, verdict.known) == (True, False)
    with gate.hold(user_id="u", **CALL) as hold:
        assert not hold.granted
        hold.used(usage={"input_tokens": 5})
    assert (gate.stats.let_through, gate.stats.waiting) == (2, 1)
    assert "call.let_through" in caplog.text
    assert "ConnectError" in verdict.message
    gate.close()


def test_closed_lets_nothing_through() -> None:
    with Tollgate(AWAY, "k", on_error="closed", timeout_s=0.3) as gate:
        with pytest.raises(Unavailable):
            gate.check(user_id="u")
        with pytest.raises(Unavailable), gate.hold(user_id="u", **CALL):
            pytest.fail("the call was made")
        assert gate.stats.let_through == 0
