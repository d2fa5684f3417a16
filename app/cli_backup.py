"""The terminal, about copies: `tollgate backup` of a database that is being written to."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy import make_url

from app.cli_archives import FINISHED, every_archive
from app.core.errors import Damaged
from app.db.backup import copy_into
from app.db.engine import Database
from app.retention.archives import ArchiveRow
from app.retention.places import Place, place_at
from app.terminal import DatabaseUrl, as_it_stands, console, refuse, settings_from


def backup(
    file: Annotated[
        Path | None, typer.Argument(help="The new file that the SQLite database is copied into.")
    ] = None,
    archives: Annotated[
        Path | None, typer.Option(help="A folder that the archives are copied into, too.")
    ] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Copy the database while it is in use, and the archives that the copy knows.

    Everything acknowledged before the command began is in the copy. An archive that is in the
    folder already is not copied again.
    """
    settings = settings_from(database_url=database_url)
    database = settings.database_url
    url = make_url(database)
    if file is None and archives is None:
        refuse("name the file to copy into, or --archives FOLDER")
    if file is not None and url.get_backend_name() != "sqlite":
        safe = url.render_as_string(hide_password=True)
        refuse(
            f"a PostgreSQL database is copied by `pg_dump --format=custom --file={file} {safe}`; "
            "--archives FOLDER without a file copies what belongs to it"
        )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        if file is not None:
            as_it_stands(database, _copying(file, progress))
            database = f"sqlite:///{file}"  # the archives that the copy knows, and no others
        found = None
        if archives is not None:
            found = as_it_stands(
                database, _copying_archives(settings.archive_url, archives, progress)
            )
    if file is not None:
        console.print(f"{file}: {file.stat().st_size:,} bytes, checked", highlight=False)
    if found is not None:
        console.print(f"{archives}: {found:,} archives", highlight=False)


def _copying(file: Path, progress: Progress) -> Callable[[Database], Awaitable[None]]:
    task = progress.add_task("pages", total=None)

    def tell(done: int, of: int) -> None:
        progress.update(task, completed=done, total=of)

    async def work(db: Database) -> None:
        await copy_into(db, file, tell)

    return work


def _copying_archives(
    source: str, folder: Path, progress: Progress
) -> Callable[[Database], Awaitable[int]]:
    async def work(db: Database) -> int:
        from app.retention.shelf import manifest_path  # noqa: PLC0415  (41 MB: Arrow)

        rows = [row for row in await every_archive(db) if row.state in FINISHED]
        await asyncio.to_thread(os.makedirs, folder, exist_ok=True)
        given, taken = place_at(source), place_at(str(folder))
        for row in progress.track(rows, description="archives"):
            if not await asyncio.to_thread(_has, taken, row):
                data = await asyncio.to_thread(given.get, row.path)
                if sha256(data).hexdigest() != row.sha256:
                    raise Damaged(f"{row.id}: the file is not the one that was written")
                manifest = await asyncio.to_thread(given.get, manifest_path(row.path))
                await asyncio.to_thread(taken.put, manifest_path(row.path), manifest)
                await asyncio.to_thread(taken.put, row.path, data)
        return len(rows)

    return work


def _has(place: Place, row: ArchiveRow) -> bool:
    """Whether the very file is there; it is put after its manifest."""
    try:
        return sha256(place.get(row.path)).hexdigest() == row.sha256
    except Damaged:
        return False
