"""Wrap logs when nobody waits: users over their bounds are looked for, some at a time."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime

from loguru import logger

from app.core.errors import Conflict
from app.retention.forget import due_before, forget
from app.retention.pick import over_bounds, users_behind
from app.retention.wrap import LOOKING_S, Parts, look, wrap

NAME = "wrap-logs"
EVERY_S = 60.0
USERS = 500
"""So many users are looked at every time; all of them in turn."""
ASKED = 1_000
"""Whose events were listed is looked at sooner: so many users at most, each once in a while."""


class Watch:
    """Knows which users to look at next, and which of them are over their bounds."""

    def __init__(self, parts: Parts) -> None:
        self._parts, self._after, self._next_s = parts, "", 0.0
        self._asked: dict[str, float] = {}
        self._over: list[str] = []

    def ask(self, user_id: str) -> bool:
        """Have this user looked at soon; False if that was done a moment ago."""
        now_s = self._parts.clock.monotonic_s()
        if now_s - self._asked.get(user_id, -EVERY_S) < EVERY_S:
            return False
        if len(self._asked) >= ASKED:
            self._asked.clear()
        self._asked[user_id] = now_s
        self._over.append(user_id)
        return True

    async def is_due(self) -> bool:
        """Whether there is anything to wrap or forget among those whose turn it is."""
        asked, self._over = self._over, []
        found = await self._over_bounds(asked)
        now_s = self._parts.clock.monotonic_s()
        if now_s >= self._next_s:
            self._next_s = now_s + EVERY_S / 2
            found += [one for one in await self._next_over() if one not in found]
        self._over = found
        return bool(found) or await self._forgotten_before() is not None

    async def _next_over(self) -> list[str]:
        after = self._after
        users = await self._parts.db.read(lambda tx: users_behind(tx, after, USERS))
        self._after = users[-1] if len(users) == USERS else ""
        return await self._over_bounds(users)

    async def _over_bounds(self, user_ids: Iterable[str]) -> list[str]:
        """Those for whom there is something to wrap: rows without a price may only be too many."""
        users = sorted(set(user_ids))
        if not users:
            return []
        db, by_default, now = self._parts.db, self._parts.by_default, self._parts.clock.now()
        over = await db.read(lambda tx: over_bounds(tx, users, by_default, now), within_s=LOOKING_S)
        return [user_id for user_id in over if (await look(self._parts, user_id)).rows]

    async def _forgotten_before(self) -> datetime | None:
        parts = self._parts
        return await due_before(parts.db, parts.by_default, parts.clock.now())

    async def work(self) -> int:
        """Wrap the logs that were found over their bounds; how many rows left them."""
        users, self._over = self._over, []
        rows = 0
        if users:
            with suppress(Conflict):  # somebody wraps already: those left over have another turn
                rows = sum(one.wrapped_events for one in await wrap(self._parts, users))
        before = await self._forgotten_before()
        if before is not None:
            ids = await forget(self._parts.db, self._parts.clock, before)
            logger.bind(ids=ids).info("wrap.forgotten")
        return rows
