"""Sum rows by piece of time and by name, in one statement, wherever the rows are kept."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import ColumnElement, func, select

from app.db.engine import Tx
from app.summaries.grains import Span
from app.summaries.places import place_of
from app.summaries.sums import NONE, Sums

STATEMENT_S = 4.0
"""PostgreSQL stops a statement by itself, a little before its caller gives up on it."""

Names = tuple[Any, ...]
Table = Mapping[tuple[int, Names], Sums]
"""What was used, by the place of the piece of time and by the names asked for."""


class Rows(Protocol):
    """Rows that add up: when each one was, and what it adds to each measure."""

    @property
    def at(self) -> ColumnElement[datetime]: ...
    @property
    def amount_of(self) -> Callable[[str], ColumnElement[int]]: ...


class TooManyError(Exception):
    """More sums than were allowed for."""


async def summed(
    tx: Tx,
    rows: Rows,
    where: Sequence[ColumnElement[bool]],
    names: Sequence[ColumnElement[Any]],
    pieces: Sequence[Span],
    most: int,
) -> dict[tuple[int, Names], Sums]:
    """What the rows sum to in each piece of time, by the values of `names`.

    Pieces follow one another. Where nothing was used there is no sum.

    Raises:
        TooManyError: there are more than `most` sums.
    """
    if not pieces:
        return {}
    labelled = [name.label(f"name_{number}") for number, name in enumerate(names)]
    inner = select(
        place_of(tx.dialect, rows.at, pieces).label("place"),
        *labelled,
        *(rows.amount_of(name).label(name) for name in Sums._fields),
    ).where(rows.at >= pieces[0].start, rows.at < pieces[-1].end, *where)
    seen = inner.subquery()
    keys = [seen.c.place, *(seen.c[label.name] for label in labelled)]
    query = select(*keys, *(func.sum(seen.c[name]) for name in Sums._fields)).group_by(*keys)
    await hurry(tx)
    found = await tx.fetch(query.limit(most + 1))
    if len(found) > most:
        raise TooManyError
    width = len(keys)
    return {(row[0], tuple(row[1:width])): Sums(*map(int, row[width:])) for row in found}


async def hurry(tx: Tx) -> None:
    """Let no statement of this transaction run much longer than its caller waits."""
    if tx.dialect == "postgresql":
        wait = f"{round(STATEMENT_S * 1000)}ms"
        await tx.fetch(select(func.set_config("statement_timeout", wait, True)))


def renamed(table: Table, rename: Callable[[Names], Names | None]) -> dict[tuple[int, Names], Sums]:
    """The sums under other names: those that become one are added, None leaves one out. Pure."""
    found: dict[tuple[int, Names], Sums] = {}
    for (place, names), sums in table.items():
        others = rename(names)
        if others is not None:
            key = (place, others)
            found[key] = found.get(key, NONE) + sums
    return found


def whole(table: Table) -> Sums:
    """Everything together. Pure."""
    return sum(table.values(), NONE)


def by_names(table: Table) -> dict[Names, Sums]:
    """The sums by name alone, over all pieces of time. Pure."""
    found: dict[Names, Sums] = {}
    for (_, names), sums in table.items():
        found[names] = found.get(names, NONE) + sums
    return found


def by_place(table: Table, pieces: int) -> list[Sums]:
    """The sums by piece of time alone; a piece where nothing was used has zeros. Pure."""
    found = [NONE] * pieces
    for (place, _), sums in table.items():
        found[place] += sums
    return found
