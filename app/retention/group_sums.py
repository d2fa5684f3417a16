"""What groups of wrapped calls add up to as these stand: corrections are laid beside the sums."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import exists, literal, select

from app.core.clock import hour_of
from app.db.engine import Tx
from app.db.types import table_of
from app.retention.fold import NAMES
from app.summaries.tables import WrappedUsage
from app.usage.corrections import Correction, corrected
from app.usage.ledger import Entry, usage_of
from app.usage.tables import UsageCorrection, UsageEvent
from app.usage.wrapped import Group, Key, find_wrapped

_row, _correction = table_of(WrappedUsage).c, table_of(UsageCorrection).c
_log = table_of(UsageEvent).c
_PLACE = ("archive_id", "group_no")
_SPAN = ("first_at", "last_at")

Place = tuple[str, int]


async def as_they_stand(tx: Tx, user_id: str, groups: Sequence[Group]) -> list[Group]:
    """These groups of a user, with what was corrected of their calls since these were sent."""
    if not groups:
        return []
    keys = await _corrected_within(
        tx, user_id, min(one.first_at for one in groups), max(one.last_at for one in groups)
    )
    if not keys:
        return [*groups]
    known, left = await corrected(tx, keys), await find_wrapped(tx, keys)
    first = {key: rows[0].entry for key, rows in known.items()}
    slots = await _slots(tx, user_id, {hour_of(entry.timestamp) for entry in first.values()})
    changes: dict[Place, list[Correction]] = {}
    for key, entry in first.items():
        place = _place_of(entry, left[key].archive_id if key in left else None, slots)
        if place is not None:
            changes.setdefault(place, []).extend(known[key])
    return [_with(one, changes.get((one.archive_id, one.group_no), ())) for one in groups]


async def _corrected_within(tx: Tx, user_id: str, first: datetime, last: datetime) -> list[Key]:
    """The user's corrected events that are not in the log, by when they were as they were sent."""
    logged = (_log.user_id == user_id, _log.event_id == _correction.event_id)
    query = select(_correction.user_id, _correction.event_id).where(
        *(_correction.user_id == user_id, _correction.revision == 1),
        *(_correction.timestamp >= first, _correction.timestamp <= last),
        ~exists(select(literal(1)).where(*logged)),
    )
    return [(row[0], row[1]) for row in await tx.fetch(query)]


class _Slot(NamedTuple):
    """A group: where it stands, from when to when its calls were, and what they have in common."""

    archive_id: str
    group_no: int
    first_at: datetime
    last_at: datetime
    names: tuple[object, ...]

    def alike(self, names: Iterable[object]) -> int:
        """How many of these names its calls have."""
        return sum(one == other for one, other in zip(self.names, names, strict=True))


Slots = Mapping[datetime, Sequence[_Slot]]
"""Groups by their hour."""


async def _slots(tx: Tx, user_id: str, hours: Iterable[datetime]) -> Slots:
    columns = [_row[name] for name in (*_PLACE, *_SPAN, *NAMES)]
    query = select(_row.hour, *columns).where(_row.user_id == user_id, _row.hour.in_(sorted(hours)))
    found: dict[datetime, list[_Slot]] = {}
    for row in await tx.fetch(query.order_by(*(_row[name] for name in _PLACE))):
        slot = _Slot._make((*row[1:5], tuple(row[5:])))
        found.setdefault(row[0], []).append(slot)
    return found


def _place_of(entry: Entry, archive_id: str | None, slots: Slots) -> Place | None:
    """The group that a call was wrapped into, in this archive if that is still known. Pure.

    A call that was corrected without its archive may lack some names: the group that has the most
    of them is taken, so that the sum over all groups is right.
    """
    names = [getattr(entry, name) for name in NAMES]
    fitting = [
        one
        for one in slots.get(hour_of(entry.timestamp), ())
        if archive_id in (None, one.archive_id) and one.first_at <= entry.timestamp <= one.last_at
    ]
    best = max(fitting, key=lambda one: one.alike(names), default=None)
    return None if best is None else (best.archive_id, best.group_no)


def _with(group: Group, corrections: Iterable[Correction]) -> Group:
    """The group with each row of these corrections added, times its sign. Pure."""
    for one in corrections:
        group = _added(group, one.entry, one.sign)
    return group


def _added(group: Group, entry: Entry, sign: int) -> Group:
    usage = zip(group.usage, usage_of(entry), strict=True)
    return group._replace(
        calls=group.calls + sign,
        errors=group.errors + sign * (entry.status_code >= 400),
        usage=tuple(held + sign * more for held, more in usage),
        cost_nanos=group.cost_nanos + sign * (entry.cost_nanos or 0),
        unpriced_calls=group.unpriced_calls + sign * (entry.cost_nanos is None),
        latency_calls=group.latency_calls + sign * (entry.latency_us is not None),
        latency_us=group.latency_us + sign * (entry.latency_us or 0),
        ttft_calls=group.ttft_calls + sign * (entry.ttft_us is not None),
        ttft_us=group.ttft_us + sign * (entry.ttft_us or 0),
        retries=group.retries + sign * (entry.retry_count or 0),
        request_bytes=group.request_bytes + sign * (entry.request_bytes or 0),
        response_bytes=group.response_bytes + sign * (entry.response_bytes or 0),
    )
