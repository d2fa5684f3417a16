"""The river. Read `meter` and you know what the service does."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from app.alerts.crossings import crossings
from app.alerts.outbox import raise_alerts
from app.core.clock import Clock
from app.db.clock import database_now
from app.db.engine import Tx
from app.ingest.beside import beside
from app.ingest.calls import Call
from app.ingest.counted import note_change
from app.ingest.whole import append_whole
from app.limits.check import Standing, standings
from app.limits.counters import count, growths
from app.limits.hold_judge import HoldAsk, HoldKey, wish_for
from app.limits.holds import Decision, Ending, Turn, take_turn
from app.limits.known import Rules, scope_keys
from app.plans.known import Agreement, Agreements
from app.pricing.catalog import Catalog
from app.pricing.known import Prices
from app.summaries.drifts import apply_drifts, drifts_of
from app.summaries.fold import fold
from app.summaries.store import apply
from app.usage.ledger import Entry, Logged
from app.usage.wrapped import WrappedIds


@dataclass(frozen=True, slots=True)
class House:
    """What the river knows besides the calls, all in memory.

    Prices, agreements, limits, and whether any event has left the log.
    """

    prices: Prices
    agreements: Agreements
    rules: Rules
    clock: Clock = field(default_factory=Clock)
    wrapped: WrappedIds = field(default_factory=WrappedIds)


@dataclass(frozen=True, slots=True)
class Metered:
    """What became of each event and of each hold asked for, and where the named users now stand.

    `settled` says which event ended which hold.
    """

    logged: list[Logged]
    decisions: list[Decision]
    settled: Mapping[HoldKey, str | None]
    standings: Mapping[str, Standing]
    agreements: Mapping[str, Agreement]


async def meter(
    tx: Tx,
    calls: Sequence[Call],
    *,
    house: House,
    now: datetime,
    shard: int = 0,
    stand: Collection[str] = (),
    again: bool = False,
    asks: Sequence[HoldAsk] = (),
) -> Metered:
    """Record the calls: all of their effects become durable together, and only once.

    Holds that are asked for are granted after the calls are counted, in their order, as far as
    they fit. `stand` names the users whose usage status the caller wants to know; `again` is as
    for `append`.

    Raises:
        Torn, Taken: another writer came between; roll back and try again.
    """
    users = {call.event.user_id for call in calls} | {ask.user_id for ask in asks}
    agreements = await house.agreements.ensure(tx, users, now)
    fresh, logged = await append_whole(
        tx,
        beside(
            calls, [rated(call, house.prices.catalog, now) for call in calls], house.prices.catalog
        ),
        [call.place for call in calls],
        again=again,
        wrapped=house.wrapped,
    )

    change = fold(fresh, agreements)
    await apply(tx, change, shard)
    note_change(tx, change, house.prices)
    await apply_drifts(tx, shard, drifts_of(fresh))

    turn = await count_and_hold(tx, fresh, asks, agreements, house)
    await raise_alerts(tx, crossings(turn.steps, now), now)

    stood = {}
    if stand:
        stood = await standings(tx, stand, agreements, house.rules, now, turn.steps, house.clock)
    return Metered(logged, turn.decisions, turn.ended, stood, agreements)


async def count_and_hold(
    tx: Tx,
    entries: Sequence[Entry],
    asks: Sequence[HoldAsk],
    agreements: Mapping[str, Agreement],
    house: House,
) -> Turn:
    """Move the counters: what the entries used, what their holds no longer hold, what is granted.

    Of several entries with one hold the first ends it.
    """
    await know_rules(tx, entries, agreements, house.rules)
    grown = growths(entries, agreements, house.rules)
    endings = {
        (entry.user_id, entry.hold_id): Ending("settled", entry.event_id)
        for entry in reversed(entries)
        if entry.hold_id
    }
    if not asks and not endings:
        return Turn(await count(tx, grown), [], {})
    now = await database_now(tx, house.clock)
    await house.rules.load(tx, _scopes_of(asks, agreements, now))
    wishes = [wish_for(ask, agreements[ask.user_id], house.rules, now) for ask in asks]
    return await take_turn(tx, grown, wishes, endings, now)


def _scopes_of(
    asks: Sequence[HoldAsk], agreements: Mapping[str, Agreement], now: datetime
) -> set[str]:
    return {
        key
        for ask in asks
        for key in scope_keys(
            ask.user_id,
            agreements[ask.user_id].terms_at(now).plan_id,
            ask.team_id,
            ask.api_key_id,
        )
    }


def rated(call: Call, catalog: Catalog, now: datetime) -> Entry:
    """Price a call: the log row it becomes. A cost that the caller states wins over ours."""
    event = call.event
    if call.cost_nanos is not None:
        cost, status, price_ref = call.cost_nanos, "provided", ""
    else:
        cost, status, price_ref = catalog.quote(  # type: ignore[assignment]
            event.provider or None,
            event.model or None,
            call.at,
            call.usage,
            event.context,
            event.user_id,
            event.team_id,
        )
    row = (
        event.user_id,
        call.event_id,
        call.at,
        now,
        call.body_hash,
        event.provider,
        event.model,
        event.status_code or 200,
        cost,
        status,
        price_ref,
        *call.usage,
        event.endpoint,
        event.method,
        event.error_message,
        event.retry_count,
        None if event.latency_ms is None else round(event.latency_ms * 1000),
        None if event.ttft_ms is None else round(event.ttft_ms * 1000),
        event.request_bytes,
        event.response_bytes,
        event.user_agent,
        event.ip_address,
        event.team_id,
        event.api_key_id,
        event.session_id,
        event.task_type,
        event.backend,
        event.pool,
        event.hold_id,
        None if event.tags is None else _json(event.tags),
        None if event.context is None else _json(event.context),
    )
    return tuple.__new__(Entry, row)  # a microsecond less than Entry(…)


def _json(pairs: dict[str, str]) -> str | None:
    return msgspec.json.encode(pairs).decode() if pairs else None


async def know_rules(
    tx: Tx,
    entries: Sequence[Entry],
    agreements: Mapping[str, Agreement],
    rules: Rules,
) -> None:
    """Have every rule in memory that may apply to these entries."""
    scopes = {
        (
            entry.user_id,
            agreements[entry.user_id].terms_at(entry.timestamp).plan_id,
            entry.team_id,
            entry.api_key_id,
        )
        for entry in entries
    }
    await rules.load(tx, {key for scope in scopes for key in scope_keys(*scope)})
