"""What every command of the terminal needs: settings, a database, and a way to refuse."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, NoReturn, TypeVar

import apsw
import typer
from asyncpg import PostgresError
from pydantic import ValidationError
from rich.console import Console
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from app.access.changelog import note_change
from app.access.keys import Key
from app.core.clock import EPOCH, Clock
from app.core.errors import AppError
from app.db.engine import Database, Tx
from app.db.migrate import NEWEST, current_revision, status_of_schema
from app.settings import Settings
from app.start import PATIENCE_S, NotReadyError

T = TypeVar("T")
console = Console()
complaints = Console(stderr=True)
REFUSALS = (NotReadyError, AppError, OSError, ValueError, DBAPIError, PostgresError, apsw.Error)
"""What a person at a terminal is told in one line; anything else is a bug and shows where."""

TERMINAL = Key("terminal", "terminal", "", frozenset({"admin"}), None, EPOCH, None, None)
"""Under which changes are written down that somebody makes with the database at hand."""
DatabaseUrl = Annotated[
    str | None,
    typer.Option(help="sqlite:///path or postgresql://…; else TOLLGATE_DATABASE_URL."),
]


async def note_by_hand(
    tx: Tx,
    action: str,
    kind: str,
    ref: str,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
) -> None:
    """Write down a change that is made at the terminal, in the transaction that makes it."""
    await note_change(
        tx,
        TERMINAL,
        via="cli",
        action=action,
        kind=kind,
        ref=ref,
        before=before,
        after=after,
        now=Clock().now(),
    )


def settings_from(**given: Any) -> Settings:
    """The settings, with what was given on the command line; refused where they make no sense."""
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
        make_url(settings.database_url)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        refuse(f"TOLLGATE_{str(first['loc'][0]).upper()}: {first['msg']}")
    except ArgumentError:
        refuse("TOLLGATE_DATABASE_URL: sqlite:///path or postgresql://user@host/name")
    return settings


def refuse(why: str) -> NoReturn:
    """Say why not, and leave with 1."""
    complaints.print(f"[red]tollgate:[/red] {why}", highlight=False)
    raise typer.Exit(1)


def with_database(
    database_url: str | None, act: Callable[[Database], Awaitable[T]], *, make: bool = False
) -> T:
    """Do something with the database, once its schema is this version's; `make` a new one."""
    url = settings_from(database_url=database_url).database_url

    async def at_its_schema(db: Database) -> T:
        if db.dialect == "sqlite" and await current_revision(url) != NEWEST:
            from app.db.upgrade import upgrade  # noqa: PLC0415  (alembic has no part in serving)

            await upgrade(url)
        await db.read(status_of_schema)
        return await act(db)

    return as_it_stands(url, at_its_schema, make=make)


def as_it_stands(
    database_url: str, act: Callable[[Database], Awaitable[T]], *, make: bool = False
) -> T:
    """As `with_database`, whatever its schema: nothing is migrated."""
    url = make_url(database_url)
    is_file = url.get_backend_name() == "sqlite"
    if is_file and not make and not os.path.exists(url.database or ""):
        refuse(f"there is no database at {url.database}")

    async def run() -> T:
        db = Database.open(database_url, pool_size=4, patience_s=PATIENCE_S)
        try:
            return await act(db)
        finally:
            await db.close()

    try:
        return asyncio.run(run())
    except REFUSALS as error:
        refuse(str(error))
