"""Which price of an entry holds at an instant, for a call made under some conditions."""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime, time
from typing import NamedTuple

from app.pricing.compose import check_row, is_uplift, price_of
from app.pricing.conditions import (
    NEUTRAL,
    PRICED_CONDITIONS,
    SEARCH_CONTEXT,
    Conditions,
    applies,
    asks_for_search_context,
)
from app.pricing.rates import Price
from app.pricing.rows import Listing, PriceRow

ALWAYS = datetime.min.replace(tzinfo=UTC)
MIDNIGHT = time(0)


class Period(NamedTuple):
    """A price and when it holds: `start <= t < end`, and each day within `begin <= t < until`.

    `until` is midnight for a day's last stretch, `weekdays` is empty for every day. `sure` is false
    where there is no price, or a condition of the call moves prices and the entry does not say how.
    `rows` are those that the price is made of.
    """

    start: datetime
    end: datetime | None
    begin: time
    until: time
    price: Price | None
    sure: bool
    rows: tuple[PriceRow, ...] = ()
    weekdays: tuple[int, ...] = ()


Day = tuple[tuple[time, ...], tuple[Period, ...]]
"""The instants of a day at which its periods begin, and these periods."""


class Schedule:
    """An entry's prices over time for one set of conditions."""

    __slots__ = ("_spans", "_starts", "only")

    def __init__(self, spans: Sequence[tuple[datetime, tuple[Day, ...]]]) -> None:
        self._starts = tuple(start for start, _ in spans)
        self._spans = tuple(days for _, days in spans)
        periods = list(self.periods())
        self.only = periods[0] if len(periods) == 1 else None

    def at(self, moment: datetime) -> Period:
        """The period an aware instant falls in."""
        days = self._spans[bisect_right(self._starts, moment) - 1]
        if len(days) == 1:
            begins, periods = days[0]
            if len(periods) == 1:
                return periods[0]
            moment = moment.astimezone(UTC)
        else:
            moment = moment.astimezone(UTC)
            begins, periods = days[moment.weekday()]
        return periods[bisect_right(begins, moment.time()) - 1]

    def periods(self) -> list[Period]:
        """All of them; one that recurs on several days of the week is named once."""
        found: dict[Period, None] = {}
        for days in self._spans:
            for _, periods in days:
                found.update(dict.fromkeys(periods))
        return list(found)


class Entry:
    """One listing, whose prices are compiled when they are asked for."""

    __slots__ = ("_schedules", "listing")

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self._schedules: dict[object, Schedule] = {}

    def schedule(
        self, said: Conditions, added: tuple[PriceRow, ...] = (), foreign: bool = False
    ) -> Schedule:
        """The prices over time under these conditions, with rows that others add.

        A foreign listing was borrowed from another provider, whose conditions do not carry over.
        The number of schedules kept is bounded by the rows' own conditions.
        """
        own = tuple(row for row in self.listing.rows if not (foreign and row.when))
        pairs = {pair for row in (*own, *added) for pair in row.when}
        keys = {key for key, _ in pairs}.union(PRICED_CONDITIONS)
        unanswered = any(
            key in keys and value not in NEUTRAL and (key, value) not in pairs
            for key, value in said
        )
        key = (said & pairs, unanswered, foreign, tuple([row.id for row in added]))
        found = self._schedules.get(key)
        if found is None:
            found = self._schedules[key] = compiled(own, added, said, not unanswered)
        return found

    def check(self) -> None:
        """Compile every price that these rows can make, and keep none.

        Raises:
            ValueError: rates or times that mean nothing.
        """
        for row in self.listing.rows:
            check_row(row)
        calls: set[Conditions] = {frozenset(row.when) for row in self.listing.rows}
        calls.add(frozenset())
        for said in calls:
            compiled(self.listing.rows, (), said, True)


def stated(row: PriceRow) -> Schedule:
    """An operator's price over time: its rates hold for every call that it is meant for."""
    return compiled((row._replace(when=()),), (), frozenset(), True, whole=True)


def compiled(
    own: tuple[PriceRow, ...],
    added: tuple[PriceRow, ...],
    said: Conditions,
    sure: bool,
    whole: bool = False,
) -> Schedule:
    """Cut time where any of the rows begins or ends, and compose the price of each stretch."""
    pairs = {pair for row in (*own, *added) for pair in row.when}
    wanted = {pair for pair in said & pairs if pair[1] not in NEUTRAL}
    if asks_for_search_context((*own, *added)):
        sure = sure and any(key == SEARCH_CONTEXT for key, _ in said & pairs)
    priced = {pair for row in own if row.rates for pair in row.when}
    mine = [row for row in own if applies(row, said)]
    theirs = [
        row
        for row in added
        if applies(row, said) and not (row.when and is_uplift(row) and priced.issuperset(row.when))
    ]
    starts, begins, weekdays = _cuts((*mine, *theirs))
    made: dict[tuple[str, ...], tuple[Price | None, tuple[PriceRow, ...]]] = {}
    prices: dict[tuple[PriceRow, ...], Price | None] = {}
    spans = []
    for start, end in zip(starts, [*starts[1:], None], strict=True):
        days = []
        for weekday in weekdays:
            day: list[Period] = []
            for begin, until in zip(begins, [*begins[1:], MIDNIGHT], strict=True):
                hold = [row for row in mine if _holds(row, start, weekday, begin)]
                join = [row for row in theirs if _holds(row, start, weekday, begin)]
                ids = tuple([row.id for row in (*hold, *join)])
                if ids not in made:
                    made[ids] = price_of(hold, join, whole)
                found, used = made[ids]
                price = prices.setdefault(used, found)
                told = {pair for row in (*hold, *join) for pair in row.when}
                good = price is not None and sure and wanted <= told
                if day and day[-1].price is price and day[-1].sure is good:
                    day[-1] = day[-1]._replace(until=until)
                    continue
                day.append(Period(start, end, begin, until, price, good, used))
            days.append(day)
        spans.append((start, _week(days)))
    return Schedule(spans)


def _cuts(rows: Sequence[PriceRow]) -> tuple[list[datetime], list[time], range]:
    """The instants, the times of day and the weekdays between which nothing changes."""
    starts = {ALWAYS} | {cut for row in rows for cut in (row.start, row.end) if cut is not None}
    begins = {MIDNIGHT} | {cut for row in rows for window in row.windows for cut in window}
    weekdays = range(7 if any(row.weekdays for row in rows) else 1)
    return sorted(starts), sorted(begins), weekdays


def _week(days: list[list[Period]]) -> tuple[Day, ...]:
    """One day for all where they are alike; else seven, each period naming its days."""
    if all(day == days[0] for day in days):
        days = days[:1]
    else:
        alike = [
            tuple(other for other, periods in enumerate(days) if periods == day) for day in days
        ]
        days = [
            [period._replace(weekdays=which) for period in day]
            for day, which in zip(days, alike, strict=True)
        ]
    return tuple((tuple(period.begin for period in day), tuple(day)) for day in days)


def _holds(row: PriceRow, at: datetime, weekday: int, clock: time) -> bool:
    """Whether a row applies at an instant in UTC; the day is the one that the instant is on."""
    if (row.start and at < row.start) or (row.end and at >= row.end):
        return False
    if row.weekdays and weekday not in row.weekdays:
        return False
    return not row.windows or any(
        begin <= clock < end if begin < end else clock >= begin or clock < end
        for begin, end in row.windows
    )
