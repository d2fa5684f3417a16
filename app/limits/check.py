"""May the next call happen? Read from counters as they are committed; nothing is cached."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from app.core.clock import Clock
from app.core.money import Nanos
from app.db.engine import Tx
from app.limits.counters import CounterKey, Level, Step, percent_of, stands, status_of
from app.limits.held import without_expired
from app.limits.known import Rule, Rules, scope_keys
from app.limits.windows import window_of
from app.plans.known import Agreement


class State(NamedTuple):
    """One limit in the window that is running now."""

    rule: Rule
    window_start: datetime
    resets_at: datetime
    used: int
    held: int
    allowed: bool

    @property
    def percent(self) -> float:
        return percent_of(self.used, self.rule.amount)

    @property
    def remaining(self) -> int | None:
        amount = self.rule.amount
        return None if amount is None else max(0, amount - self.used - self.held)


class Standing(NamedTuple):
    """How a user stands against all of their limits."""

    usage_status: str
    remaining_nanos: Nanos | None


class Ask(NamedTuple):
    """The call that someone would like to make; an amount that is None was not said."""

    user_id: str
    provider: str | None
    model: str | None
    endpoint: str | None
    team_id: str | None
    api_key_id: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost_nanos: int | None

    def wants(self, metric: str) -> int | None:
        """How much of a metric the call would use, as far as was said."""
        if metric == "calls":
            return 1
        if metric == "cost_usd":
            return self.cost_nanos
        if self.input_tokens is None or self.output_tokens is None:
            return None
        if metric == "tokens":
            return self.input_tokens + self.output_tokens
        return self.input_tokens if metric == "input_tokens" else self.output_tokens


def current_keys(
    rules: Iterable[Rule], agreement: Agreement, user_id: str, now: datetime
) -> list[tuple[Rule, CounterKey, datetime]]:
    """Each rule as it is in force now, the counter of its running window, and when that ends."""
    period = agreement.period_at(now)
    found = []
    for rule in rules:
        start, end = window_of(rule.window, now, period, rule.timezone)
        found.append((rule.in_force(now), (rule.counter_scope(user_id), rule.id, start), end))
    return found


_UNTOUCHED = Level(0, 0)


def judge(
    ask: Ask,
    found: Sequence[tuple[Rule, CounterKey, datetime]],
    counters: Mapping[CounterKey, Level],
) -> list[State]:
    """Where each limit stands, and whether the call fits under it. Pure."""
    states = []
    for rule, key, end in found:
        used, held = counters.get(key, _UNTOUCHED)
        wanted = ask.wants(rule.metric)
        if rule.amount is None:
            fits = True
        elif wanted is None:
            fits = used + held < rule.amount
        else:
            fits = used + held + wanted <= rule.amount
        states.append(State(rule, key[2], end, used, held, fits))
    return states


def denies(state: State) -> bool:
    """Whether this limit refuses the call: only a blocking one does."""
    return not state.allowed and state.rule.action == "block"


def standing_of(states: Iterable[State]) -> Standing:
    """The highest percentage over all limits decides, held amounts left aside."""
    highest, left = 0.0, None
    for state in states:
        if state.rule.action == "shadow":
            continue
        highest = max(highest, state.percent)
        if state.rule.metric == "cost_usd" and state.remaining is not None:
            left = state.remaining if left is None else min(left, state.remaining)
    return Standing(status_of(highest), None if left is None else Nanos(left))


async def standings(
    tx: Tx,
    user_ids: Collection[str],
    agreements: Mapping[str, Agreement],
    rules: Rules,
    now: datetime,
    steps: Sequence[Step],
    clock: Clock,
) -> dict[str, Standing]:
    """How these users stand now; counters that `steps` moved are not read again."""
    moved = {
        (step.scope_key, step.rule.id, step.window_start): Level(step.after, step.held)
        for step in steps
    }
    plans = {user_id: agreements[user_id].terms_at(now).plan_id for user_id in user_ids}
    wanted = {key for who, plan in plans.items() for key in scope_keys(who, plan, None, None)}
    await rules.load(tx, wanted)
    asked = {}
    for user_id, plan_id in plans.items():
        agreement = agreements[user_id]
        applying = rules.of(user_id, plan_id, None, None)
        asked[user_id] = current_keys(applying, agreement, user_id, now)
    missing = sorted({key for found in asked.values() for _, key, _ in found} - moved.keys())
    known = moved | await stands(tx, missing) if missing else moved
    known = await without_expired(tx, known, clock)
    found = {}
    for user_id, keys in asked.items():
        nothing = Ask(user_id, *(None,) * 8)
        found[user_id] = standing_of(judge(nothing, keys, known))
    return found
