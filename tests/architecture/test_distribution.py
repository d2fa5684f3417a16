"""The schema and every statement stay fit for several nodes."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    Index,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    event,
)
from sqlalchemy.engine import Engine

import app.main  # noqa: F401  (loads every bulk statement)
from app.db.upgrade import upgrade
from app.db.upsert import AddTo, Append, Find
from app.models import METADATA
from tests.architecture.distribution import (
    complaints_about_statement,
    complaints_about_tables,
    spread,
)
from tests.postgres import drop_database, new_database

CUT = spread(METADATA)


# ---- our own ------------------------------------------------------------------------------------


def test_every_table_can_be_distributed() -> None:
    assert complaints_about_tables(METADATA) == []


def test_data_is_spread_by_its_owner_and_shared_tables_are_copied() -> None:
    known = {"user_id", "scope_key", "shard", "reference", "local"}
    assert {table.info["dist"] for table in METADATA.tables.values()} <= known


def bulk_statements() -> dict[str, str]:
    """What `db/upsert.py` sends to PostgreSQL, by where it is defined."""
    found = {}
    for module in [each for name, each in sys.modules.items() if name.startswith("app.")]:
        for name, thing in vars(module).items():
            if isinstance(thing, Append | Find):
                found[f"{module.__name__}.{name}"] = thing._postgres
            elif isinstance(thing, AddTo):
                found[f"{module.__name__}.{name}"] = thing._made(thing._columns)[1]
    return found


BULK = bulk_statements()


@pytest.mark.parametrize("sql", BULK.values(), ids=BULK.keys())
def test_every_bulk_statement_can_be_distributed(sql: str) -> None:
    assert complaints_about_statement(sql, CUT) == []


@contextmanager
def overheard() -> Iterator[list[str]]:
    """Every statement that goes through SQLAlchemy meanwhile."""
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, sql: str, *_rest: Any) -> None:
        found.append(sql)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def complaints_about(statements: list[str]) -> list[str]:
    return [
        f"{complaint}: {sql}"
        for sql in dict.fromkeys(statements)
        for complaint in complaints_about_statement(sql, CUT)
    ]


def test_migrations_can_be_distributed(postgres_server: str) -> None:
    url = new_database(postgres_server)
    try:
        with overheard() as statements:
            asyncio.run(upgrade(url))
    finally:
        drop_database(postgres_server, url)
    assert any(sql.lstrip().startswith("CREATE TABLE") for sql in statements)
    assert complaints_about(statements) == []


@pytest.mark.anyio
async def test_every_reading_endpoint_asks_what_several_nodes_can_answer(
    client: httpx.AsyncClient,
) -> None:
    limit: dict[str, Any] = {"name": "calls", "scope": {"user_id": "alice"}, "metric": "calls"}
    limit |= {"window": "day", "amount": 1, "action": "warn"}
    usage = {"input_tokens": 1200, "output_tokens": 300}
    call = {"id": "e1", "user_id": "alice", "provider": "openai", "model": "gpt-4o-mini"}
    known = {"user_id": "alice", "event_id": "e1", "plan_id": "plan_default"}
    paths = (await client.get("/openapi.json")).json()["paths"]
    with overheard() as statements:
        made = await client.post("/v1/limits", json=limit)
        assert made.status_code == 201, made.text
        sent = await client.post("/v1/events", json=call | {"usage": usage})
        assert sent.status_code == 201, sent.text
        known["limit_id"] = made.json()["id"]
        for path, operations in paths.items():
            if "get" in operations:
                answer = await client.get(path.format_map(_Known(known)))
                assert answer.status_code < 500, answer.text
    assert len(set(statements)) > 10
    assert complaints_about(statements) == []


class _Known(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return f"no-such-{name}"


# ---- the rules themselves: each finds what it is there for --------------------------------------

ROWS = {"rows": "user_id", "other": "user_id"}


def table(dist: str | None, *parts: Any) -> MetaData:
    metadata = MetaData()
    Table("prices", metadata, Column("id", Text, primary_key=True), info={"dist": "reference"})
    Table("jobs", metadata, Column("id", Text, primary_key=True), info={"dist": "local"})
    Table("users", metadata, Column("user_id", Text, primary_key=True), info={"dist": "user_id"})
    Table("rows", metadata, *parts, info={} if dist is None else {"dist": dist})
    return metadata


def of_user() -> Column[str]:
    return Column("user_id", Text, primary_key=True)


def of_id() -> Column[str]:
    return Column("id", Text, primary_key=True)


@pytest.mark.parametrize(
    ("dist", "parts", "complaint"),
    [
        (None, [of_id()], "says nothing"),
        ("user_id", [of_id()], "does not have"),
        ("user_id", [of_id(), Column("user_id", Text, nullable=False)], "primary key leaves out"),
        ("user_id", [of_id(), Column("user_id", Text)], "may be null"),
        ("user_id", [of_user(), Column("a", Text), UniqueConstraint("a")], "unique (a) leaves"),
        (
            "user_id",
            [of_user(), Column("a", Text), Index("ix", "a", unique=True)],
            "unique index ix",
        ),
        ("user_id", [of_user(), Column("job", Text, ForeignKey("jobs.id"))], "stays on the coord"),
        ("user_id", [of_user(), Column("o", Text, ForeignKey("users.user_id"))], "without pairing"),
        (
            "reference",
            [of_id(), Column("u", Text, ForeignKey("users.user_id"))],
            "copied everywhere",
        ),
        ("local", [of_id(), Column("u", Text, ForeignKey("users.user_id"))], "which is spread"),
    ],
)
def test_a_table_that_cannot_be_distributed_is_found(
    dist: str | None, parts: list[Any], complaint: str
) -> None:
    found = complaints_about_tables(table(dist, *parts))
    assert any(complaint in each for each in found)


@pytest.mark.parametrize(
    ("sql", "complaint"),
    [
        ("WITH x AS (INSERT INTO rows (user_id) VALUES ($1)) SELECT 1", "inside a WITH"),
        ("SELECT * FROM rows WHERE id = $1 FOR UPDATE", "locks rows"),
        ("SELECT sum(n) FROM rows GROUP BY ROLLUP (day)", "subtotals"),
        ("WITH RECURSIVE r AS (SELECT * FROM rows) SELECT * FROM r", "recursion"),
        ("MERGE INTO rows USING other ON true", "MERGE"),
        ("CREATE TRIGGER t AFTER INSERT ON rows", "a trigger"),
        ('INSERT INTO "rows" ("id") VALUES ($1)', "inserts into rows without user_id"),
        ("INSERT INTO rows (user_id, id) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING", "settles"),
        (
            "INSERT INTO rows (user_id) VALUES ($1) ON CONFLICT (user_id) DO UPDATE SET at = now()",
            "asks a node for the time",
        ),
        ("UPDATE rows SET n = random() WHERE user_id = $1", "differs from node to node"),
        ("UPDATE rows SET user_id = $1 WHERE id = $2", "moves a row"),
        ("DELETE FROM rows WHERE at < clock_timestamp()", "chooses rows"),
        ("CREATE UNIQUE INDEX ix ON rows (id)", "a unique index"),
        ("SELECT 1 FROM rows AS a JOIN other AS b ON a.id = b.id WHERE 1 = 1", "joins other"),
    ],
)
def test_a_statement_that_cannot_be_distributed_is_found(sql: str, complaint: str) -> None:
    assert any(complaint in found for found in complaints_about_statement(sql, ROWS))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM rows WHERE user_id = $1 FOR UPDATE",
        "SELECT 1 FROM rows AS a JOIN other AS b ON a.user_id = b.user_id AND a.id = b.id",
        "INSERT INTO rows AS t (user_id, n) VALUES ($1, $2) "
        "ON CONFLICT (user_id) DO UPDATE SET n = t.n + excluded.n RETURNING n",
        "UPDATE elsewhere SET at = now(), user_id = random()",
    ],
)
def test_a_statement_that_can_be_distributed_is_left_alone(sql: str) -> None:
    assert complaints_about_statement(sql, ROWS) == []
