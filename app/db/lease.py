"""Who may do a job: one holder at a time over all processes, while it says it is alive."""

from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, mapped_column

from app.db.engine import Tx
from app.db.types import Base, table_options


class Lease(Base):
    """One job: who does it, until when nobody else may, and what it wants to know next time.

    `done_at` is when it last succeeded, `failed_at` when it last failed, with what it said; a
    success clears the failure.
    """

    __tablename__ = "leases"
    __table_args__ = (table_options("local", clustered=True),)

    name: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str]
    until_at: Mapped[datetime]
    mark: Mapped[str | None]
    done_at: Mapped[datetime | None]
    failed_at: Mapped[datetime | None]
    failure: Mapped[str | None]


async def take(tx: Tx, name: str, holder: str, now: datetime, lasting: timedelta) -> bool:
    """Hold the job from now on, or go on holding it; False where somebody else does."""
    made = _insert(tx).values(name=name, holder=holder, until_at=now + lasting)
    free = or_(Lease.holder == holder, Lease.until_at <= now)
    query = made.on_conflict_do_update(
        index_elements=[Lease.name],
        set_={"holder": made.excluded.holder, "until_at": made.excluded.until_at},
        where=free,
    )
    return bool(await tx.fetch(query.returning(Lease.name)))


async def keep(tx: Tx, name: str, holder: str, now: datetime, lasting: timedelta) -> bool:
    """Go on holding a job; False where anybody else has held it since it was taken."""
    ours = (Lease.name == name, Lease.holder == holder)
    return bool(await tx.run(update(Lease).where(*ours).values(until_at=now + lasting)))


async def release(tx: Tx, name: str, holder: str, now: datetime) -> None:
    """Let somebody else take it at once, if it is ours."""
    ours = (Lease.name == name, Lease.holder == holder)
    await tx.run(update(Lease).where(*ours).values(until_at=now))


async def conclude(tx: Tx, name: str, holder: str, now: datetime, failure: str | None) -> None:
    """As `release`, and note that the job succeeded, or what it failed of."""
    ours = (Lease.name == name, Lease.holder == holder)
    came_of_it = {"done_at": now} if failure is None else {}
    failed = {"failed_at": None if failure is None else now, "failure": failure}
    await tx.run(update(Lease).where(*ours).values(until_at=now, **failed, **came_of_it))


async def mark_of(tx: Tx, name: str) -> str:
    """What the job noted when it was last done; empty where it never was."""
    row = await tx.first(select(Lease.mark).where(Lease.name == name))
    return (row[0] or "") if row else ""


async def note(tx: Tx, name: str, mark: str, now: datetime) -> None:
    """Keep this for the next time that the job is done, by whomever."""
    made = _insert(tx).values(name=name, holder="", until_at=now, mark=mark)
    kept = made.on_conflict_do_update(index_elements=[Lease.name], set_={"mark": mark})
    await tx.run(kept)


def _insert(tx: Tx) -> postgresql.Insert | sqlite.Insert:
    return postgresql.insert(Lease) if tx.dialect == "postgresql" else sqlite.insert(Lease)
