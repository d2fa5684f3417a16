"""Logs: events with bound facts, pretty for people or JSON for machines; never a secret."""

import logging
import sys
from typing import Any

from loguru import logger

_PRETTY = "<dim>{time:HH:mm:ss.SSS}</dim> <level>{level: <7}</level> {message} <dim>{extra}</dim>"


class _ToLoguru(logging.Handler):
    """Hands the standard library's records (uvicorn, alembic, sqlalchemy) over."""

    def emit(self, record: logging.LogRecord) -> None:
        logger.opt(exception=record.exc_info).bind(source=record.name).log(
            record.levelname if record.levelname in ("INFO", "WARNING", "ERROR") else "DEBUG",
            "{}",
            record.getMessage(),
        )


def configure(level: str, form: str) -> None:
    """Send every log line of the process through one sink on standard error."""
    logger.remove()
    options: dict[str, Any] = {"level": level.upper(), "diagnose": False, "backtrace": False}
    if form == "json":
        logger.add(sys.stderr, serialize=True, **options)
    else:
        logger.add(sys.stderr, format=_PRETTY, **options)
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.WARNING, force=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "alembic"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
