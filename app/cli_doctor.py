"""The terminal, about health: `tollgate doctor` says what is wrong and what to do about it."""

import asyncio
import os
from typing import Annotated

import msgspec
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from app.core.clock import Clock
from app.doctor.finding import Finding
from app.settings import Settings
from app.terminal import DatabaseUrl, console, refuse
from app.web.logs import configure

_SHOWN = {"ok": "[green]ok[/green]", "warn": "[yellow]warn[/yellow]", "fail": "[red]FAIL[/red]"}


def doctor(
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out the proof that every figure agrees.")
    ] = False,
    only: Annotated[
        str | None, typer.Option(help="Checks by their names, separated by commas.")
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, help="So many services share the database.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Look at everything that can be wrong with an installation; change nothing; exit 1 on a fail.

    Run it as the service runs: as the same user, with the same environment.
    """
    from app.doctor.examine import NAMES, examine  # noqa: PLC0415  (it loads most of the service)

    wanted = [name.strip() for name in only.split(",")] if only else list(NAMES)
    if unknown := [name for name in wanted if name not in NAMES]:
        refuse(f"no such check: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    if quick:
        wanted = [name for name in wanted if name != "identities"]
    given = {} if database_url is None else {"database_url": database_url}
    try:
        settings = Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        found = _unreadable(error)
    else:
        configure("error", settings.log_format)
        with Console(stderr=True).status("looking") as status:
            work = examine(
                settings,
                os.environ,
                Clock(),
                wanted=wanted,
                replicas=replicas,
                tell=lambda name: status.update(f"looking at {name}"),
            )
            found = asyncio.run(work)
    failed = any(one.state == "fail" for one in found)
    if json:
        said = {"ok": not failed, "findings": [one._asdict() for one in found]}
        print(msgspec.json.encode(said).decode())  # noqa: T201
    else:
        _show(found)
    if failed:
        raise typer.Exit(1)


def _unreadable(error: ValidationError) -> list[Finding]:
    """The settings that make no sense; never what they say, which may be a secret."""
    return [
        Finding(
            "settings",
            "fail",
            f"TOLLGATE_{'_'.join(map(str, one['loc'])).upper() or '…'}: {one['msg']}",
            "docs/configuration.md says what each may be",
        )
        for one in error.errors(include_input=False, include_url=False)
    ]


def _show(found: list[Finding]) -> None:
    table = Table(Column("check", no_wrap=True), Column("", no_wrap=True), "found", "do")
    for one in found:
        table.add_row(one.check, _SHOWN[one.state], escape(one.found), escape(one.advice))
    console.print(table)
    counts = {state: sum(one.state == state for one in found) for state in _SHOWN}
    said = f"{counts['ok']} fine, {counts['warn']} to look at, {counts['fail']} wrong"
    console.print(said, style="red" if counts["fail"] else "green")
