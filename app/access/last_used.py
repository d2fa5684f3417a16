"""When keys were last used: kept in memory, and written down once a minute, never in a request."""

import asyncio
from datetime import datetime

from loguru import logger
from sqlalchemy import bindparam, or_, update

from app.access.recent import Uses
from app.access.tables import ApiKey
from app.core.errors import AppError
from app.db.engine import Database, Tx
from app.db.types import table_of

EVERY_S = 60.0
CLOSING_S = 1.0
"""How long writing it down may take while the service stops."""

_at = bindparam("used_at", type_=ApiKey.last_used_at.type)
_older = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < _at)
_note = update(table_of(ApiKey)).where(ApiKey.id == bindparam("key_id"), _older)
_note = _note.values(last_used_at=_at)


async def note_uses(tx: Tx, used: dict[str, datetime]) -> None:
    """Write down when keys were last used; a later use that is known already stays."""
    await tx.run(_note, [{"key_id": key_id, "used_at": at} for key_id, at in sorted(used.items())])


class LastUsed:
    """Writes down what a process has seen since it last did. Lost only if the process is killed."""

    def __init__(self, db: Database, uses: Uses) -> None:
        self._db, self._uses = db, uses
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write it down every minute, beside whatever else this process does."""
        self._task = asyncio.create_task(self._go_on())

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.write()
            except Exception as error:  # whatever it is, it is tried again a minute later
                logger.bind(error=str(error)).warning("keys.use_not_noted")

    async def write(self, within_s: float | None = None) -> None:
        """Write down what is known, or keep it for the next time."""
        used = self._uses.take()
        if not used:
            return
        try:
            await self._db.write(lambda tx: note_uses(tx, used), within_s=within_s)
        except BaseException:
            self._uses.put_back(used)
            raise

    async def close(self) -> None:
        """Write down the last of it; a database that does not answer is not waited for."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        try:
            await self.write(CLOSING_S)
        except AppError as error:
            logger.bind(error=str(error)).warning("keys.use_not_noted")
