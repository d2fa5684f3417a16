"""The terminal, about retention: `tollgate wrap`."""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Column, Table

from app.core.clock import Clock, rfc3339
from app.core.money import to_usd
from app.db.engine import Database
from app.retention.pick import over_bounds, users_behind
from app.retention.policy import policy_from
from app.retention.store import ArchiveStore
from app.retention.summary import Result
from app.retention.wrap import LOOKING_S, Parts, Tell, foresee, wrap
from app.terminal import DatabaseUrl, console, note_by_hand, settings_from, with_database

USERS = 500
"""So many users are wrapped together: their rows share archives."""
WAIT_S = 30.0
"""How long to wait for a wrap that is running."""


def wrap_logs(
    user: Annotated[str | None, typer.Option(help="This user alone; else everyone.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be wrapped, and stop.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a user.")] = False,
    archive_url: Annotated[
        str | None, typer.Option(help="Where archives are kept; else TOLLGATE_ARCHIVE_URL.")
    ] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Move rows that are too old or too many to archives; every total stays as it is."""
    settings = settings_from(database_url=database_url, archive_url=archive_url)
    bounds = policy_from(
        settings.retention_max_rows, settings.retention_keep_rows, settings.retention_max_age_days
    )
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=json) as progress:

        async def work(db: Database) -> list[Result]:
            store = ArchiveStore(settings.archive_url)
            parts = Parts(db, store, Clock(), bounds)
            try:
                return await _wrapped(parts, user, dry_run=dry_run, tell=_teller(progress))
            finally:
                await store.close()

        results = with_database(database_url, work)
    if json:
        for result in results:
            print(msgspec.json.encode(_plain(result)).decode())  # noqa: T201
        return
    _show(results, dry_run=dry_run)


def _teller(progress: Progress) -> Tell:
    tasks: dict[str, Any] = {}

    def tell(user_id: str, done: int, total: int) -> None:
        if user_id not in tasks and total:
            tasks[user_id] = progress.add_task(user_id[:40], total=total)
        if user_id in tasks:
            progress.update(tasks[user_id], completed=done, visible=done < total)

    return tell


async def _wrapped(
    parts: Parts, user: str | None, *, dry_run: bool, tell: Callable[[str, int, int], None]
) -> list[Result]:
    async def of(users: list[str]) -> list[Result]:
        if dry_run:
            return [await foresee(parts, one) for one in users]
        return await wrap(parts, users, wait_s=WAIT_S, tell=tell)

    if not dry_run:
        whose = "everyone" if user is None else user
        await parts.db.write(lambda tx: note_by_hand(tx, "wrap", "log", whose, None, None))
    if user is not None:
        return await of([user])
    found: list[Result] = []
    db, after, now = parts.db, "", parts.clock.now()
    while users := await db.read(lambda tx: users_behind(tx, after, USERS)):  # noqa: B023
        after = users[-1]
        over = await db.read(
            lambda tx: over_bounds(tx, users, parts.by_default, now),
            within_s=LOOKING_S,
        )
        if over:
            found += await of(over)
    return [one for one in found if one.cut.rows]


def _plain(result: Result) -> dict[str, Any]:
    groups = []
    for group in result.groups:
        figures = group._asdict()
        figures["cost_usd"] = to_usd(figures.pop("cost_nanos"))
        figures["from"], figures["to"] = figures.pop("first_at"), figures.pop("last_at")
        groups.append(figures)
    return {
        "user_id": result.cut.user_id,
        "dry_run": result.dry_run,
        "total_before": result.cut.total,
        "total_after": result.total_after,
        "wrapped_events": result.wrapped_events,
        "trigger_reasons": result.cut.reasons,
        "groups": groups,
        "message": result.message,
    }


def _show(results: list[Result], *, dry_run: bool) -> None:
    if not any(result.wrapped_events for result in results):
        for result in results:
            console.print(f"{result.cut.user_id}: {result.message}", highlight=False)
        if not results:
            console.print("nothing to wrap: every log is within its retention")
        return
    table = Table(Column("user"), Column("provider"), Column("period", no_wrap=True))
    for name in ("calls", "errors", "cost"):
        table.add_column(name, justify="right")
    table.add_column("from", no_wrap=True)
    table.add_column("to", no_wrap=True)
    for result in results:
        for group in result.groups:
            table.add_row(
                *(result.cut.user_id, group.provider, group.billing_period),
                *(f"{group.calls:,}", f"{group.errors:,}", f"${to_usd(group.cost_nanos)}"),
                *(rfc3339(group.first_at)[:10], rfc3339(group.last_at)[:10]),
            )
    console.print(table)
    rows = sum(result.wrapped_events for result in results)
    done = "would be wrapped" if dry_run else "wrapped"
    console.print(f"{rows:,} rows of {len(results):,} users {done}", highlight=False)
