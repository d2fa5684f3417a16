"""What each backend served by the hour, and each pool by the day."""

from collections.abc import Sequence
from typing import NamedTuple

from app.analytics.everyone import used_by
from app.db.engine import Tx
from app.summaries.buckets import Table
from app.summaries.grains import Grain, Span, cut
from app.summaries.sums import Sums

MOST_PIECES = 8_784
"""A year of hours."""


class Served(NamedTuple):
    """What one backend or pool served; `backends` of a pool are those that any call named."""

    name: str
    used: Sums
    backends: int = 0


Pieces = Sequence[tuple[Span, Sequence[Served]]]
"""Newest first, none left out; in each the names in order."""


async def read_backends(tx: Tx, backend: str | None, span: Span) -> Pieces:
    """What the backends served in each hour."""
    hours = _pieces(span, "hour")
    return _newest_first(hours, await used_by(tx, "backend", hours, backend), {})


async def read_pools(tx: Tx, span: Span) -> Pieces:
    """What the pools served on each day, and by how many backends."""
    days = _pieces(span, "day")
    together = await used_by(tx, "pool_backend", days)
    backends: dict[tuple[int, str], int] = {}
    for (place, (pool, _)), used in together.items():
        if used.calls:
            backends[place, pool] = backends.get((place, pool), 0) + 1
    return _newest_first(days, await used_by(tx, "pool", days), backends)


def _pieces(span: Span, grain: Grain) -> list[Span]:
    pieces = cut(span, grain, MOST_PIECES + 1)
    assert pieces is not None
    return pieces


def _newest_first(
    pieces: Sequence[Span], table: Table, backends: dict[tuple[int, str], int]
) -> Pieces:
    found: list[list[Served]] = [[] for _ in pieces]
    for (place, (name,)), used in sorted(table.items()):
        found[place].append(Served(name, used, backends.get((place, name), 0)))
    return list(zip(pieces, found, strict=True))[::-1]
