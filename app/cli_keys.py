"""The terminal, about keys: `tollgate keys create`, `list`, `change`, `rotate`, `revoke`."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from app.access.keys import Key, create_key, get_key, judged_scopes, list_keys, revoke_key
from app.access.manage import (
    DAY_S,
    LONGEST_OVERLAP_S,
    MOST_A_MINUTE,
    change_key,
    expires_soon,
    refuse_environment,
    rotate_key,
)
from app.core.clock import Clock, rfc3339
from app.core.errors import InvalidInput
from app.db.engine import Tx
from app.terminal import DatabaseUrl, console, note_by_hand, with_database

keys = typer.Typer(help="Make, list, change, rotate and revoke API keys.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Rate = Annotated[
    int | None,
    typer.Option(min=1, max=MOST_A_MINUTE, help="Requests a minute that each process admits."),
]


COLUMNS = ("id", "prefix", "name", "scopes", "user", "used", "a minute", "state")
ALWAYS = ("id", "prefix", "name", "scopes")


@keys.command("create")
def keys_create(
    name: Annotated[str, typer.Option(help="What the key is for.")],
    scopes: Annotated[str, typer.Option(help="ingest,check,read,manage,admin")],
    user: Annotated[str | None, typer.Option(help="Bind the key to one user.")] = None,
    expires_at: Annotated[datetime | None, typer.Option(help="UTC; absent: never.")] = None,
    requests_per_minute: Rate = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Make a key and print it: the only time that it can be seen."""
    now = Clock().now()

    async def work(tx: Tx) -> tuple[Key, str]:
        made, token = await create_key(
            tx,
            name=name,
            scopes=scopes.split(","),
            user_id=user,
            expires_at=_ahead(expires_at, now),
            now=now,
            requests_per_minute=requests_per_minute,
        )
        await _note(tx, "create", made.id, None, made)
        return made, token

    made, token = with_database(database_url, lambda db: db.write(work, alone=True), make=True)
    _show_new(made, token, json=json)


@keys.command("list")
def keys_list(database_url: DatabaseUrl = None) -> None:
    """Show every key by its prefix; the keys themselves are not stored."""
    now = Clock().now()
    rows = [
        {
            "id": key.id,
            "prefix": f"{key.prefix}…",
            "name": key.name,
            "scopes": ", ".join(sorted(key.scopes)),
            "user": key.user_id or "",
            "used": _day(key.last_used_at),
            "a minute": "" if key.requests_per_minute is None else f"{key.requests_per_minute:,}",
            "state": _state(key, now),
        }
        for key in with_database(database_url, lambda db: db.read(list_keys))
    ]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    shown = [name for name in COLUMNS if name in ALWAYS or any(row[name] for row in rows)]
    for name in shown:
        table.add_column(name, no_wrap=name in ("id", "prefix"), overflow="fold")
    for row in rows:
        table.add_row(*(row[name] for name in shown))
    console.print(table)


@keys.command("change")
def keys_change(
    key_id: str,
    name: Annotated[str | None, typer.Option(help="What the key is for.")] = None,
    scopes: Annotated[str | None, typer.Option(help="ingest,check,read,manage,admin")] = None,
    expires_at: Annotated[datetime | None, typer.Option(help="UTC.")] = None,
    never_expires: Annotated[bool, typer.Option("--never-expires")] = False,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=0, max=MOST_A_MINUTE, help="0: any number.")
    ] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Change what is named of a key, at once, in every process."""
    now = Clock().now()

    async def work(tx: Tx) -> None:
        refuse_environment(key_id)
        known = await get_key(tx, key_id)
        said: dict[str, Any] = {}
        if name is not None:
            said["name"] = name
        if scopes is not None:
            said["scopes"] = frozenset(judged_scopes(scopes.split(",")))
        if expires_at is not None or never_expires:
            said["expires_at"] = None if never_expires else _ahead(expires_at, now)
        if requests_per_minute is not None:
            said["requests_per_minute"] = requests_per_minute or None
        changed = await change_key(tx, known, known._replace(**said), now)
        await _note(tx, "change", key_id, known, changed)

    with_database(database_url, lambda db: db.write(work, alone=True))
    console.print(f"{key_id} is changed", highlight=False)


@keys.command("rotate")
def keys_rotate(
    key_id: str,
    overlap_s: Annotated[
        int,
        typer.Option(min=0, max=LONGEST_OVERLAP_S, help="How long the present key stays valid."),
    ] = DAY_S,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Make a key with the same rights and print it; the present one ends after the overlap."""
    now = Clock().now()

    async def work(tx: Tx) -> tuple[Key, str]:
        refuse_environment(key_id)
        known = await get_key(tx, key_id)
        overlap = timedelta(seconds=overlap_s)
        made, token, replaced = await rotate_key(tx, known, overlap, known.expires_at, now)
        await _note(tx, "rotate", key_id, known, replaced)
        await _note(tx, "create", made.id, None, made)
        return made, token

    made, token = with_database(database_url, lambda db: db.write(work, alone=True))
    _show_new(made, token, json=json)


@keys.command("revoke")
def keys_revoke(key_id: str, database_url: DatabaseUrl = None) -> None:
    """From now on the key opens nothing, in any process."""
    now = Clock().now()

    async def work(tx: Tx) -> None:
        refuse_environment(key_id)
        await revoke_key(tx, key_id, now)
        gone = await get_key(tx, key_id)
        await _note(tx, "revoke", key_id, gone._replace(revoked_at=None), gone)

    with_database(database_url, lambda db: db.write(work, alone=True))
    console.print(f"{key_id} is revoked", highlight=False)


def _ahead(at: datetime | None, now: datetime) -> datetime | None:
    """The instant in UTC, which is what is meant where nothing else is said."""
    if at is None:
        return None
    aware = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    if aware <= now:
        raise InvalidInput.at("/expires_at", "--expires-at: must lie ahead")
    return aware


async def _note(tx: Tx, action: str, key_id: str, before: Key | None, after: Key) -> None:
    known = None if before is None else before._asdict()
    await note_by_hand(tx, action, "key", key_id, known, after._asdict())


def _show_new(key: Key, token: str, *, json: bool) -> None:
    if not json:
        shown = f"[bold]{token}[/bold]  ({key.id}, shown once)"
        console.print(shown, highlight=False, soft_wrap=True)
        return
    found: dict[str, Any] = {"id": key.id, "key": token, "prefix": key.prefix}
    found |= {"scopes": sorted(key.scopes), "user_id": key.user_id}
    if key.replaces is not None:
        found["replaces"] = key.replaces
    print(msgspec.json.encode(found).decode())  # noqa: T201


def _day(at: datetime | None) -> str:
    return rfc3339(at)[:10] if at else ""


def _state(key: Key, now: datetime) -> str:
    if key.revoked_at is not None:
        return f"revoked {_day(key.revoked_at)}"
    if key.has_expired(now):
        return "expired"
    until = "" if key.expires_at is None else f"until {_day(key.expires_at)}"
    if expires_soon(key, now):
        until = f"[yellow]{until}[/yellow]"
    return until if key.replaced_by is None else f"{until}, replaced by {key.replaced_by}"
