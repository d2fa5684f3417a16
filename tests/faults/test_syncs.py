"""P1 on SQLite: between the write and the answer the log of the database is synced."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import httpx
import pytest

from app.core.clock import FrozenClock
from app.db import sqlite
from app.main import create_asgi
from app.pricing.catalog import Catalog
from app.runtime import build
from tests.conftest import ADMIN, settings_for
from tests.faults.service import event

pytestmark = [pytest.mark.fault, pytest.mark.anyio]


class _WatchedFile(apsw.VFSFile):
    def __init__(self, base: str, name: Any, flags: list[int], seen: list[str]) -> None:
        super().__init__(base, name, flags)
        path = name if isinstance(name, str) else name.filename()
        self._kind = "wal" if flags[0] & apsw.SQLITE_OPEN_WAL else "main"
        self._watch = "watched.db" in path
        self._seen = seen

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._watch:
            self._seen.append(f"write {self._kind}")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        if self._watch:
            self._seen.append(f"sync {self._kind}")


class _WatchedVfs(apsw.VFS):
    """The system's own files, with every write and sync written down."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._base = apsw.vfs_names()[0]
        super().__init__("watched", base=self._base, makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _WatchedFile(self._base, name, flags, self.seen)


@pytest.fixture
def watched() -> Iterator[list[str]]:
    vfs = _WatchedVfs()
    try:
        yield vfs.seen
    finally:
        vfs.unregister()


async def test_no_answer_leaves_before_the_sync(
    watched: list[str],
    tmp_path: Path,
    sqlite_template: Path,
    clock: FrozenClock,
    catalog: Catalog,
) -> None:
    shutil.copy(sqlite_template, tmp_path / "watched.db")
    runtime = build(settings_for(f"sqlite:///{tmp_path}/watched.db"), clock=clock, catalog=catalog)
    await runtime.start()
    transport = httpx.ASGITransport(create_asgi(runtime))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://test", headers={"Authorization": f"Bearer {ADMIN}"}
    ) as client:
        first = await client.post("/v1/events", json=event("warm"))
        assert first.status_code == 201
        for turn in range(20):
            watched.clear()
            answers = await asyncio.gather(
                *(client.post("/v1/events", json=event(f"{turn}-{n}")) for n in range(turn % 3 + 1))
            )
            assert {answer.status_code for answer in answers} == {201}
            assert "write wal" in watched
            assert watched[-1] == "sync wal", watched
        watched.clear()
        again = await client.post("/v1/events", json=event("warm"))
        assert again.json()["status"] == "duplicate"
        made = await client.post("/v1/plans", json={"name": "Pro"})
        assert made.status_code == 201
        assert watched[-1] == "sync wal"
    await runtime.close()


async def test_every_connection_of_ours_syncs_each_commit(
    sqlite_template: Path, tmp_path: Path
) -> None:
    """PostgreSQL's own settings are judged when the service starts: see `test_starts.py`."""
    shutil.copy(sqlite_template, tmp_path / "ours.db")
    connection = sqlite.connect(str(tmp_path / "ours.db"))
    try:
        assert connection.execute("PRAGMA synchronous").fetchall() == [(2,)]
        assert connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
        assert connection.execute("PRAGMA mmap_size").fetchall() in ([], [(0,)])
    finally:
        connection.close()
