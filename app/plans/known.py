"""Subscriptions in memory, loaded when a user is first seen and dropped when theirs changes."""

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import insert, select

from app.core.ids import short_id
from app.db.changes import announce
from app.db.engine import Tx
from app.db.types import instant, table_of
from app.db.upsert import Append, Find
from app.plans.periods import FAR, Period, Terms, calendar_months, period_of
from app.plans.tables import Plan, Subscription

CAPACITY = 200_000


class Agreement:
    """All terms of one user, oldest first, and the period that was asked for last.

    `terms` holds also those that follow others by themselves; `newest` are the last ones agreed to.
    """

    __slots__ = ("_last", "newest", "terms")

    def __init__(self, terms: tuple[Terms, ...], newest: Terms) -> None:
        self.terms, self.newest = terms, newest
        self._last: Period | None = None

    def terms_at(self, moment: datetime) -> Terms:
        """The terms in force at an instant; before the first ones, the first ones' calendar."""
        newest = self.terms[-1]
        if newest.starts_at <= moment:
            return newest
        for terms in reversed(self.terms):
            if terms.starts_at <= moment:
                return terms
        return calendar_months(self.terms[0].plan_id)._replace(ends_at=self.terms[0].starts_at)

    def period_at(self, moment: datetime) -> Period:
        """The billing period that contains an instant."""
        last = self._last
        if last is not None and last.start <= moment < last.end:
            return last
        self._last = found = period_of(moment, self.terms_at(moment))
        return found


def agreement_of(rows: Collection[Terms]) -> Agreement:
    """Terms end where the user's next ones start, or where they expire and others follow."""
    ordered = sorted(rows, key=lambda row: row.starts_at)
    found = []
    for row, later in zip(ordered, [*ordered[1:], None], strict=True):
        agreed = row._replace(ends_at=FAR if later is None else later.starts_at)
        following = agreed.after_expiry()
        if following is None:
            found.append(agreed)
        else:
            found += [agreed._replace(ends_at=following.starts_at), following]
    return Agreement(tuple(found), ordered[-1])


class Agreements:
    """The cache: at most `CAPACITY` users; when it is full it starts anew."""

    def __init__(self) -> None:
        self._known: dict[str, Agreement] = {}
        self._reloads = 0
        self.default_plan = ""

    async def reload(self, _tx: Tx, changed: set[str]) -> None:
        """Forget the users named; they are read again when next needed."""
        self._reloads += 1
        if "*" in changed:
            self._known.clear()
        for user_id in changed:
            self._known.pop(user_id, None)

    async def reload_plans(self, tx: Tx, _changed: set[str]) -> None:
        """Read which plan is the default."""
        self._reloads += 1
        reloads = self._reloads
        row = await tx.first(select(Plan.id).where(Plan.is_default == True))  # noqa: E712
        if reloads == self._reloads:  # else a later reload, which sees more, has the word
            self.default_plan = row[0] if row else ""

    async def of(self, tx: Tx, user_ids: Collection[str]) -> Mapping[str, Agreement | None]:
        """What is agreed with each user; None for one never seen."""
        found: dict[str, Agreement | None] = {}
        missing = []
        for user_id in user_ids:
            agreement = found[user_id] = self._known.get(user_id)
            if agreement is None:
                missing.append(user_id)
        if missing:
            reloads = self._reloads
            loaded = await load(tx, missing)
            found.update(loaded)
            if reloads == self._reloads:  # else what was read may be old: use it, keep it not
                if len(self._known) + len(loaded) > CAPACITY:
                    self._known = {}
                self._known.update(loaded)
        return found

    async def ensure(
        self, tx: Tx, user_ids: Collection[str], now: datetime
    ) -> Mapping[str, Agreement]:
        """As `of`, and whoever was never seen gets the default plan and calendar months."""
        found = await self.of(tx, user_ids)
        fresh = sorted(user_id for user_id, agreement in found.items() if agreement is None)
        if not fresh:
            return found  # type: ignore[return-value]
        if not self.default_plan:
            raise RuntimeError("there is no default plan; the first migration makes one")
        terms = calendar_months(self.default_plan)
        await subscribe_new(tx, fresh, terms, now)
        agreed = await load(tx, fresh)  # what stands, ours or that of a writer who was faster
        return {user_id: found[user_id] or agreed[user_id] for user_id in user_ids}


_TERMS = ("user_id", "starts_at", "plan_id", "anchor_at", "interval", "timezone")
_EXPIRY = ("expires_at", "on_expiry", "fallback_plan_id")
_find = Find(table_of(Subscription), ("user_id",), (*_TERMS, *_EXPIRY))
_append = Append(table_of(Subscription), (*_TERMS, "created_at"), ("user_id", "starts_at"))


async def load(tx: Tx, user_ids: Collection[str]) -> dict[str, Agreement]:
    """Read the terms of these users."""
    terms: dict[str, list[Terms]] = {}
    for (
        user_id,
        starts_at,
        plan_id,
        anchor_at,
        interval,
        timezone,
        expires_at,
        *rest,
    ) in await _find(tx, [(user_id,) for user_id in sorted(user_ids)]):
        until = None if expires_at is None else instant(expires_at)
        agreed = (plan_id, instant(anchor_at), interval, timezone, until, *rest)
        terms.setdefault(user_id, []).append(Terms(instant(starts_at), FAR, *agreed))
    return {user_id: agreement_of(rows) for user_id, rows in terms.items()}


async def subscribe_new(tx: Tx, user_ids: Collection[str], terms: Terms, now: datetime) -> None:
    """Give the terms to users who have none yet, in key order; whoever has some keeps them."""
    start, plan, anchor = terms.starts_at, terms.plan_id, terms.anchor_at
    await _append(
        tx,
        [
            (user_id, start, plan, anchor, terms.interval, terms.timezone, now)
            for user_id in sorted(user_ids)
        ],
    )


async def create_plan(tx: Tx, name: str, *, is_default: bool, now: datetime) -> str:
    """Make a plan and say its id."""
    plan_id = short_id("plan")
    row = {"id": plan_id, "name": name, "is_default": is_default, "created_at": now}
    await tx.run(insert(Plan), [row])
    await announce(tx, "plans", plan_id, now)
    return plan_id
