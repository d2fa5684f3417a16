"""Holds in the database: granted, ended, swept, each in the transaction of whoever asks.

Every transaction takes the same way: rows of holds, then counters in key order, then what holds
have in those counters. So none deadlocks, and `held` of a counter is at every commit exactly the
sum of what open holds have in it.
"""

from collections import Counter as Tally
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec
from msgspec import Struct

from app.core.errors import AppError, HoldClosed, IdReused
from app.core.money import to_usd
from app.db.due import Remove
from app.db.engine import Tx
from app.db.types import instant, table_of
from app.db.upsert import AddTo, Append, Exchange, Find, Row
from app.limits.counters import KEY, CounterKey, Growth, Level, Step, count_and_lock, hold
from app.limits.hold_judge import Denied, Granted, HoldAsk, HoldKey, Wish, admit
from app.limits.hold_judge import Share as Part
from app.limits.tables import Hold, HoldAmount
from app.limits.windows import shown_end
from app.metrics.names import HOLDS

SCOPES = {"user": "user_id", "plan": "plan_id", "team": "team_id", "key": "api_key_id"}


class Share(Struct, gc=False):
    """What a hold holds of one limit, as it is answered; money is a decimal string."""

    limit_id: str
    name: str
    metric: str
    window: str
    scope: dict[str, str | bool]
    window_start: datetime
    resets_at: datetime | None
    amount: int | str


class _Kept(Share, gc=False):
    """A share as it is stored: with the scope whose counter it is in."""

    counter: str


class HoldRow(NamedTuple):
    """A hold as it is stored."""

    user_id: str
    id: str
    body_hash: int
    created_at: datetime
    expires_at: datetime
    state: str
    provider: str | None
    model: str | None
    endpoint: str | None
    team_id: str | None
    api_key_id: str | None
    estimated_cost_nanos: int | None
    basis: str
    output_tokens: int | None
    shares: str
    settled_event_id: str | None
    closed_at: datetime | None

    def state_at(self, now: datetime) -> str:
        """The state, with an expiry that nobody has noted yet."""
        return "expired" if self.state == "open" and self.expires_at <= now else self.state


class Ending(NamedTuple):
    """How a hold ends."""

    state: str
    event_id: str | None = None


class HoldOutcome(NamedTuple):
    """A hold that stands, and what is left of the tightest budget where that was looked at.

    `fresh` is False where the same hold was asked for before.
    """

    row: HoldRow
    remaining_nanos: int | None
    fresh: bool


Decision = HoldOutcome | Denied | AppError


class Turn(NamedTuple):
    """What one transaction did: counters it moved, what became of each ask, holds that it ended.

    `ended` names the event behind each, if there is one.
    """

    steps: list[Step]
    decisions: list[Decision]
    ended: dict[HoldKey, str | None]


class Taken(Exception):
    """Another writer made a hold of the same id in between: roll back and try again."""


_ENDING = ("state", "settled_event_id", "closed_at")
_PART = (*KEY, "expires_at", "user_id", "hold_id")
_find = Find(table_of(Hold), ("user_id", "id"), HoldRow._fields)
_append = Append(table_of(Hold), HoldRow._fields, ("user_id", "id"))
_append.COPY_ROWS = 200  # narrow rows: below that its extra trip costs more than it saves
_end = Exchange(table_of(Hold), ("user_id", "id"), _ENDING, ("shares", "expires_at"))
find_parts = Find(table_of(HoldAmount), _PART, _PART)
add_parts = AddTo(table_of(HoldAmount), _PART, ("amount",))
remove_parts = Remove(table_of(HoldAmount), _PART, (*KEY, "amount"))
_sweep = Remove(table_of(HoldAmount), KEY, (*KEY, "amount"), until="expires_at")
_shares = msgspec.json.Decoder(list[Share])
_kept = msgspec.json.Decoder(list[_Kept])
_encode = msgspec.json.Encoder().encode


def shares_of(row: HoldRow) -> list[Share]:
    """What the hold held when it was granted; `resets_at` is None of a lifetime."""
    found = _shares.decode(row.shares)
    for share in found:
        share.resets_at = share.resets_at and shown_end(share.resets_at)
    return found


async def find_holds(tx: Tx, keys: Iterable[HoldKey]) -> dict[HoldKey, HoldRow]:
    """The holds that stand under these keys."""
    rows = [hold_of(row) for row in await _find(tx, sorted(set(keys)))]
    return {(row.user_id, row.id): row for row in rows}


def hold_of(row: Iterable[object]) -> HoldRow:
    """A stored hold, as the driver or SQLAlchemy gives it."""
    found = HoldRow._make(row)
    return found._replace(
        created_at=instant(found.created_at),
        expires_at=instant(found.expires_at),
        closed_at=None if found.closed_at is None else instant(found.closed_at),
    )


async def take_turn(
    tx: Tx,
    grown: Mapping[CounterKey, Growth],
    wishes: Sequence[Wish],
    endings: Mapping[HoldKey, Ending],
    now: datetime,
) -> Turn:
    """Count what was used, free what ends, and grant what then fits, all in one go.

    `now` is the database's. Where a hold does not fit, what has expired in its counters is swept
    and it is judged again.

    Raises:
        Taken: another writer made a hold of the same id in between.
    """
    known = await find_holds(tx, [wish.ask.key for wish in wishes]) if wishes else {}
    new = {wish.ask.key: wish for wish in reversed(wishes) if wish.ask.key not in known}
    ended = await end(tx, endings, now)
    parts = await find_parts(tx, sorted(part for parts in ended.values() for part in parts))
    asked = {counter for wish in new.values() for _, counter, _ in wish.limits}
    steps, levels = await count_and_lock(tx, grown, asked | {counter_of(part) for part in parts})
    moved: Tally[CounterKey] = Tally()
    _give_back(await remove_parts(tx, parts), levels, moved)
    granted = [wish for wish in wishes if new.get(wish.ask.key) is wish]
    verdicts = admit(granted, after := dict(levels))
    holding = sorted(counter for counter in asked if levels[counter].held)
    if holding and any(isinstance(one, Denied) for one in verdicts):  # is there room to sweep?
        _give_back(await _sweep(tx, holding, now), levels, moved)
        verdicts = admit(granted, after := dict(levels))
    judged = dict(zip((wish.ask.key for wish in granted), verdicts, strict=True))
    rows = await _grant(tx, granted, judged, moved, now)
    await hold(tx, moved)
    outcomes = [_decided(wish, known, rows, judged, new, now) for wish in wishes]
    for said, count in Tally(map(_name_of, outcomes)).items():
        tx.note(HOLDS, said, by=count)
    stood = [
        step._replace(held=after[step.scope_key, step.rule.id, step.window_start].held)
        for step in steps
    ]
    return Turn(stood, outcomes, {key: endings[key].event_id for key in ended})


def _name_of(decision: Decision) -> str:
    if isinstance(decision, HoldOutcome):
        return "granted" if decision.fresh else "repeated"
    return "denied" if isinstance(decision, Denied) else "refused"


def _give_back(
    rows: Iterable[Row], levels: dict[CounterKey, Level], moved: "Tally[CounterKey]"
) -> None:
    """Take what these rows held off the levels, and note it in `moved`."""
    for *counter, amount in rows:
        key = counter_of(counter)
        moved[key] -= amount
        levels[key] = levels[key]._replace(held=levels[key].held - amount)


def counter_of(row: Sequence[object]) -> CounterKey:
    """The counter that a row of amounts begins with, as a driver gives it."""
    scope_key, limit_id, start = row[:3]
    return str(scope_key), str(limit_id), instant(start)


async def free(tx: Tx, ended: Mapping[HoldKey, Sequence[Row]]) -> None:
    """Give back what holds that ended in this transaction still hold."""
    parts = await find_parts(tx, sorted(part for parts in ended.values() for part in parts))
    await count_and_lock(tx, {}, {counter_of(part) for part in parts})
    moved: Tally[CounterKey] = Tally()
    for *counter, amount in await remove_parts(tx, parts):
        moved[counter_of(counter)] -= amount
    await hold(tx, moved)


async def end(tx: Tx, endings: Mapping[HoldKey, Ending], now: datetime) -> dict[HoldKey, list[Row]]:
    """End these holds if they are open; of each that was, the keys of what it may still hold.

    One that expired is settled all the same: it holds nothing, but its event is known then.
    """
    was_open = ("open", None, None)
    found = await _end(tx, [(*key, *was_open, *to, now) for key, to in endings.items()])
    left = endings.keys() - {row[:2] for row in found}
    late = [key for key in left if endings[key].state == "settled"]
    if late:
        rows = (await find_holds(tx, late)).values()
        old = [
            (row.user_id, row.id, "expired", None, row.closed_at)
            for row in rows
            if row.state == "expired"
        ]
        found |= await _end(tx, [(*row, *endings[row[:2]], now) for row in old])
    for state, count in Tally(endings[row[:2]].state for row in found).items():
        tx.note(HOLDS, state, by=count)
    return {row[:2]: parts_of(*row) for row in found}


def parts_of(user_id: str, hold_id: str, shares: str, expires_at: object) -> list[Row]:
    """The keys of what a hold has in counters, from these columns of it."""
    until = instant(expires_at)
    return [
        (one.counter, one.limit_id, one.window_start, until, user_id, hold_id)
        for one in _kept.decode(shares)
    ]


async def _grant(
    tx: Tx,
    granted: Sequence[Wish],
    judged: Mapping[HoldKey, Granted | Denied],
    moved: "Tally[CounterKey]",
    now: datetime,
) -> dict[HoldKey, HoldRow]:
    """Write the holds that fit, and note in `moved` what they hold."""
    rows, parts = {}, []
    for wish in granted:
        verdict = judged[wish.ask.key]
        if isinstance(verdict, Denied):
            continue
        rows[wish.ask.key] = row = _row(wish.ask, verdict.shares, now)
        for share in verdict.shares:
            if share.amount:
                moved[share.counter] += share.amount
                parts.append((*share.counter, row.expires_at, *wish.ask.key, share.amount))
    if rows and await _append(tx, [rows[key] for key in sorted(rows)]) is not None:
        raise Taken
    await add_parts(tx, parts)
    return rows


def _row(ask: HoldAsk, shares: Iterable[Part], now: datetime) -> HoldRow:
    kept = [_share(share) for share in shares if share.amount]
    estimate = ask.estimate
    return HoldRow(
        *(ask.user_id, ask.id, ask.body_hash, now, now + timedelta(seconds=ask.ttl_s), "open"),
        *(ask.provider, ask.model, ask.endpoint, ask.team_id, ask.api_key_id),
        *(estimate.wanted.cost_usd, estimate.basis, estimate.output_tokens),
        *(_encode(kept).decode(), None, None),
    )


def _share(share: Part) -> _Kept:
    rule = share.rule
    scope, _, of = rule.scope_key.partition(":")
    return _Kept(
        limit_id=rule.id,
        name=rule.name,
        metric=rule.metric,
        window=rule.window,
        scope={"all": True} if scope == "all" else {SCOPES[scope]: of},
        window_start=share.counter[2],
        resets_at=share.resets_at,
        amount=to_usd(share.amount) if rule.metric == "cost_usd" else share.amount,
        counter=share.counter[0],
    )


def _decided(
    wish: Wish,
    known: Mapping[HoldKey, HoldRow],
    rows: Mapping[HoldKey, HoldRow],
    judged: Mapping[HoldKey, Granted | Denied],
    new: Mapping[HoldKey, Wish],
    now: datetime,
) -> Decision:
    key = wish.ask.key
    row = known.get(key) or rows.get(key)
    first = new.get(key, wish)
    stands = first.ask.body_hash if row is None else row.body_hash
    if stands != wish.ask.body_hash:
        return IdReused("this user already has another hold under this id", id=key[1])
    if row is None:
        verdict = judged[key]
        assert isinstance(verdict, Denied)
        return verdict
    if row.state_at(now) != "open":
        return HoldClosed("this hold has ended; ask for another one", state=row.state_at(now))
    verdict_now = judged.get(key)
    left = verdict_now.remaining_nanos if isinstance(verdict_now, Granted) else None
    return HoldOutcome(row, left, fresh=key in rows and first is wish)
