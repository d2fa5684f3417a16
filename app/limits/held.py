"""What is held right now: what expired holds nothing, though its rows may still be there."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from app.core.clock import Clock
from app.db.clock import database_now
from app.db.due import SumDue
from app.db.engine import Tx
from app.db.types import instant, table_of
from app.limits.counters import KEY, CounterKey, Level, stands
from app.limits.tables import HoldAmount

_expired = SumDue(table_of(HoldAmount), KEY, "expires_at", "amount")


async def stands_now(tx: Tx, keys: Sequence[CounterKey], clock: Clock) -> dict[CounterKey, Level]:
    """Where each counter that exists stands at this moment."""
    return await without_expired(tx, await stands(tx, keys), clock)


async def without_expired(
    tx: Tx, levels: Mapping[CounterKey, Level], clock: Clock
) -> dict[CounterKey, Level]:
    """The levels less what expired holds had in them; reads only where something is held."""
    found = dict(levels)
    holding = sorted(key for key, level in found.items() if level.held)
    if not holding:
        return found
    for key, amount in await _sums(tx, holding, await database_now(tx, clock)):
        found[key] = Level(found[key].used, max(0, found[key].held - amount))
    return found


async def _sums(tx: Tx, keys: Sequence[CounterKey], now: datetime) -> list[tuple[CounterKey, int]]:
    rows = await _expired(tx, keys, now)
    return [
        ((scope_key, limit_id, instant(at)), amount) for scope_key, limit_id, at, amount in rows
    ]
