"""Where events wait on disk: written before `record` returns, gone when the service has them.

A folder for each client under the root, locked while the client lives, with one append-only file
for each batch. A file is removed once the service has answered for every line in it; a client
that finds a folder nobody holds any more takes its files over. What is sent twice in between has
the same ids, so it counts once.
"""

import fcntl
import logging
import os
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Literal, NamedTuple

from tollgate_client.errors import QueueFull
from tollgate_client.ids import uuid7
from tollgate_client.queues import BATCH_BYTES, BATCH_EVENTS, Batch

logger = logging.getLogger("tollgate_client")
REFUSED = "refused.ndjson"
LOCK = "lock"
ADOPT_EVERY_S = 30.0
Sync = Literal["record", "interval"]


class _Sealed(NamedTuple):
    path: Path
    size: int
    events: int
    last: int
    adopted: bool


class Spool:
    """Lines in files under `root`, at most `most_bytes` of them for one client.

    With `sync="record"` a line is on the disk when `put` returns; with `"interval"` it is in the
    operating system's hands then, which a killed process survives, and on the disk with the next
    batch, which a power cut asks for.
    """

    def __init__(self, root: Path, most_bytes: int, sync: Sync) -> None:
        self._root, self._most, self._sync = root, most_bytes, sync
        self.place: str | None = str(root)
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._fd = self._lock_fd = -1
        self.forget()
        self._open_home()
        self._adopt()

    def forget(self) -> None:
        for fd in (self._fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock_fd = -1
        self._lock = threading.RLock()
        self._home: Path | None = None
        self._sealed: deque[_Sealed] = deque()
        self._path = self._root
        self._size = self._events = 0
        self._bytes = self._file = self._put = self._done = 0
        self._dirty = self._closed = False
        self._looked = monotonic()

    def put(self, line: bytes) -> int:
        with self._lock:
            if self._closed:
                raise QueueFull("the client is closed")
            if self._bytes + len(line) > self._most:
                raise QueueFull(f"the spool has its {self._most} bytes")
            if self._size and self._size + len(line) > BATCH_BYTES:
                self._seal()
            try:
                if self._fd < 0:
                    self._open_file()
                self._append(line)
            except OSError as error:
                raise QueueFull(f"the spool cannot be written: {error.strerror}") from error
            self._size += len(line)
            self._bytes += len(line)
            self._events += 1
            self._put += 1
            if self._events >= BATCH_EVENTS:
                self._seal()
            return self._put

    def _append(self, line: bytes) -> None:
        """Write a line whole or not at all."""
        try:
            left = memoryview(line)
            while left:
                left = left[os.write(self._fd, left) :]
            if self._sync == "record":
                os.fsync(self._fd)
            else:
                self._dirty = True
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise

    def take(self) -> Batch | None:
        with self._lock:
            if not self._sealed and self._events:
                self._seal()
            if self._closed or not self._sealed:
                return None
            oldest = self._sealed[0]
        lines, torn = _lines_in(oldest.path)
        if torn:
            logger.warning("spool.torn file=%s bytes=%d: never taken", oldest.path, torn)
        return Batch(str(oldest.path), lines, oldest.last)

    def done(self, batch: Batch) -> None:
        with self._lock:
            oldest = self._sealed.popleft()
            if str(oldest.path) != batch.name:
                raise RuntimeError("a batch is done that was not taken")
            oldest.path.unlink(missing_ok=True)
            self._bytes -= oldest.size
            self._done = max(self._done, batch.last)

    def refuse(self, lines: list[bytes]) -> None:
        path = self._root / REFUSED
        if path.exists() and path.stat().st_size > self._most:
            logger.error("spool.refused_full file=%s lost=%d", path, len(lines))
            return
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(fd, b"".join(lines))
            os.fsync(fd)
        finally:
            os.close(fd)

    def waiting(self) -> int:
        with self._lock:
            return self._events + sum(one.events for one in self._sealed)

    def settled(self, number: int) -> bool:
        with self._lock:
            return self._done >= number and not any(one.adopted for one in self._sealed)

    def tick(self) -> None:
        with self._lock:
            if self._dirty and self._fd >= 0:
                os.fsync(self._fd)
                self._dirty = False
            if monotonic() - self._looked > ADOPT_EVERY_S:
                self._adopt()

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._fd >= 0:
                self._seal()
            if self._home is not None and not self._sealed:
                with suppress(OSError):
                    (self._home / LOCK).unlink(missing_ok=True)
                    self._home.rmdir()
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1

    # ---- files ----------------------------------------------------------------------------------

    def _open_home(self) -> Path:
        """A folder of our own; it gets its name when its lock is held already."""
        name = uuid7()
        young, home = self._root / f".{name}", self._root / name
        young.mkdir(mode=0o700)
        self._lock_fd = os.open(young / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
        young.rename(home)
        _sync_folder(self._root)
        self._home = home
        return home

    def _next_path(self) -> Path:
        home = self._home or self._open_home()
        self._file += 1
        return home / f"{self._file:012d}.ndjson"

    def _open_file(self) -> None:
        path = self._next_path()
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        self._path = path
        _sync_folder(path.parent)

    def _seal(self) -> None:
        """Close the file that is written; the next line begins another."""
        if self._dirty:
            os.fsync(self._fd)
        os.close(self._fd)
        self._sealed.append(_Sealed(self._path, self._size, self._events, self._put, False))
        self._fd = -1
        self._size = self._events = 0
        self._dirty = False

    def _adopt(self) -> None:
        """Take over the files of clients that are gone."""
        self._looked = monotonic()
        for folder in sorted(self._root.iterdir()):
            if folder == self._home or folder.name.startswith(".") or not folder.is_dir():
                continue
            try:
                fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            except OSError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._move_from(folder)
            except OSError:
                continue
            finally:
                os.close(fd)

    def _move_from(self, folder: Path) -> None:
        found = sorted(folder.glob("*.ndjson"))
        for old in found:
            path = self._next_path()
            old.rename(path)
            lines, _ = _lines_in(path)
            size = path.stat().st_size
            self._sealed.append(_Sealed(path, size, len(lines), 0, True))
            self._bytes += size
        if found:
            _sync_folder(self._sealed[-1].path.parent)
            logger.info("spool.taken_over folder=%s files=%d", folder.name, len(found))
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()


def _lines_in(path: Path) -> tuple[list[bytes], int]:
    """The whole lines of a file, and how many bytes of an unfinished one follow them."""
    *lines, rest = path.read_bytes().split(b"\n")
    return [line + b"\n" for line in lines if line], len(rest)


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
