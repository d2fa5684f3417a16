"""The terminal: `tollgate serve`, `migrate`, `keys`, `audit`, `demo`; prices are apart."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from datetime import datetime
from multiprocessing import get_all_start_methods, get_context
from typing import Annotated, Any, TypeVar

import msgspec
import typer
from rich.table import Column, Table
from sqlalchemy import make_url

from app.access.keys import create_key, list_keys, revoke_key
from app.cli_archives import archives
from app.cli_audit import audit
from app.cli_import import import_usage
from app.cli_prices import prices
from app.cli_wrap import wrap_logs
from app.core.clock import Clock, rfc3339
from app.db.engine import Database, Tx
from app.db.migrate import NEWEST
from app.settings import Settings
from app.start import Prepared, prepare, take_packaged_prices
from app.terminal import (
    REFUSALS,
    DatabaseUrl,
    console,
    refuse,
    settings_from,
    with_database,
)
from app.web.logs import configure

T = TypeVar("T")
app = typer.Typer(
    help="Usage metering, pricing and spend limits for AI APIs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
keys = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)
app.add_typer(keys, name="keys")
app.add_typer(prices, name="prices")
app.command()(audit)
app.command("import")(import_usage)
app.command("wrap")(wrap_logs)
app.add_typer(archives, name="archives")


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that serve.")] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Serve. SQLite needs nothing beforehand; the first start prints an admin key, once."""
    settings = settings_from(host=host, port=port, workers=workers, database_url=database_url)
    configure(settings.log_level, settings.log_format)
    preparing = _apart(_prepare, settings)
    from app.serving import run  # noqa: PLC0415  (half a second, while the database is prepared)

    prepared = preparing.result()
    if isinstance(prepared, str):
        refuse(prepared)
    _greet(settings, prepared.admin_key)
    run(settings, prepared.price_list)


def _apart(work: Callable[[Settings], T], settings: Settings) -> Future[T]:
    """Run something in a process of its own, so that what it needs is not kept while serving."""
    way = "fork" if "fork" in get_all_start_methods() else None
    apart = ProcessPoolExecutor(1, mp_context=get_context(way))
    found = apart.submit(work, settings)
    apart.shutdown(wait=False)
    return found


def _prepare(settings: Settings) -> Prepared | str:
    """Make the database ready, or tell why it cannot be."""
    try:
        return asyncio.run(prepare(settings, Clock()))
    except REFUSALS as error:
        return str(error)


def _greet(settings: Settings, admin_key: str | None) -> None:
    address = f"http://{settings.host}:{settings.port}"
    url = make_url(settings.database_url).render_as_string(hide_password=True)
    console.print(f"[bold]Tollgate[/bold] at {address} on {url}", highlight=False, soft_wrap=True)
    if admin_key is None:
        return
    console.print(
        f"\n  admin key (shown once): [bold]{admin_key}[/bold]\n", highlight=False, soft_wrap=True
    )
    body = '{"user_id":"alice","provider":"openai","model":"gpt-4o-mini",'
    body += '"usage":{"input_tokens":1200,"output_tokens":300}}'
    console.print("  try it:", highlight=False)
    print(  # noqa: T201  (not wrapped, so that it can be copied whole)
        f"  curl -s {address}/v1/events -H 'Authorization: Bearer {admin_key}' "
        f"-H 'Content-Type: application/json' -d '{body}'\n",
        flush=True,
    )


@app.command()
def migrate(database_url: DatabaseUrl = None) -> None:
    """Bring the database's schema to this version, and its prices."""
    from app.db.upgrade import upgrade  # noqa: PLC0415  (alembic has no part in serving)

    settings = settings_from(database_url=database_url)
    try:
        asyncio.run(upgrade(settings.database_url))
        asyncio.run(_take_prices(settings))
    except REFUSALS as error:
        refuse(str(error))
    console.print(f"the schema is at revision {NEWEST}", highlight=False)


async def _take_prices(settings: Settings) -> None:
    db = Database.open(settings.database_url, pool_size=4)
    try:
        await take_packaged_prices(db, Clock())
    finally:
        await db.close()


@app.command()
def demo() -> None:
    """Send three months of recorded usage to a service of its own, and show what it answers."""
    from app.demo import run  # noqa: PLC0415  (its HTTP client has no part in serving)

    raise typer.Exit(run(console))


# ---- keys -------------------------------------------------------------------------------------


@keys.command("create")
def keys_create(
    name: Annotated[str, typer.Option(help="What the key is for.")],
    scopes: Annotated[str, typer.Option(help="ingest,check,read,manage,admin")],
    user: Annotated[str | None, typer.Option(help="Bind the key to one user.")] = None,
    expires_at: Annotated[datetime | None, typer.Option(help="UTC; absent: never.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Make a key and print it: the only time that it can be seen."""
    now = Clock().now()
    expires = None if expires_at is None else expires_at.replace(tzinfo=now.tzinfo)

    async def work(tx: Tx) -> Any:
        return await create_key(
            tx, name=name, scopes=scopes.split(","), user_id=user, expires_at=expires, now=now
        )

    key, token = with_database(database_url, lambda db: db.write(work, alone=True), make=True)
    if json:
        found = {"id": key.id, "key": token, "prefix": key.prefix, "scopes": sorted(key.scopes)}
        print(msgspec.json.encode(found | {"user_id": user}).decode())  # noqa: T201
        return
    console.print(f"[bold]{token}[/bold]  ({key.id}, shown once)", highlight=False, soft_wrap=True)


@keys.command("list")
def keys_list(database_url: DatabaseUrl = None) -> None:
    """Show every key by its prefix; the keys themselves are not stored."""
    table = Table(Column("id", no_wrap=True), Column("prefix", no_wrap=True), "name", "scopes")
    for name in ("user", "made", "expires", "revoked"):
        table.add_column(name)
    for key in with_database(database_url, lambda db: db.read(list_keys)):
        table.add_row(
            key.id,
            f"{key.prefix}…",
            key.name,
            ", ".join(sorted(key.scopes)),
            key.user_id or "",
            rfc3339(key.created_at)[:10],
            rfc3339(key.expires_at)[:10] if key.expires_at else "",
            rfc3339(key.revoked_at)[:10] if key.revoked_at else "",
        )
    console.print(table)


@keys.command("revoke")
def keys_revoke(key_id: str, database_url: DatabaseUrl = None) -> None:
    """From now on the key opens nothing, in any process."""

    async def work(tx: Tx) -> None:
        await revoke_key(tx, key_id, Clock().now())

    with_database(database_url, lambda db: db.write(work, alone=True))
    console.print(f"{key_id} is revoked", highlight=False)
