"""Configuration that is never stale: every change of it is one row, read by every transaction.

Keys, plans, limits and subscriptions are cached in memory. Whoever changes one writes a row here in
the same transaction; every ingest batch, coalesced check and signed-in request reads the newest
version first and reloads what changed since. No time-outs, no messages, right on any number of
processes. On PostgreSQL a change waits for the ingest transactions in flight and holds up the next
ones until it is committed (`Database.write(alone=True)`), so none runs with half of it.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import datetime

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Mapped, mapped_column

from app.db.engine import Tx
from app.db.types import Base, table_options

Reload = Callable[[Tx, set[str]], Awaitable[None]]


class ConfigChange(Base):
    """One change of configuration: what kind of thing, and which one."""

    __tablename__ = "config_changes"
    __table_args__ = (table_options("reference", clustered=True),)

    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str]
    ref: Mapped[str]
    changed_at: Mapped[datetime]


async def announce(tx: Tx, kind: str, ref: str, now: datetime) -> None:
    """Tell every process that this thing changed; in the transaction that changes it."""
    newest = (await tx.fetch(select(func.max(ConfigChange.version))))[0][0] or 0
    row = {"version": newest + 1, "kind": kind, "ref": ref, "changed_at": now}
    await tx.run(insert(ConfigChange), [row])


_NEWEST = "SELECT max(version) FROM config_changes"


async def newest_version(tx: Tx) -> int:
    """The number of the last change that this transaction can see."""
    if tx.dialect == "sqlite":
        return tx.hot.execute(_NEWEST).fetchone()[0] or 0
    return await tx.hot.fetchval(_NEWEST) or 0


class Feed:
    """What this process has seen of the changes, and who wants to know of which kind."""

    def __init__(self) -> None:
        self.version = -1
        self._listeners: dict[str, Reload] = {}

    def listen(self, kind: str, reload: Reload) -> None:
        """Call `reload(tx, refs)` when things of this kind have changed."""
        self._listeners[kind] = reload

    async def catch_up(self, tx: Tx) -> None:
        """Bring every cache to what this transaction sees; a no-op unless something changed."""
        newest = await newest_version(tx)
        if newest == self.version:
            return
        changed: dict[str, set[str]] = defaultdict(set)
        if self.version < 0:
            changed = defaultdict(set, {kind: {"*"} for kind in self._listeners})
        else:
            query = select(ConfigChange.kind, ConfigChange.ref)
            for row in await tx.fetch(query.where(ConfigChange.version > self.version)):
                changed[row[0]].add(row[1])
        for kind, refs in changed.items():
            if kind in self._listeners:
                await self._listeners[kind](tx, refs)
        self.version = max(newest, self.version)
