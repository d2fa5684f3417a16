"""What one model call of a provider's response bills."""

from collections.abc import Mapping
from typing import NamedTuple

from app.core.counters import Usage


class Billed(NamedTuple):
    """One model call that a response bills.

    `usage` stands in the order of COUNTERS, durations in microseconds. `context` holds only what
    can select a price, as reported. `cost_nanos` is what the provider itself says it charged.
    """

    model: str | None
    usage: Usage
    context: Mapping[str, str]
    cost_nanos: int | None
