"""What has become of the events so far, counted."""

import threading
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class Stats:
    """Counts since the client was made; every event taken is delivered, refused or waiting.

    `delivered` were recorded or were there already (`duplicates` of them); `refused` will never be
    taken by the service; `dropped` had no room here; `estimated` had no usage of the provider;
    `unmetered` are calls of a wrapped client of which nothing could be said; `let_through` are
    checks and holds that went ahead though the service could not be asked.
    """

    taken: int
    delivered: int
    duplicates: int
    refused: int
    dropped: int
    estimated: int
    unmetered: int
    let_through: int
    failed_attempts: int
    waiting: int
    last_failure: str | None


class Tally:
    """Counters that any thread may add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self.last_failure: str | None = None

    def add(self, name: str, more: int = 1) -> int:
        """Count on, and return where the counter now stands."""
        with self._lock:
            self._counts[name] += more
            return self._counts[name]

    def failed(self, reason: str) -> None:
        """Count an attempt that did not reach the service, and keep why."""
        self.last_failure = reason
        self.add("failed_attempts")

    def snapshot(self, waiting: int) -> Stats:
        """The counts as they stand."""
        names = [name for name in Stats.__annotations__ if name not in ("waiting", "last_failure")]
        with self._lock:
            counts = {name: self._counts[name] for name in names}
        return Stats(**counts, waiting=waiting, last_failure=self.last_failure)
