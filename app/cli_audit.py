"""The terminal, about the proof: `tollgate audit`, and with `--repair` what it puts right."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.analytics.audit import PROOF_S, prove
from app.analytics.repair import Rebuilt, rebuild
from app.core.clock import Clock
from app.db.engine import Database
from app.summaries.reconcile import Difference
from app.terminal import DatabaseUrl, console, note_by_hand, refuse, with_database


def audit(
    repair: Annotated[
        bool, typer.Option("--repair", help="Work everything out again, and put it right.")
    ] = False,
    user: Annotated[str | None, typer.Option(help="With --repair: this user's alone.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --repair: name what differs, change nothing.")
    ] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Prove that log, totals, limits and alerts agree; name every difference; exit 1 on any."""
    if repair:
        _repair(database_url, user, dry_run=dry_run)
        if dry_run:
            return
    elif user is not None or dry_run:
        refuse("--user and --dry-run go with --repair")
    _prove(database_url)


def _prove(database_url: str | None) -> None:
    now = Clock().now()
    with console.status("comparing log, totals, counters and alerts on one snapshot"):
        proof = with_database(
            database_url, lambda db: db.read(lambda tx: prove(tx, now), within_s=PROOF_S)
        )
    table = Table("identity", "compared", "holds")
    for identity in proof.verdicts:
        holds = "[green]yes[/green]" if identity.holds else "[red]NO[/red]"
        table.add_row(identity.name.replace("_", " "), f"{identity.compared:,}", holds)
    console.print(table)
    if proof.consistent:
        console.print("everything agrees", style="green")
        return
    console.print(_named(proof.differences))
    raise typer.Exit(1)


def _repair(database_url: str | None, user_id: str | None, *, dry_run: bool) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task("reading", total=None)

        def tell(what: str, done: int, of: int) -> None:
            progress.update(task, description=what, completed=done, total=of)

        async def work(db: Database) -> Rebuilt:
            if not dry_run:
                whose = "everyone" if user_id is None else user_id
                await db.write(lambda tx: note_by_hand(tx, "rebuild", "totals", whose, None, None))
            return await rebuild(db, Clock(), user_id, dry_run=dry_run, tell=tell)

        found = with_database(database_url, work)
    if found.differences:
        console.print(_named(found.differences))
    said = "would be put right" if dry_run else "put right"
    console.print(
        f"{found.checked:,} rows worked out again, {found.differing:,} values {said}",
        highlight=False,
    )


def _named(differences: Sequence[Difference]) -> Table:
    table = Table("identity", "where", "expected", "found")
    for one in differences:
        where = ", ".join(f"{name}={value}" for name, value in one.where.items())
        table.add_row(one.identity.replace("_", " "), where, str(one.expected), str(one.found))
    return table
