"""Voids, corrections and a period as it was known, over HTTP."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.core.clock import FrozenClock
from app.ingest import correct_run
from tests.integration.rerates import event, post, send

pytestmark = pytest.mark.anyio
WHY = "the gateway was wrong"
ONE = "/v1/users/ann/events/ann-1"


async def told(client: httpx.AsyncClient, path: str, status: int = 200) -> Any:
    answer = await client.get(path)
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_a_correction_answers_with_the_event_as_it_stands_and_its_history(
    client: httpx.AsyncClient,
) -> None:
    await send(client, [event(1, tags={"a": "b"}, task_type="chat")])
    body = {"fields": {"usage": {"input_tokens": 400, "output_tokens": 100}}, "reason": WHY}
    found = await post(client, f"{ONE}/correct", body)
    assert found["usage"] == {"input_tokens": 400, "output_tokens": 100}
    assert (found["cost_usd"], found["cost_status"]) == ("0.00012", "priced")
    assert (found["tags"], found["task_type"], found["voided"]) == ({"a": "b"}, "chat", False)
    assert found["corrections"] == [
        {
            "revision": 2,
            "kind": "correct",
            "reason": WHY,
            "actor": "key_environment",
            "at": "2026-11-20T12:30:00Z",
            "delta_cost_usd": "-0.00003615",
            "cost_usd": "0.00012",
        }
    ]
    shown = await told(client, ONE)
    assert shown == {name: found[name] for name in shown} | {"corrections": 1}
    (listed,) = (await told(client, "/v1/users/ann/events"))["items"]
    assert listed == shown
    explained = await told(client, f"{ONE}/explain")
    assert explained["cost_usd"] == "0.00012"
    assert explained["corrections"] == found["corrections"]
    assert sum(line["quantity"] for line in explained["lines"]) == 500
    usage = await told(client, "/v1/users/ann/usage")
    assert (usage["total_tokens"], usage["total_cost_usd"]) == (500, "0.00012")


async def test_a_voided_event_stays_readable_and_counts_nothing(client: httpx.AsyncClient) -> None:
    await send(client, [event(1), event(2)])
    found = await post(client, f"{ONE}/void", {"reason": WHY})
    assert (found["voided"], found["cost_usd"], found["voided_ids"]) == (True, "0", ["ann-1"])
    assert found["usage"] == {"input_tokens": 0, "output_tokens": 0}
    assert await post(client, f"{ONE}/void", {"reason": "once more"}) == found
    items = (await told(client, "/v1/users/ann/events"))["items"]
    assert [(one["id"], one["voided"]) for one in items] == [("ann-2", False), ("ann-1", True)]
    explained = await told(client, f"{ONE}/explain")
    assert (explained["why"], explained["lines"]) == ("the event was voided", [])
    assert [one["kind"] for one in explained["corrections"]] == ["void"]
    assert (await told(client, "/v1/users/ann/usage"))["total_calls"] == 1
    body = {"fields": {"task_type": "x"}, "reason": WHY}
    refused = await client.post(f"{ONE}/correct", json=body)
    assert refused.status_code == 409
    assert refused.json()["type"] == "/docs/problems#conflict"


async def test_the_same_correction_sent_twice_is_done_once(client: httpx.AsyncClient) -> None:
    await send(client, [event(1)])
    credit = {"cost_usd": "0.5", "reason": WHY}
    first = await post(client, f"{ONE}/correct", credit)
    assert await post(client, f"{ONE}/correct", credit) == first
    keyed = {"Idempotency-Key": "k-1"}
    one = await client.post(f"{ONE}/correct", json=credit, headers=keyed)
    assert one.json()["cost_usd"] == "1.00015615"
    other = await post(client, f"{ONE}/correct", {"fields": {"cost_usd": "2"}, "reason": WHY})
    again = await client.post(f"{ONE}/correct", json=credit, headers=keyed)
    assert (again.status_code, again.json()) == (200, other)
    reused = credit | {"cost_usd": "0.6"}
    refused = await client.post(f"{ONE}/correct", json=reused, headers=keyed)
    assert refused.status_code == 409
    assert refused.json()["type"] == "/docs/problems#id-reused"
    same = {"fields": {"model": "gpt-4o-mini"}, "reason": "changes nothing"}
    assert await post(client, f"{ONE}/correct", same) == other


async def test_a_stated_cost_stays_until_it_is_taken_back(client: httpx.AsyncClient) -> None:
    await send(client, [event(1, cost_usd="0.25")])

    async def corrected(**fields: Any) -> tuple[str | None, str]:
        found = await post(client, f"{ONE}/correct", {"fields": fields, "reason": WHY})
        return found["cost_usd"], found["cost_status"]

    assert await corrected(usage={"input_tokens": 1_000_000}) == ("0.25", "provided")
    assert await corrected(cost_usd=None) == ("0.15", "priced")
    assert await corrected(model="nobody-knows") == (None, "unpriced")
    assert await corrected(model=None, provider="nobody") == (None, "unpriced")
    assert await corrected(cost_usd="0") == ("0", "provided")


async def test_a_response_says_what_was_used(client: httpx.AsyncClient) -> None:
    await send(client, [event(1)])
    usage = {"prompt_tokens": 50, "completion_tokens": 15, "total_tokens": 65}
    response = {"model": "gpt-4.1-mini", "usage": usage}
    body = {"fields": {"response": response}, "reason": WHY}
    found = await post(client, f"{ONE}/correct", body)
    assert found["usage"] == {"input_tokens": 50, "output_tokens": 15}
    assert found["model"] == "gpt-4.1-mini"


BAD: list[tuple[Any, str]] = [
    ({"fields": {}, "reason": WHY}, "/fields"),
    ({"reason": WHY}, "/fields"),
    ({"fields": {"task_type": "x"}}, "/reason"),
    ({"fields": {"task_type": "x"}, "reason": ""}, "/reason"),
    ({"fields": {"task_type": "x"}, "reason": "a\0b"}, "/reason"),
    ({"fields": {"task_type": "x"}, "reason": WHY, "more": 1}, "/more"),
    ({"fields": {"id": "x"}, "reason": WHY}, "/fields/id"),
    ({"fields": {"user_id": "x"}, "reason": WHY}, "/fields/user_id"),
    ({"fields": {"hold_id": "x"}, "reason": WHY}, "/fields/hold_id"),
    ({"fields": {"colour": "x"}, "reason": WHY}, "/fields/colour"),
    ({"fields": {"colour": None}, "reason": WHY}, "/fields/colour"),
    ({"fields": {"timestamp": None}, "reason": WHY}, "/fields/timestamp"),
    ({"fields": {"timestamp": "2026-11-20T12:30:00"}, "reason": WHY}, "/fields/timestamp"),
    ({"fields": {"timestamp": "2027-01-01T00:00:00Z"}, "reason": WHY}, "/fields/timestamp"),
    ({"fields": {"timestamp": "1969-01-01T00:00:00Z"}, "reason": WHY}, "/fields/timestamp"),
    ({"fields": {"usage": None}, "reason": WHY}, "/fields/usage"),
    ({"fields": {"usage": {"input_tokens": -1}}, "reason": WHY}, "/fields/usage/input_tokens"),
    (
        {"fields": {"usage": {"input_tokens": 1, "cache_read_tokens": 2}}, "reason": WHY},
        "/fields/usage/cache_read_tokens",
    ),
    ({"fields": {"cost_usd": "-1"}, "reason": WHY}, "/fields/cost_usd"),
    ({"fields": {"cost_usd": 1.5}, "reason": WHY}, "/fields/cost_usd"),
    ({"fields": {"status_code": 99}, "reason": WHY}, "/fields/status_code"),
    ({"fields": {"model": "a\0b"}, "reason": WHY}, "/fields/model"),
    ({"fields": {"api": "chat"}, "reason": WHY}, "/fields/api"),
    ({"fields": {"response": {"what": 1}}, "reason": WHY}, "/fields/response"),
    ({"fields": {"task_type": "x"}, "cost_usd": "1", "reason": WHY}, "/cost_usd"),
    ({"fields": {"task_type": "x"}, "calls": -1, "reason": WHY}, "/calls"),
    ({"cost_usd": "0", "reason": WHY}, "/cost_usd"),
    ({"cost_usd": "0.0000000001", "reason": WHY}, "/cost_usd"),
    ({"cost_usd": "-1", "reason": WHY}, "/cost_usd"),
    ({"cost_usd": "1", "calls": -2, "reason": WHY}, "/calls"),
    ({"cost_usd": "-0.1", "calls": -1, "reason": WHY}, "/cost_usd"),
    ([], ""),
    ("x", ""),
]


async def test_what_is_wrong_is_refused_with_its_place_and_changes_nothing(
    client: httpx.AsyncClient,
) -> None:
    await send(client, [event(1)])
    before = await told(client, ONE)
    for body, pointer in BAD:
        answer = await client.post(f"{ONE}/correct", json=body)
        assert answer.status_code == 422, (body, answer.text)
        found = answer.json()["errors"][0]["pointer"]
        assert found == pointer or found.startswith(f"{pointer}/"), (body, answer.text)
    for raw in (b"", b"{", b'{"reason":"a","reason":"b"}', b"\xff", b"[" * 10_000):
        for verb in ("void", "correct"):
            answer = await client.post(
                f"{ONE}/{verb}", content=raw, headers={"Content-Type": "application/json"}
            )
            assert answer.status_code == 422, (raw, answer.text)
    assert await told(client, ONE) == before
    for path in ("/v1/users/ann/events/none/void", "/v1/users/bob/events/ann-1/void"):
        answer = await client.post(path, json={"reason": WHY})
        assert answer.status_code == 404
    assert (await told(client, "/v1/users/bob/usage"))["total_calls"] == 0
    huge = {"usage": {"input_tokens": 2**53 - 1}, "cost_usd": "9223372036"}
    await send(client, [event(2, cost_usd="9223372036")])
    answer = await client.post(f"{ONE}/correct", json={"fields": huge, "reason": WHY})
    assert answer.status_code == 422, answer.text
    assert await told(client, ONE) == before


async def test_an_amount_is_added_to_what_the_event_costs(client: httpx.AsyncClient) -> None:
    await send(client, [event(1)])
    found = await post(client, f"{ONE}/correct", {"cost_usd": "-0.0001", "reason": WHY})
    assert (found["cost_usd"], found["cost_status"]) == ("0.00005615", "provided")
    assert found["usage"]["input_tokens"] == 1_001
    usage = await told(client, "/v1/users/ann/usage")
    assert (usage["total_calls"], usage["total_cost_usd"]) == (1, "0.00005615")
    gone = {"cost_usd": "-0.00005615", "calls": -1, "reason": WHY}
    found = await post(client, f"{ONE}/correct", gone)
    assert (found["voided"], found["cost_usd"]) == (True, "0")
    usage = await told(client, "/v1/users/ann/usage")
    assert (usage["total_calls"], usage["total_tokens"]) == (0, 0)


async def test_a_closed_period_tells_what_was_known_and_what_changed_since_p18(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    await send(client, [event(1), event(2), event(3)])
    path = "/v1/users/ann/usage?billing_period=2026-11"
    closed = await told(client, path)
    clock.advance(timedelta(days=20))
    at = "2026-12-01T00:00:00Z"
    late = event(4, timestamp="2026-11-20T10:00:00Z")
    await send(client, [late])
    await post(client, f"{ONE}/void", {"reason": WHY})
    move = {"fields": {"timestamp": "2026-12-01T00:00:00Z"}, "reason": WHY}
    await post(client, "/v1/users/ann/events/ann-2/correct", move)
    now = await told(client, path)
    assert now["total_calls"] == 2
    then = await told(client, f"{path}&as_of={at}")
    for name in ("total_calls", "total_tokens", "total_cost_usd", "providers", "avg_latency_ms"):
        assert then[name] == closed[name], name
    assert (then["limits"], then["alerts"], then["usage_status"]) == (None, None, None)
    assert then["as_of"] == at
    assert then["changed_since"] == {
        "calls": 1,
        "cost_usd": "0.0001746",
        "corrections": 2,
        "corrections_cost_usd": "-0.00031845",
        "rerated_cost_usd": "0",
    }
    items = (await told(client, "/v1/users/ann/events"))["items"]
    assert {one["id"]: one["late"] for one in items} == {
        "ann-4": True,
        "ann-1": False,
        "ann-2": False,
        "ann-3": False,
    }
    before = await told(client, f"{path}&as_of=2026-11-01T00:00:00Z")
    assert (before["total_calls"], before["providers"]) == (0, {})
    later = await told(client, f"{path}&as_of=2030-01-01T00:00:00Z")
    assert later["total_cost_usd"] == now["total_cost_usd"]
    for query in ("as_of=soon", "as_of=2026-11-01T00:00:00", "as_of=", "as_of=%00"):
        assert (await client.get(f"{path}&{query}")).status_code == 422


async def test_an_event_that_is_always_elsewhere_is_answered_with_come_again(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await send(client, [event(1)])

    async def moved(*_: object, **__: object) -> None:
        raise correct_run.Moved

    monkeypatch.setattr(correct_run, "carry_out", moved)
    answer = await client.post(f"{ONE}/void", json={"reason": WHY})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
