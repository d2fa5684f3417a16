"""Recording: in the background, once, whatever happens in between."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.faults.service import ADMIN, Service
from tollgate_client import AsyncTollgate, QueueFull, Tollgate


def test_what_is_recorded_is_there_after_a_flush(gate: Tollgate, user: str, said: Any) -> None:
    event_id = gate.record(
        user_id=user,
        provider="openai",
        model="gpt-4o-mini",
        usage={"input_tokens": 1000, "output_tokens": 10},
        cost_usd=Decimal("0.0015"),
        tags={"feature": "inbox"},
    )
    assert gate.flush()
    (event,) = said(f"/v1/users/{user}/events")
    assert (event["id"], event["cost_usd"], event["cost_status"]) == (
        event_id,
        "0.0015",
        "provided",
    )
    stats = gate.stats
    assert (stats.taken, stats.delivered, stats.waiting, stats.failed_attempts) == (1, 1, 0, 0)


def test_an_event_that_is_recorded_again_counts_once(gate: Tollgate, user: str, said: Any) -> None:
    event = {"id": "mine", "timestamp": datetime.now(UTC), "usage": {"input_tokens": 5}}
    for _ in range(3):
        gate.record(user_id=user, **event)  # type: ignore[typeddict-item]
    assert gate.flush()
    assert len(said(f"/v1/users/{user}/events")) == 1
    assert gate.stats.duplicates == 2


async def _record_async(service: Service, user: str) -> int:
    async with AsyncTollgate(service.base, ADMIN) as gate:
        for place in range(1500):
            gate.record(user_id=user, usage={"input_tokens": place})
        assert await gate.flush()
        return gate.stats.delivered


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_awaiting_client_records_too(service: Service, user: str, said: Any) -> None:
    assert await _record_async(service, user) == 1500
    usage = said(f"/v1/users/{user}/usage")
    assert (usage["total_calls"], usage["input_tokens"]) == (1500, sum(range(1500)))


def test_an_event_that_the_service_refuses_leaves_the_others_alone(
    gate: Tollgate, user: str, said: Any, caplog: pytest.LogCaptureFixture
) -> None:
    gate.record(user_id=user, usage={"input_tokens": 1})
    gate.record(user_id=user, usage={"input_tokens": 1, "cache_read_tokens": 2})
    gate.record(user_id=user, usage={"no_such_counter": 1})
    gate.record(user_id=user, usage={"input_tokens": 2})
    assert gate.flush()
    assert said(f"/v1/users/{user}/usage")["input_tokens"] == 3
    assert (gate.stats.refused, gate.stats.delivered) == (2, 2)
    assert "event.refused" in caplog.text


def test_impossible_events_are_told_at_once(gate: Tollgate) -> None:
    with pytest.raises(ValueError, match="not both"):
        gate.record(user_id="u", usage={}, response={})
    with pytest.raises(ValueError, match="user_id"):
        gate.record(user_id="")
    with pytest.raises(TypeError, match="no such field: modle"):
        gate.record(user_id="u", modle="x")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="decimal"):
        gate.record(user_id="u", cost_usd=0.1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="offset"):
        gate.record(user_id="u", timestamp=datetime(2026, 1, 1))  # noqa: DTZ001
    assert gate.stats.taken == 0


def test_a_full_queue_drops_loudly_or_raises(caplog: pytest.LogCaptureFixture) -> None:
    away = "http://127.0.0.1:9"
    open_gate = Tollgate(away, "k", queue_events=2, close_within_s=0.1)
    for _ in range(5):
        open_gate.record(user_id="u")
    assert (open_gate.stats.waiting, open_gate.stats.dropped) == (2, 3)
    assert "event.dropped" in caplog.text
    assert open_gate.close() == 2
    assert "delivery.lost events=2" in caplog.text
    closed_gate = Tollgate(away, "k", queue_events=1, on_error="closed", close_within_s=0.1)
    closed_gate.record(user_id="u")
    with pytest.raises(QueueFull):
        closed_gate.record(user_id="u")
    closed_gate.close()


def test_a_wrong_key_keeps_the_events_and_says_why(service: Service) -> None:
    gate = Tollgate(service.base, "tg_wrong", close_within_s=0.2)
    gate.record(user_id="u")
    assert not gate.flush(0.3)
    assert gate.stats.last_failure is not None
    assert gate.stats.last_failure.startswith("401")
    assert gate.close() == 1
