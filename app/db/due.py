"""Rows that belong to one of many keys: removed, or summed, all or those whose time has come."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Table

from app.db.engine import Tx
from app.db.upsert import Row, arrays_of, list_of


class Remove:
    """Delete rows by their key or the beginning of it, many at once, and give what they held.

    With `until`, a column of instants, only rows go whose instant is not after the one given.
    """

    def __init__(
        self,
        table: Table,
        key: Sequence[str],
        returning: Sequence[str],
        *,
        until: str | None = None,
    ) -> None:
        equal = " AND ".join(f'"{name}" = ?' for name in key)
        due = f' AND "{until}" <= ?' if until else ""
        self._sqlite = (
            f'DELETE FROM "{table.name}" WHERE {equal}{due} RETURNING {list_of(returning)}'
        )
        match = " AND ".join(f't."{name}" = k."{name}"' for name in key)
        due = f' AND t."{until}" <= ${len(key) + 1}' if until else ""
        shown = ", ".join(f't."{name}"' for name in returning)
        self._postgres = (
            f'DELETE FROM "{table.name}" AS t USING unnest({arrays_of(table, key)}) '
            f"AS k({list_of(key)}) WHERE {match}{due} RETURNING {shown}"
        )

    async def __call__(
        self, tx: Tx, keys: Sequence[Row], until: datetime | None = None
    ) -> list[Row]:
        """Delete what stands under these keys; the `returning` columns, as drivers give them."""
        if not keys:
            return []
        rest = () if until is None else (until,)
        if tx.dialect == "postgresql":
            found = await tx.hot.fetch(self._postgres, *zip(*keys, strict=True), *rest)
            return [tuple(row) for row in found]
        return [row for key in keys for row in tx.hot.execute(self._sqlite, (*key, *rest))]


class SumDue:
    """Sum a column over the rows of each key whose instant is not after the one given."""

    def __init__(self, table: Table, key: Sequence[str], until: str, summed: str) -> None:
        equal = " AND ".join(f'"{name}" = ?' for name in key)
        self._sqlite = (
            f'SELECT {list_of(key)}, sum("{summed}") FROM "{table.name}" '
            f'WHERE {equal} AND "{until}" <= ? GROUP BY {list_of(key)}'
        )
        match = " AND ".join(f't."{name}" = k."{name}"' for name in key)
        shown = ", ".join(f't."{name}"' for name in key)
        self._postgres = (
            f'SELECT {shown}, sum(t."{summed}")::bigint '
            f"FROM unnest({arrays_of(table, key)}) AS k({list_of(key)}) "
            f'JOIN "{table.name}" AS t ON {match} '
            f'WHERE t."{until}" <= ${len(key) + 1} GROUP BY {shown}'
        )

    async def __call__(self, tx: Tx, keys: Sequence[Row], until: datetime) -> list[Any]:
        """(key, sum) of each key that has such rows, as the driver gives them."""
        if not keys:
            return []
        if tx.dialect == "postgresql":
            found = await tx.hot.fetch(self._postgres, *zip(*keys, strict=True), until)
            return [tuple(row) for row in found]
        return [row for key in keys for row in tx.hot.execute(self._sqlite, (*key, until))]
