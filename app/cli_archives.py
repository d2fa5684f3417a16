"""The terminal, about archives: `tollgate archives list`, `verify`, `restore`."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import msgspec
import typer
from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from app.core.clock import Clock, rfc3339
from app.core.money import to_usd
from app.db.engine import Database, Tx
from app.retention.archives import ArchiveRow, Asked, list_archives
from app.retention.restore import restore
from app.retention.store import ArchiveStore
from app.retention.verify import Verified, verify
from app.terminal import (
    DatabaseUrl,
    console,
    note_by_hand,
    refuse,
    settings_from,
    with_database,
)

T = TypeVar("T")
archives = typer.Typer(help="See, prove and restore what left the log.", no_args_is_help=True)
PAGE = 500
Ids = Annotated[list[str] | None, typer.Argument(help="Archives by their ids.")]
ArchiveUrl = Annotated[
    str | None,
    typer.Option(help="Where archives are kept; else TOLLGATE_ARCHIVE_URL."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]


@archives.command("list")
def archives_list(
    state: Annotated[str | None, typer.Option(help="writing, sealed, restored, dropping")] = None,
    month: Annotated[str | None, typer.Option(help="2026-11, in UTC")] = None,
    user: Annotated[str | None, typer.Option(help="Archives with rows of this user.")] = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Show archives, newest first."""
    asked = Asked(state, None if month is None else _month(month), user)
    rows = with_database(database_url, lambda db: _all(db, asked))
    if json:
        for row in rows:
            _print_json(row._asdict() | {"month": f"{row.month:%Y-%m}"})
        return
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("id", "state", "month", "events", "bytes", "cost", "written"):
        right = name in ("events", "bytes", "cost")
        table.add_column(name, no_wrap=True, justify="right" if right else "left")
    for row in rows:
        cost = f"${to_usd(row.sums.get('cost_nanos', 0))}"
        counts = (f"{row.events:,}", f"{row.bytes:,}", cost)
        shown = (row.id, row.state, f"{row.month:%Y-%m}", *counts)
        table.add_row(*shown, rfc3339(row.created_at)[:10])
    console.print(table)


@archives.command("verify")
def archives_verify(
    ids: Ids = None,
    every: Annotated[bool, typer.Option("--all", help="Every archive that is finished.")] = False,
    json: AsJson = False,
    archive_url: ArchiveUrl = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Prove that files, manifests and what was kept of their rows agree; exit 1 if one does not."""
    if every == bool(ids):
        refuse("name archives, or say --all")

    async def work(db: Database, store: ArchiveStore) -> list[Verified]:
        wanted = ids or [row.id for row in await _all(db, Asked()) if row.state in FINISHED]
        with _progress(disable=json) as progress:
            task = progress.add_task("reading", total=len(wanted))
            found = []
            for archive_id in wanted:
                progress.update(task, description=archive_id)
                found.append(await verify(db, store, archive_id))
                progress.advance(task)
        return found

    found = _with_store(database_url, archive_url, work)
    damaged = [one for one in found if not one.ok]
    if json:
        for one in found:
            said = {"id": one.archive.id, "ok": one.ok, "problems": one.problems}
            _print_json(said | {"events": one.events})
    elif damaged:
        table = Table(Column("archive", no_wrap=True), "problem")
        for one in damaged:
            for problem in one.problems:
                table.add_row(one.archive.id, problem)
        console.print(table)
    else:
        events = sum(one.events for one in found)
        console.print(f"{len(found):,} archives are whole: {events:,} events", style="green")
    if damaged:
        raise typer.Exit(1)


@archives.command("restore")
def archives_restore(
    ids: Annotated[list[str], typer.Argument(help="Archives by their ids.")],
    archive_url: ArchiveUrl = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Put the rows of archives back into the log; every total stays as it is."""

    async def work(db: Database, store: ArchiveStore) -> None:
        for archive_id in ids:
            row = await restore(db, store, archive_id, Clock().now(), _note_restored)
            console.print(f"{row.id}: {row.events:,} events are in the log", highlight=False)

    _with_store(database_url, archive_url, work)


FINISHED = ("sealed", "restored")


async def _note_restored(tx: Tx, before: ArchiveRow, after: ArchiveRow) -> None:
    states = before._asdict(), after._asdict()
    await note_by_hand(tx, "restore", "archive", after.id, *states)


def _with_store(
    database_url: str | None,
    archive_url: str | None,
    act: Callable[[Database, ArchiveStore], Awaitable[T]],
) -> T:
    settings = settings_from(database_url=database_url, archive_url=archive_url)

    async def run(db: Database) -> T:
        store = ArchiveStore(settings.archive_url)
        try:
            return await act(db, store)
        finally:
            await store.close()

    return with_database(database_url, run)


async def every_archive(db: Database) -> list[ArchiveRow]:
    """Every archive, newest first."""
    return await _all(db, Asked())


async def _all(db: Database, asked: Asked) -> list[ArchiveRow]:
    found: list[ArchiveRow] = []
    while True:
        before = (found[-1].created_at, found[-1].id) if found else None
        page = await _page(db, asked, before)
        found += page
        if len(page) < PAGE:
            return found


async def _page(
    db: Database, asked: Asked, before: tuple[datetime, str] | None
) -> list[ArchiveRow]:
    return await db.read(lambda tx: list_archives(tx, asked, before, PAGE))


def _month(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        refuse("--month: 2026-11 is expected")


def _progress(*, disable: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    last = TimeRemainingColumn()
    return Progress(*columns, last, console=console, transient=True, disable=disable)


def _print_json(said: dict[str, Any]) -> None:
    print(msgspec.json.encode(said).decode())  # noqa: T201
