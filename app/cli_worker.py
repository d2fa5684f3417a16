"""The terminal, about jobs: `tollgate worker` does them without serving."""

import asyncio

from app.terminal import REFUSALS, DatabaseUrl, refuse, settings_from
from app.web.logs import configure


def worker(database_url: DatabaseUrl = None) -> None:
    """Do the jobs that nobody waits for (webhooks, wrapping, tidying) and serve nothing.

    Any number may run beside each other and beside serving processes: each job has one holder at a
    time, and another takes over within a minute from one that died.
    """
    settings = settings_from(database_url=database_url)
    configure(settings.log_level, settings.log_format)
    from app.worker import run  # noqa: PLC0415  (half a second that other commands need not wait)

    try:
        asyncio.run(run(settings))
    except REFUSALS as error:
        refuse(str(error))
