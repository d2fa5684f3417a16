"""What must hold before the service serves, and what it says when it does not."""

import asyncio
import json
import shlex
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from app.core.clock import Clock
from app.db.engine import Database
from app.pricing.sources import packaged_sources
from app.pricing.store import Version, versions
from app.settings import Settings
from app.start import NotReadyError, prepare
from tests.faults.service import Postgres, serving, stored, tollgate

pytestmark = pytest.mark.fault
_SERVE = ("serve", "--port", "0")


def _prepare(url: str, **more: object) -> str | None:
    """The admin key that a first start would print."""
    settings = Settings(database_url=url, **more)  # type: ignore[arg-type]
    return asyncio.run(prepare(settings, Clock())).admin_key


def test_the_first_start_prints_a_key_whose_curl_works_and_no_later_one_does(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/tollgate.db"
    with serving(url, key=None) as (service,):
        said = service.output()
        (line,) = (line for line in said.splitlines() if "curl" in line)
        words = shlex.split(line)
        (key,) = (word[22:] for word in words if word.startswith("Authorization: Bearer "))
        assert said.count(f"admin key (shown once): {key}") == 1
        done = subprocess.run([*words, "-m", "10"], capture_output=True, text=True, check=True)
        assert '"status":"recorded"' in done.stdout
        assert '"cost_status":"priced"' in done.stdout

        service.terminate()
        service.log.write_text("")
        service.start()
        assert "Tollgate at" in service.output()
        assert "key" not in service.output()
        assert "tg_" not in service.output()
        answer = httpx.get(
            f"{service.base}/v1/api-keys", headers={"X-API-Key": key}, trust_env=False
        )
        assert answer.status_code == 200
        assert [user for user, *_ in stored(url)[0]] == ["alice"]


def test_a_first_start_has_the_prices_of_the_release_and_no_later_one_imports_them_again(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/tollgate.db"

    async def found() -> list[Version]:
        db = Database.open(url)
        try:
            return await db.read(versions)
        finally:
            await db.close()

    first = _prepare(url, admin_key=None)
    assert first is not None
    (version,) = asyncio.run(found())
    assert version.sources == packaged_sources()
    assert _prepare(url) is None
    assert asyncio.run(found()) == [version]


def test_prices_are_shown_stated_and_imported_at_the_terminal(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/tollgate.db"
    assert tollgate(url, ["migrate"]).returncode == 0
    assert "in force already" in tollgate(url, ["prices", "sync"]).stdout
    assert "nothing would change" in tollgate(url, ["prices", "diff"]).stdout
    shown = tollgate(url, ["prices", "show", "openai", "gpt-4o"])
    assert "openai/gpt-4o" in shown.stdout
    assert "2.5" in shown.stdout
    state = ["prices", "override", "openai", "gpt-4o", "--user", "alice", "--json"]
    made = tollgate(url, [*state, "--usd-per-million", "input=2,output=8"])
    facts = json.loads(made.stdout)
    assert facts["rates"]["output_tokens"] == {"usd": "8", "per": 1_000_000}
    own = tollgate(url, ["prices", "show", "openai", "gpt-4o", "--user", "alice"])
    assert facts["id"] in own.stdout
    for wrong, told in (
        (["--usd-per-million", "input=2500.1"], "force"),
        (["--usd-per-million", "words=1"], "words=1"),
        (["--usd-per-million", "input=-1"], "rates/input_tokens/usd"),
        ([], "at least one rate"),
    ):
        refused = tollgate(url, [*state, *wrong])
        assert refused.returncode == 1
        assert told in refused.stderr
    file = tmp_path / "own.toml"
    block = '[[listing]]\nprovider = "acme"\nmodel = "chat"\nsource = "us"\n'
    file.write_text(block + '[[listing.row]]\nrates = { input_tokens = "3" }\n')
    assert "is in force" in tollgate(url, ["prices", "import", str(file)]).stdout
    assert "own," in tollgate(url, ["prices", "show", "acme", "chat"]).stdout
    file.write_text(block + '[[listing.row]]\nrates = { input_tokens = "31" }\n')
    refused = tollgate(url, ["prices", "import", str(file)])
    assert refused.returncode == 1
    assert "--force" in refused.stderr
    assert "is in force" in tollgate(url, ["prices", "import", str(file), "--force"]).stdout
    file.write_text("[[listing]]\nprize = 1\n")
    assert "own.toml" in tollgate(url, ["prices", "import", str(file)]).stderr.replace("\n", "")
    assert tollgate(url, ["prices", "show", "acme", "zzz"]).returncode == 1


@pytest.fixture
def restored(breakable: Postgres) -> Iterator[Postgres]:
    """The server, durable again afterwards."""
    yield breakable
    breakable.execute("ALTER SYSTEM RESET ALL", "SELECT pg_reload_conf()", "SELECT pg_sleep(0.2)")


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes", "synchronous_commit"])
def test_a_postgresql_that_loses_what_it_acknowledges_is_refused(
    restored: Postgres, setting: str
) -> None:
    url = restored.database()
    _prepare(url)
    restored.execute(
        f"ALTER SYSTEM SET {setting} = off", "SELECT pg_reload_conf()", "SELECT pg_sleep(0.2)"
    )
    with pytest.raises(NotReadyError, match=rf"{setting} = off.*TOLLGATE_ALLOW_UNSAFE_DURABILITY"):
        _prepare(url)
    assert _prepare(url, allow_unsafe_durability=True) is None


def test_a_postgresql_made_lossy_for_one_database_is_refused_by_name(restored: Postgres) -> None:
    """What counts is what our own connections run with, not the server's default."""
    url = restored.database()
    _prepare(url)
    name = url.rsplit("/", 1)[1]
    restored.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    done = tollgate(url, _SERVE)
    assert done.returncode == 1
    assert "synchronous_commit = off" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_older_postgresql_schema_is_left_alone_and_the_command_is_named(
    breakable: Postgres,
) -> None:
    url = breakable.database()
    _prepare(url)
    _execute(url, "UPDATE alembic_version SET version_num = '0000_older'")
    with pytest.raises(NotReadyError, match=r"0000_older.*run `tollgate migrate"):
        _prepare(url)


def _execute(url: str, statement: str) -> None:
    async def run() -> None:
        db = Database.open(url)
        try:
            await db.write(lambda tx: tx.run(text(statement)))
        finally:
            await db.close()

    asyncio.run(run())


def test_what_cannot_be_opened_or_read_is_one_clear_sentence() -> None:
    """A traceback tells whoever starts the service nothing, and can show a secret."""
    secret = "tg_too_short_to_be_a_key"
    wrong = (
        {"url": "sqlite:////nonexistent/folder/x.db"},
        {"url": "postgresql://postgres:hunter2@127.0.0.1:1/x"},
        {"url": "mysql://x:hunter2@y/z"},
        {"url": "hunter2"},
        {"url": "sqlite:////nonexistent/x.db", "TOLLGATE_ADMIN_KEY": secret},
    )
    with ThreadPoolExecutor(len(wrong)) as pool:
        all_done = list(pool.map(lambda given: tollgate(**given, arguments=_SERVE), wrong))
    for given, done in zip(wrong, all_done, strict=True):
        assert done.returncode == 1, given
        assert "Traceback" not in done.stderr, given
        assert done.stderr.startswith("tollgate: "), given
        assert "hunter2" not in done.stderr + done.stdout, given
        assert secret not in done.stderr + done.stdout, given
