"""`GET /v1/exports/…`: everything, exactly, in three formats, and never quietly less."""

import asyncio
import csv
import io
import json
import tracemalloc
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from app.access.keys import create_key
from app.core.clock import FrozenClock, rfc3339
from app.db.engine import Database, Tx
from app.runtime import Runtime
from app.usage import export

pytestmark = pytest.mark.anyio
EXPORT = "/v1/exports/events"
FOCUS = "/v1/exports/focus"
RISKY = ("=1+1", "+1", "-1", "@sum", "\tx", "'quoted", "'=x", 'a "b", c')


def calls(count: int, clock: FrozenClock) -> list[dict[str, Any]]:
    """Calls of several users and models, of the last hours, some in the same microsecond."""
    return [
        {
            "id": f"e{number:05d}",
            "user_id": ("alice", "bob", "Zoë", "_x")[number % 4],
            "timestamp": rfc3339(clock.now() - timedelta(minutes=number // 8)),
            "provider": "openai",
            "model": ("gpt-4o", "gpt-4o-mini", "nobody-knows")[number % 3],
            "usage": {"input_tokens": 100 + number, "output_tokens": number % 7},
            "status_code": 500 if number % 11 == 0 else 200,
            "latency_ms": 12.345,
            "task_type": ("chat", None)[number % 2],
            "tags": {"n": str(number)},
        }
        for number in range(count)
    ]


async def record(client: httpx.AsyncClient, events: list[dict[str, Any]]) -> None:
    answer = await client.post("/v1/events", json=events, params={"backfill": "true"})
    assert answer.status_code == 200, answer.text


async def exported(client: httpx.AsyncClient, **query: Any) -> list[dict[str, str]]:
    answer = await client.get(EXPORT, params={"format": "csv", **query})
    assert answer.status_code == 200, answer.text
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


async def test_every_event_is_exported_once_whatever_the_page(
    client: httpx.AsyncClient, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await record(client, calls(300, clock))
    monkeypatch.setattr(export, "USERS_A_PAGE", 2)
    monkeypatch.setattr(export.next_rows, "__defaults__", (7,))
    for query in ({}, {"model": "gpt-4o"}, {"provider": "openai", "task_type": ""}):
        rows = await exported(client, **query)
        expected = [
            event["id"]
            for event in calls(300, clock)
            if all((event[name] or "") == value for name, value in query.items())
        ]
        assert sorted(row["id"] for row in rows) == expected


async def test_the_three_formats_say_the_same(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    await record(client, calls(50, clock))
    rows = await exported(client)
    answer = await client.get(EXPORT, params={"format": "ndjson"})
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    answer = await client.get(EXPORT, params={"format": "parquet"})
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    table = pq.read_table(io.BytesIO(answer.content)).to_pylist()
    assert len(rows) == len(lines) == len(table) == 50
    for row, line, cells in zip(rows, lines, table, strict=True):
        assert row["id"] == line["id"] == cells["id"]
        assert row["timestamp"] == line["timestamp"] == rfc3339(cells["timestamp"])
        assert row["cost_usd"] == (line["cost_usd"] or "")
        cost = None if not row["cost_usd"] else Decimal(row["cost_usd"])
        assert cells["cost_usd"] == cost
        assert int(row["input_tokens"]) == line["usage"]["input_tokens"] == cells["input_tokens"]
        assert row["latency_ms"] == "12.345"
        assert line["latency_ms"] == 12.345
        assert cells["latency_ms"] == Decimal("12.345")
        assert json.loads(row["tags"]) == line["tags"] == json.loads(cells["tags"])
    assert any(row["cost_usd"] for row in rows)
    assert any(row["cost_status"] == "unpriced" and not row["cost_usd"] for row in rows)


async def test_the_costs_sum_to_what_usage_says(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    await record(client, calls(200, clock))
    rows = await exported(client)
    for user in ("alice", "bob", "Zoë", "_x"):
        usage = (await client.get(f"/v1/users/{user}/usage")).json()
        own = [row for row in rows if row["user_id"] == user]
        assert len(own) == usage["total_calls"]
        assert sum(Decimal(row["cost_usd"] or 0) for row in own) == Decimal(usage["total_cost_usd"])


async def test_a_spreadsheet_finds_no_formula(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    events = [
        {"id": f"r{number}", "user_id": "alice", "error_message": text}
        for number, text in enumerate(RISKY)
    ]
    await record(client, events)
    answer = await client.get(EXPORT)
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.text.count("\r\n") == len(RISKY) + 1
    shown = {row["id"]: row["error_message"] for row in await exported(client)}
    for number, text in enumerate(RISKY[:-1]):
        assert shown[f"r{number}"] == f"'{text}"
    assert shown[f"r{len(RISKY) - 1}"] == RISKY[-1]


async def test_a_range_is_half_open(client: httpx.AsyncClient, clock: FrozenClock) -> None:
    now = clock.now()
    moments = [now - timedelta(hours=hours) for hours in (3, 2, 1)]
    await record(
        client,
        [
            {"id": f"t{place}", "user_id": "alice", "timestamp": rfc3339(at)}
            for place, at in enumerate(moments)
        ],
    )
    rows = await exported(client, **{"from": rfc3339(moments[0]), "to": rfc3339(moments[2])})
    assert [row["id"] for row in rows] == ["t0", "t1"]


async def test_a_key_of_one_user_gets_that_user_alone(
    client: httpx.AsyncClient, runtime: Runtime, clock: FrozenClock
) -> None:
    await record(client, calls(40, clock))

    async def make(tx: Tx) -> str:
        made = await create_key(
            tx, name="a", scopes=["read"], user_id="alice", expires_at=None, now=clock.now()
        )
        return made[1]

    token = await runtime.db.write(make, alone=True)
    signed = {"Authorization": f"Bearer {token}"}
    answer = await client.get(EXPORT, headers=signed)
    found = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert {row["user_id"] for row in found} == {"alice"}
    assert len(found) == 10
    for path in (EXPORT, FOCUS):
        answer = await client.get(path, params={"user_id": "bob"}, headers=signed)
        assert answer.status_code == 403
    answer = await client.get(FOCUS, headers=signed)
    charged = csv.DictReader(io.StringIO(answer.text, newline=""))
    assert {row["BillingAccountId"] for row in charged} == {"alice"}


@pytest.mark.parametrize(
    ("path", "query", "pointer"),
    [
        (EXPORT, {"format": "xls"}, "/format"),
        (EXPORT, {"from": "yesterday"}, "/from"),
        (EXPORT, {"to": "2026-11-20T12:30:00"}, "/to"),
        (EXPORT, {"from": "2026-11-20T12:30:00Z", "to": "2026-11-20T12:00:00Z"}, "/to"),
        (EXPORT, {"mode": "x"}, "/mode"),
        (EXPORT, {"user_id": "a\x01b"}, "/user_id"),
        (EXPORT, {"model": "a\x00b"}, "/model"),
        (EXPORT, {"include_wrapped": "perhaps"}, "/include_wrapped"),
        (FOCUS, {"from": "2026-11-20T12:30:00Z"}, "/from"),
        (FOCUS, {"to": "3026-11-20T12:00:00Z"}, "/to"),
        (FOCUS, {"issuer": "\x00"}, "/issuer"),
    ],
)
async def test_what_is_wrong_is_a_problem_document_with_its_place(
    client: httpx.AsyncClient, path: str, query: dict[str, str], pointer: str
) -> None:
    answer = await client.get(path, params=query)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["pointer"] == pointer


async def test_nothing_to_export_is_a_header_alone(client: httpx.AsyncClient) -> None:
    assert await exported(client) == []
    for path in (EXPORT, FOCUS):
        for form in ("csv", "ndjson", "parquet"):
            answer = await client.get(path, params={"format": form})
            assert answer.status_code == 200
            if form == "parquet":
                assert pq.read_table(io.BytesIO(answer.content)).num_rows == 0
            else:
                assert answer.text.count("\n") == (1 if form == "csv" else 0)


async def test_a_database_that_fails_in_the_middle_breaks_the_answer_off(
    client: httpx.AsyncClient,
    runtime: Runtime,
    clock: FrozenClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await record(client, calls(100, clock))
    monkeypatch.setattr(export.next_rows, "__defaults__", (10,))
    reads, whole = 0, Database.read

    async def read(self: Database, work: Any, **given: Any) -> Any:
        nonlocal reads
        reads += 1
        if reads > 5:
            raise OSError("the disk is gone")
        return await whole(self, work, **given)

    monkeypatch.setattr(Database, "read", read)
    with pytest.raises(Exception):  # noqa: B017, PT011  (the server closes the connection)
        await _strict(client, runtime).get(EXPORT)
    reads = 6
    answer = await client.get(EXPORT)  # before the first byte it is a problem
    assert answer.status_code >= 500
    assert answer.headers["content-type"] == "application/problem+json"


def _strict(client: httpx.AsyncClient, runtime: Runtime) -> httpx.AsyncClient:
    """A client that is told of an answer that breaks off, as a server's connection does."""
    from app.main import create_asgi  # noqa: PLC0415

    transport = httpx.ASGITransport(create_asgi(runtime), raise_app_exceptions=True)
    return httpx.AsyncClient(
        transport=transport, base_url="http://test", headers=dict(client.headers)
    )


async def test_a_client_that_goes_away_ends_the_work(
    client: httpx.AsyncClient,
    runtime: Runtime,
    clock: FrozenClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from app.main import create_asgi  # noqa: PLC0415

    await record(client, calls(400, clock))
    monkeypatch.setattr(export.next_rows, "__defaults__", (5,))
    reads, whole = 0, Database.read

    async def read(self: Database, work: Any, **given: Any) -> Any:
        nonlocal reads
        reads += 1
        return await whole(self, work, **given)

    monkeypatch.setattr(Database, "read", read)
    gone = asyncio.Event()
    pieces = 0

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        nonlocal pieces
        pieces += message["type"] == "http.response.body"
        if pieces == 3:
            gone.set()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": EXPORT,
        "raw_path": EXPORT.encode(),
        "query_string": b"",
        "headers": [(b"authorization", client.headers["authorization"].encode())],
        "server": ("test", 80),
        "client": ("127.0.0.1", 1),
        "root_path": "",
    }
    await create_asgi(runtime)(scope, receive, send)
    assert reads < 40  # of 80 and more


async def test_memory_does_not_grow_with_what_is_exported(
    client: httpx.AsyncClient, clock: FrozenClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four times the rows, the same peak: pages are let go as they are sent."""
    from app.analytics import exports_api  # noqa: PLC0415

    monkeypatch.setattr(export.next_rows, "__defaults__", (200,))
    sent, made = 0, exports_api.sheet_of

    def counted(form: Any, columns: Any) -> Any:
        sheet = made(form, columns)
        rows = sheet.rows

        def measured(batch: Any) -> bytes:
            nonlocal sent
            assert len(batch) <= 200
            sent += len(batch)
            rows(batch)
            return b""  # the client of this test would keep every byte

        sheet.rows = measured
        return sheet

    monkeypatch.setattr(exports_api, "sheet_of", counted)
    peaks = []
    for total in (1_000, 4_000):
        await record(client, calls(total, clock))
        sent = 0
        tracemalloc.start()
        answer = await client.get(EXPORT)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert answer.status_code == 200
        assert sent == total
    assert peaks[1] < 1.5 * peaks[0] + 2**20, peaks


async def test_focus_sums_to_what_usage_says(client: httpx.AsyncClient, clock: FrozenClock) -> None:
    await record(client, calls(300, clock))
    answer = await client.get(FOCUS, params={"issuer": "ACME"})
    assert answer.status_code == 200, answer.text
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    for user in ("alice", "bob"):
        usage = (await client.get(f"/v1/users/{user}/usage")).json()
        own = [row for row in rows if row["BillingAccountId"] == user]
        assert sum(int(row["x_Calls"]) for row in own) == usage["total_calls"]
        assert sum(int(row["x_InputTokens"]) for row in own) == usage["input_tokens"]
        assert sum(int(row["x_OutputTokens"]) for row in own) == usage["output_tokens"]
        cost = Decimal(usage["total_cost_usd"])
        for name in ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"):
            assert sum(Decimal(row[name]) for row in own) == cost
        assert {row["InvoiceIssuerName"] for row in own} == {"ACME"}
        assert {row["BillingPeriodStart"] for row in own} == {"2026-11-01T00:00:00Z"}


async def test_focus_in_parquet_and_ndjson_says_the_same_as_in_csv(
    client: httpx.AsyncClient, clock: FrozenClock
) -> None:
    await record(client, calls(100, clock))
    text = (await client.get(FOCUS)).text
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    lines = [
        json.loads(line)
        for line in (await client.get(FOCUS, params={"format": "ndjson"})).text.splitlines()
    ]
    content = (await client.get(FOCUS, params={"format": "parquet"})).content
    table = pq.read_table(io.BytesIO(content)).to_pylist()
    assert len(rows) == len(lines) == len(table) > 0
    for row, line, cells in zip(rows, lines, table, strict=True):
        assert row["BilledCost"] == line["BilledCost"]
        assert Decimal(row["BilledCost"]) == cells["BilledCost"]
        assert row["ListUnitPrice"] == line["ListUnitPrice"]
        assert Decimal(row["ListUnitPrice"]) == cells["ListUnitPrice"]
        assert line["ChargeClass"] is None is cells["ChargeClass"]
