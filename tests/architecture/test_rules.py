"""The rules that nobody should have to remember."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

import app.main  # noqa: F401  (loads every table and error)
from app.core.errors import AppError
from app.db.engine import migrate
from app.db.migrate import NEWEST
from app.db.types import Moment
from app.db.upgrade import config
from app.models import METADATA
from tests.architecture.sources import (
    RIVER,
    ROOT,
    SOURCES,
    homes,
    methods_called,
    name_of,
    strings_in,
    tree_of,
)

TABLES = sorted(METADATA.tables.values(), key=lambda table: table.name)
every_file = pytest.mark.parametrize("path", SOURCES, ids=name_of)
every_table = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)


# ---- the river flows one way --------------------------------------------------------------------


def test_imports_go_down_the_list() -> None:
    told = ["--config", str(ROOT / "pyproject.toml"), "--no-cache", "--no-logo"]
    linter = Path(sys.executable).with_name("lint-imports")  # in here it would silence every logger
    run = subprocess.run([linter, *told], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@every_table
def test_foreign_keys_go_down_the_list(table) -> None:  # type: ignore[no-untyped-def]
    home = homes()
    for key in table.foreign_keys:
        here, there = RIVER.index(home[table.name]), RIVER.index(home[key.column.table.name])
        assert here <= there, f"{table.name}.{key.parent.name} points up to {key.target_fullname}"


# ---- only the engine ends a transaction ---------------------------------------------------------

ENGINE = "app/db/engine.py"
PEP_249 = "app/db/sqlite.py"
"""Its connection has the methods that SQLAlchemy calls, and they do nothing."""
ENDINGS = {"commit", "rollback", "begin", "begin_nested", "begin_twophase", "begin_transaction"}
SPOKEN = re.compile(
    r"\s*(BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|(START|SET) TRANSACTION|END TRANSACTION)\b", re.I
)


@every_file
def test_only_the_engine_ends_transactions(path: Path) -> None:
    if name_of(path) == ENGINE:
        return
    tree = tree_of(path)
    found = [
        f"line {line}: {on}.{name}()" for on, name, line in methods_called(tree) if name in ENDINGS
    ]
    found += [f"line {line}: {said!r}" for said, line in strings_in(tree) if SPOKEN.match(said)]
    assert found == []


@every_file
def test_nothing_else_is_called_a_transaction(path: Path) -> None:
    made = [
        node
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in ENDINGS
    ]
    if name_of(path) == PEP_249:
        assert {node.name for node in made} == {"commit", "rollback"}
        made = [node for node in made if len(node.body) > 1 or not ast.get_docstring(node)]
    assert made == []


# ---- money and time have one shape --------------------------------------------------------------

SHAPES = {
    *(("TEXT", "TEXT"), ("BIGINT", "INTEGER"), ("TIMESTAMP WITH TIME ZONE", "INTEGER")),
    *(("JSONB", "TEXT"), ("BOOLEAN", "INTEGER"), ("BYTEA", "BLOB")),
}
"""A column on PostgreSQL and on SQLite; no floats, no decimals, no time without its zone."""
WHOLE = ("BIGINT", "INTEGER")
COUNTED = ("_nanos", "_micros", "_us", "_ms", "_s", "_tokens", "_bytes", "_calls", "_count")


@every_table
def test_columns_have_one_shape(table) -> None:  # type: ignore[no-untyped-def]
    for column in table.columns:
        shape = (
            column.type.compile(postgresql.dialect()),  # type: ignore[no-untyped-call]
            column.type.compile(sqlite.dialect()),
        )
        where = f"{table.name}.{column.name} is {shape}"
        assert shape in SHAPES, where
        is_moment = isinstance(column.type, Moment)
        assert is_moment or not shape[0].startswith("TIMESTAMP"), where
        assert is_moment or not column.name.endswith("_at"), where
        assert shape == WHOLE or not column.name.endswith(COUNTED), where


@every_table
def test_tables_are_strict_on_sqlite(table) -> None:  # type: ignore[no-untyped-def]
    assert table.dialect_options["sqlite"]["strict"]


# ---- only the clock knows the time --------------------------------------------------------------

ASKS = {
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
    "time": {
        *("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"),
        *("process_time", "gmtime", "localtime", "clock_gettime"),
    },
    "func": {"now", "current_timestamp", "localtimestamp", "clock_timestamp"},
}
SQL_CLOCK = re.compile(r"\bnow\(\)|\bcurrent_(timestamp|date|time)\b|\bclock_timestamp\b", re.I)


CLOCKS = ("app/core/clock.py", "app/db/clock.py")
"""The process's and the database's."""


@every_file
def test_only_the_clock_asks_the_time(path: Path) -> None:
    if name_of(path) in CLOCKS:
        return
    tree = tree_of(path)
    found = [
        f"line {line}: {on}.{name}()"
        for on, name, line in methods_called(tree)
        if name in ASKS.get(on.rsplit(".", 1)[-1], ())
    ]
    found += [
        f"line {node.lineno}: from time import …"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "time"
    ]
    found += [f"line {line}: {said!r}" for said, line in strings_in(tree) if SQL_CLOCK.search(said)]
    assert found == []


# ---- every problem is documented ----------------------------------------------------------------


def kinds_of(kind: type[AppError]) -> list[type[AppError]]:
    return [kind, *(each for below in kind.__subclasses__() for each in kinds_of(below))]


PROBLEMS = kinds_of(AppError)


def test_every_problem_has_its_own_slug() -> None:
    slugs = [kind.slug for kind in PROBLEMS]
    assert sorted(set(slugs)) == sorted(slugs)


def test_every_problem_has_its_section_and_no_section_is_left_over() -> None:
    page = (ROOT / "docs" / "problems.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## ([a-z-]+)$", page, re.MULTILINE)
    assert sorted(sections) == sorted(kind.slug for kind in PROBLEMS)
    for kind in PROBLEMS:
        section = page.split(f"\n## {kind.slug}\n", 1)[1].split("\n## ", 1)[0]
        assert f"**{kind.status}.**" in section, f"{kind.slug} is answered with {kind.status}"


# ---- migrations make what the models say --------------------------------------------------------


async def differences(url: str) -> list[object]:
    found: list[object] = []

    def work(connection: Connection) -> None:
        options = {"compare_type": True, "compare_server_default": True}
        found.extend(
            compare_metadata(MigrationContext.configure(connection, opts=options), METADATA)
        )

    await migrate(url, work)
    return found


@pytest.mark.anyio
async def test_migrations_make_what_the_models_say(db_url: str) -> None:
    assert await differences(db_url) == []


@pytest.mark.anyio
async def test_migrations_make_the_same_sqlite_tables(sqlite_template: Path) -> None:
    """STRICT and WITHOUT ROWID are no part of the comparison above."""
    found: dict[str, tuple[bool, bool]] = {}

    def work(connection: Connection) -> None:
        rows = connection.execute(text("SELECT name, wr, strict FROM pragma_table_list"))
        found.update({name: (bool(clustered), bool(strict)) for name, clustered, strict in rows})

    await migrate(f"sqlite:///{sqlite_template}", work)
    for table in TABLES:
        clustered = not table.dialect_options["sqlite"]["with_rowid"]
        assert found[table.name] == (clustered, True), table.name


# ---- names say what a file decides --------------------------------------------------------------


@every_file
def test_no_file_is_a_drawer(path: Path) -> None:
    assert path.stem not in {"utils", "util", "helpers", "constants", "service", "common", "misc"}


@every_file
def test_every_file_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(tree_of(path)), "the first line of a file says what it decides"


def test_the_newest_revision_is_the_one_the_code_names() -> None:
    assert ScriptDirectory.from_config(config()).get_current_head() == NEWEST


def test_serving_does_without_what_only_migrations_and_imports_need() -> None:
    code = "import sys, app.cli, app.main; sys.exit(not sys.modules.keys().isdisjoint(sys.argv))"
    command = [sys.executable, "-c", code, "alembic", "genai_prices"]
    subprocess.run(command, check=True, cwd=ROOT)
