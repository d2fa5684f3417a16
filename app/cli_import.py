"""The terminal, about imports: `tollgate import`."""

from pathlib import Path
from typing import Annotated

import typer

from app.terminal import DatabaseUrl

FORMATS = "events, litellm, csv, s1-logs, s1-summaries"
USERS = "end_user,user,api_key,team_id"


def import_usage(
    file: Annotated[str, typer.Argument(help="A file, or - for what is piped in.")] = "-",
    form: Annotated[str, typer.Option("--format", help=FORMATS)] = "events",
    source: Annotated[
        str | None, typer.Option("--from", help="A LiteLLM database: postgresql://…")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would come.")] = False,
    map_: Annotated[
        str | None, typer.Option("--map", help="Columns of a CSV: user_id=customer,model=engine")
    ] = None,
    user_from: Annotated[
        str, typer.Option(help="LiteLLM's columns that say who the user is.")
    ] = USERS,
    reprice: Annotated[
        bool, typer.Option("--reprice", help="Price the calls here; ignore stated costs.")
    ] = False,
    from_line: Annotated[int, typer.Option(min=1, help="The first line to be read.")] = 1,
    rejects: Annotated[Path | None, typer.Option(help="Where rejected lines are kept.")] = None,
    url: Annotated[str | None, typer.Option(help="Send to this service over HTTP.")] = None,
    key: Annotated[
        str | None, typer.Option(envvar="TOLLGATE_KEY", help="A key with ingest and manage.")
    ] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Record what a file or another tracker's table says was used, of any age, each call once.

    Started again it goes on where it broke off: what is recorded already counts once.
    """
    from app.cli_importing import Wish, do_import  # noqa: PLC0415  (serving needs none of it)

    raise typer.Exit(
        do_import(
            Wish(
                file,
                form,
                source,
                map_,
                user_from,
                rejects,
                url,
                key,
                database_url,
                from_line,
                dry_run=dry_run,
                reprice=reprice,
            )
        )
    )
