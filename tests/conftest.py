"""One `db_url` fixture, two engines, real commits.

Every test gets a database of its own: a copied SQLite file, or a PostgreSQL database made from a
template. Both were brought up by the migrations, not by `create_all`.
"""

import asyncio
import gc
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from app.core.clock import FrozenClock
from app.db.engine import Database
from app.db.upgrade import upgrade
from app.main import create_app, create_asgi
from app.pricing.catalog import Catalog
from app.runtime import Runtime, build
from app.settings import Settings
from tests.postgres import drop_database, new_database, running_server

MEMORY = Path("/dev/shm")
"""Where files lie in memory: thousands of databases are made, and none has to outlive power."""
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 4 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    os.environ.setdefault("TOLLGATE_TEST_POSTGRES_FOLDER", str(MEMORY))

START = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
ADMIN = "tg_test_admin_key_0123456789abcdef0123456789"
ENGINES = ("sqlite", "postgresql")
PATIENCE_S = 60.0
"""What a test gives the database: a machine that stands still for seconds is no failure."""


def pytest_collection_finish() -> None:
    """Thousands of collected tests are no garbage: do not look at them again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def archives_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test leaves archives in the folder that it was started in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOLLGATE_ARCHIVE_URL", str(tmp_path_factory.mktemp("archives")))
        yield


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file, to be copied."""
    path = tmp_path_factory.mktemp("template") / "template.db"
    asyncio.run(upgrade(f"sqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server where databases may be made."""
    with running_server() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> Iterator[str]:
    """The name of a migrated, empty database, to be copied."""
    url = new_database(postgres_server)
    asyncio.run(upgrade(url))
    yield url.rsplit("/", 1)[-1].split("?")[0]
    drop_database(postgres_server, url)


@pytest.fixture(params=ENGINES)
def db_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a fresh, migrated database; every test that asks runs on both engines."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "test.db")
        yield f"sqlite:///{tmp_path}/test.db"
        return
    server = request.getfixturevalue("postgres_server")
    url = new_database(server, request.getfixturevalue("postgres_template"))
    yield url
    drop_database(server, url)


@pytest.fixture
async def db(db_url: str) -> AsyncIterator[Database]:
    """The database itself, for tests of verbs."""
    found = Database.open(db_url, patience_s=PATIENCE_S)
    yield found
    await found.close()


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(START)


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return Catalog.from_packages()


def settings_for(db_url: str) -> Settings:
    """Settings of a service under test."""
    return Settings(database_url=db_url, admin_key=ADMIN, database_timeout_s=PATIENCE_S)


@pytest.fixture
async def runtime(
    db_url: str, clock: FrozenClock, catalog: Catalog, tmp_path: Path
) -> AsyncIterator[Runtime]:
    """A started service's parts, on a frozen clock; its archives are in `tmp_path / "archives"`."""
    own = {"archive_url": str(tmp_path / "archives")}
    settings = settings_for(db_url).model_copy(update=own)
    found = build(settings, clock=clock, catalog=catalog)
    await found.start()
    yield found
    await found.close()


@pytest.fixture(scope="session")
def served() -> list[FastAPI]:
    """The one application that serves the parts of each test in turn: its routes are costly."""
    return []


@pytest.fixture
async def client(runtime: Runtime, served: list[FastAPI]) -> AsyncIterator[httpx.AsyncClient]:
    """The service over HTTP, signed in with the admin key; the lean door is in front."""
    if not served:
        served.append(create_app(runtime))
    transport = httpx.ASGITransport(create_asgi(runtime, served[0]), raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport,
        base_url="http://test",
        headers={"Authorization": f"Bearer {ADMIN}"},
    ) as found:
        yield found
