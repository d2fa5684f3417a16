"""Run the migrations. Nothing that serves imports this: alembic takes 10 MB of memory."""

from alembic import command
from alembic.config import Config
from sqlalchemy.engine import Connection

from app.db.engine import migrate
from app.db.migrate import SCRIPTS


def config() -> Config:
    """Alembic's configuration, without a file."""
    found = Config()
    found.set_main_option("script_location", str(SCRIPTS))
    return found


async def upgrade(url: str) -> None:
    """Run every migration that is missing, all in one transaction."""

    def work(connection: Connection) -> None:
        given = config()
        given.attributes["connection"] = connection
        command.upgrade(given, "head")

    await migrate(url, work)
