"""What went wrong in the log-wrapping service cannot here; formulas that were run are run again."""

import asyncio
from typing import Any

import httpx
import pytest
from sqlalchemy import DateTime, create_engine, delete, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.orm.exc import ObjectDeletedError

from app.core.clock import FrozenClock, rfc3339
from app.db.types import table_of
from app.retention import wrap as wrapping
from app.retention.wrap import wrap
from app.runtime import Runtime
from app.summaries.tables import WrappedUsage
from app.usage.tables import UsageEvent
from tests.conftest import START
from tests.integration.wraps import assert_accounted, call, ids_in_log, ids_kept, parts_of, send
from tests.properties.books import rows_of

pytestmark = pytest.mark.anyio
WRAP = "/v1/users/ann/logs/wrap"
READS = (
    "/v1/users/ann/usage?billing_period=2026-08",
    "/v1/users/ann/usage/monthly?year=2026&month=8",
    "/v1/users/ann/usage/trends?periods=6",
    "/v1/users/ann/usage/daily?date=2026-08-21",
    "/v1/analytics/costs?days=365",
)


class Old(DeclarativeBase):
    pass


class OldLog(Old):
    __tablename__ = "logs"

    id: Mapped[int] = mapped_column(primary_key=True)
    timestamp: Mapped[Any] = mapped_column(DateTime)


def _old_wrap(session: Session) -> dict[str, Any]:
    """As it was written: the rows are folded and deleted, then their times are asked for."""
    logs = session.scalars(select(OldLog)).all()
    try:
        session.execute(
            delete(OldLog).where(OldLog.id.in_([1, 2])),
            execution_options={"synchronize_session": False},
        )
        session.commit()
        return {"wrapped": True, "start": min(log.timestamp for log in logs)}
    except ObjectDeletedError as error:
        session.rollback()
        return {"wrapped": False, "error": type(error).__name__}


async def test_d0_1_what_was_wrapped_is_told_as_wrapped(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    engine = create_engine("sqlite://")
    Old.metadata.create_all(engine)
    naive = START.replace(tzinfo=None)
    with Session(engine) as session:
        session.add_all([OldLog(id=1, timestamp=naive), OldLog(id=2, timestamp=naive)])
        session.commit()
        assert _old_wrap(session) == {"wrapped": False, "error": "ObjectDeletedError"}
        assert session.scalars(select(OldLog)).all() == []  # and yet they are gone
    engine.dispose()

    await send(client, [call(1, days=91), call(2, days=91)])
    answer = await client.post(WRAP)
    told = answer.json()
    assert (answer.status_code, told["wrapped"], told["wrapped_events"]) == (200, True, 2)
    assert told["groups"][0]["from"] == "2026-08-21T12:29:58Z"
    assert await ids_in_log(runtime.db) == []


async def test_d0_2_history_keeps_its_models_and_endpoints(client: httpx.AsyncClient) -> None:
    models = ("gpt-4o-mini", "gpt-4o")
    await send(
        client,
        [call(n, days=91, model=model, endpoint=f"/{n}") for n, model in enumerate(models)],
    )
    path = "/v1/users/ann/usage?billing_period=2026-08"
    before = (await client.get(path)).json()
    await client.post(WRAP)
    after = (await client.get(path)).json()
    assert after["providers"] == before["providers"]
    assert set(after["providers"]["openai"]["models"]) == set(models)
    items = (await client.get("/v1/users/ann/events")).json()["items"]
    assert {(one["model"], one["endpoint"]) for one in items} == {
        ("gpt-4o-mini", "/0"),
        ("gpt-4o", "/1"),
    }


async def test_d0_3_no_figure_moves_when_a_log_is_wrapped(client: httpx.AsyncClient) -> None:
    await send(client, [call(n, days=91, latency_ms=10 * n) for n in range(1, 6)])
    await send(client, [call(9, days=91, status_code=503)])
    before = [(await client.get(path)).json() for path in READS]
    await client.post(WRAP)
    assert [(await client.get(path)).json() for path in READS] == before
    proof = (await client.get("/v1/audit/consistency")).json()
    assert proof["consistent"], proof["differences"]


async def test_d0_4_as_many_detailed_rows_stay_however_often_it_runs(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    body = {"max_rows": 6, "keep_rows": 4}
    await client.put("/v1/retention", json=body)
    for turn in range(4):
        await send(client, [call(n, days=4 - turn, id=f"{turn}-{n}") for n in range(7)])
        told = (await client.post(WRAP)).json()
        assert told["total_after"] == 4
        assert len(await ids_in_log(runtime.db)) == 4
    await assert_accounted(runtime.db)


async def test_d0_5_two_wraps_at_once_fold_each_row_once(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await send(client, [call(n, days=91) for n in range(20)])
    answers = await asyncio.gather(*(client.post(WRAP) for _ in range(4)))
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert sum(answer.json().get("wrapped_events", 0) for answer in answers) == 20
    await assert_accounted(runtime.db)


async def test_d0_6_age_and_count_apply_in_one_run(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    await client.put("/v1/retention", json={"max_rows": 4, "keep_rows": 3, "max_age_days": 30})
    await send(client, [call(n) for n in range(6)] + [call(n, days=40) for n in range(6, 8)])
    told = (await client.post(WRAP)).json()
    assert len(told["trigger_reasons"]) == 2
    assert (told["wrapped_events"], told["total_after"]) == (5, 3)


async def test_d0_7_one_provider_is_one_group_under_the_name_it_came_with(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    hub = {"provider": "huggingface", "model": "openai/gpt-oss-120b:groq"}
    await send(client, [call(n, days=91, **hub) for n in range(2)])
    (group,) = (await client.post(WRAP)).json()["groups"]
    assert (group["provider"], group["calls"]) == ("huggingface", 2)
    rows = await runtime.db.read(lambda tx: rows_of(tx, WrappedUsage))
    assert {(row["provider"], row["model"]) for row in rows} == {tuple(hub.values())}


async def test_d0_8_every_hour_keeps_its_own_cost(client: httpx.AsyncClient) -> None:
    await send(client, [call(n * 40_000, days=91) for n in range(4)])
    path = "/v1/users/ann/usage/series?grain=day&from=2026-08-18T00:00:00Z&to=2026-08-22T00:00:00Z"
    before = (await client.get(path)).json()
    await client.post(WRAP)
    assert (await client.get(path)).json() == before
    items = (await client.get("/v1/users/ann/events")).json()["items"]
    assert len({one["hour"] for one in items}) == 4


async def test_d0_9_the_error_rate_stays_what_it_was(client: httpx.AsyncClient) -> None:
    statuses = (200, 500, 200, 429)
    await send(client, [call(n, days=91, status_code=code) for n, code in enumerate(statuses)])
    await client.post(WRAP)
    path = "/v1/users/ann/usage?billing_period=2026-08"
    assert (await client.get(path)).json()["error_rate"] == 50
    items = (await client.get("/v1/users/ann/events")).json()["items"]
    assert sorted((one["status_code"], one["calls"], one["errors"]) for one in items) == [
        (200, 2, 0),
        (429, 1, 1),
        (500, 1, 1),
    ]


async def test_d0_10_rows_are_taken_a_bounded_number_at_a_time(
    client: httpx.AsyncClient, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wrapping, "CHUNK", 10)
    sizes: list[int] = []
    write = runtime.store.write

    async def counted(archive_id: str, month: Any, entries: Any) -> Any:
        sizes.append(len(entries))
        return await write(archive_id, month, entries)

    monkeypatch.setattr(runtime.store, "write", counted)
    await send(client, [call(n, days=91) for n in range(25)])
    await wrap(parts_of(runtime), ["ann"])
    assert sizes == [10, 10, 5]
    await assert_accounted(runtime.db)


async def test_d0_11_a_read_deletes_nothing_and_odd_rows_are_wrapped(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    bare = {"user_id": "ann", "id": "bare", "timestamp": rfc3339(clock.now().replace(month=1))}
    await send(client, [bare])
    await client.get("/v1/users/ann/events")
    await client.get("/v1/users/ann/usage")
    assert await ids_in_log(runtime.db) == ["bare"]
    assert (await client.post(WRAP)).json()["wrapped_events"] == 1
    naive = bare | {"id": "naive", "timestamp": "2026-11-20T12:00:00"}
    assert (await client.post("/v1/events", json=naive)).status_code == 422
    await assert_accounted(runtime.db)


async def test_d0_12_what_is_not_summed_is_in_the_archive_and_comes_back(
    client: httpx.AsyncClient, runtime: Runtime
) -> None:
    own = {"user_agent": "curl/8", "retry_count": 3, "request_bytes": 9, "tags": {"a": "b"}}
    await send(client, [call(n, days=91, latency_ms=n + 1, **own) for n in range(4)])
    log = table_of(UsageEvent)
    ordered = select(log).order_by(log.c.event_id)
    before = [tuple(row) for row in await runtime.db.read(lambda tx: tx.fetch(ordered))]
    await client.post(WRAP)
    (group,) = (await client.get("/v1/users/ann/events")).json()["items"]
    assert (group["min_latency_ms"], group["max_latency_ms"], group["retries"]) == (1, 4, 12)
    (archive,) = (await client.get("/v1/archives")).json()["items"]
    restored = await client.post(f"/v1/archives/{archive['id']}/restore")
    assert restored.status_code == 200, restored.text
    after = [tuple(row) for row in await runtime.db.read(lambda tx: tx.fetch(ordered))]
    assert after == before
    assert await ids_kept(runtime.db) == 0
    await assert_accounted(runtime.db)
