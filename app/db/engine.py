"""Open transactions. This is the only module that begins, commits or rolls back.

`write(work)` runs `work(tx)` as one unit: durable when it returns, or it never happened. It is
retried on lock, serialization and lost-connection errors, so `work` may run more than once and
must do nothing that cannot be rolled back. `read(work)` sees one consistent snapshot.

Both give up within a few seconds with `Unavailable`: a database that has stopped answering must
not hold callers.
"""

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import apsw
import asyncpg
from loguru import logger
from sqlalchemy import URL, Executable, make_url
from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import Connection, Row
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.core.errors import Unavailable
from app.core.ids import uuid7
from app.db import sqlite

T = TypeVar("T")
Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
Note = tuple[str, tuple[str, ...], int]
"""A figure's name, its labels, and how much it grows."""
Heard = Callable[[Sequence[Note]], None]

CONFIG_LOCK = 0x746F6C6C
"""Advisory lock: ingest holds it shared, a change of configuration alone (see `access/known`)."""

TIMEOUT_S = 4.5
"""How long a caller waits for the database before it is told 503, where nothing else is set."""
ATTEMPTS = 4

_RETRY_SQLSTATES = ("40001", "40P01", "55P03", "57P01", "57P02", "57P03", "25006", "53300")


class Tx(ABC):
    """One open transaction. `hot` is the driver's own connection, for `db/upsert.py` alone."""

    dialect: str
    hot: Any
    noted: list[Note] | None = None

    def note(self, name: str, *labels: str, by: int = 1) -> None:
        """Have a figure grow once this is durable; if it never is, neither does the figure."""
        if self.noted is None:
            self.noted = []
        self.noted.append((name, labels, by))

    @abstractmethod
    async def fetch(
        self, statement: Executable, parameters: Parameters = None
    ) -> Sequence[Row[*tuple[Any, ...]]]:
        """Run a statement that returns rows and give them all."""

    @abstractmethod
    async def run(self, statement: Executable, parameters: Parameters = None) -> int:
        """Run a statement that changes rows and say how many."""

    async def first(
        self, statement: Executable, parameters: Parameters = None
    ) -> Row[*tuple[Any, ...]] | None:
        """The first row, or None."""
        rows = await self.fetch(statement, parameters)
        return rows[0] if rows else None


class Database(ABC):
    """One database, seen as a way to write and a way to read."""

    dialect: str
    patience_s: float = TIMEOUT_S
    heard: Heard | None = None
    """Told what each write noted, after its commit; must not fail."""

    @staticmethod
    def open(url: str, *, pool_size: int = 8, patience_s: float = TIMEOUT_S) -> "Database":
        """Open `sqlite:///path` or `postgresql://…`; nothing is connected yet.

        `patience_s`: how long work may take where its caller does not say.
        """
        lite = make_url(url).get_backend_name() == "sqlite"
        found = SqliteDatabase(url) if lite else PostgresDatabase(url, pool_size)
        found.patience_s = patience_s
        return found

    @abstractmethod
    def _writing(self, *, alone: bool) -> Any:
        """Context manager: an open write transaction, committed at its end."""

    @abstractmethod
    def _reading(self) -> Any:
        """Context manager: an open snapshot."""

    @abstractmethod
    async def close(self) -> None:
        """Let every connection go."""

    async def write(
        self,
        work: Callable[[Tx], Awaitable[T]],
        *,
        alone: bool = False,
        within_s: float | None = None,
    ) -> T:
        """Run `work` in one durable transaction. `alone`: with no ingest transaction beside it."""
        return await _attempt(
            lambda: self._writing(alone=alone), work, within_s or self.patience_s, self.heard
        )

    async def read(self, work: Callable[[Tx], Awaitable[T]], *, within_s: float | None = None) -> T:
        """Run `work` on one consistent snapshot; it cannot write."""
        return await _attempt(self._reading, work, within_s or self.patience_s)

    @abstractmethod
    def _glancing(self) -> Any:
        """Context manager: a connection for a few short reads, in no transaction."""

    async def glance(
        self, work: Callable[[Tx], Awaitable[T]], *, within_s: float | None = None
    ) -> T:
        """Run a few short reads by key, each seeing what is committed when it runs.

        On SQLite they run on the event loop: nothing that scans belongs here.
        """
        return await _attempt(self._glancing, work, within_s or self.patience_s)

    @abstractmethod
    def lane(self) -> "Lane":
        """A writer that keeps its connection between transactions, for the intake."""


class Lane(ABC):
    """One writer that keeps its connection open between transactions."""

    heard: Heard | None = None

    @abstractmethod
    def _writing(self) -> Any:
        """Context manager: an open write transaction, committed at its end."""

    @abstractmethod
    async def close(self) -> None:
        """Let the connection go."""

    async def write(self, work: Callable[[Tx], Awaitable[T]], *, within_s: float = TIMEOUT_S) -> T:
        """As `Database.write`."""
        return await _attempt(self._writing, work, within_s, self.heard)


async def _attempt(
    opening: Callable[[], Any],
    work: Callable[[Tx], Awaitable[T]],
    within_s: float,
    heard: Heard | None = None,
) -> T:
    try:
        async with asyncio.timeout(within_s):
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    async with opening() as tx:
                        found = await work(tx)
                    if heard is not None and tx.noted:
                        heard(tx.noted)
                    return found
                except Exception as error:
                    if not is_transient(error):
                        raise
                    if attempt == ATTEMPTS or not is_retryable(error):
                        _note(error)
                        raise Unavailable("the database did not accept the work") from error
                await asyncio.sleep(random.uniform(0.01, 0.05) * 3**attempt)
    except TimeoutError as error:
        _note(error)
        raise Unavailable("the database did not answer in time") from error
    raise AssertionError("unreachable")


def _note(error: BaseException) -> None:
    logger.bind(error=f"{type(error).__name__}: {error}"[:300]).warning("database.unavailable")


def _cause(error: BaseException) -> BaseException:
    """What the driver itself said, beneath SQLAlchemy's wrapping and ours."""
    while isinstance(error, sa_exc.SQLAlchemyError | sqlite.Error) or hasattr(error, "pgcode"):
        inner: BaseException | None = getattr(error, "orig", None) or error.__cause__
        if inner is None:
            return error
        error = inner
    return error


_SQLITE_TRANSIENT = (
    apsw.BusyError,
    apsw.LockedError,
    apsw.FullError,
    apsw.IOError,
    apsw.CantOpenError,
    apsw.ReadOnlyError,
    apsw.InterruptError,
    apsw.NoMemError,
    apsw.ProtocolError,
)
_POSTGRES_TRANSIENT = (
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresSystemError,
)


def is_transient(error: BaseException) -> bool:
    """Whether the database could not do it now, as opposed to never."""
    cause = _cause(error)
    return isinstance(
        cause,
        (*_SQLITE_TRANSIENT, *_POSTGRES_TRANSIENT, OSError, EOFError, sa_exc.TimeoutError),
    )


def is_retryable(error: BaseException) -> bool:
    """Whether trying again at once may help: a lock, a lost connection; not a full disk."""
    cause = _cause(error)
    if isinstance(cause, apsw.Error):
        return isinstance(cause, apsw.BusyError | apsw.LockedError | apsw.ProtocolError)
    sqlstate = getattr(cause, "sqlstate", None)
    if isinstance(sqlstate, str):
        return sqlstate in _RETRY_SQLSTATES or sqlstate.startswith("08")
    return not isinstance(cause, sa_exc.TimeoutError)


# ---- SQLite -----------------------------------------------------------------------------------


class _SqliteTx(Tx):
    dialect = "sqlite"

    def __init__(self, raw: apsw.Connection) -> None:
        self.hot = raw
        self._sa: Connection | None = None
        self._running: asyncio.Future[Any] | None = None

    async def _in_thread(
        self, statement: Executable, parameters: Parameters
    ) -> tuple[Sequence[Row[*tuple[Any, ...]]], int]:
        self._running = asyncio.ensure_future(asyncio.to_thread(self._run, statement, parameters))
        return await asyncio.shield(self._running)

    async def settled(self) -> None:
        """Stop a statement whose caller gave up on it, so that the connection is free again."""
        running = self._running
        if running is None:
            return
        if not running.done():
            self.hot.interrupt()
        while not running.done():
            with suppress(asyncio.CancelledError):  # who cancels may do so again and again
                await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # nobody waits for it any more, so it is not reported either

    def _run(
        self, statement: Executable, parameters: Parameters
    ) -> tuple[Sequence[Row[*tuple[Any, ...]]], int]:
        if self._sa is None:
            self._sa = sqlite.opened_over(self.hot)
        result = self._sa.execute(statement, parameters)
        return (result.fetchall() if result.returns_rows else (), result.rowcount)

    async def fetch(
        self, statement: Executable, parameters: Parameters = None
    ) -> Sequence[Row[*tuple[Any, ...]]]:
        return (await self._in_thread(statement, parameters))[0]

    async def run(self, statement: Executable, parameters: Parameters = None) -> int:
        return (await self._in_thread(statement, parameters))[1]


class SqliteDatabase(Database):
    """One writer connection for the process, and a few that can only read."""

    dialect = "sqlite"
    READERS = 4

    def __init__(self, url: str) -> None:
        path = make_url(url).database
        if not path or path == ":memory:":
            raise ValueError("a SQLite database needs a file: sqlite:///./tollgate.db")
        self.path = path
        self._writer: apsw.Connection | None = None
        self._turn = asyncio.Lock()
        self._committer = ThreadPoolExecutor(1, "commit")
        self._readers: list[apsw.Connection] = []
        self._free = asyncio.Semaphore(self.READERS)
        self._peek: apsw.Connection | None = None
        self._peeking = asyncio.Lock()

    @asynccontextmanager
    async def _writing(self, *, alone: bool = False) -> AsyncIterator[Tx]:
        async with self._turn:
            if self._writer is None:
                self._writer = sqlite.connect(self.path)
            raw = self._writer
            while True:  # another process may hold the lock: wait without holding up the loop
                try:
                    raw.execute("BEGIN IMMEDIATE")
                    break
                except apsw.BusyError:
                    await asyncio.sleep(random.uniform(0.001, 0.008))
            tx = _SqliteTx(raw)
            try:
                yield tx
                loop = asyncio.get_running_loop()
                commit = loop.run_in_executor(self._committer, raw.execute, "COMMIT")
                await _finished(commit)
            except BaseException as error:
                await tx.settled()
                if raw.in_transaction:
                    with suppress(apsw.Error):
                        raw.execute("ROLLBACK")
                if isinstance(_cause(error), apsw.FullError | apsw.IOError):
                    await asyncio.to_thread(sqlite.reclaim, raw)
                raise

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[Tx]:
        async with self._free:
            raw = self._readers.pop() if self._readers else sqlite.connect(self.path, readonly=True)
            try:
                raw.execute("BEGIN")
                tx = _SqliteTx(raw)
                try:
                    yield tx
                finally:
                    await tx.settled()
            finally:
                if raw.in_transaction:
                    raw.execute("ROLLBACK")
                self._readers.append(raw)

    @asynccontextmanager
    async def _glancing(self) -> AsyncIterator[Tx]:
        async with self._peeking:
            if self._peek is None:
                self._peek = sqlite.connect(self.path, readonly=True)
            tx = _SqliteTx(self._peek)
            try:
                yield tx
            finally:
                await tx.settled()

    def lane(self) -> Lane:
        found = _SqliteLane(self)
        found.heard = self.heard
        return found

    async def close(self) -> None:
        async with self._turn:
            for raw in (*self._readers, self._peek, self._writer):
                if raw is not None:
                    raw.close()
            self._readers, self._peek, self._writer = [], None, None
        self._committer.shutdown(wait=False)


async def _finished(commit: "asyncio.Future[Any]") -> None:
    """Wait for a commit to its end, however late: only then is known whether it happened.

    Giving up on it would tell callers that nothing was recorded while the disk was writing it.
    """
    try:
        await asyncio.shield(commit)
    except asyncio.CancelledError:
        await asyncio.wait([commit])
        commit.result()


class _SqliteLane(Lane):
    def __init__(self, db: SqliteDatabase) -> None:
        self._db = db

    def _writing(self) -> Any:
        return self._db._writing()

    async def close(self) -> None:
        """The writer connection belongs to the database."""


async def migrate(url: str, work: Callable[[Connection], None]) -> None:
    """Run schema changes in one transaction, alone; nothing of them stays if one fails."""
    if make_url(url).get_backend_name() == "sqlite":
        raw = sqlite.connect(make_url(url).database or "")
        try:
            raw.set_busy_timeout(10_000)
            raw.execute("BEGIN IMMEDIATE")
            with sqlite.opened_over(raw) as sa:
                work(sa)
            raw.execute("COMMIT")
        finally:
            raw.close()
        return
    parsed, connect = _by_asyncpg(url)
    engine = create_async_engine(parsed, connect_args=connect)
    try:
        async with engine.begin() as sa:
            await sa.exec_driver_sql(_ALONE)
            await sa.run_sync(work)
    finally:
        await engine.dispose()


# ---- PostgreSQL -------------------------------------------------------------------------------


class PostgresTx(Tx):
    """An open transaction on PostgreSQL."""

    dialect = "postgresql"

    def __init__(self, sa: AsyncConnection, raw: Any) -> None:
        self._sa = sa
        self.hot = raw

    async def fetch(
        self, statement: Executable, parameters: Parameters = None
    ) -> Sequence[Row[*tuple[Any, ...]]]:
        return (await self._sa.execute(statement, parameters)).fetchall()

    async def run(self, statement: Executable, parameters: Parameters = None) -> int:
        return (await self._sa.execute(statement, parameters)).rowcount

    async def unless_duplicate(self, work: Callable[[], Awaitable[object]]) -> bool:
        """Run `work` and say True; if it meets a key that exists, undo it alone and say False."""
        await self.hot.execute("SAVEPOINT attempt")
        try:
            await work()
        except asyncpg.UniqueViolationError:
            await self.hot.execute("ROLLBACK TO SAVEPOINT attempt")
            return False
        return True


_SHARED = f"SELECT pg_advisory_xact_lock_shared({CONFIG_LOCK})"
_ALONE = f"SELECT pg_advisory_xact_lock({CONFIG_LOCK})"
_WRITE = "BEGIN ISOLATION LEVEL READ COMMITTED"
_BY_INDEX = "SET LOCAL enable_seqscan = off"
"""The intake finds rows by key. A plan made while a table was empty would read all of it, and stays
in use, 30 times slower at 30,000 rows, until autovacuum has looked at the table."""
_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"


@asynccontextmanager
async def _ended(sa: AsyncConnection, begin: str) -> AsyncIterator[PostgresTx]:
    """Begin with `begin`, commit at the end; a connection in doubt is dropped, never reused."""
    raw = (await sa.get_raw_connection()).driver_connection
    assert raw is not None
    try:
        await raw.execute(begin)
        yield PostgresTx(sa, raw)
        await raw.execute("COMMIT")
    except BaseException as error:
        if is_transient(error) or not await _rolled_back(raw, error):
            raw.terminate()
            with suppress(Exception):
                await sa.invalidate()
        raise


async def _rolled_back(raw: Any, error: BaseException) -> bool:
    """Undo after a refusal of our own; False where the connection can no longer be trusted."""
    if not isinstance(error, Exception) or raw.is_closed():
        return False
    try:
        async with asyncio.timeout(1):
            await raw.execute("ROLLBACK")
    except Exception:
        return False
    return True


class _Shared(asyncpg.Connection):  # type: ignore[misc]
    """A connection through a pooler: the server's names of statements are shared with strangers."""

    def _get_unique_id(self, prefix: str) -> str:
        return f"tollgate_{prefix}_{uuid7()}"


def _by_asyncpg(url: str) -> tuple[URL, dict[str, Any]]:
    """The URL as the driver takes it, and how to connect.

    With `pgbouncer=true` no statement outlives its transaction: the next one may be somewhere else.
    """
    parsed = make_url(url).set(drivername="postgresql+asyncpg")
    query = dict(parsed.query)
    connect: dict[str, Any] = {
        "timeout": 3,
        "server_settings": {"application_name": "tollgate"},
    }
    if query.pop("pgbouncer", "") in ("1", "true"):
        connect["connection_class"] = _Shared
        connect["statement_cache_size"] = 0
        connect["prepared_statement_cache_size"] = 0
        connect["prepared_statement_name_func"] = lambda: ""
    return parsed.set(query=query), connect


class PostgresDatabase(Database):
    """A small pool; SQLAlchemy holds the connections, transactions are ended here."""

    dialect = "postgresql"

    def __init__(self, url: str, pool_size: int) -> None:
        parsed, connect = _by_asyncpg(url)
        self._pooled = "connection_class" in connect
        self.engine: AsyncEngine = create_async_engine(
            parsed,
            isolation_level="AUTOCOMMIT",
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=3,
            connect_args=connect,
        )
        self._peek: AsyncConnection | None = None
        self._peeking = asyncio.Lock()

    @asynccontextmanager
    async def _writing(self, *, alone: bool = False) -> AsyncIterator[Tx]:
        begin = f"{_WRITE}; {_ALONE}" if alone else f"{_WRITE}; {_SHARED}"
        async with self.engine.connect() as sa, _ended(sa, begin) as tx:
            yield tx

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[Tx]:
        async with self.engine.connect() as sa, _ended(sa, _READ) as tx:
            yield tx

    @asynccontextmanager
    async def _glancing(self) -> AsyncIterator[Tx]:
        async with self._peeking:
            if self._peek is None:
                self._peek = await self.engine.connect()
            sa = self._peek
            raw: Any = None
            try:
                raw = (await sa.get_raw_connection()).driver_connection
                if not self._pooled:
                    yield PostgresTx(sa, raw)
                    return
                await raw.execute("BEGIN READ ONLY")
                yield PostgresTx(sa, raw)
                await raw.execute("COMMIT")
            except BaseException:
                if raw is not None:
                    raw.terminate()  # SQLAlchemy would first say goodbye for two seconds
                self._peek = None
                with suppress(Exception):
                    await sa.invalidate()
                    await sa.close()
                raise

    def lane(self) -> Lane:
        found = _PostgresLane(self.engine)
        found.heard = self.heard
        return found

    async def close(self) -> None:
        if self._peek is not None:
            await self._peek.close()
        await self.engine.dispose()


class _PostgresLane(Lane):
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._sa: AsyncConnection | None = None

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[Tx]:
        if self._sa is None:
            self._sa = await self._engine.connect()
        try:
            async with _ended(self._sa, f"{_WRITE}; {_BY_INDEX}; {_SHARED}") as tx:
                yield tx
        except BaseException:
            if self._sa is not None and self._sa.invalidated:
                await self.close()
            raise

    async def close(self) -> None:
        sa, self._sa = self._sa, None
        if sa is not None:
            with suppress(Exception):
                await sa.close()
