"""Which rows of the log are to be wrapped. Only looks; every look is bounded."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Text, and_, cast, func, literal, or_, select

from app.db.engine import Tx
from app.db.types import table_of
from app.plans.tables import Subscription
from app.retention.policy import Policy, policies
from app.usage.ledger import Entry, entry_of
from app.usage.tables import UsageEvent

PAGE = 1_000
"""So many rows are read in one snapshot."""

_log = table_of(UsageEvent).c
_user = table_of(Subscription).c.user_id
_columns = tuple(
    cast(_log[name], Text).label(name) if name in ("tags", "context") else _log[name]
    for name in Entry._fields
)
_order = (_log.timestamp, _log.event_id)
_is_unpriced = _log.cost_status == literal("unpriced")


class Mark(NamedTuple):
    """A place in the order of a user's rows: oldest first, then by id."""

    at: datetime
    event_id: str


class Cut(NamedTuple):
    """Which rows of a user are to be wrapped.

    All before `aged_before`, and of the others those not behind `last`, unless they are unpriced:
    a price may still arrive for these. `aged` and `counted` are how many there are of each kind.
    """

    user_id: str
    policy: Policy
    total: int
    aged_before: datetime | None
    aged: int
    last: Mark | None
    counted: int

    @property
    def rows(self) -> int:
        """How many rows are to be wrapped."""
        return self.aged + self.counted

    @property
    def reasons(self) -> list[str]:
        """Why, as people read it."""
        found = []
        if self.aged:
            days = self.policy.max_age_days
            found.append(f"time-based retention: {self.aged:,} rows are older than {days} days")
        if self.counted:
            left, most = self.total - self.aged, self.policy.max_rows
            found.append(
                f"count limit: {left:,} rows are more than {most:,}; "
                f"the newest {self.policy.keep_rows:,} stay"
            )
        return found

    @property
    def trigger(self) -> str:
        """The same in a word or two."""
        kinds = [kind for kind, rows in (("age", self.aged), ("count", self.counted)) if rows]
        return "+".join(kinds)


async def cut_of(tx: Tx, user_id: str, policy: Policy, now: datetime) -> Cut:
    """Which rows of the user are to be wrapped now: those too old first, then those too many."""
    mine = _log.user_id == user_id
    before = policy.aged_before(now)
    total = await _count(tx, mine)
    aged = 0 if before is None else await _count(tx, mine, _log.timestamp < before)
    last, counted = None, 0
    most, kept = policy.max_rows, policy.keep_rows
    if most is not None and kept is not None and total - aged > most:
        newest_first = (_log.timestamp.desc(), _log.event_id.desc())
        query = select(*_order).where(mine).order_by(*newest_first).offset(kept).limit(1)
        row = await tx.first(query)
        if row is not None:
            last = Mark(*row)
            counted = await _count(tx, mine, _too_many(before, last))
    return Cut(user_id, policy, total, before, aged, last if counted else None, counted)


def _too_many(before: datetime | None, last: Mark) -> ColumnElement[bool]:
    found = and_(_not_behind(last), ~_is_unpriced)
    return found if before is None else and_(found, _log.timestamp >= before)


def _not_behind(mark: Mark) -> ColumnElement[bool]:
    same = and_(_log.timestamp == mark.at, _log.event_id <= mark.event_id)
    return and_(_log.timestamp <= mark.at, or_(_log.timestamp < mark.at, same))


def _behind(mark: Mark) -> ColumnElement[bool]:
    same = and_(_log.timestamp == mark.at, _log.event_id > mark.event_id)
    return and_(_log.timestamp >= mark.at, or_(_log.timestamp > mark.at, same))


async def _count(tx: Tx, *conditions: ColumnElement[bool]) -> int:
    row = await tx.first(select(func.count()).select_from(UsageEvent).where(*conditions))
    return int(row[0]) if row else 0


async def rows_within(tx: Tx, cut: Cut, after: Mark | None, limit: int = PAGE) -> list[Entry]:
    """The next rows of a cut, oldest first."""
    parts = []
    if cut.aged_before is not None:
        parts.append(_log.timestamp < cut.aged_before)
    if cut.last is not None:
        parts.append(_too_many(cut.aged_before, cut.last))
    if not parts:
        return []
    conditions = [_log.user_id == cut.user_id, or_(*parts)]
    if after is not None:
        conditions.append(_behind(after))
    query = select(*_columns).where(*conditions).order_by(*_order).limit(limit)
    return [entry_of(row) for row in await tx.fetch(query)]


# ---- users over their bounds ------------------------------------------------------------------


async def users_behind(tx: Tx, after: str, limit: int) -> list[str]:
    """The next users that ever sent anything."""
    query = select(_user).distinct().where(_user > after).order_by(_user).limit(limit)
    return [row[0] for row in await tx.fetch(query)]


async def over_bounds(
    tx: Tx, user_ids: Sequence[str], by_default: Policy, now: datetime
) -> list[str]:
    """Those of these users that have rows too old or too many: two short looks at each one."""
    known = await policies(tx, by_default, user_ids)
    alike: dict[Policy, list[str]] = {}
    for user_id in user_ids:
        policy = known.of(user_id)
        if not policy.is_open:
            alike.setdefault(policy, []).append(user_id)
    found: set[str] = set()
    for policy, users in alike.items():
        found |= await _over(tx, users, policy, now)
    return [user_id for user_id in user_ids if user_id in found]


async def _over(tx: Tx, users: Collection[str], policy: Policy, now: datetime) -> set[str]:
    of_user = select(_log.timestamp).where(_log.user_id == _user).correlate(Subscription)
    conditions: list[Any] = []
    before = policy.aged_before(now)
    if before is not None:
        oldest = of_user.order_by(_log.timestamp).limit(1).scalar_subquery()
        conditions.append(oldest < before)
    if policy.max_rows is not None:
        newest_first = of_user.order_by(_log.timestamp.desc())
        beyond = newest_first.offset(policy.max_rows).limit(1).scalar_subquery()
        conditions.append(beyond.is_not(None))
    query = select(_user).distinct().where(_user.in_(users), or_(*conditions))
    return {row[0] for row in await tx.fetch(query)}
