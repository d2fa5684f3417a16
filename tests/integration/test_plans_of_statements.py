"""Statements of the intake keep finding rows by key while a new table grows."""

from collections.abc import Iterator

import asyncpg
import pytest

from app.db.engine import Database
from app.limits.holds import find_holds, find_parts
from tests.conftest import START
from tests.postgres import drop_database, new_database

pytestmark = pytest.mark.anyio
SCANS = (
    "SELECT sum(seq_scan)::int FROM pg_stat_user_tables WHERE relname IN ('holds', 'hold_amounts')"
)
FILL = """INSERT INTO holds (user_id, id, body_hash, created_at, expires_at, state, basis, shares)
          SELECT 'u', 'h' || n, 1, $1, $1, 'settled', 'exact', '[]'
          FROM generate_series(1, 20000) AS n"""


@pytest.fixture
def postgres_url(postgres_server: str, postgres_template: str) -> Iterator[str]:
    url = new_database(postgres_server, postgres_template)
    yield url
    drop_database(postgres_server, url)


async def test_a_statement_first_used_on_an_empty_table_does_not_read_it_whole_later(
    postgres_url: str,
) -> None:
    db = Database.open(postgres_url)
    lane = db.lane()
    admin = await asyncpg.connect(postgres_url)
    keys = [("u", f"h{number}") for number in range(1, 33)]
    parts = [("user:u", "lim", START, START, *key) for key in keys]

    async def used(times: int) -> None:
        for _ in range(times):
            await lane.write(lambda tx: find_holds(tx, keys))
            await lane.write(lambda tx: find_parts(tx, parts))
        await lane.write(lambda tx: tx.hot.execute("SELECT pg_stat_force_next_flush()"))

    try:
        await admin.execute("ALTER TABLE holds SET (autovacuum_enabled = off)")
        await used(10)
        await admin.execute(FILL, START)
        before = await admin.fetchval(SCANS)
        await used(10)
        assert await admin.fetchval(SCANS) == before
    finally:
        await admin.close()
        await lane.close()
        await db.close()
