"""Which total answers a question of several names, and what it says.

A question is asked of the narrowest total that keeps all of its names together; one user's rarer
ones of that user's log. What no total keeps together is refused, never put together from parts.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement

from app.analytics.everyone import used_by
from app.core.errors import InvalidInput
from app.db.engine import Tx
from app.db.types import table_of
from app.summaries.buckets import Names, Table, TooManyError, renamed, summed, whole
from app.summaries.detail import details, is_readable, used_in_hours
from app.summaries.grains import Grain, Span, cut, whole_hours
from app.summaries.series import not_readable
from app.summaries.sources import HOURS, Source
from app.summaries.sums import Sums
from app.summaries.tables import HourTotal

MOST_PIECES = 2_208
MOST_ITEMS = 10_000
OF_USERS = ("user_id", "provider", "model", "task_type")
CALLED = ("provider", "model", "endpoint", "status_code")
ACROSS: Mapping[str, tuple[str, ...]] = {
    "model": ("provider", "model"),
    "endpoint": ("endpoint",),
    "status_code": ("status_code",),
    "backend": ("backend",),
    "pool": ("pool",),
    "team": ("team_id",),
    "key": ("api_key_id",),
    "pool_backend": ("pool", "backend"),
    "team_calls": ("team_id", *CALLED),
    "key_calls": ("api_key_id", *CALLED),
}
"""The names that each total across users keeps together, in the order of its values."""
NAMED = {"team_id", "api_key_id", "backend", "pool"}
"""Where one of these is asked for, only the calls that name one are told of."""
NAMES = (*OF_USERS, "endpoint", "status_code", "team_id", "api_key_id", "backend", "pool")

_hour = table_of(HourTotal).c


class Question(NamedTuple):
    """What somebody asks. A filter keeps the calls that have one of its values."""

    span: Span
    grain: Grain | None
    group_by: Sequence[str]
    filters: Mapping[str, Sequence[str]]

    @property
    def names(self) -> set[str]:
        return {*self.group_by, *self.filters}

    def only(self, name: str) -> str | None:
        """The one value that a filter allows; None where there are several or no filter."""
        values = self.filters.get(name, ())
        return values[0] if len(values) == 1 else None


class Answer(NamedTuple):
    """The sums of each piece of time, by the groups that occur anywhere in the range."""

    pieces: Sequence[Span]
    groups: Sequence[Names]
    sums: Mapping[tuple[int, Names], Sums]


async def ask(tx: Tx, question: Question) -> Answer:
    """Answer a question, every gap filled.

    Raises:
        InvalidInput: no total keeps these names together, or there is too much to tell.
    """
    pieces = cut(question.span, question.grain, MOST_PIECES)
    if pieces is None:
        raise InvalidInput.at("/grain", f"at most {MOST_PIECES:,} pieces; take a longer grain")
    if not pieces:
        return Answer([], [], {})
    try:
        found = await _found(tx, question, pieces)
    except TooManyError:
        raise _too_many() from None
    groups = sorted({names for _, names in found}, key=_order) if question.group_by else [()]
    if len(groups) * len(pieces) > MOST_ITEMS:
        raise _too_many()
    return Answer(pieces, groups, found)


def _order(names: Names) -> tuple[str, ...]:
    return tuple(map(str, names))


def _too_many() -> InvalidInput:
    detail = f"more than {MOST_ITEMS:,} items; take a longer grain, a shorter range or a filter"
    return InvalidInput.at("/group_by", detail)


async def _found(tx: Tx, question: Question, pieces: Sequence[Span]) -> Table:
    on_hours = whole_hours(question.span) == question.span
    dimension = across(question.names)
    if dimension is not None and on_hours:
        return await _across(tx, question, pieces, dimension)
    if question.names <= set(OF_USERS) and on_hours:
        where = _where(question, {name: _hour[name] for name in OF_USERS})
        names = [_hour[name] for name in question.group_by]
        return await summed(tx, HOURS, where, names, pieces, MOST_ITEMS)
    user_id = question.only("user_id")
    if user_id is None:
        raise _not_kept(question, on_hours=on_hours)
    return await _logged(tx, user_id, question, pieces)


def across(names: set[str]) -> str | None:
    """The narrowest total across users that keeps all of these names, and all of the calls. Pure.

    What is kept by team holds the calls that name one: it cannot tell of endpoints alone.
    """
    fitting = [
        kept for kept, has in ACROSS.items() if set(has) & NAMED <= names and names <= set(has)
    ]
    return min(fitting, key=lambda kept: len(ACROSS[kept]), default=None) if names else "model"


async def _across(tx: Tx, question: Question, pieces: Sequence[Span], dimension: str) -> Table:
    has = ACROSS[dimension]
    first = question.only(has[0])
    found = await used_by(tx, dimension, pieces, first)
    if dimension in ("team_calls", "key_calls"):
        named = await used_by(tx, dimension.removesuffix("_calls"), pieces, first)
        if whole(found) != whole(named):
            detail = "of some of these hours nothing is kept by these names together; begin later"
            raise InvalidInput.at("/from", detail)
    allowed = {has.index(name): set(values) for name, values in question.filters.items()}
    wanted = [has.index(name) for name in question.group_by]

    def rename(names: Names) -> Names | None:
        if any(names[place] not in values for place, values in allowed.items()):
            return None
        return tuple(names[place] for place in wanted)

    return renamed(found, rename)


async def _logged(tx: Tx, user_id: str, question: Question, pieces: Sequence[Span]) -> Table:
    used = await used_in_hours(tx, user_id, question.span)
    if not await is_readable(tx, user_id, question.span, used, question.names):
        raise not_readable("/group_by" if question.group_by else "/filters")

    def where(source: Source) -> list[ColumnElement[bool]]:
        columns = {name: source.named(name) for name in question.filters}
        given = [source.table.c[name].is_not(None) for name in sorted(NAMED & question.names)]
        return _where(question, columns) + given

    return await details(tx, user_id, where, question.group_by, pieces, MOST_ITEMS)


def _where(
    question: Question, columns: Mapping[str, ColumnElement[str]]
) -> list[ColumnElement[bool]]:
    return [
        columns[name].in_([int(one) for one in values] if name == "status_code" else values)
        for name, values in question.filters.items()
    ]


def _not_kept(question: Question, *, on_hours: bool) -> InvalidInput:
    if not on_hours:
        detail = (
            "totals are kept by the hour: `from` and `to` lie on one, or `filters` names a user"
        )
        return InvalidInput.at("/from", detail)
    asked = ", ".join(name for name in NAMES if name in question.names)
    detail = f"no totals are kept by {asked} together; with one user_id in `filters` all are"
    return InvalidInput.at("/group_by" if question.group_by else "/filters", detail)
