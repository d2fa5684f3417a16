"""Tell which schema a database has."""

from pathlib import Path

from sqlalchemy import inspect, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from app.core.errors import Unavailable
from app.db.engine import Tx, migrate

SCRIPTS = Path(__file__).parents[2] / "migrations"
NEWEST = "0004"
"""The revision that this version of the code works with."""
_FOUND = text("SELECT version_num FROM alembic_version")


async def current_revision(url: str) -> str | None:
    """The revision the database is at; None for an empty one."""
    found: list[str] = []

    def work(connection: Connection) -> None:
        if inspect(connection).has_table("alembic_version"):
            found.extend(connection.execute(_FOUND).scalars())

    await migrate(url, work)
    return found[0] if found else None


async def status_of_schema(tx: Tx) -> None:
    """Do nothing if the schema is this version's.

    Raises:
        Unavailable: it is older or newer.
    """
    try:
        row = await tx.first(_FOUND)
    except DBAPIError as error:
        raise Unavailable("the database has no schema; run `tollgate migrate`") from error
    if row is None or row[0] != NEWEST:
        raise Unavailable("the schema is not this version's; run `tollgate migrate`")
