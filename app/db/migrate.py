"""Bring a database's schema to this version, or say that it is not there."""

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from app.core.errors import Unavailable
from app.db.engine import Tx, migrate

SCRIPTS = Path(__file__).parents[2] / "migrations"


def config() -> Config:
    """Alembic's configuration, without a file."""
    found = Config()
    found.set_main_option("script_location", str(SCRIPTS))
    return found


@cache
def newest_revision() -> str:
    """The revision that this version of the code works with."""
    head = ScriptDirectory.from_config(config()).get_current_head()
    if head is None:
        raise RuntimeError("there are no migrations")
    return head


async def upgrade(url: str) -> None:
    """Run every migration that is missing, all in one transaction."""

    def work(connection: Connection) -> None:
        given = config()
        given.attributes["connection"] = connection
        command.upgrade(given, "head")

    await migrate(url, work)


async def current_revision(url: str) -> str | None:
    """The revision the database is at; None for an empty one."""
    found: list[str | None] = []

    def work(connection: Connection) -> None:
        found.append(MigrationContext.configure(connection).get_current_revision())

    await migrate(url, work)
    return found[0]


async def status_of_schema(tx: Tx) -> None:
    """Do nothing if the schema is this version's.

    Raises:
        Unavailable: it is older or newer.
    """
    try:
        row = await tx.first(text("SELECT version_num FROM alembic_version"))
    except DBAPIError as error:
        raise Unavailable("the database has no schema; run `tollgate migrate`") from error
    if row is None or row[0] != newest_revision():
        raise Unavailable("the schema is not this version's; run `tollgate migrate`")
