"""`tollgate import`: what others kept is recorded once, and nothing is dropped silently."""

import asyncio
import csv
import io
import json
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from typer.testing import CliRunner

from app.cli import app as terminal
from app.core.clock import FrozenClock, rfc3339
from app.ingest.imports.formats import Format, converter
from app.ingest.imports.litellm_spend import read_spend
from app.ingest.imports.records import Record, read_records
from app.ingest.imports.runner import Rejected, Report, run_import
from app.ingest.imports.senders import OwnDoor, Rehearsal, Result, Sender, Service
from app.main import create_asgi
from app.pricing.catalog import Catalog
from app.runtime import Runtime, build
from tests.api.test_exports_api import calls, record
from tests.conftest import ADMIN, settings_for
from tests.postgres import drop_database, new_database

pytestmark = pytest.mark.anyio
SPEND: dict[str, Any] = {
    "request_id": "chatcmpl-1",
    "call_type": "acompletion",
    "api_key": "hash",
    "spend": 0.00030000000000000003,
    "prompt_tokens": 1200,
    "completion_tokens": 300,
    "startTime": "2026-11-20T12:00:00.500",
    "endTime": "2026-11-20T12:00:02",
    "completionStartTime": "2026-11-20T12:00:01",
    "model": "openai/gpt-4o-mini",
    "model_group": "cheap",
    "user": "alice",
    "end_user": "",
    "custom_llm_provider": "openai",
    "team_id": "red",
    "request_tags": '["prod"]',
    "metadata": json.dumps(
        {"usage_object": {"prompt_tokens_details": {"cached_tokens": 1024}}, "status": "success"}
    ),
}


class Kept(list[Rejected]):
    """Rejected lines in memory."""

    def add(self, one: Rejected) -> None:
        self.append(one)


async def each(text: str, shape: Any) -> AsyncIterator[Record]:
    for one in read_records(io.StringIO(text, newline=""), shape):
        yield one


async def imported(
    sender: Sender, text: str, shape: Any, form: Format = "events", **options: Any
) -> tuple[Report, Kept]:
    report, kept = Report(), Kept()
    convert = converter(form, is_csv=shape == "csv", **options)
    await run_import(each(text, shape), convert, sender, kept, report=report, tell=lambda _: None)
    return report, kept


def lines(*objects: dict[str, Any]) -> str:
    return "".join(json.dumps(one) + "\n" for one in objects)


def table(*rows: dict[str, Any]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@pytest.fixture
def door(runtime: Runtime) -> OwnDoor:
    return OwnDoor(runtime.events, ADMIN)


async def totals(client: httpx.AsyncClient, user: str) -> dict[str, Any]:
    usage = (await client.get(f"/v1/users/{user}/usage")).json()
    names = ("total_calls", "input_tokens", "output_tokens", "total_cost_usd", "avg_latency_ms")
    return {name: usage[name] for name in (*names, "error_rate", "providers")}


@pytest.mark.parametrize("form", ["csv", "ndjson"])
async def test_what_was_exported_and_imported_elsewhere_comes_to_the_same_totals(
    client: httpx.AsyncClient,
    clock: FrozenClock,
    catalog: Catalog,
    sqlite_template: Path,
    tmp_path: Path,
    form: str,
) -> None:
    await record(client, calls(300, clock))
    exported = (await client.get("/v1/exports/events", params={"format": form})).text
    shutil.copy(sqlite_template, tmp_path / "other.db")
    other = build(settings_for(f"sqlite:///{tmp_path}/other.db"), clock=clock, catalog=catalog)
    await other.start()
    transport = httpx.ASGITransport(create_asgi(other))
    headers = {"Authorization": f"Bearer {ADMIN}"}
    try:
        async with httpx.AsyncClient(
            transport=transport, base_url="http://other", headers=headers
        ) as there:
            shape = "csv" if form == "csv" else "json"
            report, kept = await imported(OwnDoor(other.events, ADMIN), exported, shape)
            assert (report.recorded, report.rejected, list(kept)) == (300, 0, [])
            for user in ("alice", "bob", "Zoë", "_x"):
                assert await totals(there, user) == await totals(client, user)
            proof = (await there.get("/v1/audit/consistency")).json()
            assert proof["consistent"], proof["differences"]
            again, _ = await imported(OwnDoor(other.events, ADMIN), exported, shape)
            assert (again.recorded, again.duplicates, again.rejected) == (0, 300, 0)
    finally:
        await other.close()


class Dying:
    """Gives up after so many batches, once the last of them is recorded."""

    def __init__(self, sender: Sender, batches: int) -> None:
        self._sender, self._left = sender, batches

    async def send(self, events: Sequence[bytes]) -> list[Result]:
        results = await self._sender.send(events)
        self._left -= 1
        if not self._left:
            raise ConnectionError("killed")
        return results


async def test_an_import_that_was_killed_goes_on_and_counts_nothing_twice(
    client: httpx.AsyncClient,
    clock: FrozenClock,
    door: OwnDoor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.ingest.imports.runner.BATCH_EVENTS", 30)
    without_ids = [
        {name: value for name, value in event.items() if name != "id"}
        for event in calls(200, clock)
    ]
    text = lines(*without_ids)
    report, kept = Report(), Kept()
    with pytest.raises(ConnectionError):
        await run_import(
            *(each(text, "json"), converter("events"), Dying(door, 3), kept),
            report=report,
            tell=lambda _: None,
        )
    assert report.durable_line == 60
    found, _ = await imported(door, text, "json")
    assert (found.recorded, found.duplicates) == (110, 90)
    usage = [await totals(client, user) for user in ("alice", "bob", "Zoë", "_x")]
    assert sum(one["total_calls"] for one in usage) == 200
    skipped = Report()
    await run_import(
        *(each(text, "json"), converter("events"), door, kept),
        report=skipped,
        tell=lambda _: None,
        from_line=151,
    )
    assert (skipped.records, skipped.recorded, skipped.duplicates) == (50, 0, 50)


async def test_every_line_that_cannot_be_recorded_is_told_with_its_number(
    door: OwnDoor, clock: FrozenClock
) -> None:
    good = {"user_id": "alice", "timestamp": rfc3339(clock.now())}
    text = "\n".join(
        [
            json.dumps(good),
            "{not json",
            "[1]",
            json.dumps({"user_id": "alice"}),
            "",
            json.dumps(good | {"usage": {"input_tokens": -1}}),
            json.dumps(good | {"timestamp": rfc3339(clock.now() + timedelta(days=1))}),
            json.dumps(good | {"colour": "red"}),
        ]
    )
    report, kept = await imported(door, text, "json")
    assert (report.recorded, report.rejected) == (1, 6)
    assert sorted(one.line for one in kept) == [2, 3, 4, 6, 7, 8]
    why = {one.line: one for one in kept}
    assert why[4].detail == "timestamp is missing"
    assert why[6].pointer == "/usage/input_tokens"
    assert why[8].pointer == "/colour"
    assert why[8].record["colour"] == "red"


async def test_a_rehearsal_says_what_would_come_and_changes_nothing(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock, door: OwnDoor
) -> None:
    events = calls(60, clock)
    await record(client, events[:20])
    events[30]["usage"] = {"input_tokens": "many"}
    events[5]["latency_ms"] = 99
    before = await totals(client, "alice")
    rehearsal = Rehearsal(runtime.db, runtime.house.prices.catalog, clock.now())
    report, kept = await imported(rehearsal, lines(*events), "json")
    assert (report.recorded, report.duplicates, report.rejected) == (39, 19, 2)
    assert [one.line for one in kept] == [6, 31]
    assert await totals(client, "alice") == before
    real, _ = await imported(door, lines(*events), "json")
    assert (real.recorded, real.cost_nanos) == (report.recorded, report.cost_nanos)
    assert real.unpriced == report.unpriced


async def test_the_same_import_over_http(client: httpx.AsyncClient, clock: FrozenClock) -> None:
    text = lines(*calls(50, clock))
    report, _ = await imported(Service(client), text, "json")
    assert report.recorded == 50
    again, _ = await imported(Service(client), text, "json")
    assert (again.recorded, again.duplicates) == (0, 50)


@pytest.mark.parametrize("shape", ["csv", "json"])
async def test_litellms_spend_logs(client: httpx.AsyncClient, door: OwnDoor, shape: str) -> None:
    failed = SPEND | {
        "request_id": "chatcmpl-2",
        "end_user": "bob",
        "spend": 0,
        "status": "failure",
        "metadata": json.dumps({"error_information": {"error_code": "429", "error_message": "no"}}),
    }
    nobody = SPEND | {"request_id": "3", "user": "", "api_key": "", "team_id": ""}
    rows = [SPEND | {"status": ""}, failed, nobody | {"status": ""}]
    text = table(*rows) if shape == "csv" else lines(*rows)
    report, kept = await imported(door, text, shape, "litellm")
    assert (report.recorded, report.rejected) == (2, 1), kept
    event = (await client.get("/v1/users/alice/events/chatcmpl-1")).json()
    assert event["timestamp"] == "2026-11-20T12:00:00.500000Z"
    assert (event["provider"], event["model"]) == ("openai", "gpt-4o-mini")
    assert event["cost_usd"] == "0.0003"
    assert event["usage"]["cache_read_tokens"] == 1024
    assert (event["latency_ms"], event["ttft_ms"]) == (1500.0, 500.0)
    assert event["tags"] == {"model_group": "cheap", "tag_0": "prod"}
    event = (await client.get("/v1/users/bob/events/chatcmpl-2")).json()
    assert (event["status_code"], event["error_message"]) == (429, "no")


@pytest.fixture
def litellm_url(postgres_server: str) -> Iterator[str]:
    url = new_database(postgres_server)
    yield url
    drop_database(postgres_server, url)


async def test_litellms_spend_logs_out_of_its_own_database(
    litellm_url: str, client: httpx.AsyncClient, door: OwnDoor
) -> None:
    there = await asyncpg.connect(litellm_url)
    try:
        await there.execute(
            'CREATE TABLE "LiteLLM_SpendLogs" (request_id text PRIMARY KEY, call_type text, '
            "api_key text, spend double precision, prompt_tokens int, completion_tokens int, "
            '"startTime" timestamp(3), "endTime" timestamp(3), model text, "user" text, '
            "custom_llm_provider text, metadata jsonb, request_tags jsonb)"
        )
        await there.execute(
            """INSERT INTO "LiteLLM_SpendLogs" SELECT 'r' || n, 'acompletion', 'k', 0.001, 10, 5,
            timestamp '2026-11-01' + n * interval '1 minute', timestamp '2026-11-02', 'gpt-4o',
            'alice', 'openai', '{}', '["a"]' FROM generate_series(1, 2500) n"""
        )
        report, kept = Report(), Kept()
        await run_import(
            *(read_spend(litellm_url), converter("litellm"), door, kept),
            report=report,
            tell=lambda _: None,
        )
    finally:
        await there.close()
    assert (report.recorded, list(kept)) == (2500, [])
    assert (await totals(client, "alice"))["total_cost_usd"] == "2.5"


async def test_s1_1_a_table_of_calls(client: httpx.AsyncClient, door: OwnDoor) -> None:
    row = {
        "id": 7,
        "user_id": "alice",
        "provider": "mistral",
        "actual_provider_name": "huggingface",
        "endpoint": "/generate",
        "method": "POST",
        "model_used": "openai/gpt-oss-120b:groq",
        "tokens_input": 100,
        "tokens_output": 20,
        "tokens_total": 120,
        "cost_input": "0.1",
        "cost_output": "0.2",
        "cost_total": "0.30000000000000004",
        "response_time": "1.25",
        "status_code": 500,
        "request_size": 10,
        "response_size": 20,
        "user_agent": "=cmd",
        "ip_address": "10.0.0.1",
        "error_message": "boom",
        "retry_count": 2,
        "timestamp": "2026-11-20 11:00:00.000001",
        "billing_period": "2026-11",
    }
    folded = row | {
        "id": 8,
        "endpoint": "[AGGREGATED]",
        "model_used": "[40 calls aggregated]",
        "status_code": 200,
    }
    report, kept = await imported(door, table(row, folded), "csv", "s1-logs")
    assert (report.recorded, list(kept)) == (2, [])
    event = (await client.get("/v1/users/alice/events/import-log-7")).json()
    assert event["provider"] == "huggingface"
    assert event["cost_usd"] == "0.3"
    assert event["usage"] == {"input_tokens": 100, "output_tokens": 20, "requests": 1}
    assert (event["latency_ms"], event["status_code"], event["retry_count"]) == (1250.0, 500, 2)
    assert event["timestamp"] == "2026-11-20T11:00:00.000001Z"
    event = (await client.get("/v1/users/alice/events/import-log-8")).json()
    assert event["usage"]["requests"] == 40
    assert event["tags"]["calls"] == "40"


async def test_s1_7_a_table_of_sums(client: httpx.AsyncClient, door: OwnDoor) -> None:
    row = {
        "user_id": "alice",
        "billing_period": "2026-11",
        "total_calls": 12,
        "total_cost": 3.5,
        "openai_calls": 10,
        "openai_tokens": 1000,
        "openai_cost": 2.5,
        "tavily_calls": 2,
        "tavily_cost": 1.0,
        "exa_calls": 0,
        "exa_cost": 0,
    }
    report, kept = await imported(door, table(row), "csv", "s1-summaries")
    assert (report.records, report.recorded, list(kept)) == (1, 2, [])
    found = await totals(client, "alice")
    assert (found["total_cost_usd"], found["input_tokens"]) == ("3.5", 1000)
    assert set(found["providers"]) == {"openai", "tavily"}
    event = await client.get("/v1/users/alice/events/import-summary-alice-2026-11-openai")
    assert event.json()["usage"]["requests"] == 10


async def test_columns_of_ones_own_are_named(client: httpx.AsyncClient, door: OwnDoor) -> None:
    from app.ingest.imports.events import names_from  # noqa: PLC0415

    rows = [
        {"customer": "alice", "when": "2026-11-20T10:00:00Z", "in": "5", "note": "x", "model": "m"}
    ]
    names = names_from("user_id=customer, timestamp=when, input_tokens=in, tag.note=note")
    report, kept = await imported(door, table(*rows), "csv", "csv", names=names)
    assert (report.recorded, list(kept)) == (1, [])
    events = (await client.get("/v1/users/alice/events")).json()["items"]
    assert (events[0]["model"], events[0]["tags"]) == ("m", {"note": "x"})
    assert events[0]["usage"]["input_tokens"] == 5
    for wrong in ("user_id", "size=x", "user_id=a,user_id=b"):
        with pytest.raises(ValueError, match=r"."):
            names_from(wrong)


def test_the_command_imports_rehearses_and_reports(tmp_path: Path) -> None:
    clock = FrozenClock(asyncio.run(_now()))
    file = tmp_path / "calls.ndjson"
    file.write_text(lines(*calls(30, clock)) + "{broken\n", encoding="utf-8")
    database = f"sqlite:///{tmp_path}/own.db"
    rejects = tmp_path / "rejected.ndjson"
    command = ["import", str(file), "--database-url", database, "--rejects", str(rejects)]
    found = CliRunner().invoke(terminal, command)
    assert found.exit_code == 1, found.output
    assert "30" in found.output
    kept = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [one["line"] for one in kept] == [31]
    again = CliRunner().invoke(terminal, [*command, "--dry-run"])
    assert again.exit_code == 1
    assert "known already" in again.output
    for wrong in (["--format", "xml"], ["--map", "x"], ["--url", "http://localhost:1"]):
        refused = CliRunner().invoke(terminal, [*command, *wrong])
        assert refused.exit_code == 1
        assert "tollgate:" in refused.output


async def _now() -> Any:
    from app.core.clock import Clock  # noqa: PLC0415

    return Clock().now()
