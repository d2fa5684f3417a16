"""Column types that mean the same thing in SQLite and PostgreSQL.

Every SQLite table is STRICT, so that a sum beyond 64 bits is an error there too instead of
quietly becoming a float.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, LargeBinary, MetaData, Table, Text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator, TypeEngine

from app.core.clock import from_micros, to_micros
from app.core.money import Nanos

Whole = BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
"""A 64-bit whole number."""


class Moment(TypeDecorator[datetime]):
    """An instant: `timestamptz` on PostgreSQL, whole microseconds on SQLite."""

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(sqlite.INTEGER())
        return dialect.type_descriptor(postgresql.TIMESTAMP(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None or dialect.name != "sqlite":
            return value
        return to_micros(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None or dialect.name != "sqlite":
            return value  # type: ignore[no-any-return]
        return from_micros(value)


class Pairs(TypeDecorator[Mapping[str, Any]]):
    """A small JSON object: `jsonb` on PostgreSQL, text on SQLite."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(sqlite.TEXT())
        return dialect.type_descriptor(postgresql.JSONB())

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        if value is None or dialect.name != "sqlite":
            return value
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        if value is None or dialect.name != "sqlite":
            return value
        return json.loads(value)


class Flag(TypeDecorator[bool]):
    """Yes or no: `boolean` on PostgreSQL, 0 or 1 on SQLite."""

    impl = Boolean
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(sqlite.INTEGER())
        return dialect.type_descriptor(Boolean())

    def process_bind_param(self, value: bool | None, dialect: Dialect) -> Any:
        return int(value) if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> bool | None:
        return None if value is None else bool(value)


class Base(DeclarativeBase):
    """All tables. There are no `relationship()`s: a row is a value, a join is written out.

    `info["dist"]` says how a table spreads over a distributed PostgreSQL: by the named column,
    as a `reference` copy on every node, or `local` to the coordinator.
    """

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012
        datetime: Moment,
        Nanos: Whole,
        int: Whole,
        bool: Flag,
        str: Text().with_variant(sqlite.TEXT(), "sqlite"),
        bytes: LargeBinary().with_variant(sqlite.BLOB(), "sqlite"),
        dict[str, str]: Pairs,
        dict[str, Any]: Pairs,
    }


def table_of(mapped: type[Base]) -> Table:
    """The table behind a mapped class."""
    table = mapped.__table__
    assert isinstance(table, Table)
    return table


def instant(value: Any) -> datetime:
    """A `Moment` as a driver gives it: microseconds from SQLite, a datetime from PostgreSQL."""
    return from_micros(value) if isinstance(value, int) else value


def table_options(dist: str, *, clustered: bool = False) -> dict[str, Any]:
    """Last element of `__table_args__`: how the table distributes, and STRICT on SQLite.

    `clustered` keeps the rows of a SQLite table in its primary key (WITHOUT ROWID): right for
    narrow rows that are found by key, wrong for the wide log.
    """
    return {"info": {"dist": dist}, "sqlite_strict": True, "sqlite_with_rowid": not clustered}
