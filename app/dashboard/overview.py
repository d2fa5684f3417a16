"""What the first page tells: what everyone used, of what, who, and what it is heading for."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import func, literal, select

from app.alerts.forecast import Projection, forecast
from app.alerts.standing import histories
from app.alerts.tables import Alert
from app.analytics.budgets import Budgets, read_budgets
from app.analytics.everyone import used_by, used_in
from app.analytics.metrics import Parts
from app.core.clock import EPOCH, Clock
from app.dashboard.gauges import Gauge, fullest
from app.dashboard.span import Span
from app.db.engine import Tx
from app.db.types import table_of
from app.limits.known import Rule
from app.limits.tables import Hold
from app.plans.tables import Subscription
from app.summaries.buckets import Names, Table, by_names, hurry, renamed
from app.summaries.grains import Span as Range
from app.summaries.grains import cut, floor_of, last_hours, next_of
from app.summaries.sums import NONE, Sums
from app.summaries.tables import HourTotal

MOST_PIECES = 400
MOST_UNREAD = 100
UNREAD_FOR = timedelta(days=30)
GAUGES = 6

_hour, _known = table_of(HourTotal).c, table_of(Subscription).c
_hold = table_of(Hold).c
ByName = Mapping[Names, Sums]


class Headline(NamedTuple):
    """What a range came to, what the range before it did, and the pieces it is drawn in.

    `table` is by piece and (provider, model).
    """

    used: Sums
    before: Sums
    pieces: Sequence[Range]
    table: Table
    unread: int

    @property
    def models(self) -> ByName:
        return by_names(self.table)

    def series(self, name: str, most: int) -> list[tuple[str, list[int]]]:
        """The cost in nano-dollars of each piece by `provider` or `model`, the dearest first.

        What is behind the first `most` is together as `other`.
        """
        place = 1 if name == "model" else 0
        table = renamed(self.table, lambda names: (names[place] or "unnamed",))
        costs = {one[0]: sums.cost_nanos for one, sums in by_names(table).items()}
        order = sorted(costs, key=lambda one: (-costs[one], one))
        found = {one: [0] * len(self.pieces) for one in order[:most]}
        for (at, (one,)), sums in table.items():
            kept = found.setdefault(one if one in order[:most] else "other", [])
            kept += [0] * (len(self.pieces) - len(kept))
            kept[at] += sums.cost_nanos
        return list(found.items())


async def read_headline(tx: Tx, span: Span, now: datetime) -> Headline:
    """What the range and the one before it came to.

    Raises:
        InvalidInput: there is too much to tell at once.
    """
    pieces = cut(Range(span.start, span.end), span.grain, MOST_PIECES)
    assert pieces is not None
    own = await used_by(tx, "model", pieces)
    earlier = await used_in(tx, "status_code", Range(span.before_start, span.before_end))
    before = sum(earlier.values(), NONE)  # of all totals this one has the fewest rows
    used = sum(own.values(), NONE)
    return Headline(used, before, pieces, own, await count_unread(tx, now))


async def count_unread(tx: Tx, now: datetime) -> int:
    """How many alerts of the last month nobody has read; a hundred stands for more, too."""
    some = select(literal(1)).where(Alert.created_at >= now - UNREAD_FOR, Alert.read_at.is_(None))
    query = select(func.count()).select_from(some.limit(MOST_UNREAD).subquery())
    return int((await tx.fetch(query))[0][0])


# ---- who ----------------------------------------------------------------------------------------


async def count_active(tx: Tx, span: Span) -> int:
    """How many users used something in the range."""
    await hurry(tx)
    known = select(_known.user_id).distinct().subquery()
    within = (_hour.user_id == known.c.user_id, _hour.hour >= span.start, _hour.hour < span.end)
    query = select(func.count()).select_from(known)
    return int((await tx.fetch(query.where(select(literal(1)).where(*within).exists())))[0][0])


# ---- now and ahead ------------------------------------------------------------------------------


class Held(NamedTuple):
    """What open holds reserve: how many there are, and what the calls would cost."""

    holds: int
    cost_nanos: int


class Outlook(NamedTuple):
    """The cost of this calendar month so far, and where it is heading."""

    month: Range
    cost_nanos: int
    projection: Projection


class Standing(NamedTuple):
    """How things stand now, whatever range is looked at."""

    parts: Parts
    budgets: Budgets
    outlook: Outlook
    gauges: Sequence[Gauge]
    held: Held


async def read_standing(tx: Tx, clock: Clock) -> Standing:
    """The last day's calls, the budgets, the month's outlook, the fullest limits, what is held."""
    now = clock.now()
    await hurry(tx)
    day = last_hours(now, 24)
    models = await used_in(tx, "model", day)
    codes = await used_in(tx, "status_code", day)
    parts = Parts(sum(models.values(), NONE), models, None, codes, None, None)
    return Standing(
        parts,
        await read_budgets(tx, None, now),
        await _outlook(tx, now),
        await fullest(tx, clock, GAUGES),
        await read_held(tx, now),
    )


async def _outlook(tx: Tx, now: datetime) -> Outlook:
    start = floor_of(now, "month")
    month = Range(start, next_of(start, "month"))
    cost = sum((await used_in(tx, "model", month)).values(), NONE).cost_nanos
    history = (await histories(tx, [(_EVERYONES, "all")], now))[_EVERYONES.id, "all"]
    return Outlook(month, cost, forecast(history, cost, None, (month.start, month.end), now))


_EVERYONES = Rule(
    *("", "", "all", None, None, None, "cost_usd", "month", "UTC", None, "warn", (), EPOCH, EPOCH)
)
"""A limit without an amount: all that everyone spends."""


async def read_held(tx: Tx, now: datetime) -> Held:
    """What holds reserve that have not expired."""
    cost = func.coalesce(func.sum(_hold.estimated_cost_nanos), 0)
    query = select(func.count(), cost).where(_hold.state == "open", _hold.expires_at > now)
    row = (await tx.fetch(query))[0]
    return Held(int(row[0]), int(row[1]))
