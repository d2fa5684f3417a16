"""Whether PostgreSQL keeps what it acknowledges, agrees on the time, and has room for everybody."""

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import make_url, text

from app.db.clock import database_now
from app.db.engine import PostgresTx, Tx
from app.doctor.finding import Finding, Patient

DURABILITY, CONNECTIONS, POOLER, CLOCK = "durability", "connections", "pooler", "clock"
SKEW, BAD_SKEW = timedelta(seconds=2), timedelta(seconds=60)
"""A minute is what a job's lease lasts."""
_DURABLE = text(
    "SELECT name, setting FROM pg_settings "
    "WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') ORDER BY name"
)
_SLOTS = text(
    "SELECT current_setting('max_connections')::int "
    "- current_setting('superuser_reserved_connections')::int, "
    "(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')"
)
_PID = text("SELECT pg_backend_pid()")


async def durability(patient: Patient) -> list[Finding]:
    """The settings without which an acknowledged event can be lost."""
    if patient.db.dialect == "sqlite":
        return [Finding(DURABILITY, "ok", "every connection syncs each commit (WAL, FULL)")]
    rows = await patient.db.read(lambda tx: tx.fetch(_DURABLE))
    off = [row[0] for row in rows if row[1] == "off"]
    if not off:
        return [Finding(DURABILITY, "ok", ", ".join(f"{name} = {value}" for name, value in rows))]
    allowed = patient.settings.allow_unsafe_durability
    advice = "an acknowledged event can be lost: ALTER SYSTEM SET {} = on, then pg_reload_conf()"
    return [
        Finding(DURABILITY, "warn" if allowed else "fail", f"{name} = off", advice.format(name))
        for name in off
    ]


async def clock(patient: Patient) -> list[Finding]:
    """This machine's clock against the database's."""
    if patient.db.dialect == "sqlite":
        return [Finding(CLOCK, "ok", "the database has the clock of this machine")]

    async def work(tx: Tx) -> tuple[datetime, datetime]:
        await tx.fetch(_PID)  # the first statement of a connection takes longest
        return patient.clock.now(), await database_now(tx, patient.clock)

    ours, its = await patient.db.read(work)
    return [skew(its - ours)]


def skew(ahead: timedelta) -> Finding:
    """Judge by how much the database's clock is ahead of ours. Pure."""
    seconds = ahead.total_seconds()
    said = f"the database's clock is {abs(seconds):.1f} s {'ahead' if seconds > 0 else 'behind'}"
    if abs(ahead) >= BAD_SKEW:
        return Finding(CLOCK, "fail", said, "set both machines by NTP: holds and windows disagree")
    if abs(ahead) >= SKEW:
        return Finding(CLOCK, "warn", said, "set both machines by NTP")
    return Finding(CLOCK, "ok", said)


async def connections(patient: Patient) -> list[Finding]:
    """Whether the server has room for the pools of every process of every replica."""
    if patient.db.dialect == "sqlite":
        return [Finding(CONNECTIONS, "ok", "SQLite has one writer and four readers a process")]
    slots, used = (await patient.db.read(lambda tx: tx.fetch(_SLOTS)))[0]
    each, processes = patient.settings.pool_size, patient.settings.workers * patient.replicas
    pooled = _says_pgbouncer(patient)
    return [room(int(slots), int(used), each, processes, pooled=pooled)]


def room(slots: int, used: int, each: int, processes: int, *, pooled: bool = False) -> Finding:
    """Judge `processes` pools of `each` connections by what the server lets in. Pure."""
    said = f"{processes} processes with {each} connections each; {used} of {slots} are in use"
    if not pooled and each * processes > slots:
        advice = f"lower TOLLGATE_POOL_SIZE to {max(4, slots // processes)}, raise max_connections"
        return Finding(CONNECTIONS, "fail", said, f"{advice}, or put PgBouncer in front")
    if used > 0.9 * slots:
        return Finding(
            CONNECTIONS, "warn", said, "somebody takes nearly all: raise max_connections"
        )
    return Finding(CONNECTIONS, "ok", said)


# ---- PgBouncer ----------------------------------------------------------------------------------


class Seen(NamedTuple):
    """The process that the connection was told of, and the one that answers."""

    told: int
    answering: int


async def pooler(patient: Patient) -> list[Finding]:
    """Whether a pooler is in between, and the URL says so."""
    if patient.db.dialect == "sqlite":
        return [Finding(POOLER, "ok", "there is no pooler on SQLite")]

    async def work(tx: Tx) -> Seen:
        assert isinstance(tx, PostgresTx)
        return Seen(tx.hot.get_server_pid(), await tx.hot.fetchval("SELECT pg_backend_pid()"))

    seen = await patient.db.read(work)
    return [between(seen, said=_says_pgbouncer(patient))]


def _says_pgbouncer(patient: Patient) -> bool:
    query = make_url(patient.settings.database_url).query
    return query.get("pgbouncer", "") in ("1", "true")


def between(seen: Seen, *, said: bool) -> Finding:
    """Judge what is between us and the server by what the URL says. Pure.

    A pooler tells each client a process number of its own making.
    """
    pooled = seen.told != seen.answering
    if pooled and not said:
        advice = "add ?pgbouncer=true to the URL: prepared statements break in transaction mode"
        return Finding(
            POOLER, "fail", "a pooler is in between, and the URL does not say so", advice
        )
    if said and not pooled:
        advice = "remove ?pgbouncer=true: without prepared statements everything is slower"
        return Finding(POOLER, "warn", "the URL says PgBouncer, and none is in between", advice)
    return Finding(POOLER, "ok", "through PgBouncer, as the URL says" if said else "no pooler")
