"""Many rows in one statement, for both engines: insert, add to what is there, exchange, find.

PostgreSQL takes one array per column (`unnest`), so a statement has as many parameters as the
table has columns however many rows there are; SQLite takes `executemany`. Both are 1.5-4 times as
fast as `insertmanyvalues` and 20-50 times as fast as one ORM object per row. Rows of shared tables
are always written in key order: every writer locks in the same order, so none deadlock.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from app.core.clock import to_micros
from app.db.engine import PostgresTx, Tx
from app.db.types import Moment

Row = tuple[Any, ...]


def arrays_of(table: Table, columns: Sequence[str]) -> str:
    """Parameters for `unnest`: one array per column."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    kinds = (table.c[name].type.compile(dialect) for name in columns)
    return ", ".join(f"${place}::{kind}[]" for place, kind in enumerate(kinds, 1))


def list_of(names: Iterable[str]) -> str:
    """Quoted names, as in a list of columns."""
    return ", ".join(f'"{name}"' for name in names)


def _moments(table: Table, columns: Sequence[str]) -> list[int]:
    return [place for place, name in enumerate(columns) if isinstance(table.c[name].type, Moment)]


def _in_micros(values: Iterable[Any]) -> list[Any]:
    """A column of instants for SQLite; a batch has few different ones, so each is counted once."""
    known: dict[Any, Any] = {None: None}
    found = []
    for value in values:
        micros = known.get(value)
        if micros is None and value is not None:
            micros = known[value] = to_micros(value)
        found.append(micros)
    return found


class Append:
    """Insert rows whose key is new; a row whose key exists is left alone."""

    COPY_ROWS: int = 8
    """From so many rows on PostgreSQL takes them by COPY, 3 times as fast as `unnest`."""
    PATIENCE = 16
    """After a COPY that met a key that exists, so many batches go the way that expects some."""

    def __init__(self, table: Table, columns: Sequence[str], key: Sequence[str]) -> None:
        self._table, self._columns, self._wary = table.name, tuple(columns), 0
        self._moments = _moments(table, columns)
        into = f'INTO "{table.name}" ({list_of(columns)})'
        marks = ", ".join("?" * len(columns))
        self._sqlite = f"INSERT OR IGNORE {into} VALUES ({marks})"
        self._newest = f'SELECT max(rowid) FROM "{table.name}"'
        self._since = f'SELECT {list_of(key)} FROM "{table.name}" WHERE rowid > ?'
        self._postgres = (
            f"INSERT {into} SELECT * FROM unnest({arrays_of(table, columns)}) "
            f"ON CONFLICT ({list_of(key)}) DO NOTHING RETURNING {list_of(key)}"
        )

    async def __call__(self, tx: Tx, rows: Sequence[Row]) -> set[Row] | None:
        """Write the rows; return the keys that were new, or None where all of them were."""
        if isinstance(tx, PostgresTx):
            if len(rows) >= self.COPY_ROWS and await self._copied(tx, rows):
                return None
            found = await tx.hot.fetch(self._postgres, *zip(*rows, strict=True))
            return None if len(found) == len(rows) else {tuple(row) for row in found}
        raw = tx.hot
        newest = raw.execute(self._newest).fetchone()[0] or 0
        before = raw.total_changes()
        given: list[Sequence[Any]] = list(zip(*rows, strict=True))
        for place in self._moments:
            given[place] = _in_micros(given[place])
        raw.executemany(self._sqlite, zip(*given, strict=True))
        if raw.total_changes() - before == len(rows):
            return None
        return set(raw.execute(self._since, (newest,)))

    async def _copied(self, tx: PostgresTx, rows: Sequence[Row]) -> bool:
        """Try COPY, which knows no ON CONFLICT: it takes all rows, or none of them."""
        if self._wary:
            self._wary -= 1
            return False
        copied = await tx.unless_duplicate(
            lambda: tx.hot.copy_records_to_table(self._table, records=rows, columns=self._columns)
        )
        if not copied:
            self._wary = self.PATIENCE
        return copied


class Insert:
    """Insert rows whose keys cannot be there: one that is makes the whole an error."""

    def __init__(self, table: Table, columns: Sequence[str]) -> None:
        self._table, self._columns = table.name, tuple(columns)
        self._moments = _moments(table, columns)
        marks = ", ".join("?" * len(columns))
        self._sqlite = f'INSERT INTO "{table.name}" ({list_of(columns)}) VALUES ({marks})'

    async def __call__(self, tx: Tx, rows: Sequence[Row]) -> None:
        """Write the rows."""
        if not rows:
            return
        if isinstance(tx, PostgresTx):
            await tx.hot.copy_records_to_table(self._table, records=rows, columns=self._columns)
            return
        given: list[Sequence[Any]] = list(zip(*rows, strict=True))
        for place in self._moments:
            given[place] = _in_micros(given[place])
        tx.hot.executemany(self._sqlite, zip(*given, strict=True))


class AddTo:
    """Add each row's measures onto the stored row with that key, or insert it.

    Measures that are zero in every row given are left out of the statement (their columns default
    to zero): a batch uses a third of them, and each one costs as much to add as to store. With a
    `ceiling`, a measure stays there instead of passing it.
    """

    def __init__(
        self,
        table: Table,
        key: Sequence[str],
        add: Sequence[str],
        *,
        returning: Sequence[str] = (),
        ceiling: int | None = None,
    ) -> None:
        self._table, self._key, self._returning = table, tuple(key), tuple(returning)
        self._ceiling = ceiling
        self._columns = (*key, *add)
        self._moments = _moments(table, self._key)
        self._statements: dict[tuple[int, ...], tuple[str, str]] = {}

    def _statement(self, kept: tuple[int, ...]) -> tuple[str, str]:
        found = self._statements.get(kept)
        if found is None:
            if len(self._statements) >= 256:  # many odd mixtures: stop making statements
                self._statements.clear()
            found = self._statements[kept] = self._made([self._columns[i] for i in kept])
        return found

    def _made(self, columns: Sequence[str]) -> tuple[str, str]:
        into = f'INTO "{self._table.name}" AS t ({list_of(columns)})'
        add = columns[len(self._key) :]
        grown = ", ".join(f'"{name}" = {self._sum(name)}' for name in add)
        end = f"ON CONFLICT ({list_of(self._key)}) DO UPDATE SET {grown}"
        if self._returning:
            end += f" RETURNING {list_of(self._returning)}"
        marks = ", ".join("?" * len(columns))
        return (
            f"INSERT {into} VALUES ({marks}) {end}",
            f"INSERT {into} SELECT * FROM unnest({arrays_of(self._table, columns)}) {end}",
        )

    def _sum(self, name: str) -> str:
        both = f't."{name}" + excluded."{name}"'
        if self._ceiling is None:
            return both
        more = f'excluded."{name}"'
        full = f'CASE WHEN {more} > 0 THEN t."{name}" > {self._ceiling} - {more} ELSE false END'
        return f"CASE WHEN {full} THEN {self._ceiling} ELSE {both} END"

    async def __call__(self, tx: Tx, rows: Iterable[Row]) -> list[Row]:
        """Write the rows in key order; with `returning`, give each as it now stands."""
        ordered = sorted(rows)
        if not ordered:
            return []
        columns = list(zip(*ordered, strict=True))
        width = len(self._key)
        kept = tuple(place for place, values in enumerate(columns) if place <= width or any(values))
        for_sqlite, for_postgres = self._statement(kept)
        given: list[Sequence[Any]] = [columns[place] for place in kept]
        if tx.dialect == "postgresql":
            if self._returning:
                return [tuple(row) for row in await tx.hot.fetch(for_postgres, *given)]
            await tx.hot.execute(for_postgres, *given)
            return []
        for place in self._moments:  # among the key, so never left out
            given[place] = _in_micros(given[place])
        narrow = zip(*given, strict=True)
        if self._returning:
            return [row for one in narrow for row in tx.hot.execute(for_sqlite, one)]
        tx.hot.executemany(for_sqlite, narrow)
        return []


class Exchange:
    """Set columns to new values, in the rows where they still have the old ones."""

    def __init__(
        self,
        table: Table,
        key: Sequence[str],
        columns: Sequence[str],
        returning: Sequence[str] = (),
    ) -> None:
        self._width, self._middle = len(key), len(key) + len(columns)
        old, new = ([f"{age}_{name}" for name in columns] for age in ("old", "new"))
        marks = ", ".join(f'"{name}" = ?' for name in columns)
        match = [f'"{name}" = ?' for name in key] + [f'"{name}" IS ?' for name in columns]
        self._sqlite = (
            f'UPDATE "{table.name}" SET {marks} WHERE {" AND ".join(match)} '
            f"RETURNING {list_of((*key, *returning))}"
        )
        change = ", ".join(f'"{name}" = k."new_{name}"' for name in columns)
        match = [f't."{name}" = k."{name}"' for name in key]
        match += [f't."{name}" IS NOT DISTINCT FROM k."old_{name}"' for name in columns]
        shown = ", ".join(f't."{name}"' for name in (*key, *returning))
        self._postgres = (
            f'UPDATE "{table.name}" AS t SET {change} '
            f"FROM unnest({arrays_of(table, (*key, *columns, *columns))}) "
            f"AS k({list_of((*key, *old, *new))}) WHERE {' AND '.join(match)} RETURNING {shown}"
        )

    async def __call__(self, tx: Tx, rows: Iterable[Row]) -> set[Row]:
        """Change the rows, each given as (key, old values, new values).

        Returns the key of each that had the old ones, with the `returning` columns.
        """
        width, middle = self._width, self._middle
        ordered = sorted(rows, key=lambda row: row[:width])
        if not ordered:
            return set()
        if isinstance(tx, PostgresTx):
            found = await tx.hot.fetch(self._postgres, *zip(*ordered, strict=True))
            return {tuple(row) for row in found}
        return {
            key
            for row in ordered
            for key in tx.hot.execute(self._sqlite, (*row[middle:], *row[:middle]))
        }


class Find:
    """Fetch rows by their whole key, many at once; keys that are not there give nothing."""

    def __init__(self, table: Table, key: Sequence[str], columns: Sequence[str]) -> None:
        self._sqlite = f'SELECT {list_of(columns)} FROM "{table.name}" WHERE ' + " AND ".join(
            f'"{name}" = ?' for name in key
        )
        shown = ", ".join(f't."{name}"' for name in columns)
        match = " AND ".join(f't."{name}" = k."{name}"' for name in key)
        self._postgres = (
            f"SELECT {shown} FROM unnest({arrays_of(table, key)}) AS k({list_of(key)}) "
            f'JOIN "{table.name}" AS t ON {match}'
        )

    async def __call__(self, tx: Tx, keys: Sequence[Row]) -> list[Row]:
        """The `columns` of each row found, as the driver gives them."""
        if not keys:
            return []
        if tx.dialect == "postgresql":
            return [
                tuple(row) for row in await tx.hot.fetch(self._postgres, *zip(*keys, strict=True))
            ]
        return [row for key in keys for row in tx.hot.execute(self._sqlite, key)]
