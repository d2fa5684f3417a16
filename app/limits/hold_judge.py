"""Which holds fit under the limits: in the order they arrived, all of a hold or none. Pure."""

from collections.abc import Iterable, MutableMapping, Sequence
from datetime import datetime
from typing import NamedTuple

from app.core.money import CEILING
from app.limits.check import State, current_keys, denies
from app.limits.counters import CounterKey, Level
from app.limits.estimate import Estimate
from app.limits.known import Rule, Rules
from app.plans.known import Agreement

HoldKey = tuple[str, str]
"""Whose hold it is, and its id."""


class HoldAsk(NamedTuple):
    """A hold that somebody asks for; everything in it is valid. `body_hash` tells a retry."""

    id: str
    user_id: str
    body_hash: int
    ttl_s: int
    provider: str | None
    model: str | None
    endpoint: str | None
    team_id: str | None
    api_key_id: str | None
    estimate: Estimate

    @property
    def key(self) -> HoldKey:
        return self.user_id, self.id


class Wish(NamedTuple):
    """A new hold with the limits that apply to it: each as in force, its counter, when it resets.

    `expired`: the subscription is over, and refuses.
    """

    ask: HoldAsk
    limits: Sequence[tuple[Rule, CounterKey, datetime]]
    expired: bool


class Share(NamedTuple):
    """What a hold holds of one limit."""

    rule: Rule
    counter: CounterKey
    resets_at: datetime
    amount: int


class Granted(NamedTuple):
    """A hold that fits, and what is left of the tightest budget behind it."""

    shares: Sequence[Share]
    remaining_nanos: int | None


class Denied(NamedTuple):
    """A hold that does not fit, and the limit that says so; None where it is the subscription."""

    binding: State | None


def wish_for(ask: HoldAsk, agreement: Agreement, rules: Rules, now: datetime) -> Wish:
    """A hold with the limits that apply to it; their rules are in memory."""
    terms = agreement.terms_at(now)
    known = rules.of(ask.user_id, terms.plan_id, ask.team_id, ask.api_key_id)
    applying = [rule for rule in known if rule.matches(ask.provider, ask.model, ask.endpoint)]
    return Wish(ask, current_keys(applying, agreement, ask.user_id, now), terms.refuses_at(now))


def admit(
    wishes: Iterable[Wish], levels: MutableMapping[CounterKey, Level]
) -> list[Granted | Denied]:
    """Judge the wishes one after the other; what is granted is held against the next ones.

    Only a limit that blocks denies. An amount that is not known needs something to be left.
    """
    found: list[Granted | Denied] = []
    for wish in wishes:
        states = [_state(wish, *limit, levels) for limit in wish.limits]
        binding = next((state for state in states if denies(state)), None)
        if binding is not None or wish.expired:
            found.append(Denied(None if wish.expired else binding))
            continue
        shares = []
        for rule, counter, resets_at in wish.limits:
            used, held = levels[counter]
            amount = min(wish.ask.estimate.wanted.of(rule.metric) or 0, CEILING - held)
            levels[counter] = Level(used, held + amount)
            shares.append(Share(rule, counter, resets_at, amount))
        found.append(Granted(shares, _left(wish, levels)))
    return found


def _state(
    wish: Wish,
    rule: Rule,
    counter: CounterKey,
    resets_at: datetime,
    levels: MutableMapping[CounterKey, Level],
) -> State:
    used, held = levels[counter]
    wanted = wish.ask.estimate.wanted.of(rule.metric)
    most = CEILING if rule.amount is None else rule.amount
    fits = used + held < most if wanted is None else used + held + wanted <= most
    return State(rule, counter[2], resets_at, used, held, fits or rule.amount is None)


def _left(wish: Wish, levels: MutableMapping[CounterKey, Level]) -> int | None:
    left = [
        max(0, rule.amount - sum(levels[counter]))
        for rule, counter, _ in wish.limits
        if rule.metric == "cost_usd" and rule.amount is not None and rule.action != "shadow"
    ]
    return min(left, default=None)
