"""How long detailed rows are kept: what the settings say, what was set instead, for whom."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import delete, insert, select

from app.core.errors import InvalidInput, NotFound
from app.db.changes import announce
from app.db.engine import Tx
from app.db.types import table_of
from app.retention.tables import Retention

KIND = "retention"
EVERYONE = "all"


class Policy(NamedTuple):
    """When rows of a user are wrapped; a bound that is None is not set.

    More than `max_rows` detailed rows: all but the newest `keep_rows`. Older than `max_age_days`:
    at once. `keep_ids_days` is how long ids of wrapped events are known, None for ever.
    """

    max_rows: int | None
    keep_rows: int | None
    max_age_days: int | None
    keep_ids_days: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether nothing is ever wrapped."""
        return self.max_rows is None and self.max_age_days is None

    def aged_before(self, now: datetime) -> datetime | None:
        """Rows before this instant are too old; None where no age is."""
        return None if self.max_age_days is None else now - timedelta(days=self.max_age_days)


def policy_from(max_rows: int, keep_rows: int, max_age_days: int) -> Policy:
    """A policy as settings say it: 0 rows or days set no bound."""
    days = max_age_days or None
    return Policy(max_rows, keep_rows, days) if max_rows else Policy(None, None, days)


def judge(policy: Policy, window_days: int) -> None:
    """Refuse a policy that contradicts itself, or under which an event could count twice.

    Raises:
        InvalidInput: `errors` names the field.
    """
    most, kept = policy.max_rows, policy.keep_rows
    if (most is None) != (kept is None):
        missing = "keep_rows" if kept is None else "max_rows"
        raise InvalidInput.at(f"/{missing}", "max_rows and keep_rows are set together, or neither")
    if most is not None and kept is not None and kept > most:
        raise InvalidInput.at("/keep_rows", "must not be more than max_rows")
    if policy.keep_ids_days is not None and policy.keep_ids_days < window_days:
        detail = f"events are accepted for {window_days} days: ids must be known as long"
        raise InvalidInput.at("/keep_ids_days", detail)


_rows = table_of(Retention).c
_columns = tuple(_rows[name] for name in Policy._fields)


def scope_of(user_id: str | None) -> str:
    """The key under which a user's own policy is kept; everyone's for None."""
    return EVERYONE if user_id is None else f"user:{user_id}"


class Policies:
    """The policies in force: everyone's, and those of some users who have their own."""

    def __init__(self, everyone: Policy, own: dict[str, Policy], *, is_set: bool) -> None:
        self.everyone, self.own, self.is_set = everyone, own, is_set

    def of(self, user_id: str) -> Policy:
        """What holds for a user; ids are kept for everyone alike."""
        found = self.own.get(user_id, self.everyone)
        return found._replace(keep_ids_days=self.everyone.keep_ids_days)


async def policies(tx: Tx, by_default: Policy, user_ids: Collection[str] = ()) -> Policies:
    """What was set for everyone and for these users; `by_default` where nothing was."""
    scopes = {scope_of(user_id): user_id for user_id in (None, *user_ids)}
    query = select(_rows.scope_key, *_columns).where(_rows.scope_key.in_(scopes))
    found = {scopes[row[0]]: Policy(*row[1:]) for row in await tx.fetch(query)}
    everyone = found.pop(None, None)
    own = {user_id: policy for user_id, policy in found.items() if user_id is not None}
    return Policies(everyone or by_default, own, is_set=everyone is not None)


async def set_policy(tx: Tx, user_id: str | None, policy: Policy, now: datetime) -> None:
    """Have this hold for a user, or for everyone, from now on; in a transaction `alone`."""
    scope = scope_of(user_id)
    await tx.run(delete(Retention).where(_rows.scope_key == scope))
    row = {"scope_key": scope, "changed_at": now, **policy._asdict()}
    await tx.run(insert(Retention), [row])
    await announce(tx, KIND, scope, now)


async def unset_policy(tx: Tx, user_id: str, now: datetime) -> None:
    """Have everyone's policy hold for this user again; in a transaction `alone`.

    Raises:
        NotFound: the user has none of their own.
    """
    scope = scope_of(user_id)
    if not await tx.run(delete(Retention).where(_rows.scope_key == scope)):
        raise NotFound("this user has no retention of their own", user_id=user_id)
    await announce(tx, KIND, scope, now)
