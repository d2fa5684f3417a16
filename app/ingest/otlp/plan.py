"""What is to be done so that the events say what is known of the calls by now. Pure.

Whatever the order in which tellings arrive, the events end up the same: they are compared with
what all tellings together say, not with what each request adds.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from app.core.errors import AppError
from app.ingest.calls import Call
from app.ingest.otlp.groups import Lineage, grouped
from app.ingest.otlp.merge import Merged, merged
from app.ingest.otlp.telling import Link, Spot, Telling

EventKey = tuple[str, str]
"""The user and the id of an event."""
NO_EVENT: EventKey = ("", "")


class Known(NamedTuple):
    """A telling that is kept, the event it became part of, and what that event was to say."""

    telling: Telling
    event: EventKey
    event_hash: int


class Wanted(NamedTuple):
    """An event as it shall be: its tellings, and the call it becomes under its own id.

    `again` is the call for when that id stands for another call. `had` says that its tellings were
    part of another event before.
    """

    spots: Sequence[Spot]
    call: Call
    again: Call | None
    had: bool


class Belongs(NamedTuple):
    """Which event a telling is part of, and what that event is to say."""

    event: EventKey
    event_hash: int


NOWHERE = Belongs(NO_EVENT, 0)


class Plan(NamedTuple):
    """Events to record, to correct and to take back, and to which of them each telling belongs.

    `refused` says why there is no event for a telling. `disagreements` counts calls whose tellings
    counted different tokens.
    """

    fresh: list[Wanted]
    amended: list[Wanted]
    void: list[EventKey]
    belongs: dict[Spot, Belongs]
    refused: dict[Spot, str]
    disagreements: int


class Maker(Protocol):
    """Makes events of calls."""

    def user_of(self, call: Merged) -> str:
        """Whom a call is booked to; empty where it is refused for want of a user."""

    def make(self, call: Merged, event_id: str, *, again: bool) -> Call:
        """The call under its user and this id, or if empty one of its own.

        `again`: under the other one of its own. Raises AppError where no event can be made of it.
        """


def plan_for(
    known: Mapping[Spot, Known],
    told: Mapping[Spot, Telling],
    links: Mapping[Spot, Link],
    maker: Maker,
) -> Plan:
    """Compare what the tellings say together with the events that came of those known before."""
    tellings = {spot: one.telling for spot, one in known.items()}
    tellings |= {spot: _later(one, tellings.get(spot)) for spot, one in told.items()}
    lineage: Lineage = {
        **links,
        **{spot: Link(one.parent_id, one.people) for spot, one in tellings.items()},
    }
    plan = Plan([], [], [], dict.fromkeys(tellings, NOWHERE), {}, 0)
    kept: set[EventKey] = set()
    used = {one.event for one in known.values()} - {NO_EVENT}
    disagreements = 0
    groups = grouped(list(tellings.values()), lineage)
    for group in sorted(groups, key=lambda group: min(one.spot for one in group)):
        spots = sorted(one.spot for one in group)
        call = merged(group, lineage)
        disagreements += call.disagrees and any(spot in told for spot in spots)
        had = {known[spot].event for spot in spots if spot in known} - {NO_EVENT}
        try:
            _decide(plan, kept, used, spots, call, had, known, maker)
        except AppError as error:
            plan.refused.update(dict.fromkeys(spots, error.detail))
    held = {one.event for one in known.values()} - {NO_EVENT}
    plan.void.extend(sorted(held - kept))
    return plan._replace(disagreements=disagreements)


def _decide(
    plan: Plan,
    kept: set[EventKey],
    used: set[EventKey],
    spots: Sequence[Spot],
    call: Merged,
    had: Collection[EventKey],
    known: Mapping[Spot, Known],
    maker: Maker,
) -> None:
    """Let a call have an event: one that some of its tellings have already, or else a new one."""
    user = maker.user_of(call)
    if not user:
        plan.refused.update(dict.fromkeys(spots, "names no user"))
        return
    mine = [key for key in sorted(had) if key[0] == user and key not in kept]
    wanted = maker.make(call, mine[0][1] if mine else "", again=False)
    belongs = Belongs((user, wanted.event_id), wanted.body_hash)
    if not mine:
        other = maker.make(call, "", again=True)
        again = other if other.event_id != wanted.event_id else None
        if again is not None and (user, wanted.event_id) in used:
            wanted, again = again, None
        used.add((user, wanted.event_id))
        plan.fresh.append(Wanted(spots, wanted, again, bool(had)))
    else:
        kept.add(mine[0])
        if not any(known[spot][1:] == belongs for spot in spots if spot in known):
            plan.amended.append(Wanted(spots, wanted, None, True))
    plan.belongs.update(dict.fromkeys(spots, belongs))


def _later(one: Telling, other: Telling | None) -> Telling:
    """Of two under one id the one that ended later."""
    if other is None:
        return one
    return max(one, other, key=lambda each: (each.end_ns, repr(each)))
