"""How much space there is, how long it will last, and how far the WAL has grown."""

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Select, func, select, text

from app.core.clock import hour_of
from app.db.engine import Tx
from app.db.types import table_of
from app.doctor.files import archive_folder, database_file
from app.doctor.finding import Finding, Patient, size
from app.summaries.tables import HourDimension, PeriodTotal, WrappedUsage

CHECK = "space"
LEAST_BYTES, LITTLE_BYTES = 256 << 20, 2 << 30
LITTLE_SHARE = 0.05
LAST_DAYS, FEW_DAYS = 3, 30
WEEK = timedelta(days=7)
WAL_BYTES, HUGE_WAL_BYTES = 128 << 20, 1 << 30
_period, _wrapped = table_of(PeriodTotal).c, table_of(WrappedUsage).c
_hour = table_of(HourDimension).c


class Growth(NamedTuple):
    """How large the database is, how many detailed rows it has, and how many came in seven days."""

    bytes: int
    rows: int
    week: int

    @property
    def daily(self) -> float:
        """Bytes a day, if the next days are like the last seven and nothing is wrapped."""
        return self.bytes / self.rows * self.week / 7 if self.rows > 0 else 0.0


async def space(patient: Patient) -> list[Finding]:
    """The disks of the database file and the archives, and the WAL."""
    grown = await patient.db.read(lambda tx: _growth(tx, patient))
    file, folder = database_file(patient), archive_folder(patient)
    found = []
    if file is None:
        said = f"the database has {size(grown.bytes)}, about {size(grown.daily)} more a day"
        found.append(Finding(CHECK, "ok", f"{said}; its server's disk is not seen from here"))
    else:
        free, total = _space(file.parent)
        found.append(room(str(file), free, total, grown.daily))
        found.append(wal(Path(f"{file}-wal")))
    if folder is not None and folder.exists():
        found.append(room(str(folder), *_space(folder), 0.0))
    return found


def _space(folder: Path) -> tuple[int, int]:
    usage = shutil.disk_usage(folder)
    return usage.free, usage.total


def room(what: str, free: int, total: int, daily: float) -> Finding:
    """Judge free space by itself and by how long it lasts. Pure."""
    said = f"{what}: {size(free)} of {size(total)} are free"
    days = free / daily if daily > 0 else float("inf")
    if daily > 0:
        said += f", {size(daily)} more are taken a day"
    if days < 3650:
        said += f": enough for about {days:.0f} days"
    if free < LEAST_BYTES or days < LAST_DAYS:
        return Finding(CHECK, "fail", said, "make space now: a full disk refuses every event")
    if free < LITTLE_BYTES or free < total * LITTLE_SHARE or days < FEW_DAYS:
        advice = "make space, or keep fewer detailed rows: PUT /v1/retention"
        return Finding(CHECK, "warn", said, advice)
    return Finding(CHECK, "ok", said)


def wal(path: Path) -> Finding:
    """Judge how much is not yet folded into the database file."""
    bytes_ = path.stat().st_size if path.exists() else 0
    said = f"the WAL has {size(bytes_)}"
    if bytes_ < WAL_BYTES:
        return Finding(CHECK, "ok", said)
    advice = "something has read for long, and keeps it from being folded in: restart the service"
    return Finding(CHECK, "fail" if bytes_ >= HUGE_WAL_BYTES else "warn", said, advice)


async def _growth(tx: Tx, patient: Patient) -> Growth:
    if tx.dialect == "sqlite":
        pages, each = text("PRAGMA page_count"), text("PRAGMA page_size")
        bytes_ = (await tx.fetch(pages))[0][0] * (await tx.fetch(each))[0][0]
    else:
        bytes_ = (await tx.fetch(text("SELECT pg_database_size(current_database())")))[0][0]
    calls = await _sum(tx, select(func.sum(_period.calls)))
    wrapped = await _sum(tx, select(func.sum(_wrapped.calls)))
    since = hour_of(patient.clock.now() - WEEK)
    recent = select(func.sum(_hour.calls)).where(_hour.dimension == "model", _hour.hour >= since)
    return Growth(int(bytes_), calls - wrapped, await _sum(tx, recent))


async def _sum(tx: Tx, query: Select[Any]) -> int:
    return int((await tx.fetch(query))[0][0] or 0)
