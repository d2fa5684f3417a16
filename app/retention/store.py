"""The files of archives, for a service that must not wait for a disk nor keep Arrow in memory."""

import asyncio
import os
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime

import msgspec
from loguru import logger

from app.core.errors import Damaged, Unavailable
from app.retention.apart import (
    LENGTH,
    Asked,
    Failed,
    Found,
    Judged,
    Kept,
    Look,
    Measure,
    Read,
    Remove,
    Reply,
    Write,
    do,
    reply_decoder,
)
from app.retention.facts import Seen, Written
from app.usage.ledger import Entry

__all__ = ["ArchiveStore", "Damaged", "Written"]

WITHIN_S = 60.0
"""How long one file may take."""
ENDING_S = 1.0
"""How long the process that does it may take to end."""
_HERE = ("memory://",)
"""What exists inside one process only."""


class ArchiveStore:
    """The archives' files, one per archive, under `month=2026-11/<id>.parquet`.

    Every verb may be repeated. They raise `Unavailable` where files cannot be kept or read now
    (a full disk, no such driver, a place that does not answer), and then nothing is left behind.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None

    async def write(self, archive_id: str, month: datetime, entries: Sequence[Entry]) -> Written:
        """Keep the entries with a manifest beside; on return both are durable."""
        found = await self._ask(Write(self._url, archive_id, month, list(entries)))
        assert isinstance(found, Kept)
        return Written(found.path, found.bytes, found.sha256)

    async def read(
        self, path: str, sha256: str | None, *, only: Collection[tuple[str, str]] | None = None
    ) -> list[Entry]:
        """The entries of a file; with a `sha256`, of exactly that one.

        `only` these (user, event id) of them: so few cost the service next to nothing.

        Raises:
            Damaged: the file is missing, another one, or not whole.
        """
        found = await self._ask(Read(self._url, path, sha256, None if only is None else list(only)))
        assert isinstance(found, Found)
        return found.entries

    async def size_and_hash(self, path: str) -> tuple[int, str]:
        """How many bytes a file has, and their SHA-256.

        Raises:
            Damaged: the file is missing.
        """
        found = await self._ask(Measure(self._url, path))
        assert isinstance(found, Kept)
        return found.bytes, found.sha256

    async def look(self, path: str) -> Seen:
        """Read a file and its manifest as a whole, and say where they disagree."""
        found = await self._ask(Look(self._url, path))
        assert isinstance(found, Judged)
        return msgspec.json.decode(found.seen, type=Seen)

    async def remove(self, path: str) -> None:
        """Keep nothing of a file nor of an attempt to write it; there may be nothing."""
        await self._ask(Remove(self._url, path))

    async def close(self) -> None:
        """Let the process go that does the work, if it runs."""
        async with self._turn:
            await self._stop()

    async def _ask(self, asked: Asked) -> Reply:
        try:
            async with asyncio.timeout(WITHIN_S):
                if self._url.startswith(_HERE):
                    reply = await asyncio.to_thread(do, asked)
                else:
                    reply = await self._ask_apart(msgspec.msgpack.encode(asked))
        except TimeoutError:
            raise Unavailable("where archives are kept does not answer") from None
        if not isinstance(reply, Failed):
            return reply
        if reply.kind == "damaged":
            raise Damaged(reply.detail)
        if reply.kind == "bug":
            raise RuntimeError(reply.detail)
        logger.bind(error=reply.detail).warning("archives.unavailable")
        raise Unavailable(f"archives cannot be kept or read now: {reply.detail}")

    async def _ask_apart(self, asked: bytes) -> Reply:
        async with self._turn:
            for attempt in (1, 2):
                try:
                    answer: Reply = reply_decoder.decode(await self._exchange(asked))
                    return answer
                except (OSError, asyncio.IncompleteReadError):  # it ended: idle, or was killed
                    await self._stop()
                    if attempt == 2:
                        raise Unavailable("the process that keeps archives died") from None
                except BaseException:
                    await asyncio.shield(self._stop(at_once=True))  # an answer may be under way
                    raise
        raise AssertionError("unreachable")

    async def _exchange(self, asked: bytes) -> bytes:
        if self._process is None or self._process.returncode is not None:
            await self._stop()
            self._process = await _started()
        questions, answers = self._process.stdin, self._process.stdout
        assert questions is not None
        assert answers is not None
        questions.write(LENGTH.pack(len(asked)))
        questions.write(asked)
        await questions.drain()
        (size,) = LENGTH.unpack(await answers.readexactly(LENGTH.size))
        return await answers.readexactly(size)

    async def _stop(self, *, at_once: bool = False) -> None:
        """Have no process any more; one that has nothing to do ends by itself."""
        process, self._process = self._process, None
        if process is None:
            return
        if not at_once:
            assert process.stdin is not None
            process.stdin.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(ENDING_S):
                    await process.wait()
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        await process.communicate()


async def _started() -> asyncio.subprocess.Process:
    """A process that knows nothing of our secrets, and no Ctrl-C that is meant for us."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("TOLLGATE_")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.retention.apart"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=1 << 20,
        env=known,
    )
