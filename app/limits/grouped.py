"""What limits count of calls that were wrapped together: all of it in one window, or some of it.

A group holds calls of one hour, of one billing period and with all names in common. Where a window
begins between the first and the last of them, nobody can say how many of them it has.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from app.db.types import table_of
from app.limits.counters import CounterKey, RuleBook
from app.limits.known import Rule
from app.limits.windows import window_of
from app.plans.known import Agreement
from app.summaries.tables import WrappedUsage

Agreements = Mapping[str, Agreement]


class Group(NamedTuple):
    """Calls that were wrapped together, as far as limits look at them."""

    user_id: str
    archive_id: str
    group_no: int
    hour: datetime
    first_at: datetime
    last_at: datetime
    provider: str
    model: str
    endpoint: str | None
    team_id: str | None
    api_key_id: str | None
    calls: int
    input_tokens: int
    output_tokens: int
    cost_nanos: int


_table = table_of(WrappedUsage).c
GROUP_COLUMNS = tuple(_table[name] for name in Group._fields)
GROUP_KEY = GROUP_COLUMNS[:3]


class Share(NamedTuple):
    """What a counter has of a group: `amount`, or where it is not `certain`, up to that."""

    key: CounterKey
    rule: Rule
    billing_period: str
    amount: int
    certain: bool


def amount_of(metric: str, group: Group) -> int:
    """What the calls of a group add to a limit of this metric, together."""
    if metric == "calls":
        return group.calls
    if metric == "tokens":
        return group.input_tokens + group.output_tokens
    if metric == "cost_usd":
        return group.cost_nanos
    return group.input_tokens if metric == "input_tokens" else group.output_tokens


def plans_of(group: Group, agreement: Agreement) -> set[str]:
    """The plans that the user was on while these calls were made."""
    between = {
        terms.plan_id
        for terms in agreement.terms
        if terms.starts_at <= group.last_at and terms.ends_at > group.first_at
    }
    return between | {agreement.terms_at(at).plan_id for at in (group.first_at, group.last_at)}


def shares_of(group: Group, agreement: Agreement, rules: RuleBook) -> Iterator[Share]:
    """Every counter that counts calls of a group; those of one limit in order of time. Pure."""
    plans = sorted(plans_of(group, agreement))
    applying = [
        {rule.id: rule for rule in rules.of(group.user_id, plan, group.team_id, group.api_key_id)}
        for plan in plans
    ]
    period = agreement.period_at(group.first_at)
    every = {rule_id: rule for one in applying for rule_id, rule in one.items()}
    for rule_id, rule in every.items():
        if not rule.matches(group.provider, group.model, group.endpoint):
            continue
        always = all(rule_id in one for one in applying)
        amount = amount_of(rule.metric, group)
        at = group.first_at
        while at <= group.last_at:
            start, end = window_of(rule.window, at, period, rule.timezone)
            if end > rule.counts_from:
                certain = always and start <= group.first_at and group.last_at < end
                key = (rule.counter_scope(group.user_id), rule.id, start)
                yield Share(key, rule, period.key, amount, certain)
            if end <= at:  # a billing period that was agreed on anew ends there
                break
            at = end
