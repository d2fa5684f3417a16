"""A PostgreSQL that may be broken, and a fresh database on either engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ENGINES
from tests.faults.service import Postgres


@pytest.fixture(scope="session")
def breakable() -> Iterator[Postgres]:
    """A private server; a test that stops it starts it again."""
    server = Postgres()
    server.start()
    yield server
    server.close()


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, not even migrated: the first start does that."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/tollgate.db"
    server: Postgres = request.getfixturevalue("breakable")
    return server.database()
