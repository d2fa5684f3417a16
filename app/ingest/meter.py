"""The river. Read `meter` and you know what the service does."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from app.alerts.crossings import crossings
from app.alerts.outbox import raise_alerts
from app.db.engine import Tx
from app.ingest.calls import Call
from app.limits.check import Standing, standings
from app.limits.counters import count, growths
from app.limits.known import Rules, scope_keys
from app.plans.known import Agreement, Agreements
from app.pricing.catalog import Catalog
from app.pricing.known import Prices
from app.summaries.fold import fold
from app.summaries.store import apply
from app.usage.ledger import Entry, Logged, append


@dataclass(frozen=True, slots=True)
class House:
    """What the river knows besides the calls: prices, agreements and limits, all in memory."""

    prices: Prices
    agreements: Agreements
    rules: Rules


@dataclass(frozen=True, slots=True)
class Metered:
    """What became of each call, in order, and where the asked-for users now stand."""

    logged: list[Logged]
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
) -> Metered:
    """Record the calls: all of their effects become durable together, and only once.

    `stand` names the users whose usage status the caller wants to know; `again` is as for `append`.
    """
    agreements = await house.agreements.ensure(tx, {call.event.user_id for call in calls}, now)
    fresh, logged = await append(
        tx, [rated(call, house.prices.catalog, now) for call in calls], again=again
    )

    await apply(tx, fold(fresh, agreements), shard)

    await _know_rules(tx, fresh, agreements, house.rules)
    steps = await count(tx, growths(fresh, agreements, house.rules))
    await raise_alerts(tx, crossings(steps), now)

    stood = await standings(tx, stand, agreements, house.rules, now, steps) if stand else {}
    return Metered(logged, stood, agreements)


def rated(call: Call, catalog: Catalog, now: datetime) -> Entry:
    """Price a call: the log row it becomes. A cost that the caller states wins over ours."""
    event = call.event
    if call.cost_nanos is not None:
        cost, status, price_ref = call.cost_nanos, "provided", ""
    else:
        cost, status, price_ref = catalog.quote(  # type: ignore[assignment]
            event.provider or None, event.model or None, call.at, call.usage, event.context
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


async def _know_rules(
    tx: Tx,
    entries: Sequence[Entry],
    agreements: Mapping[str, Agreement],
    rules: Rules,
) -> None:
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
