"""Counts, spreads and levels, by labels: numbers in dictionaries, a tenth of a microsecond each."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

Labels = tuple[str, ...]


class Counts:
    """What only grows, in whole numbers; `per` of them are one of the unit that is shown."""

    __slots__ = ("help", "labels", "name", "per", "values")

    def __init__(self, name: str, help: str, labels: Labels = (), per: int = 1) -> None:
        self.name, self.help, self.labels, self.per = name, help, labels, per
        self.values: defaultdict[Labels, int] = defaultdict(int)

    def add(self, *labels: str, by: int = 1) -> None:
        """Count `by` more under these labels."""
        self.values[labels] += by


class Spread:
    """How values are spread: per bucket how many, and their sum last.

    A value falls into the first bucket whose bound it does not pass; behind the last bound is one
    more bucket.
    """

    __slots__ = ("bounds", "help", "labels", "name", "values")

    def __init__(self, name: str, help: str, bounds: Sequence[float], labels: Labels = ()) -> None:
        self.name, self.help, self.labels = name, help, labels
        self.bounds = tuple(bounds)
        self.values: dict[Labels, list[float]] = {}

    def add(self, value: float, *labels: str) -> None:
        """Note one value under these labels."""
        row = self.values.get(labels)
        if row is None:
            row = self.values[labels] = [0] * (len(self.bounds) + 2)
        row[bisect_left(self.bounds, value)] += 1
        row[-1] += value


class Level:
    """What goes up and down. `joined` says what the levels of several workers are together.

    `sum`, `min`, `max`, or `latest`: that of the worker which set it last.
    """

    __slots__ = ("help", "joined", "labels", "name", "readers", "values")

    def __init__(self, name: str, help: str, labels: Labels = (), joined: str = "sum") -> None:
        self.name, self.help, self.labels, self.joined = name, help, labels, joined
        self.values: dict[Labels, tuple[float, float]] = {}
        self.readers: dict[Labels, Callable[[], float | None]] = {}

    def set(self, value: float, *labels: str, at_s: float = 0.0) -> None:
        """Stand at this value from now on; `at_s` orders what is joined by `latest`."""
        self.values[labels] = (value, at_s)

    def read(self, reader: Callable[[], float | None], *labels: str) -> None:
        """Ask for the value whenever somebody looks; None where there is none."""
        self.readers[labels] = reader

    def now(self) -> dict[Labels, tuple[float, float]]:
        """The values as they stand."""
        found = dict(self.values)
        for labels, reader in self.readers.items():
            value = reader()
            if value is not None:
                found[labels] = (value, 0.0)
        return found


Family = Counts | Spread | Level


class Row(NamedTuple):
    """One line of a snapshot: a count, a spread's row, or a level and when it was set."""

    labels: Labels
    value: int | list[float] | tuple[float, float]


Snapshot = dict[str, list[Row]]
"""What one process has counted, by the name of the family."""
