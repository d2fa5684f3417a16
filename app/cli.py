"""The terminal: `tollgate serve`, `migrate`, `keys`, `audit`, `demo`; prices are apart."""

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_all_start_methods, get_context
from typing import Annotated, TypeVar

import typer
from sqlalchemy import make_url

from app.cli_archives import archives
from app.cli_audit import audit
from app.cli_backup import backup
from app.cli_doctor import doctor
from app.cli_import import import_usage
from app.cli_keys import keys
from app.cli_prices import prices
from app.cli_worker import worker
from app.cli_wrap import wrap_logs
from app.core.clock import Clock
from app.db.engine import Database
from app.db.migrate import NEWEST
from app.settings import Settings
from app.start import Prepared, prepare, take_packaged_prices
from app.terminal import (
    REFUSALS,
    DatabaseUrl,
    console,
    refuse,
    settings_from,
)
from app.web.logs import configure

T = TypeVar("T")
app = typer.Typer(
    help="Usage metering, pricing and spend limits for AI APIs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(keys, name="keys")
app.add_typer(prices, name="prices")
app.command()(audit)
app.command("import")(import_usage)
app.command("wrap")(wrap_logs)
app.command()(worker)
app.command()(doctor)
app.command()(backup)
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
    preparing = _apart(partial(_prepare, interactive=sys.stderr.isatty()), settings)
    from app.serving import run  # noqa: PLC0415  (half a second, while the database is prepared)

    prepared = preparing.result()
    if isinstance(prepared, str):
        refuse(prepared)
    _greet(settings, prepared)
    run(settings, prepared.price_list)


def _apart(work: Callable[[Settings], T], settings: Settings) -> Future[T]:
    """Run something in a process of its own, so that what it needs is not kept while serving."""
    way = "fork" if "fork" in get_all_start_methods() else None
    apart = ProcessPoolExecutor(1, mp_context=get_context(way))
    found = apart.submit(work, settings)
    apart.shutdown(wait=False)
    return found


def _prepare(settings: Settings, *, interactive: bool) -> Prepared | str:
    """Make the database ready, or tell why it cannot be."""
    try:
        return asyncio.run(prepare(settings, Clock(), interactive=interactive))
    except REFUSALS as error:
        return str(error)


def _greet(settings: Settings, prepared: Prepared) -> None:
    admin_key = prepared.admin_key
    address = f"http://{settings.host}:{settings.port}"
    url = make_url(settings.database_url).render_as_string(hide_password=True)
    console.print(f"[bold]Tollgate[/bold] at {address} on {url}", highlight=False, soft_wrap=True)
    if prepared.sign_in is not None:
        here = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
        console.print("  dashboard (the link signs in once, within 15 minutes):", highlight=False)
        print(  # noqa: T201  (not wrapped, so that it can be followed)
            f"  http://{here}:{settings.port}/dashboard/sign-in/link?token={prepared.sign_in}",
            flush=True,
        )
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
