"""Each thing that can be wrong with an installation is named, with what to do about it."""

import json
import os
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, make_url, text, update
from typer.testing import CliRunner

from app.access.keys import create_key
from app.alerts.tables import Delivery
from app.cli import app as terminal
from app.core.clock import Clock
from app.db.engine import Database, Tx
from app.db.lease import Lease, conclude, take
from app.doctor import environment, files, postgres, space, versions
from app.doctor.examine import NAMES, examine
from app.doctor.finding import Finding
from app.jobs import PRESENCE
from app.runtime import Runtime
from app.settings import Settings
from tests.conftest import settings_for
from tests.integration.archived import send, wrap_all

pytestmark = pytest.mark.anyio
MINUTE = timedelta(minutes=1)


class Skewed(Clock):
    """A machine whose clock is wrong."""

    def now(self) -> datetime:
        return super().now() + 90 * timedelta(seconds=1)


def settings_of(url: str, tmp_path: Path, **more: Any) -> Settings:
    own = {"archive_url": str(tmp_path / "archives")} | more
    return settings_for(url).model_copy(update=own)


async def seen(
    url: str, tmp_path: Path, *wanted: str, clock: Clock | None = None, **more: Any
) -> list[Finding]:
    """What the doctor says of an installation with these settings."""
    settings = settings_of(url, tmp_path, **more)
    return await examine(settings, {}, clock or Clock(), wanted=wanted or NAMES)


def worst(found: list[Finding], check: str) -> Finding:
    """The gravest finding of a check."""
    of_it = [one for one in found if one.check == check]
    return max(of_it, key=lambda one: ("ok", "warn", "fail").index(one.state))


@pytest.fixture
def now() -> datetime:
    """The time by which the database's rows are judged."""
    return Clock().now()


async def run(db: Database, sql: str) -> None:
    await db.write(lambda tx: tx.run(text(sql)))


# ---- the whole ----------------------------------------------------------------------------------


async def test_of_a_sound_installation_nothing_is_wrong_and_everything_was_looked_at(
    db_url: str, tmp_path: Path
) -> None:
    found = await seen(db_url, tmp_path)
    assert [one for one in found if one.state == "fail"] == []
    assert {one.check for one in found} == set(NAMES)
    assert all(one.advice for one in found if one.state != "ok")


@pytest.fixture
def shell(db_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Runs `tollgate doctor`; the environment is what is given."""

    def run_it(*arguments: str, **variables: str) -> Any:
        given = {"TOLLGATE_DATABASE_URL": db_url, "TOLLGATE_ARCHIVE_URL": str(tmp_path / "a")}
        for name, value in (given | variables).items():
            monkeypatch.setenv(name, value)
        return CliRunner().invoke(terminal, ["doctor", *arguments])

    return run_it


def test_people_get_a_table_and_programs_get_json(shell: Callable[..., Any]) -> None:
    done = shell("--quick", TOLLGATE_LOG_FROMAT="json")
    assert done.exit_code == 0, done.output
    assert "TOLLGATE_LOG_FORMAT" in done.output
    done = shell("--quick", "--json")
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert told["ok"] is True
    checks = {one["check"] for one in told["findings"]}
    assert checks == set(NAMES) - {"identities"}


def test_a_failure_is_told_to_whoever_started_it(shell: Callable[..., Any]) -> None:
    done = shell("--only", "jobs", "--json", TOLLGATE_JOBS="off")
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert told["ok"] is False
    assert [one["check"] for one in told["findings"]] == ["jobs"]
    assert shell("--only", "jbos").exit_code == 1


def test_settings_that_make_no_sense_are_named_without_what_they_say(
    shell: Callable[..., Any],
) -> None:
    done = shell("--json", TOLLGATE_PORT="http", TOLLGATE_ADMIN_KEY="hunter2")
    assert done.exit_code == 1
    said = [one["found"].partition(":")[0] for one in json.loads(done.stdout)["findings"]]
    assert sorted(said) == ["TOLLGATE_ADMIN_KEY", "TOLLGATE_PORT"]
    assert "hunter2" not in done.output


# ---- settings and versions ----------------------------------------------------------------------


async def test_a_misspelt_variable_is_named_with_the_nearest_that_is_known() -> None:
    given = {"TOLLGATE_DATABSE_URL": "x", "TOLLGATE_ZZZ": "1", "TOLLGATE_PORT": "1", "PATH": "/"}
    misspelt, strange = environment.variables(given)
    assert misspelt.state == strange.state == "warn"
    assert "TOLLGATE_DATABSE_URL" in misspelt.found
    assert "TOLLGATE_DATABASE_URL" in misspelt.advice
    assert "TOLLGATE_ZZZ" in strange.found
    (fine,) = environment.variables({"tollgate_port": "1"})
    assert fine.state == "ok"


async def test_what_is_too_old_is_named() -> None:
    assert versions.python((3, 10, 4)).state == "fail"
    assert versions.sqlite("3.45.1").state == "fail"
    assert versions.postgres(130_022).state == "fail"
    assert versions.postgres(140_000).state == "ok"
    assert versions.libraries().state == "ok"


@pytest.mark.parametrize(
    ("found", "line", "holds"),
    [
        ("0.28.1", "httpx<0.29,>=0.28", True),
        ("0.29", "httpx<0.29,>=0.28", False),
        ("0.27.9", "httpx<0.29,>=0.28", False),
        ("26", "pyarrow<27,>=26", True),
        ("0.2.3", "genai-prices==0.2.3", True),
        ("0.2.4", "genai-prices==0.2.3", False),
        ("2.1.0b2", "sqlalchemy[asyncio]<2.2,>=2.1", True),
    ],
)
async def test_a_library_is_judged_by_the_bounds_of_this_release(
    found: str, line: str, holds: bool
) -> None:
    assert versions.allowed(found, line) is holds


# ---- files and space ----------------------------------------------------------------------------


@pytest.fixture
def file(sqlite_template: Path, tmp_path: Path) -> Path:
    path = tmp_path / "own.db"
    shutil.copy(sqlite_template, path)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("folder", "mode", "state", "advice"),
    [
        (0o700, 0o600, "ok", ""),
        (0o700, 0o644, "ok", ""),
        (0o755, 0o644, "warn", "chmod o-rwx"),
        (0o755, 0o666, "fail", "chmod o-w"),
    ],
)
def test_a_file_that_others_can_read_or_change_is_named(
    file: Path, tmp_path: Path, folder: int, mode: int, state: str, advice: str
) -> None:
    tmp_path.chmod(folder)
    file.chmod(mode)
    found = [one for one in files.access(file) if one.check == "files"]
    assert [one.state for one in found] == [state]
    assert advice in found[0].advice


async def test_a_file_that_cannot_be_written_is_named(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("own.db"))
    found = worst(await seen(f"sqlite:///{file}", tmp_path, "files"), "files")
    assert found.state == "fail"
    assert "cannot be written" in found.found


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("ext4", "ok"),
        ("nfs4", "fail"),
        ("fuse.sshfs", "fail"),
        ("tmpfs", "warn"),
        ("overlay", "warn"),
    ],
)
async def test_a_disk_that_is_none_is_named(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, state: str
) -> None:
    mounts = tmp_path / "mounts"
    lines = ["22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"]
    lines.append(f"48 22 0:4 / {tmp_path} rw shared:9 - {kind} there rw")
    lines.append(f"49 22 0:5 / {tmp_path}-other rw shared:9 - proc there rw")
    mounts.write_text("\n".join(lines))
    monkeypatch.setattr(files, "MOUNTS", mounts)
    found = worst(await seen(f"sqlite:///{file}", tmp_path, "files"), "files")
    assert found.state == state
    assert state == "ok" or kind in found.found


async def test_a_disk_that_is_nearly_full_is_named(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    for free, state in ((10 << 20, "fail"), (1 << 30, "warn"), (usage.total, "ok")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=free))
        found = worst(await seen(f"sqlite:///{file}", tmp_path, "space"), "space")
        assert found.state == state, found


async def test_space_is_judged_by_how_long_it_lasts() -> None:
    total = 1000 << 30
    assert space.room("x", 500 << 30, total, 1 << 30).state == "ok"
    assert "about 500 days" in space.room("x", 500 << 30, total, 1 << 30).found
    assert space.room("x", 500 << 30, total, 20 << 30).state == "warn"
    assert space.room("x", 500 << 30, total, 200 << 30).state == "fail"
    assert space.Growth(1_000_000, 1_000, 700).daily == 100_000
    assert space.Growth(1_000_000, 0, 0).daily == 0


async def test_growth_is_counted_from_the_totals(
    client: httpx.AsyncClient, runtime: Runtime, db_url: str, tmp_path: Path
) -> None:
    await send(client, "alice")
    found = await seen(db_url, tmp_path, "space", clock=runtime.clock)
    assert any("a day" in one.found for one in found), found


async def test_a_wal_that_is_never_folded_in_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.db-wal"
    assert space.wal(path).state == "ok"
    for length, state in ((200 << 20, "warn"), (2 << 30, "fail")):
        with path.open("wb") as hole:
            hole.truncate(length)
        assert space.wal(path).state == state


# ---- the database -------------------------------------------------------------------------------


async def test_a_database_that_is_not_there_is_named_and_not_made(tmp_path: Path) -> None:
    for url, part in (
        (f"sqlite:///{tmp_path}/none.db", "none.db"),
        ("postgresql://x:hunter2@127.0.0.1:1/x", "did not accept"),
    ):
        found = worst(await seen(url, tmp_path, database_timeout_s=5), "database")
        assert found.state == "fail"
        assert part in found.found
        assert "hunter2" not in found.found
    (tmp_path / "note.db").write_text("this is no database " * 100)
    found = worst(await seen(f"sqlite:///{tmp_path}/note.db", tmp_path), "database")
    assert found.state == "fail"
    assert not (tmp_path / "none.db").exists()


async def test_a_schema_of_another_version_is_named_and_what_needs_it_is_left_alone(
    db: Database, db_url: str, tmp_path: Path
) -> None:
    for revision, advice in (("0003", "tollgate migrate"), ("9999", "newer version")):
        await run(db, f"UPDATE alembic_version SET version_num = '{revision}'")
        found = await seen(db_url, tmp_path)
        assert worst(found, "schema").state == "fail"
        assert advice in worst(found, "schema").advice
        assert "identities" not in {one.check for one in found}


@pytest.mark.parametrize("db_url", ["postgresql"], indirect=True)
async def test_a_postgresql_that_loses_what_it_acknowledges_is_named(
    db: Database, db_url: str, tmp_path: Path
) -> None:
    assert worst(await seen(db_url, tmp_path), "durability").state == "ok"
    await run(db, f'ALTER DATABASE "{make_url(db_url).database}" SET synchronous_commit = off')
    found = worst(await seen(db_url, tmp_path), "durability")
    assert found.state == "fail"
    assert "synchronous_commit" in found.found
    allowed = await seen(db_url, tmp_path, "durability", allow_unsafe_durability=True)
    assert worst(allowed, "durability").state == "warn"


@pytest.mark.parametrize("db_url", ["postgresql"], indirect=True)
async def test_a_clock_that_is_wrong_is_named(db_url: str, tmp_path: Path) -> None:
    found = worst(await seen(db_url, tmp_path, "clock", clock=Skewed()), "clock")
    assert found.state == "fail"
    assert "behind" in found.found
    assert postgres.skew(timedelta(seconds=5)).state == "warn"
    assert postgres.skew(timedelta(seconds=-1)).state == "ok"


@pytest.mark.parametrize("db_url", ["postgresql"], indirect=True)
async def test_more_connections_than_the_server_has_are_named(db_url: str, tmp_path: Path) -> None:
    found = await seen(db_url, tmp_path, "connections", pool_size=100, workers=64)
    assert worst(found, "connections").state == "fail"
    assert "TOLLGATE_POOL_SIZE" in worst(found, "connections").advice
    assert postgres.room(97, 95, 8, 2).state == "warn"
    assert postgres.room(97, 9, 100, 64, pooled=True).state == "ok"


async def test_a_pooler_that_the_url_does_not_name_is_named() -> None:
    assert postgres.between(postgres.Seen(7, 7), said=False).state == "ok"
    assert postgres.between(postgres.Seen(7, 9), said=True).state == "ok"
    hidden = postgres.between(postgres.Seen(7, 9), said=False)
    assert (hidden.state, "pgbouncer=true" in hidden.advice) == ("fail", True)
    assert postgres.between(postgres.Seen(7, 7), said=True).state == "warn"


@pytest.mark.parametrize("db_url", ["postgresql"], indirect=True)
async def test_a_url_that_names_a_pooler_that_is_not_there_is_named(
    db_url: str, tmp_path: Path
) -> None:
    url = make_url(db_url).update_query_dict({"pgbouncer": "true"})
    shown = url.render_as_string(hide_password=False)
    assert worst(await seen(shown, tmp_path, "pooler"), "pooler").state == "warn"


# ---- work and what is stored --------------------------------------------------------------------


async def test_work_that_nobody_does_is_named(
    db: Database, db_url: str, tmp_path: Path, now: datetime
) -> None:
    assert worst(await seen(db_url, tmp_path, "jobs"), "jobs").state == "ok"
    off = {"jobs": "off"}
    found = worst(await seen(db_url, tmp_path, "jobs", **off), "jobs")
    assert (found.state, "tollgate worker" in found.advice) == ("fail", True)
    await db.write(lambda tx: take(tx, PRESENCE, "one", now, 10 * MINUTE))
    assert worst(await seen(db_url, tmp_path, "jobs", **off), "jobs").state == "ok"
    await db.write(lambda tx: tx.run(update(Lease).values(until_at=now - MINUTE)))
    found = worst(await seen(db_url, tmp_path, "jobs", **off), "jobs")
    assert (found.state, "gone" in found.found) == ("fail", True)


async def test_a_job_that_fails_is_named_with_what_it_said(
    db: Database, db_url: str, tmp_path: Path, now: datetime
) -> None:
    async def after(failure: str | None, at: datetime) -> Finding:
        await db.write(lambda tx: take(tx, "wrap-logs", "one", at, MINUTE))
        await db.write(lambda tx: conclude(tx, "wrap-logs", "one", at, failure))
        return worst(await seen(db_url, tmp_path, "jobs"), "jobs")

    assert (await after(None, now - 30 * MINUTE)).state == "ok"
    found = await after("OSError: no space", now - 20 * MINUTE)
    assert (found.state, "no space" in found.found) == ("warn", True)
    assert (await after(None, now - 90 * MINUTE)).state == "ok"
    assert (await after("OSError: no space", now - 80 * MINUTE)).state == "fail"


async def test_messages_that_are_late_or_given_up_are_named(
    db: Database, db_url: str, tmp_path: Path, now: datetime
) -> None:
    async def queued(name: str, state: str, late: timedelta) -> Finding:
        row = {"id": name, "message_id": name, "webhook_id": "w", "created_at": now}
        row |= {"state": state, "next_attempt_at": now - late, "attempts": 0, "failures": 0}
        await db.write(lambda tx: tx.run(insert(Delivery), [row]))
        return worst(await seen(db_url, tmp_path, "outbox"), "outbox")

    assert (await queued("a", "pending", MINUTE)).state == "ok"
    assert (await queued("b", "dead", MINUTE)).state == "warn"
    found = await queued("c", "pending", 20 * MINUTE)
    assert (found.state, "1 messages" in found.found) == ("warn", True)
    assert (await queued("d", "pending", 120 * MINUTE)).state == "fail"


async def test_archives_that_cannot_be_reached_or_are_not_whole_are_named(
    client: httpx.AsyncClient, runtime: Runtime, db_url: str, tmp_path: Path
) -> None:
    assert worst(await seen(db_url, tmp_path, "archives"), "archives").state == "ok"
    found = await seen(db_url, tmp_path, "archives", archive_url="nosuch://bucket/a")
    assert worst(found, "archives").state == "fail"
    await send(client, "alice")
    (archive,) = await wrap_all(runtime, "alice")
    assert worst(await seen(db_url, tmp_path, "archives"), "archives").state == "ok"
    path = tmp_path / "archives" / archive.path
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"x")
    assert worst(await seen(db_url, tmp_path, "archives"), "archives").state == "fail"
    path.unlink()
    found = await seen(db_url, tmp_path, "archives")
    assert (worst(found, "archives").state, "missing" in worst(found, "archives").found) == (
        "fail",
        True,
    )


async def test_figures_that_do_not_agree_are_named(
    client: httpx.AsyncClient, db: Database, db_url: str, tmp_path: Path
) -> None:
    await send(client, "alice", rows=3)
    assert worst(await seen(db_url, tmp_path, "identities"), "identities").state == "ok"
    await run(db, "UPDATE period_totals SET calls = calls + 1")
    found = worst(await seen(db_url, tmp_path, "identities"), "identities")
    assert (found.state, "audit" in found.advice) == ("fail", True)


async def test_keys_that_expire_soon_are_named(
    db: Database, db_url: str, tmp_path: Path, now: datetime
) -> None:
    async def keyed(name: str, scopes: list[str], days: int | None) -> list[Finding]:
        async def make(tx: Tx) -> None:
            ends = None if days is None else now + timedelta(days=days)
            given = {"name": name, "scopes": scopes, "user_id": None, "expires_at": ends}
            await create_key(tx, now=now - timedelta(days=90), **given)  # type: ignore[arg-type]

        await db.write(make, alone=True)
        return await seen(db_url, tmp_path, "keys", admin_key=None)

    said = worst(await keyed("app", ["ingest"], 90), "keys")
    assert (said.state, "admin" in said.found) == ("warn", True)
    assert worst(await keyed("boss", ["admin"], None), "keys").state == "ok"
    said = worst(await keyed("old", ["read"], 3), "keys")
    assert (said.state, "(old) expires" in said.found) == ("warn", True)
    assert worst(await keyed("gone", ["read"], -3), "keys") == said
