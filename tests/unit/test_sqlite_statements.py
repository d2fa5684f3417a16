"""Statements over SQLite: compiled once for the process, summed exactly however much."""

from pathlib import Path

import pytest
from sqlalchemy import literal, select, text
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler

from app.db.engine import Database
from app.db.sqlite import ApswDialect

pytestmark = pytest.mark.anyio

LARGEST = 2**63 - 1


@pytest.fixture
async def db(tmp_path: Path) -> Database:
    return Database.open(f"sqlite:///{tmp_path}/some.db")


async def test_a_statement_is_compiled_once_whichever_connection_runs_it(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []

    class Noting(SQLiteCompiler):
        def process(self, *args: object, **kwargs: object) -> str:
            found: str = super().process(*args, **kwargs)
            if found.startswith("SELECT"):
                compiled.append(found)
            return found

    monkeypatch.setattr(ApswDialect, "statement_compiler", Noting)
    try:
        for number in range(3):
            query = select(literal(number).label("compiled_once"))
            assert await db.read(lambda tx: tx.fetch(query)) == [(number,)]  # noqa: B023
            assert await db.write(lambda tx: tx.fetch(query)) == [(number,)]  # noqa: B023
    finally:
        await db.close()
    assert len(compiled) == 1


@pytest.mark.parametrize("grouped", [True, False])
async def test_a_sum_beyond_64_bits_is_exact(db: Database, grouped: bool) -> None:
    rows = [(1, LARGEST), (1, LARGEST), (1, -5), (2, 7), (3, -LARGEST), (3, -LARGEST), (4, None)]

    query = "SELECT sum(amount) FROM some" + (" GROUP BY kind ORDER BY kind" if grouped else "")
    try:
        await db.write(
            lambda tx: tx.run(text("CREATE TABLE some (kind INTEGER, amount INTEGER) STRICT"))
        )
        for kind, amount in rows:
            values = {"kind": kind, "amount": amount}
            insert = text("INSERT INTO some VALUES (:kind, :amount)")
            await db.write(lambda tx: tx.run(insert, values))  # noqa: B023
        found = await db.read(lambda tx: tx.fetch(text(query)))
    finally:
        await db.close()
    sums = [row[0] if row[0] is None else int(row[0]) for row in found]
    by_kind = [2 * LARGEST - 5, 7, -2 * LARGEST, None]
    assert sums == (by_kind if grouped else [2])
