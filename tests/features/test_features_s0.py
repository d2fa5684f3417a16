"""What the log-wrapping service could do, each row of it here in the same or a better form."""

from typing import Any

import httpx
import pytest

from app.core.clock import FrozenClock
from app.retention.policy import policy_from
from app.retention.tables import Archive
from app.retention.wrap import wrap
from app.runtime import Runtime
from app.settings import Settings
from app.summaries.tables import WrappedUsage
from tests.integration.wraps import (
    assert_accounted,
    call,
    ids_in_log,
    ids_kept,
    parts_of,
    send,
)
from tests.properties.books import rows_of

pytestmark = pytest.mark.anyio
WRAP = "/v1/users/ann/logs/wrap"


async def bounds(client: httpx.AsyncClient, most: int | None, kept: int | None, days: Any) -> None:
    body = {"max_rows": most, "keep_rows": kept, "max_age_days": days}
    assert (await client.put("/v1/retention", json=body)).status_code == 200


def test_s0_1_s0_2_s0_3_the_same_policy_by_default() -> None:
    settings = Settings()
    told = policy_from(
        settings.retention_max_rows, settings.retention_keep_rows, settings.retention_max_age_days
    )
    assert told[:3] == (5_000, 4_000, 90)


async def test_s0_1_wraps_only_when_there_are_more_than_the_most(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await bounds(client, 5, 4, None)
    await send(client, [call(number) for number in range(5)])
    assert (await client.post(WRAP)).json()["wrapped"] is False
    await send(client, [call(5)])
    assert (await client.post(WRAP)).json()["wrapped_events"] == 2


async def test_s0_2_keeps_the_newest(client: httpx.AsyncClient, runtime: Runtime) -> None:
    await bounds(client, 5, 4, None)
    await send(client, [call(number) for number in (3, 9, 1, 7, 5, 2, 8)])
    told = (await client.post(WRAP)).json()
    assert (told["wrapped_events"], told["total_after"]) == (3, 4)
    assert await ids_in_log(runtime.db) == ["e1", "e2", "e3", "e5"]


async def test_s0_3_wraps_what_is_too_old_however_few(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await send(client, [call(1, days=91), call(2, days=89)])
    assert (await client.post(WRAP)).json()["wrapped_events"] == 1
    assert await ids_in_log(runtime.db) == ["e2"]


async def test_s0_4_any_threshold_of_days_can_be_set(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await send(client, [call(1, days=31), call(2, days=29)])
    await bounds(client, None, None, 30)
    assert (await client.post(WRAP)).json()["wrapped_events"] == 1


async def test_s0_5_says_for_which_reasons(client: httpx.AsyncClient) -> None:
    await bounds(client, 2, 1, 30)
    await send(client, [call(number) for number in range(3)] + [call(9, days=40)])
    age, count = (await client.post(WRAP)).json()["trigger_reasons"]
    assert age.startswith("time-based retention")
    assert count.startswith("count limit")


async def test_s0_6_groups_by_the_provider_as_it_was_named_and_the_billing_period(
    client: httpx.AsyncClient,
) -> None:
    hub = {"provider": "huggingface", "model": "openai/gpt-oss-120b"}
    await send(client, [call(1, days=91), call(2, days=130), call(3, days=91, **hub)])
    groups = (await client.post(WRAP)).json()["groups"]
    assert [(one["provider"], one["billing_period"]) for one in groups] == [
        ("huggingface", "2026-08"),
        ("openai", "2026-07"),
        ("openai", "2026-08"),
    ]


async def test_s0_7_sums_everything(client: httpx.AsyncClient, runtime: Runtime) -> None:
    good = {"latency_ms": 20, "retry_count": 2, "request_bytes": 5}
    await send(client, [call(1, days=91, **good), call(2, days=91, **good)])
    await send(client, [call(3, days=91, status_code=500)])
    before = (await client.get("/v1/users/ann/usage?billing_period=2026-08")).json()
    (told,) = (await client.post(WRAP)).json()["groups"]
    assert (told["calls"], told["errors"]) == (3, 1)
    assert (told["input_tokens"], told["output_tokens"]) == (3006, 21)
    assert told["cost_usd"] == before["total_cost_usd"]
    assert (told["from"], told["to"]) == ("2026-08-21T12:29:57Z", "2026-08-21T12:29:59Z")
    rows = await runtime.db.read(lambda tx: rows_of(tx, WrappedUsage))
    row = next(one for one in rows if one["status_code"] == 200)
    assert (row["latency_us"], row["latency_calls"], row["retries"]) == (40_000, 2, 4)
    assert (row["request_bytes"], row["response_bytes"]) == (10, 0)


async def test_s0_8_a_wrapped_row_says_so_and_keeps_its_names(client: httpx.AsyncClient) -> None:
    await send(client, [call(1, days=91, endpoint="/x"), call(2, days=91, endpoint="/x")])
    await client.post(WRAP)
    (one,) = (await client.get("/v1/users/ann/events")).json()["items"]
    assert (one["kind"], one["calls"], one["errors"]) == ("wrapped", 2, 0)
    assert (one["model"], one["endpoint"]) == ("gpt-4o-mini", "/x")
    assert (one["status_code"], one["retries"]) == (200, 0)


async def test_s0_9_what_is_wrapped_is_never_wrapped_again(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await send(client, [call(number, days=91) for number in range(3)])
    await client.post(WRAP)
    before = await runtime.db.read(lambda tx: rows_of(tx, WrappedUsage))
    told = (await client.post(WRAP)).json()
    assert (told["wrapped"], told["total_before"], told["groups"]) == (False, 0, [])
    assert await runtime.db.read(lambda tx: rows_of(tx, WrappedUsage)) == before


async def test_s0_10_rows_go_in_the_commit_that_brings_their_sums(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await send(client, [call(number, days=91) for number in range(3)])
    await client.post(WRAP)
    assert await ids_in_log(runtime.db) == []
    assert await ids_kept(runtime.db) == 3
    (archive,) = await runtime.db.read(lambda tx: rows_of(tx, Archive))
    assert (archive["state"], archive["events"]) == ("sealed", 3)
    await assert_accounted(runtime.db)


async def test_s0_11_the_result_has_every_figure(client: httpx.AsyncClient) -> None:
    await send(client, [call(1, days=91), call(2)])
    told = (await client.post(WRAP)).json()
    assert (told["wrapped"], told["wrapped_events"]) == (True, 1)
    assert (told["total_before"], told["total_after"]) == (2, 1)
    (group,) = told["groups"]
    assert group.keys() >= {"provider", "billing_period", "calls", "from", "to"}
    assert told["message"] == "wrapped 1 of 2 rows; 1 stay"


async def test_s0_12_reading_the_log_has_it_looked_at(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await send(client, [call(1, days=91)])
    await client.get("/v1/users/ann/events")
    assert await runtime.watch.is_due()
    await runtime.watch.work()
    assert await ids_in_log(runtime.db) == []


async def test_s0_13_what_is_not_needed_says_so(client: httpx.AsyncClient) -> None:
    await send(client, [call(1)])
    told = (await client.post(WRAP)).json()
    assert (told["wrapped"], told["total_before"], told["total_after"]) == (False, 1, 1)
    assert (told["max_rows"], told["keep_rows"], told["max_age_days"]) == (5000, 4000, 90)


async def test_s0_11_many_users_are_told_apart(client: httpx.AsyncClient, runtime: Runtime) -> None:
    await send(client, [call(1, days=91, user=user) for user in ("ann", "bob")])
    ann, bob = await wrap(parts_of(runtime), ["ann", "bob"])
    assert (ann.wrapped_events, bob.wrapped_events) == (1, 1)
