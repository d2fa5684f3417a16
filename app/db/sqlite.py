"""SQLAlchemy's SQLite dialect over apsw, so that one current SQLite library opens the file.

Two SQLite libraries in one process must never open the same file: closing it in one drops the
other's POSIX locks. The one Python ships is also often older than 3.51.3, which has a bug that can
corrupt a WAL when two connections checkpoint at once. So everything here goes through apsw.
"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache
from threading import local
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import apsw
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy import Connection as SqlConnection
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.pool import NullPool

from app.core.clock import to_micros

PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA cache_size = -65536",
)


def connect(path: str, *, readonly: bool = False) -> apsw.Connection:
    """Open the file the way every connection of ours is opened: durable, WAL, no waiting.

    A writer never waits inside SQLite (that would hold up the event loop); the engine retries.
    A new file is for its owner alone; SQLite gives the files beside it the same mode.
    """
    with suppress(OSError):  # where a file cannot be made, SQLite says why
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    connection = apsw.Connection(path)
    connection.set_busy_timeout(5000)
    for pragma in PRAGMAS:
        connection.execute(pragma).fetchall()
    connection.convert_binding = _bind
    connection.create_aggregate_function(_EXACT_SUM, _ExactSum, 1)
    if not readonly:
        connection.execute(f"PRAGMA wal_autocheckpoint = {checkpoint_pages(path)}").fetchall()
    if readonly:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        connection.set_busy_timeout(1000)
    else:
        connection.set_busy_timeout(0)
    return connection


def checkpoint_pages(path: str) -> int:
    """How far the WAL may grow before it is folded back: 64 MB, or an eighth of a small disk.

    A large WAL makes commits steady (at SQLite's 1,000 pages one in ten takes four times as long),
    but one that fills the disk could never be folded back again.
    """
    free = shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free
    return max(250, min(16_000, free // 8 // 4096))


def reclaim(connection: apsw.Connection) -> None:
    """After a full disk: fold the WAL back and give its space up, as far as that is possible."""
    with suppress(apsw.Error):
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


def _bind(_cursor: Any, _number: int, value: object) -> int:
    if isinstance(value, datetime):
        return to_micros(value)
    raise TypeError(f"cannot store a {type(value).__name__}")


_SUM = re.compile(r"\bsum\(")
_EXACT_SUM = "exact_sum"


class _ExactSum:
    """As SQL's `sum`, slower: a sum that does not fit into 64 bits is a string of its digits."""

    def __init__(self) -> None:
        self._total: int | None = None

    def step(self, *values: object) -> None:
        if isinstance(values[0], int):
            self._total = (self._total or 0) + values[0]

    def final(self) -> int | str | None:
        total = self._total
        if total is None or -(1 << 63) <= total < 1 << 63:
            return total
        return str(total)


def _has_overflown(error: apsw.Error) -> bool:
    return isinstance(error, apsw.SQLError) and "integer overflow" in str(error)


class Cursor:
    """A PEP 249 cursor over an apsw one.

    A sum that passes 64 bits is read as a string of digits; every other one as a number.
    """

    arraysize = 1

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._asked: tuple[str, tuple[Any, ...]] = ("", ())
        self._rows: Iterator[tuple[Any, ...]] = iter(())
        self.description: list[tuple[Any, ...]] | None = None
        self.rowcount = -1
        self.lastrowid = 0

    def _describe(self, cursor: Any, _sql: str, _bindings: Any) -> bool:
        found = cursor.get_description()
        self.description = [(name, *(None,) * 6) for name, _ in found] if found else None
        return True

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        self._asked = sql, tuple(parameters)
        self._run(sql, lambda cursor: cursor.execute(*self._asked))

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        self._run(sql, lambda cursor: cursor.executemany(sql, [tuple(row) for row in rows]))

    def _run(self, sql: str, act: Any) -> None:
        self.description = None
        cursor = self._connection.cursor()
        cursor.exec_trace = self._describe
        before = self._connection.total_changes()
        try:
            act(cursor)
            reads = self.description is not None
            self._rows = iter(cursor) if reads else iter(())
            if reads and not _is_query(sql):
                self._rows = iter(list(self._rows))  # a write with RETURNING is run to its end
        except apsw.Error as error:
            if not (_is_query(sql) and _has_overflown(error)):
                raise _translated(error) from error
            self._rows = iter(self._summed_exactly())
        self.rowcount = self._connection.total_changes() - before
        self.lastrowid = self._connection.last_insert_rowid()

    def fetchone(self) -> tuple[Any, ...] | None:
        return next(self._rows, None)

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        wanted = self.arraysize if size is None else size
        return [row for _, row in zip(range(wanted), self._rows, strict=False)]

    def fetchall(self) -> list[tuple[Any, ...]]:
        try:
            return list(self._rows)
        except apsw.Error as error:
            if not _has_overflown(error):
                raise _translated(error) from error
            return self._summed_exactly()

    def _summed_exactly(self) -> list[tuple[Any, ...]]:
        """The rows of a query in which a sum passed 64 bits."""
        sql, parameters = self._asked
        exact = _SUM.sub(f"{_EXACT_SUM}(", sql)
        return list(self._connection.cursor().execute(exact, parameters))

    def close(self) -> None:
        self._rows = iter(())


def _is_query(sql: str) -> bool:
    return sql.lstrip()[:6].upper() == "SELECT"


class Connection:
    """A PEP 249 connection whose transactions are begun and ended by `db/engine.py` alone."""

    def __init__(self, raw: apsw.Connection) -> None:
        self.raw = raw

    def cursor(self) -> Cursor:
        return Cursor(self.raw)

    def commit(self) -> None:
        """Nothing: whoever began the transaction ends it."""

    def rollback(self) -> None:
        """Nothing: whoever began the transaction ends it."""

    def close(self) -> None:
        """Nothing: the raw connection belongs to the engine that opened it."""


class Error(Exception):
    """PEP 249's root; SQLAlchemy wraps what derives from it."""


class OperationalError(Error):
    """The database could not do it now."""


class IntegrityError(Error):
    """A constraint refused it."""


class ProgrammingError(Error):
    """The statement is wrong."""


def _translated(error: apsw.Error) -> Error:
    if isinstance(error, apsw.ConstraintError):
        return IntegrityError(str(error))
    if isinstance(error, apsw.SQLError | apsw.BindingsError | apsw.MisuseError):
        return ProgrammingError(str(error))
    return OperationalError(str(error))


_DBAPI = SimpleNamespace(
    paramstyle="qmark",
    threadsafety=1,
    apilevel="2.0",
    version=apsw.apsw_version(),
    sqlite_version=apsw.sqlite_lib_version(),
    sqlite_version_info=tuple(int(part) for part in apsw.sqlite_lib_version().split(".")),
    Error=Error,
    DatabaseError=Error,
    InterfaceError=ProgrammingError,
    DataError=IntegrityError,
    InternalError=OperationalError,
    NotSupportedError=ProgrammingError,
    Warning=Warning,
    OperationalError=OperationalError,
    IntegrityError=IntegrityError,
    ProgrammingError=ProgrammingError,
)


class ApswDialect(SQLiteDialect):
    """`sqlite+apsw`: what SQLAlchemy needs to speak through our connections."""

    driver = "apsw"
    supports_statement_cache = True
    default_paramstyle = "qmark"

    @classmethod
    def import_dbapi(cls) -> ModuleType:
        return cast(ModuleType, _DBAPI)

    def create_connect_args(self, url: URL) -> Any:
        return [], {}

    def _get_server_version_info(self, connection: Any) -> Any:
        return _DBAPI.sqlite_version_info


registry.register("sqlite.apsw", "app.db.sqlite", "ApswDialect")


_opening = local()


@cache
def _engine() -> Engine:
    """One for the process: it remembers how statements are compiled, on whichever connection."""
    return create_engine(
        "sqlite+apsw://", creator=lambda: Connection(_opening.raw), poolclass=NullPool
    )


def opened_over(raw: apsw.Connection) -> SqlConnection:
    """SQLAlchemy's connection over one of ours; closing it leaves ours open."""
    _opening.raw = raw
    try:
        return _engine().connect()
    finally:
        del _opening.raw
