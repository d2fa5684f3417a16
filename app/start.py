"""What happens once before the service serves: schema, durability, first key, prices."""

from dataclasses import dataclass

from loguru import logger
from sqlalchemy import make_url, text

from app.access.keys import ENVIRONMENT, any_key, create_key, list_keys
from app.core.clock import Clock
from app.dashboard.sessions import make_link
from app.db.engine import Database, Tx
from app.db.migrate import NEWEST, current_revision
from app.pricing.rows import PriceList
from app.pricing.sources import packaged_sources
from app.pricing.store import has_sources, load_active
from app.settings import Settings

PATIENCE_S = 30.0
"""How long a start waits for a busy database: no caller is kept waiting yet."""


class NotReadyError(Exception):
    """The service must not start like this; the message says what to do."""


@dataclass(frozen=True)
class Prepared:
    """What the person at the terminal is told, and the price list to begin with.

    `sign_in` is the token of a link that opens the dashboard once.
    """

    admin_key: str | None
    price_list: PriceList
    sign_in: str | None = None


async def prepare(settings: Settings, clock: Clock, *, interactive: bool = False) -> Prepared:
    """Make the database ready, or refuse.

    SQLite and an empty PostgreSQL database get their schema at once; a PostgreSQL that holds an
    older one is left to whoever runs it, because other versions may still be serving from it.
    `interactive`: somebody looks at what is printed, so a link to the dashboard is made.

    Raises:
        NotReadyError: out-of-date schema, or a PostgreSQL that loses what it acknowledged.
    """
    url = settings.database_url
    found = await current_revision(url)
    if found != NEWEST:
        if found is not None and make_url(url).get_backend_name() != "sqlite":
            raise NotReadyError(
                f"the database is at revision {found} and this version needs "
                f"{NEWEST}: run `tollgate migrate --database-url …`"
            )
        from app.db.upgrade import upgrade  # noqa: PLC0415  (alembic has no part in serving)

        await upgrade(url)
    db = Database.open(url, pool_size=4, patience_s=PATIENCE_S)
    try:
        await refuse_unsafe(db, settings)
        price_list = await take_packaged_prices(db, clock)
        if price_list is None:
            price_list = await db.read(load_active)
        if settings.admin_key is not None or await db.read(any_key):
            link = await db.write(lambda tx: _link(tx, settings, clock)) if interactive else None
            return Prepared(None, price_list, link)
        key, token = await db.write(
            lambda tx: create_key(
                tx,
                name="first admin key",
                scopes=["admin"],
                user_id=None,
                expires_at=None,
                now=clock.now(),
            ),
            alone=True,
        )
        link = await db.write(lambda tx: make_link(tx, key.id, clock.now()))
        return Prepared(token, price_list, link)
    finally:
        await db.close()


async def _link(tx: Tx, settings: Settings, clock: Clock) -> str | None:
    """A link for the admin key of the settings, else for the oldest one that opens everything."""
    now = clock.now()
    if settings.admin_key is not None:
        return await make_link(tx, ENVIRONMENT, now)
    usable = [
        key.id
        for key in await list_keys(tx)
        if "admin" in key.scopes and key.user_id is None and key.is_live(now)
    ]
    return await make_link(tx, usable[-1], now) if usable else None


async def take_packaged_prices(db: Database, clock: Clock) -> PriceList | None:
    """Put the price list of this release in force, unless it was before; return it if it is new.

    One that would move too much is left to a person; then the list in force stays, and a warning
    names the command.
    """
    sources = packaged_sources()
    if await db.read(lambda tx: has_sources(tx, sources)):
        return None
    from app.pricing.packages import read_packages  # noqa: PLC0415  (41 MB: not for serving)
    from app.pricing.sync import sync  # noqa: PLC0415  (needed once a release)

    listed = read_packages()  # that it compiles is tested, and takes a second of the first start
    found = await sync(db, listed, sources, now=clock.now(), by="start", compiles=True)
    if found.objections:
        logger.bind(
            in_force=found.version_id,
            why="; ".join(found.objections),
            look="tollgate prices diff",
            take="tollgate prices sync --force",
        ).warning("prices.left_alone")
    elif found.is_new:
        logger.bind(version=found.version_id, sources=sources).info("prices.in_force")
    return found.in_force


async def refuse_unsafe(db: Database, settings: Settings) -> None:
    """Do nothing where the database keeps what it acknowledges, or the settings allow otherwise.

    Raises:
        NotReadyError: a PostgreSQL that would lose it.
    """
    if db.dialect == "postgresql" and not settings.allow_unsafe_durability:
        await db.read(_durable)


async def _durable(tx: Tx) -> None:
    query = text(
        "SELECT name, setting FROM pg_settings "
        "WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit')"
    )
    off = [f"{row[0]} = off" for row in await tx.fetch(query) if row[1] == "off"]
    if off:
        raise NotReadyError(
            f"PostgreSQL runs with {', '.join(sorted(off))}: an acknowledged event could be lost. "
            "Turn it on, or set TOLLGATE_ALLOW_UNSAFE_DURABILITY=true for data you can lose."
        )
