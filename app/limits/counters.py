"""Where each limit stands: what a batch adds to it, and what it then holds."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from app.core.money import CEILING
from app.db.engine import Tx
from app.db.types import instant, table_of
from app.db.upsert import AddTo, Find
from app.limits.known import Rule
from app.limits.tables import Counter
from app.limits.windows import window_of
from app.plans.known import Agreement

CounterKey = tuple[str, str, datetime]
KEY = ("scope_key", "limit_id", "window_start")


class Counted(Protocol):
    """What counting needs of a call: an entry of the log, or these columns of it."""

    @property
    def user_id(self) -> str: ...
    @property
    def timestamp(self) -> datetime: ...
    @property
    def provider(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def endpoint(self) -> str | None: ...
    @property
    def team_id(self) -> str | None: ...
    @property
    def api_key_id(self) -> str | None: ...
    @property
    def input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def cost_nanos(self) -> int | None: ...


class RuleBook(Protocol):
    """Which rules may apply to a call: all that are known, or only one of them."""

    def of(
        self, user_id: str, plan_id: str, team_id: str | None, api_key_id: str | None
    ) -> tuple[Rule, ...]: ...


class Step(NamedTuple):
    """One counter moving from `before` to `after`, both exact even with writers racing."""

    rule: Rule
    scope_key: str
    window_start: datetime
    billing_period: str
    before: int
    after: int
    held: int


class Level(NamedTuple):
    """Where one counter stands."""

    used: int
    held: int


class Growth:
    """How much one counter grows in this batch."""

    __slots__ = ("amount", "billing_period", "rule")

    def __init__(self, rule: Rule, billing_period: str) -> None:
        self.rule = rule
        self.billing_period = billing_period
        self.amount = 0


def measured(metric: str, entry: Counted) -> int:
    """What one call adds to a limit of this metric; an unknown price adds nothing to cost."""
    if metric == "calls":
        return 1
    if metric == "tokens":
        return entry.input_tokens + entry.output_tokens
    if metric == "cost_usd":
        return entry.cost_nanos or 0
    return entry.input_tokens if metric == "input_tokens" else entry.output_tokens


def growths(
    entries: Iterable[Counted],
    agreements: Mapping[str, Agreement],
    rules: RuleBook,
    measure: Callable[[str, Any], int] = measured,
) -> dict[CounterKey, Growth]:
    """What these entries add to which counters; `measure` says how much of a metric. Pure."""
    found: dict[CounterKey, Growth] = {}
    known: dict[tuple[str, str, str | None, str | None], tuple[Rule, ...]] = {}
    for entry in entries:
        user_id, at = entry.user_id, entry.timestamp
        agreement = agreements[user_id]
        who = (user_id, agreement.terms_at(at).plan_id, entry.team_id, entry.api_key_id)
        applying = known.get(who)
        if applying is None:
            applying = known[who] = rules.of(*who)
        if not applying:
            continue
        period = agreement.period_at(at)
        for rule in applying:
            if not rule.matches(entry.provider, entry.model, entry.endpoint):
                continue
            start, end = window_of(rule.window, at, period, rule.timezone)
            if end <= rule.counts_from:
                continue
            key = (rule.counter_scope(user_id), rule.id, start)
            growth = found.get(key)
            if growth is None:
                growth = found[key] = Growth(rule, period.key)
            growth.amount += measure(rule.metric, entry)
    return found


_add = AddTo(
    table_of(Counter), KEY, ("used", "held"), returning=(*KEY, "used", "held"), ceiling=CEILING
)
_find = Find(table_of(Counter), KEY, (*KEY, "used", "held"))


async def count(tx: Tx, grown: Mapping[CounterKey, Growth]) -> list[Step]:
    """Add to the counters in one statement and say from where to where each one moved."""
    return (await count_and_lock(tx, grown, ()))[0] if grown else []


async def count_and_lock(
    tx: Tx, grown: Mapping[CounterKey, Growth], also: Iterable[CounterKey]
) -> tuple[list[Step], dict[CounterKey, Level]]:
    """As `count`; in the same statement other counters are locked until the transaction ends.

    Returns where every one of them stands, too.
    """
    rows = [(*key, min(growth.amount, CEILING), 0) for key, growth in grown.items()]
    rows += [(*key, 0, 0) for key in set(also) if key not in grown]
    steps, levels = [], {}
    for scope_key, limit_id, window_start, used, held in await _add(tx, rows):
        start = instant(window_start)
        levels[scope_key, limit_id, start] = Level(used, held)
        growth = grown.get((scope_key, limit_id, start))
        if growth is not None:
            before = used - growth.amount
            period = growth.billing_period
            steps.append(Step(growth.rule, scope_key, start, period, before, used, held))
    return steps, levels


async def hold(tx: Tx, deltas: Mapping[CounterKey, int]) -> None:
    """Add to what is held in counters that this transaction has locked."""
    await _add(tx, [(*key, 0, delta) for key, delta in deltas.items() if delta])


async def stands(tx: Tx, keys: Sequence[CounterKey]) -> dict[CounterKey, Level]:
    """Where each counter that exists stands, with what has expired still among what is held."""
    return {
        (scope_key, limit_id, instant(start)): Level(used, held)
        for scope_key, limit_id, start, used, held in await _find(tx, keys)
    }


def percent_reached(used: int, amount: int, percent: int) -> bool:
    """Whether `used` is that share of the limit; of "none at all", any use is all of it."""
    return used * 100 >= amount * percent if amount else used > 0


def percent_of(used: int, amount: int | None) -> float:
    """How much of a limit is used, with two decimals; nothing of an unlimited one.

    Rounded down, so that no whole percentage is shown before `percent_reached` says it is reached.
    """
    if amount is None:
        return 0.0
    return used * 10_000 // amount / 100 if amount else 100.0


def status_of(percent: float) -> str:
    """`limit_reached` from 100 %, `warning` from 80 %, else `active`."""
    return "limit_reached" if percent >= 100 else "warning" if percent >= 80 else "active"
