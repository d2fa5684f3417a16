"""The least a bulk insert can cost: the service's own rows, its own table, nothing else.

The rows are read back from the database that the service has just filled and put into an empty
table with the same columns and indexes, a thousand per transaction. So both sides have stored the
same rows, and as many of them, when their times are compared. Reading is not timed.
"""

import asyncio
import time
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import apsw
import asyncpg

TABLE = "usage_events"
COPY = "bare_usage_events"
ROWS_PER_TRANSACTION = 1_000
SETTINGS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 16000",
    "PRAGMA cache_size = -65536",
)


class Inserted(NamedTuple):
    rows: int
    seconds: float
    last_id: str
    """The highest event id so far; ids are time-ordered, so the next pass begins behind it."""

    @property
    def per_second(self) -> float:
        return self.rows / self.seconds if self.rows else 0.0


def _id_column(columns: list[str]) -> str:
    return "event_id" if "event_id" in columns else "id"


def count_in_sqlite(path: Path) -> int:
    source = _open(path, apsw.SQLITE_OPEN_READONLY)
    try:
        return _number(source, f"SELECT count(*) FROM {TABLE}")
    finally:
        source.close()


def _number(connection: apsw.Connection, question: str) -> int:
    ((number,),) = connection.execute(question).fetchall()
    return int(str(number))


def _open(path: Path, flags: int) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=flags)
    connection.set_busy_timeout(10_000)
    connection.execute("PRAGMA temp_store = MEMORY")  # sorting must not write beside the inserts
    return connection


def _sqlite_twin(source: apsw.Connection, path: Path) -> apsw.Connection:
    """An empty file with the same table and indexes, made once."""
    known = path.exists()
    twin = _open(path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    if not known:
        twin.execute(f"PRAGMA page_size = {_number(source, 'PRAGMA page_size')}")
    for setting in SETTINGS:
        twin.execute(setting).fetchall()
    if not known:
        made_by = source.execute(
            "SELECT sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL"
            " AND type IN ('table', 'index') ORDER BY type DESC",
            (TABLE,),
        )
        for (statement,) in made_by.fetchall():
            twin.execute(str(statement))
    return twin


def insert_into_sqlite(source_path: Path, twin_path: Path, after_id: str) -> Inserted:
    """Copy what the service stored since `after_id` with `executemany`, and time the inserts."""
    source = _open(source_path, apsw.SQLITE_OPEN_READONLY)
    twin = _sqlite_twin(source, twin_path)
    columns = [str(row[1]) for row in source.execute(f"PRAGMA table_info({TABLE})")]
    by = _id_column(columns)
    names = ", ".join(f'"{name}"' for name in columns)
    found = source.execute(f"SELECT {names} FROM {TABLE} WHERE {by} > ? ORDER BY {by}", (after_id,))
    insert = f"INSERT INTO {TABLE} ({names}) VALUES ({', '.join('?' * len(columns))})"
    rows, seconds, last_id = 0, 0.0, after_id
    while chunk := list(islice(found, ROWS_PER_TRANSACTION)):
        started = time.perf_counter()
        twin.execute("BEGIN IMMEDIATE")
        twin.executemany(insert, chunk)
        twin.execute("COMMIT")
        seconds += time.perf_counter() - started
        rows, last_id = rows + len(chunk), chunk[-1][columns.index(by)]
    twin.close()
    source.close()
    return Inserted(rows, seconds, last_id)


async def _count_in_postgres(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval(f"SELECT count(*) FROM {TABLE}"))
    finally:
        await connection.close()


def count_in_postgres(url: str) -> int:
    return asyncio.run(_count_in_postgres(url))


async def _copy(url: str, after_id: str) -> Inserted:
    reader, writer = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        await writer.execute(f"CREATE TABLE IF NOT EXISTS {COPY} (LIKE {TABLE} INCLUDING ALL)")
        columns = [
            row["column_name"]
            for row in await reader.fetch(
                "SELECT column_name FROM information_schema.columns WHERE table_name = $1"
                " AND table_schema = current_schema() AND is_generated = 'NEVER'"
                " ORDER BY ordinal_position",
                TABLE,
            )
        ]
        by = _id_column(columns)
        names = ", ".join(f'"{name}"' for name in columns)
        rows, seconds, last_id = 0, 0.0, after_id
        async with reader.transaction():
            found = await reader.cursor(
                f"SELECT {names} FROM {TABLE} WHERE {by} > $1 ORDER BY {by}", after_id
            )
            while chunk := await found.fetch(ROWS_PER_TRANSACTION):
                records = [tuple(row) for row in chunk]
                started = time.perf_counter()
                async with writer.transaction():
                    await writer.copy_records_to_table(COPY, records=records, columns=columns)
                seconds += time.perf_counter() - started
                rows, last_id = rows + len(records), chunk[-1][by]
        return Inserted(rows, seconds, last_id)
    finally:
        await reader.close()
        await writer.close()


def copy_into_postgres(url: str, after_id: str) -> Inserted:
    """Copy what the service stored since `after_id` with COPY, and time the copying."""
    return asyncio.run(_copy(url, after_id))
