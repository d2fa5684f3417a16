"""A copy of a SQLite database, made while others write to it."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import apsw

from app.core.errors import Damaged, Unavailable
from app.core.folders import sync_folder
from app.db.engine import Database, Tx

WITHIN_S = 24 * 3600.0
STEP_PAGES = 2_000
"""So many pages, 8 MB, between two looks at how far it is."""
Tell = Callable[[int, int], None]


async def copy_into(db: Database, target: Path, tell: Tell) -> None:
    """Copy a SQLite database into a new file; on return it is whole, checked and durable.

    Others go on writing meanwhile: the copy holds what was committed when it began. `tell` is given
    how many pages of how many are copied. Only its owner can read the file.

    Raises:
        FileExistsError: there is a file of that name.
        Unavailable: there is no room, or what is to be copied cannot be read.
        Damaged: what was copied is not a sound database.
    """
    part = _begun(target)
    try:
        await db.read(lambda tx: _copied(tx, part, tell), within_s=WITHIN_S)
        os.link(part, target)  # unlike a rename, it never replaces a file that came meanwhile
        sync_folder(target.parent)
    finally:
        _removed(part)


def _begun(target: Path) -> Path:
    """An empty file beside the target that only its owner can read."""
    if target.exists():
        raise FileExistsError(f"there is a file at {target}")
    part = target.with_name(f"{target.name}.part")
    _removed(part)
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    return part


def _removed(part: Path) -> None:
    for end in ("", "-wal", "-shm", "-journal"):
        Path(f"{part}{end}").unlink(missing_ok=True)


async def _copied(tx: Tx, part: Path, tell: Tell) -> None:
    raw: apsw.Connection = tx.hot
    raw.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # from here on the snapshot stands
    copy = apsw.Connection(str(part))
    try:
        copy.execute("PRAGMA synchronous = FULL").fetchall()
        with copy.backup("main", raw, "main") as backup:
            done = False
            while not done:
                done = await asyncio.to_thread(backup.step, STEP_PAGES)
                tell(backup.page_count - backup.remaining, backup.page_count)
        found = await asyncio.to_thread(_problems, copy)
    except apsw.Error as error:
        raise Unavailable(f"the copy could not be made: {error}") from error
    finally:
        copy.close()
    if found != ["ok"]:
        raise Damaged("what was copied is not a sound database", problems=found)


def _problems(copy: apsw.Connection) -> list[str]:
    return [str(row[0]) for row in copy.execute("PRAGMA quick_check(5)")]
