"""Langfuse batches: a generation is one call, however many requests tell of it."""

from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.core.clock import FrozenClock
from app.runtime import Runtime
from tests.foreign.captured import events_of

pytestmark = pytest.mark.anyio
AT = "2026-11-21T01:59:00.000Z"
START, END = "2026-11-21T01:58:58.000Z", "2026-11-21T01:58:59.500Z"


def item(item_id: str, kind: str, **body: Any) -> dict[str, Any]:
    return {"id": item_id, "type": kind, "timestamp": AT, "body": body}


TRACE = item("e1", "trace-create", id="t1", userId="alice", sessionId="s1", name="chat")
CREATE = item(
    *("e2", "generation-create"),
    id="g1",
    traceId="t1",
    model="gpt-4o",
    startTime=START,
    input=[{"role": "user", "content": "secret prompt"}],
)
UPDATE = item(
    *("e3", "generation-update"),
    id="g1",
    traceId="t1",
    endTime=END,
    output="secret answer",
    usage={"input": 1200, "output": 340, "total": 1540, "unit": "TOKENS"},
)


async def send(client: httpx.AsyncClient, *items: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post("/api/public/ingestion", json={"batch": items})
    assert answer.status_code == 207, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def the_call(client: httpx.AsyncClient, user: str = "alice") -> dict[str, Any]:
    [event] = await events_of(client, user)
    return event


def check(event: dict[str, Any]) -> None:
    assert event["id"] == "g1"
    assert event["usage"] == {"input_tokens": 1200, "output_tokens": 340}
    assert (event["cost_usd"], event["cost_status"]) == ("0.0064", "priced")
    assert (event["session_id"], event["latency_ms"]) == ("s1", 1500)


async def test_create_and_update_in_one_request_are_one_call(client: httpx.AsyncClient) -> None:
    for _ in range(2):
        answer = await send(client, TRACE, CREATE, UPDATE)
        assert [one["id"] for one in answer["successes"]] == ["e1", "e2", "e3"]
        assert answer["errors"] == []
        check(await the_call(client))


@pytest.mark.parametrize(
    "order",
    [(TRACE, CREATE, UPDATE), (UPDATE, CREATE, TRACE), (CREATE, TRACE, UPDATE)],
    ids=["as_made", "backwards", "trace_between"],
)
async def test_parts_in_several_requests_are_one_call_in_any_order(
    client: httpx.AsyncClient, order: tuple[dict[str, Any], ...]
) -> None:
    for _ in range(2):
        for one in order:
            await send(client, one)
    check(await the_call(client))
    totals = (await client.get("/v1/analytics/totals")).json()
    assert totals["total_calls"] == 1


async def test_a_call_that_nobody_ends_is_recorded_with_its_usage_unknown_and_corrected_later(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await send(client, TRACE, CREATE)
    assert await events_of(client, "alice") == []
    assert not await runtime.langfuse.is_due()
    clock.advance(timedelta(minutes=6))
    assert await runtime.langfuse.is_due()
    await runtime.langfuse.finish()
    assert not await runtime.langfuse.is_due()
    event = await the_call(client)
    assert (event["cost_usd"], event["cost_status"]) == (None, "unpriced")
    assert event["context"] == {"usage": "unknown"}

    for _ in range(2):
        assert (await send(client, UPDATE))["errors"] == []
        event = await the_call(client)
        check(event)
        assert not event["context"]
    totals = (await client.get("/v1/analytics/totals")).json()
    assert (totals["total_calls"], totals["total_cost_usd"]) == (1, "0.0064")
    assert (await client.get("/v1/audit/consistency")).json()["consistent"]


async def test_a_user_named_by_nobody_is_booked_to_unknown(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await send(client, CREATE, UPDATE)
    clock.advance(timedelta(minutes=6))
    await runtime.langfuse.finish()
    assert (await the_call(client, "unknown"))["usage"]["input_tokens"] == 1200
    assert runtime.foreign.tally.read()["langfuse", "unknown_user"] == 1
    await send(client, TRACE)
    assert await events_of(client, "alice") == []


async def test_parts_are_forgotten_after_a_day(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await send(client, TRACE, CREATE, UPDATE)
    assert not await runtime.langfuse.is_due()
    clock.advance(timedelta(days=1, seconds=1))
    assert await runtime.langfuse.is_due()
    await runtime.langfuse.finish()
    assert not await runtime.langfuse.is_due()
    await send(client, TRACE, CREATE, UPDATE)
    check(await the_call(client))


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        (
            {
                "input": 176,
                "input_cached_tokens": 1024,
                "output": 276,
                "output_reasoning_tokens": 64,
            },
            {
                "input_tokens": 1200,
                "cache_read_tokens": 1024,
                "output_tokens": 340,
                "output_reasoning_tokens": 64,
            },
        ),
        (
            {
                "prompt_tokens": 1200,
                "completion_tokens": 340,
                "prompt_tokens_details": {"cached_tokens": 1024},
            },
            {"input_tokens": 1200, "cache_read_tokens": 1024, "output_tokens": 340},
        ),
        (
            {
                "input": 500,
                "cache_read_input_tokens": 2000,
                "cache_creation_input_tokens": 500,
                "output": 200,
            },
            {
                "input_tokens": 3000,
                "cache_read_tokens": 2000,
                "cache_write_tokens": 500,
                "output_tokens": 200,
            },
        ),
    ],
    ids=["langfuses_own_names", "openais", "anthropics"],
)
async def test_usage_details_are_read_by_their_names(
    client: httpx.AsyncClient, details: dict[str, Any], expected: dict[str, int]
) -> None:
    call = item("e2", "generation-create", id="g1", traceId="t1", usageDetails=details)
    call["body"] |= {"model": "gpt-4o", "startTime": START, "endTime": END}
    assert (await send(client, TRACE, call))["errors"] == []
    assert (await the_call(client))["usage"] == expected


async def test_an_error_is_recorded_as_one(client: httpx.AsyncClient) -> None:
    failed = item("e3", "generation-update", id="g1", level="ERROR", endTime=END)
    failed["body"]["statusMessage"] = "429 too many"
    await send(client, TRACE, CREATE, failed)
    event = await the_call(client)
    assert (event["status_code"], event["error_message"]) == (500, "429 too many")


async def test_what_is_no_item_is_refused_alone(client: httpx.AsyncClient) -> None:
    answer = await send(
        client,
        TRACE,
        CREATE,
        UPDATE,
        {"id": "x1", "type": "generation-create", "timestamp": AT},
        {"type": "score-create"},
        item("x2", "generation-create", id="g2", usage={"input": "many"}),
        item("x3", "generation-create", id="g3", traceId="t1", startTime="yesterday"),
        item("x4", "score-create", value=1),
        "nothing",  # type: ignore[arg-type]
        item(
            *("x5", "generation-create"),
            id="g4",
            traceId="t1",
            startTime="1999-01-01T00:00:00Z",
            usage={"input": 1, "output": 1},
        ),
    )
    assert [one["id"] for one in answer["successes"]] == ["e1", "e2", "e3", "x4"]
    assert [one["error"] for one in answer["errors"]] == [
        "/batch/3/body/id",
        "/batch/4/id",
        "/batch/5/body/usage/input",
        "/batch/6/body/startTime",
        "/batch/8",
        "/batch/9/body",
    ]
    check(await the_call(client))


async def test_what_is_no_batch_is_refused(client: httpx.AsyncClient) -> None:
    for body in (b"", b"{", b"[]", b"{}", b'{"batch": 5}', b"\xff"):
        answer = await client.post(
            "/api/public/ingestion", content=body, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 400, (body, answer.text)


async def test_a_cost_that_is_told_no_more_gives_way_in_any_order(
    client: httpx.AsyncClient,
) -> None:
    ended = {"endTime": END, "traceId": "t1"}
    first = item("e3", "generation-update", id="g1", usage={"input": 9, "totalCost": 5}, **ended)
    last = item("e4", "generation-update", id="g1", usage={"input": 1200, "output": 340}, **ended)
    last["timestamp"] = "2026-11-21T01:59:01.000Z"
    await send(client, TRACE, CREATE, first)
    assert (await the_call(client))["cost_usd"] == "5"
    for _ in range(2):
        assert (await send(client, last))["errors"] == []
        check(await the_call(client))
    assert (await client.get("/v1/audit/consistency")).json()["consistent"]


async def test_an_embedding_is_a_call(client: httpx.AsyncClient) -> None:
    body = {"id": "g1", "traceId": "t1", "model": "text-embedding-3-small", "endTime": END}
    call = item("e2", "embedding-create", usageDetails={"input": 9}, **body)
    assert (await send(client, TRACE, call))["errors"] == []
    assert (await the_call(client))["usage"]["input_tokens"] == 9


async def test_langfuses_clients_may_try_their_key(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/public/projects")
    assert answer.status_code == 200, answer.text
    [project] = answer.json()["data"]
    assert {"id", "name"} <= project.keys()
    wrong = {"authorization": "Bearer wrong"}
    assert (await client.get("/api/public/projects", headers=wrong)).status_code == 401
