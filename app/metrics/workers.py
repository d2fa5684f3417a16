"""The figures of all workers of one service: each lays its own in a folder that they share.

Whoever is asked writes its own first and answers from the files alone, so that no counter ever
goes back from one answer to the next, whichever workers give them.
"""

import asyncio
import json
import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from app.core.clock import Clock
from app.core.ids import uuid7
from app.metrics.figures import Figures
from app.metrics.kinds import Level, Row, Snapshot

WRITTEN_EVERY_S = 2.0
GONE_AFTER_S = 30.0
"""A worker that has written nothing for so long is gone: what it counted stays, its levels go."""


class Workers:
    """What all workers have counted. Without a folder this process is the only one."""

    def __init__(self, figures: Figures, clock: Clock, folder: str) -> None:
        self._figures, self._clock = figures, clock
        self._folder = Path(folder) if folder else None
        self._file = f"{uuid7()}.json"
        self._levels = frozenset(one.name for one in figures.families if isinstance(one, Level))
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write down what this process counts."""
        if self._folder is not None:
            self._task = asyncio.create_task(self._write_on(), name="metrics")

    async def close(self) -> None:
        """Write down the last of it; this process has no levels any more."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait([self._task])
        self._task = None
        with suppress(OSError):  # the folder goes with whoever started us
            await self._write(leaving=True)

    async def gather(self) -> list[Snapshot]:
        """What every worker has counted, newest figures of this one."""
        if self._folder is None:
            return [self._figures.snapshot()]
        await self._write()
        return await asyncio.to_thread(self._read, self._folder, self._clock.now())

    async def _write_on(self) -> None:
        while True:
            with suppress(OSError):  # the next one may get through
                await self._write()
            await asyncio.sleep(WRITTEN_EVERY_S)

    async def _write(self, *, leaving: bool = False) -> None:
        async with self._turn:
            if self._folder is None:
                return
            told = self._figures.snapshot()
            if leaving:
                told = _without(told, self._levels)
            at_s = self._clock.now().timestamp()
            await asyncio.to_thread(_replace, self._folder / self._file, at_s, told)

    def _read(self, folder: Path, now: datetime) -> list[Snapshot]:
        found = []
        for path in sorted(folder.glob("*.json")):
            with suppress(FileNotFoundError):
                written = json.loads(path.read_bytes())
                told = {name: [_row(*row) for row in rows] for name, rows in written[1].items()}
                if now.timestamp() - written[0] > GONE_AFTER_S:
                    told = _without(told, self._levels)
                found.append(told)
        return found


def _replace(path: Path, at_s: float, told: Snapshot) -> None:
    """Put a whole file in place of the one before: nobody reads half of it."""
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps([at_s, told]), encoding="utf-8")
    os.replace(beside, path)


def _row(labels: list[str], value: Any) -> Row:
    return Row(tuple(labels), value)


def _without(told: Snapshot, levels: frozenset[str]) -> Snapshot:
    return {name: rows for name, rows in told.items() if name not in levels}
