"""Databases that die at a chosen operation: before it takes effect, or after, its answer lost."""

from collections.abc import Awaitable, Callable
from typing import Any

import apsw
import asyncpg
import pytest

from app.db import sqlite

Hook = Callable[[str, Callable[[], Any]], Any]
"""Given the statement and a way to run it, what its caller gets."""


class Watched:
    """A SQLite connection whose statements pass through a hook."""

    def __init__(self, raw: apsw.Connection, hook: Hook) -> None:
        self._raw, self._hook = raw, hook

    def execute(self, sql: str, *rest: Any) -> Any:
        return self._hook(sql, lambda: self._raw.execute(sql, *rest))

    def executemany(self, sql: str, *rest: Any) -> Any:
        return self._hook(sql, lambda: self._raw.executemany(sql, *rest))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


def watch_sqlite(patch: pytest.MonkeyPatch, hook: Hook) -> None:
    """Every writing connection opened from now on passes its statements through the hook."""
    connect = sqlite.connect

    def watched(path: str, *, readonly: bool = False) -> Any:
        raw = connect(path, readonly=readonly)
        return raw if readonly else Watched(raw, hook)

    patch.setattr(sqlite, "connect", watched)


AsyncHook = Callable[[Any, str, Callable[[], Awaitable[Any]]], Awaitable[Any]]


def watch_postgres(patch: pytest.MonkeyPatch, hook: AsyncHook) -> None:
    """Every statement of the driver's own connections passes through the hook."""
    for name in ("execute", "fetch", "fetchval"):
        real = getattr(asyncpg.Connection, name)

        def watched(self: Any, sql: str, *rest: Any, _real: Any = real, **named: Any) -> Any:
            return hook(self, sql, lambda: _real(self, sql, *rest, **named))

        patch.setattr(asyncpg.Connection, name, watched)


class Script:
    """Counts operations while armed, and says at which one to die."""

    def __init__(self) -> None:
        self.count, self.fatal, self.armed, self.dead = 0, 0, False, False
        self.fatal_statement, self.died_at = "", ""

    def arm(self, fatal: int) -> None:
        self.count, self.fatal, self.armed, self.dead = 0, fatal, True, False
        self.fatal_statement, self.died_at = "", ""

    def ticks(self, sql: str) -> bool:
        """Count one operation; whether it is the fatal one."""
        if not self.armed:
            return False
        self.count += 1
        if self.died_at or (self.count != self.fatal and sql != self.fatal_statement):
            return False
        self.died_at = sql[:60]
        return True


class Turned:
    """A hook that fails chosen statements with chosen errors, and counts commits."""

    def __init__(self) -> None:
        self.commits = 0
        self.fails: Callable[[int], Exception | None] = lambda _number: None

    def sqlite(self, sql: str, run: Callable[[], Any]) -> Any:
        if sql == "COMMIT":
            self.commits += 1
            if error := self.fails(self.commits):
                raise error
        return run()

    async def postgres(self, raw: Any, sql: str, run: Callable[[], Awaitable[Any]]) -> Any:
        if sql == "COMMIT":
            self.commits += 1
            if error := self.fails(self.commits):
                if isinstance(error, asyncpg.OperatorInterventionError):
                    raw.terminate()
                raise error
        return await run()
