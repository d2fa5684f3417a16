"""Make the events say what is known of the calls: one transaction's part of it."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import NamedTuple

import msgspec
from loguru import logger

from app.core.errors import AppError
from app.db.engine import Tx
from app.ingest.calls import Call, Window, calls_from
from app.ingest.correct import Evidence, Moved, Order, carry_out
from app.ingest.correct_fields import Edit
from app.ingest.decode import EventIn
from app.ingest.foreign.submit import Foreign
from app.ingest.meter import House, meter
from app.ingest.otlp.context import Context, alone, context_of, keep, keep_links
from app.ingest.otlp.drafts import SOURCE, event_from, ids_for
from app.ingest.otlp.merge import Merged
from app.ingest.otlp.plan import Belongs, EventKey, Plan, Wanted, plan_for
from app.ingest.otlp.telling import Link, Spot, Telling
from app.ingest.rerate import SHARD
from app.summaries.drifts import COMPARED
from app.usage.corrections import corrected
from app.usage.ledger import Logged
from app.usage.lock import look_at_events
from app.web.strict import refusal

ACTOR = "otlp"
LATER = "telemetry of this call that arrived later"
SAME_CALL = timedelta(minutes=1)
"""How much later one event may begin than another of its id and still be of the same call."""
EDITED = frozenset(
    {
        *("timestamp", "provider", "model", "usage", "status_code", "error_message", "latency_ms"),
        *("ttft_ms", "task_type", "context", "tags", "team_id", "session_id", "api_key_id"),
        "cost_usd",
    }
)
"""What a correction says anew: everything that telemetry tells."""


class Arrived(NamedTuple):
    """What came together, of one owner: the user that a key is bound to, or empty."""

    owner: str
    window: Window | None
    told: Mapping[Spot, Telling]
    links: Mapping[Spot, Link]


class Settled(NamedTuple):
    """What became of it: what happened how often, and what was refused and why."""

    counts: Counter[str]
    refused: Mapping[Spot, str]


class LiesElsewhere(Exception):
    """An event that is to be corrected was archived: read its row there, and try again."""

    def __init__(self, key: EventKey) -> None:
        super().__init__(key)
        self.key = key


class Makes:
    """Makes events of calls, for one owner at one time."""

    def __init__(
        self, foreign: Foreign, unknown: str, owner: str, now: datetime, window: Window | None
    ) -> None:
        self._foreign, self._unknown, self._owner = foreign, unknown, owner
        self._now, self._window = now, window

    def user_of(self, call: Merged) -> str:
        """Whom a call is booked to: the key's user, who it names, or whoever stands for nobody."""
        return self._owner or call.people.user or self._unknown

    def make(self, call: Merged, event_id: str, *, again: bool) -> Call:
        """The call under this id, or one of its own; it is judged as any event.

        Raises:
            InvalidInput, OutOfWindow: no event can be made of it.
        """
        named = event_id or ids_for(call)[again]
        event = event_from(call, named, self.user_of(call), self._foreign.trust)
        window = None if event_id else self._window
        try:
            made = msgspec.convert(event, EventIn)
        except msgspec.ValidationError as error:
            raise refusal(error, "") from None
        return calls_from(made, self._now, window, plain=False)[0]


NOTHING_KNOWN = Context({}, {})


def planned(
    arrived: Arrived, context: Context, foreign: Foreign, unknown: str, now: datetime
) -> Plan:
    """What is to be done for what has arrived, with what is known around it. Pure."""
    maker = Makes(foreign, unknown, arrived.owner, now, arrived.window)
    return plan_for(context.known, arrived.told, {**context.links, **arrived.links}, maker)


async def settle(
    tx: Tx,
    arrived: Arrived,
    *,
    foreign: Foreign,
    unknown: str,
    house: House,
    evidence: Mapping[EventKey, Evidence],
    now: datetime,
    until: datetime,
    ready: Plan | None = None,
) -> Settled:
    """Record, correct and take back events until they say what all tellings say together.

    What has arrived is kept until `until` for what comes later. `ready` is the plan for when
    nothing is known yet of what has arrived.

    Raises:
        Torn, LiesElsewhere: roll back and try again.
    """
    await alone(tx)
    context = await context_of(tx, arrived.owner, arrived.told, arrived.links)
    if ready is not None and not context.known and context.links == arrived.links:
        plan = ready._replace(belongs=dict(ready.belongs))
    else:
        plan = planned(arrived, context, foreign, unknown, now)
    counts = Counter({"disagreement": plan.disagreements})
    for key in plan.void:
        counts["corrected"] += await _amend(tx, key, None, house, evidence, now)
    for wanted in plan.amended:
        key = (wanted.call.event.user_id, wanted.call.event_id)
        edit = Edit(EDITED, _compared(wanted.call, foreign))
        counts["corrected"] += await _amend(tx, key, edit, house, evidence, now)
    for one in await _record(tx, plan, foreign, house, now):
        counts[one.status] += 1
        counts["unpriced"] += one.status == "recorded" and one.entry.cost_status == "unpriced"
        counts["unknown_usage"] += '"usage":"unknown"' in (one.entry.context or "")
    refused = {spot: why for spot, why in plan.refused.items() if spot in arrived.told}
    gone = {spot for spot in refused if not _waits(refused[spot])}
    told = {spot: one for spot, one in arrived.told.items() if spot not in gone}
    await keep(tx, arrived.owner, told, plan.belongs, context.known, until)
    await keep_links(tx, arrived.owner, arrived.links, until)
    counts["rejected"] += len(refused)
    return Settled(counts, refused)


def _waits(why: str) -> bool:
    """Whether a refused call may still become an event, once a later span names its user."""
    return why == "names no user"


async def _record(
    tx: Tx, plan: Plan, foreign: Foreign, house: House, now: datetime
) -> list[Logged]:
    """Record the calls that are new; each telling then belongs to the event that it became."""
    calls = [await _with_free_id(tx, wanted) for wanted in plan.fresh]
    logged = await _metered(tx, calls, foreign, house, now)
    others = [
        place
        for place, (wanted, one) in enumerate(zip(plan.fresh, logged, strict=True))
        if wanted.again is not None and _is_another_call(one, calls[place])
    ]
    for place in others:
        again = plan.fresh[place].again
        if again is not None:
            calls[place] = again
    if others:
        found = await _metered(tx, [calls[place] for place in others], foreign, house, now)
        for place, one in zip(others, found, strict=True):
            logged[place] = one
    for wanted, call in zip(plan.fresh, calls, strict=True):
        belongs = Belongs((call.event.user_id, call.event_id), call.body_hash)
        plan.belongs.update(dict.fromkeys(wanted.spots, belongs))
    return logged


async def _metered(
    tx: Tx, calls: Sequence[Call], foreign: Foreign, house: House, now: datetime
) -> list[Logged]:
    if not calls:
        return []
    compared = [_compared(call, foreign) for call in calls]
    return (await meter(tx, compared, house=house, now=now, shard=SHARD)).logged


def _compared(call: Call, foreign: Foreign) -> Call:
    """The call with our price beside the one that was stated."""
    return foreign.compared(call, SOURCE, COMPARED in (call.event.context or {}))


def _is_another_call(one: Logged, call: Call) -> bool:
    """Whether the id is taken by a call of another time: some ids are given again and again."""
    return one.status == "conflict" and abs(one.entry.timestamp - call.at) > SAME_CALL + timedelta(
        milliseconds=call.event.latency_ms or 0
    )


async def _with_free_id(tx: Tx, wanted: Wanted) -> Call:
    """The call under an id that its user has not used yet, where its tellings had another event."""
    if not wanted.had:
        return wanted.call
    user = wanted.call.event.user_id
    names = [wanted.call.event_id]
    if wanted.again is not None:
        names.append(wanted.again.event_id)
    names += [f"{names[-1]}~{count}" for count in range(2, 50)]
    taken: Collection[str] = await look_at_events(tx, user, names)
    free = next((name for name in names if name not in taken), names[-1])
    event = msgspec.structs.replace(wanted.call.event, id=free)
    return wanted.call._replace(event=event, event_id=free)


async def _amend(
    tx: Tx,
    key: EventKey,
    edit: Edit | None,
    house: House,
    evidence: Mapping[EventKey, Evidence],
    now: datetime,
) -> int:
    """Correct an event, or take it back, unless somebody has done so by hand: theirs stays."""
    made_before = (await corrected(tx, [key])).get(key, [])
    if any(one.actor != ACTOR for one in made_before):
        return 0
    digest = blake2b(repr((key, edit and edit.call)).encode("utf-8", "replace"), digest_size=8)
    body_hash = int.from_bytes(digest.digest(), "big", signed=True)
    order = Order(*key, edit, LATER, ACTOR, body_hash, None)
    try:
        await carry_out(tx, order, house=house, evidence=evidence.get(key, {}), now=now)
    except Moved:
        raise LiesElsewhere(key) from None
    except AppError as error:
        if error.status >= 500:
            raise
        logger.bind(event=key[1], why=error.slug).warning("otlp.not_corrected")
        return 0
    return 1
