"""What became of what other programs sent, counted since the process started."""

from collections import Counter
from collections.abc import Mapping

from app.metrics.kinds import Counts


class Tally:
    """Counts by source (`cloudevents`, `litellm`, …) and by what happened; it only grows."""

    def __init__(self, shown: Counts | None = None) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._shown = shown

    def add(self, source: str, what: str, count: int = 1) -> None:
        """Count something that happened to what a source sent."""
        if count:
            self._counts[source, what] += count
            if self._shown is not None:
                self._shown.add(source, what, by=count)

    def read(self) -> Mapping[tuple[str, str], int]:
        """Everything counted so far, by (source, what happened)."""
        return dict(self._counts)
