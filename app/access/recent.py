"""What this process has seen of keys: requests of the last minute, and when each was last used."""

from collections import deque
from datetime import datetime

from app.core.clock import to_micros

MINUTE = 60_000_000
"""Microseconds."""


class Recent:
    """The instants of the requests that were admitted in the last minute."""

    __slots__ = ("_admitted",)

    def __init__(self) -> None:
        self._admitted: deque[int] = deque()

    def wait_s(self, now: datetime, limit: int) -> int:
        """Count a request and give 0, or count nothing and give the whole seconds to wait.

        In any sixty seconds no more than `limit` are counted.
        """
        at, admitted = to_micros(now), self._admitted
        while admitted and admitted[0] <= at - MINUTE:
            admitted.popleft()
        if admitted and admitted[-1] > at + MINUTE:  # the clock was set back
            admitted.clear()
        if len(admitted) < limit:
            admitted.append(at)
            return 0
        return max(1, -((at - admitted[-limit] - MINUTE) // 1_000_000))


class Uses:
    """When keys were last used, until somebody writes it down."""

    def __init__(self) -> None:
        self._used: dict[str, datetime] = {}

    def note(self, key_id: str, now: datetime) -> None:
        """The key is used now."""
        self._used[key_id] = now

    def last(self, key_id: str) -> datetime | None:
        """When the key was last used, if that is not written down yet."""
        return self._used.get(key_id)

    def take(self) -> dict[str, datetime]:
        """Everything that is to be written down, by key; it is forgotten here."""
        used, self._used = self._used, {}
        return used

    def put_back(self, used: dict[str, datetime]) -> None:
        """What could not be written down; what has come since is newer."""
        self._used = used | self._used
