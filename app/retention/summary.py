"""What a wrap did or would do: how many rows, and what they come to by provider and period."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from app.plans.known import Agreement
from app.retention.pick import Cut
from app.usage.ledger import Entry


class Group(NamedTuple):
    """What the wrapped calls of one provider in one billing period come to."""

    provider: str
    billing_period: str
    calls: int
    errors: int
    input_tokens: int
    output_tokens: int
    cost_nanos: int
    unpriced_calls: int
    first_at: datetime
    last_at: datetime


class Result(NamedTuple):
    """What became of one user's log."""

    cut: Cut
    wrapped_events: int
    total_after: int
    groups: list[Group]
    dry_run: bool

    @property
    def message(self) -> str:
        """One sentence for people."""
        before, policy = self.cut.total, self.cut.policy
        if not self.cut.rows:
            return f"nothing to wrap: {before:,} rows, within the retention"
        if self.dry_run:
            return f"would wrap {self.wrapped_events:,} of {before:,} rows"
        if not self.wrapped_events:
            return f"nothing was wrapped of {before:,} rows: all of them changed meanwhile"
        said = f"wrapped {self.wrapped_events:,} of {before:,} rows; {self.total_after:,} stay"
        if policy.max_rows is not None and self.total_after > policy.max_rows:
            said += f", more than {policy.max_rows:,}: unpriced ones, or others that came meanwhile"
        return said


class Tally:
    """Adds up rows by provider and billing period; a result lists them by both."""

    def __init__(self) -> None:
        self.rows = 0
        self._sums: dict[tuple[str, str], list[int]] = {}
        self._spans: dict[tuple[str, str], tuple[datetime, datetime]] = {}

    def add(self, entries: Iterable[Entry], agreement: Agreement) -> None:
        """Count rows of the user with whom this is agreed."""
        for entry in entries:
            self.rows += 1
            at = entry.timestamp
            key = (entry.provider, agreement.period_at(at).key)
            first, last = self._spans.get(key, (at, at))
            self._spans[key] = (min(first, at), max(last, at))
            more = (
                *(1, int(entry.status_code >= 400), entry.input_tokens, entry.output_tokens),
                *(entry.cost_nanos or 0, int(entry.cost_nanos is None)),
            )
            held = self._sums.get(key, [0] * len(more))
            self._sums[key] = [one + other for one, other in zip(held, more, strict=True)]

    def groups(self) -> list[Group]:
        """What was counted."""
        found = []
        for (provider, period), sums in sorted(self._sums.items()):
            calls, errors, read, written, cost, unpriced = sums
            spans = self._spans[provider, period]
            tokens = (read, written)
            found.append(Group(provider, period, calls, errors, *tokens, cost, unpriced, *spans))
        return found
