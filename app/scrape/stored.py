"""What the database and the disk say when somebody looks: one short read, once in a while."""

import asyncio
import shutil
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.engine import Row

from app.alerts.tables import Alert, Delivery, Webhook
from app.core.clock import Clock
from app.core.errors import Unavailable
from app.db.changes import newest_version
from app.db.clock import database_now
from app.db.engine import Database, SqliteDatabase, Tx
from app.db.lease import Lease
from app.limits.tables import Hold
from app.metrics.kinds import Family, Level, Snapshot
from app.metrics.kinds import Row as Line
from app.retention.tables import Archive

KEPT_S = 5.0
"""Who asks again within so long is answered from what was read before."""
UNREAD_WITHIN = timedelta(days=30)
SEVERITIES = ("info", "warning", "error")
_SIZE = {
    "sqlite": text("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"),
    "postgresql": text("SELECT pg_database_size(current_database())"),
}


class Stored:
    """Levels that are the same whichever process is asked."""

    def __init__(self, db: Database, clock: Clock, archive_url: str) -> None:
        self._db, self._clock = db, clock
        self._turn = asyncio.Lock()
        self._read_s: float | None = None
        self._snapshot: Snapshot = {}
        self._places = _places(db, archive_url)
        self.up = Level("tollgate_database_up", "1 if the database answered, 0 if not.")
        self.size = Level("tollgate_database_bytes", "Size of the database.")
        self.version = Level(
            "tollgate_config_newest_version", "The last change of configuration there is."
        )
        self.holds = Level("tollgate_holds_open", "Holds that hold something now.")
        self.unread = Level(
            "tollgate_alerts_unread", "Alerts of 30 days that nobody has read.", ("severity",)
        )
        self.pending = Level("tollgate_outbox_pending", "Messages on their way to webhooks.")
        self.overdue = Level(
            "tollgate_outbox_overdue_seconds", "How long the oldest message has been due."
        )
        self.succeeded = Level(
            "tollgate_job_last_success_timestamp_seconds",
            "When a job last did what was due, in whichever process.",
            ("name",),
        )
        self.failing = Level(
            "tollgate_job_failing", "1 if a job failed and has not succeeded since.", ("name",)
        )
        self.archives = Level("tollgate_archives", "Archives by what became of them.", ("state",))
        self.archived = Level("tollgate_archive_bytes", "Bytes in sealed archives.")
        self.disk = Level(
            "tollgate_disk_free_bytes",
            "Free space where something is kept that is on this machine.",
            ("place",),
        )
        self.families: tuple[Family, ...] = tuple(
            one for one in vars(self).values() if isinstance(one, Level)
        )

    async def snapshot(self) -> Snapshot:
        """The levels as they were at most five seconds ago; of a database that is down, that."""
        async with self._turn:
            now_s = self._clock.monotonic_s()
            if self._read_s is None or now_s - self._read_s >= KEPT_S:
                self._snapshot = await self._look()
                self._read_s = self._clock.monotonic_s()
            return self._snapshot

    async def _look(self) -> Snapshot:
        for level in self.families:
            level.values.clear()
        try:
            await self._db.read(self._ask)
        except Unavailable:
            for level in self.families:
                level.values.clear()
            self.up.set(0)
        else:
            self.up.set(1)
        for place, path in self._places.items():
            with suppress(OSError):  # a folder that nobody has needed yet
                self.disk.set((await asyncio.to_thread(shutil.disk_usage, path)).free, place)
        return {one.name: [Line(*pair) for pair in one.values.items()] for one in self.families}

    async def _ask(self, tx: Tx) -> None:
        now = await database_now(tx, self._clock)
        self.version.set(await newest_version(tx))
        self.size.set((await tx.fetch(_SIZE[tx.dialect]))[0][0])
        standing = select(func.count()).where(Hold.state == "open", Hold.expires_at > now)
        self.holds.set((await tx.fetch(standing))[0][0])
        since = now - UNREAD_WITHIN
        unread = select(Alert.severity, func.count()).group_by(Alert.severity)
        unread = unread.where(Alert.created_at >= since, Alert.read_at.is_(None))
        counted = {row[0]: row[1] for row in await tx.fetch(unread)}
        for severity in SEVERITIES:
            self.unread.set(counted.get(severity, 0), severity)
        due = Delivery.next_attempt_at
        live = select(Webhook.id).where(Webhook.enabled)
        waiting = select(func.count(), func.min(due)).where(due.is_not(None))
        found = (await tx.fetch(waiting.where(Delivery.webhook_id.in_(live))))[0]
        self.pending.set(found[0])
        late = now - (found[1] or now)
        self.overdue.set(max(0.0, late.total_seconds()))
        self._jobs(await tx.fetch(select(Lease.name, Lease.done_at, Lease.failed_at)))
        sums = select(Archive.state, func.count(), func.sum(Archive.bytes))
        for row in await tx.fetch(sums.group_by(Archive.state)):
            self.archives.set(row[1], row[0])
            if row[0] == "sealed":
                self.archived.set(int(row[2]))

    def _jobs(self, rows: Sequence[Row[*tuple[Any, ...]]]) -> None:
        for name, done_at, failed_at in rows:
            if done_at is not None:
                self.succeeded.set(done_at.timestamp(), name)
            if done_at is not None or failed_at is not None:
                self.failing.set(int(failed_at is not None), name)


def _places(db: Database, archive_url: str) -> dict[str, Path]:
    """What is kept on this machine, and where."""
    found = {}
    if isinstance(db, SqliteDatabase):
        found["database"] = Path(db.path).absolute().parent
    local = archive_url.removeprefix("file://")
    if "://" not in local:
        found["archives"] = Path(local).absolute()
    return found
