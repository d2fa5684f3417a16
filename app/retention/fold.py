"""Sum rows of the log by everything that a total or a limit asks for. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from app.core.clock import hour_of
from app.core.counters import COUNTERS, column_of
from app.core.money import CEILING
from app.plans.known import Agreement
from app.summaries.fold import measures_of
from app.summaries.tables import MEASURES
from app.usage.ledger import Entry

NAMES = (
    *("provider", "model", "task_type", "endpoint", "status_code", "team_id", "api_key_id"),
    *("backend", "pool"),
)
"""What the calls of one group have in common, besides their user, period and hour."""
KEY = ("user_id", "archive_id", "group_no")
_SPANS = (
    "first_at",
    "last_at",
    *(f"{end}_{name}_us" for name in ("latency", "ttft") for end in ("min", "max")),
)
OTHERS = tuple(column_of(name) for name in COUNTERS if column_of(name) not in MEASURES)
"""Counters that no total adds up."""
_SIZES = ("request_bytes", "response_bytes")
SUMMED: tuple[str, ...] = (*MEASURES, *OTHERS, "retries", *_SIZES)
COLUMNS = (*KEY, "period_start", "hour", *NAMES, *_SPANS, *SUMMED)
_names_of = attrgetter(*NAMES)
_others_of = attrgetter(*OTHERS)

Row = tuple[Any, ...]
"""One row of `wrapped_usage`: the columns named in `COLUMNS`."""


class Folded(NamedTuple):
    """What rows add up to: one row a group, and the sums over all of them, by name in `SUMMED`."""

    rows: list[Row]
    sums: dict[str, int]


class _Sum:
    """What the calls of one group add up to."""

    __slots__ = ("amounts", "at", "latency", "others", "sizes", "ttft")

    def __init__(self, entry: Entry) -> None:
        self.at = [entry.timestamp, entry.timestamp]
        self.latency: list[int | None] = [None, None]
        self.ttft: list[int | None] = [None, None]
        self.amounts = [0] * len(MEASURES)
        self.others = [0] * len(OTHERS)
        self.sizes = [0, 0, 0]

    def add(self, entry: Entry) -> None:
        for place, amount in measures_of(entry):
            self.amounts[place] += amount
        others = _others_of(entry)
        if any(others):
            self.others = [held + more for held, more in zip(self.others, others, strict=True)]
        sizes = (entry.retry_count or 0, entry.request_bytes or 0, entry.response_bytes or 0)
        if any(sizes):
            self.sizes = [held + more for held, more in zip(self.sizes, sizes, strict=True)]
        _stretch(self.at, entry.timestamp)
        if entry.latency_us is not None:
            _stretch(self.latency, entry.latency_us)
        if entry.ttft_us is not None:
            _stretch(self.ttft, entry.ttft_us)


def _stretch(span: list[Any], value: Any) -> None:
    span[0] = value if span[0] is None else min(span[0], value)
    span[1] = value if span[1] is None else max(span[1], value)


class Folding:
    """Adds up rows a few at a time, so that others have their turn in between."""

    def __init__(self, archive_id: str, agreements: Mapping[str, Agreement]) -> None:
        self._archive_id, self._agreements = archive_id, agreements
        self._groups: dict[Row, _Sum] = {}

    def add(self, entries: Iterable[Entry]) -> None:
        """Add some rows; each of their users must have an agreement."""
        for entry in entries:
            user_id, at = entry.user_id, entry.timestamp
            start = self._agreements[user_id].period_at(at).start  # may lie within the hour
            key = (user_id, start, hour_of(at), *_names_of(entry))
            found = self._groups.get(key)
            if found is None:
                found = self._groups[key] = _Sum(entry)
            found.add(entry)

    def folded(self) -> Folded:
        """The groups of what was added.

        Raises:
            OverflowError: a sum passes 2^63-1; fewer rows at a time can be told apart.
        """
        rows: list[Row] = []
        totals = [0] * len(SUMMED)
        numbers: dict[str, int] = {}
        for (user_id, *names), total in self._groups.items():
            number = numbers[user_id] = numbers.get(user_id, -1) + 1
            summed = (*total.amounts, *total.others, *total.sizes)
            if max(summed) > CEILING:
                raise OverflowError("a sum of wrapped rows passes 2^63-1")
            spans = (*total.at, *total.latency, *total.ttft)
            rows.append((user_id, self._archive_id, number, *names, *spans, *summed))
            totals = [held + more for held, more in zip(totals, summed, strict=True)]
        if max(totals) > CEILING:
            raise OverflowError("a sum of an archive passes 2^63-1")
        return Folded(sorted(rows, key=_key_of), dict(zip(SUMMED, totals, strict=True)))


def _key_of(row: Row) -> Row:
    return row[: len(KEY)]


def fold_rows(
    archive_id: str, entries: Sequence[Entry], agreements: Mapping[str, Agreement]
) -> Folded:
    """The groups of all of these rows at once, as `Folding` makes them."""
    folding = Folding(archive_id, agreements)
    folding.add(entries)
    return folding.folded()
