"""Whether the work that nobody waits for is done: jobs, and messages on their way."""

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import func, select

from app.alerts.tables import Delivery
from app.core.clock import rfc3339
from app.db.clock import database_now
from app.db.engine import Tx
from app.db.lease import Lease
from app.db.types import table_of
from app.doctor.finding import Finding, Patient
from app.jobs import PRESENCE

JOBS, OUTBOX = "jobs", "outbox"
FAILING_FOR = timedelta(hours=1)
LATE, VERY_LATE = timedelta(minutes=5), timedelta(hours=1)
DEAD_SINCE = timedelta(days=1)
_lease, _delivery = table_of(Lease).c, table_of(Delivery).c


class Row(NamedTuple):
    """A lease as it stands."""

    name: str
    until_at: datetime
    done_at: datetime | None
    failed_at: datetime | None
    failure: str | None


async def jobs(patient: Patient) -> list[Finding]:
    """Who does the jobs, and what came of each of them last."""

    async def work(tx: Tx) -> tuple[datetime, list[Row]]:
        rows = await tx.fetch(select(*(_lease[name] for name in Row._fields)).order_by(_lease.name))
        return await database_now(tx, patient.clock), [Row._make(row) for row in rows]

    now, rows = await patient.db.read(work)
    apart = next((row for row in rows if row.name == PRESENCE), None)
    found = [whose(patient.settings.jobs == "on", apart, now)]
    return found + [came_of(row, now) for row in rows if row.name != PRESENCE and _was_tried(row)]


def _was_tried(row: Row) -> bool:
    return row.done_at is not None or row.failed_at is not None


def whose(serving: bool, worker: Row | None, now: datetime) -> Finding:
    """Judge whether anybody does the jobs. Pure."""
    if worker is not None and worker.until_at > now:
        return Finding(JOBS, "ok", "a worker is there")
    if serving:
        return Finding(JOBS, "ok", "serving processes do the jobs (TOLLGATE_JOBS=on)")
    told = "there never was a worker" if worker is None else "the worker is gone"
    advice = "start `tollgate worker`, or set TOLLGATE_JOBS=on"
    return Finding(JOBS, "fail", f"TOLLGATE_JOBS=off and {told}", advice)


def came_of(row: Row, now: datetime) -> Finding:
    """Judge one job by when it was last done. Pure."""
    last = "never" if row.done_at is None else rfc3339(row.done_at.replace(microsecond=0))
    said = f"{row.name}: last done {last}"
    if row.failed_at is None:
        return Finding(JOBS, "ok", said)
    long = row.done_at is None or now - row.done_at > FAILING_FOR
    said += f", then failed: {row.failure}"
    advice = "it is tried again by itself; the log has job.failed with the whole story"
    return Finding(JOBS, "fail" if long else "warn", said, advice)


async def outbox(patient: Patient) -> list[Finding]:
    """Messages to webhooks that are late, and those that were given up."""

    async def work(tx: Tx) -> tuple[datetime, datetime | None, int, int]:
        now = await database_now(tx, patient.clock)
        due = (_delivery.state == "pending", _delivery.next_attempt_at <= now - LATE)
        late = select(func.min(_delivery.next_attempt_at), func.count()).where(*due)
        oldest, count = (await tx.fetch(late))[0]
        dead = (_delivery.state == "dead", _delivery.created_at > now - DEAD_SINCE)
        gone = (await tx.fetch(select(func.count()).where(*dead)))[0][0]
        return now, oldest, int(count), int(gone)

    return waiting(*await patient.db.read(work))


def waiting(now: datetime, oldest: datetime | None, late: int, dead: int) -> list[Finding]:
    """Judge what should have been sent, and what never will be. Pure."""
    found = []
    if oldest is not None and late:
        minutes = (now - oldest) / timedelta(minutes=1)
        said = f"{late:,} messages wait to be sent, the first for {minutes:.0f} minutes"
        advice = "see that the jobs are done; then that receivers answer in time"
        state = "fail" if now - oldest > VERY_LATE else "warn"
        found.append(Finding(OUTBOX, "fail" if state == "fail" else "warn", said, advice))
    if dead:
        advice = "repair the receiver, then POST /v1/deliveries/{id}/retry"
        found.append(Finding(OUTBOX, "warn", f"{dead:,} messages were given up today", advice))
    return found or [Finding(OUTBOX, "ok", "no message is late")]
