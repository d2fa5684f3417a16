"""A page of what one user's log holds: events, and among them groups of those that were wrapped."""

import re
from heapq import merge
from itertools import islice
from typing import NamedTuple, Protocol

from app.core.clock import to_micros
from app.db.engine import Tx
from app.usage.ledger import Entry
from app.usage.read import Place, Wanted, list_events
from app.usage.wrapped import Group

_GROUP = re.compile("\x1e([A-Za-z0-9_-]{1,64}):([0-9]{1,18})", re.ASCII)
"""Where a group stands, in an event id's stead: no event id holds a control character."""


class GroupPlace(NamedTuple):
    """Which group a page ends with."""

    archive_id: str
    group_no: int

    @staticmethod
    def of(place: Place) -> "GroupPlace | None":
        """The group that stands there; None where an event does."""
        found = _GROUP.fullmatch(place.event_id)
        return GroupPlace(found[1], int(found[2])) if found else None


class WrappedLog(Protocol):
    """What was wrapped, and what archives tell of it."""

    async def groups(
        self, tx: Tx, user_id: str, wanted: Wanted, after: Place | None, limit: int
    ) -> list[Group]:
        """The user's groups whose last call lies behind `after`, newest first, as they stand."""

    async def entry(self, user_id: str, event_id: str) -> Entry | None:
        """The row of a wrapped event, from its archive."""


async def list_items(
    tx: Tx, user_id: str, wanted: Wanted, after: Place | None, limit: int, wrapped: WrappedLog
) -> tuple[list[Entry | Group], Place | None]:
    """A page of the user's events and groups, newest first, and where it ends if more follow.

    A group stands where its last call was; of one instant events come first.
    """
    past = after
    if after is not None and GroupPlace.of(after) is not None:
        past = Place(after.at, "")  # every event of that instant came before
    events, _ = await list_events(tx, user_id, wanted, past, limit + 1)
    groups = await wrapped.groups(tx, user_id, wanted, after, limit + 1)
    found: list[Entry | Group] = [*events]
    if groups:
        found = list(islice(merge([*found], groups, key=_newest_first), limit + 1))
    page = found[:limit]
    return page, place_after(page[-1]) if len(found) > limit else None


def _newest_first(item: Entry | Group) -> tuple[int, bool]:
    if isinstance(item, Group):
        return -to_micros(item.last_at), True
    return -to_micros(item.timestamp), False


def place_after(item: Entry | Group) -> Place:
    """Where a page that ends with this item goes on."""
    if isinstance(item, Group):
        return Place(item.last_at, f"\x1e{item.archive_id}:{item.group_no}")
    return Place(item.timestamp, item.event_id)
