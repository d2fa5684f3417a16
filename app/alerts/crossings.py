"""Which thresholds did a counter just pass, and what is said about it? Pure.

A threshold is passed by exactly one step: the one before which it was not reached and after which
it is. A step that jumps over several passes each of them. The first step after a raise of the limit
ended passes also what the standing amount had reached meanwhile. A limit that shadows says nothing.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from app.core.money import to_usd
from app.limits.counters import Step, percent_reached
from app.limits.known import Rule


class Crossing(NamedTuple):
    """One threshold of one limit, passed by one step."""

    step: Step
    threshold: int


def crossings(steps: Iterable[Step], now: datetime) -> Iterator[Crossing]:
    """Every threshold of the amounts in force now that was passed, in order of height.

    Where a raise ended in the window, those come again that a step passed since: an alert is
    written once, whoever passes its threshold again.
    """
    for step in steps:
        rule = step.rule.in_force(now)
        amount = rule.amount
        if amount is None or step.after <= step.before or rule.action == "shadow":
            continue
        before = 0 if _fell_back(step, now) else step.before
        for threshold in rule.thresholds:
            if percent_reached(step.after, amount, threshold) and not percent_reached(
                before, amount, threshold
            ):
                yield Crossing(step._replace(rule=rule), threshold)


def _fell_back(step: Step, now: datetime) -> bool:
    until = step.rule.raised_until
    return until is not None and step.window_start < until <= now


def severity_of(threshold: int) -> str:
    """`info` below 90 %, `warning` below 100 %, `error` from there on."""
    return "info" if threshold < 90 else "warning" if threshold < 100 else "error"


def type_of(threshold: int) -> str:
    """`usage_warning`, or `limit_reached` from 100 % on."""
    return "limit_reached" if threshold >= 100 else "usage_warning"


def title_of(crossing: Crossing) -> str:
    """One line for a list of alerts."""
    name = crossing.step.rule.name
    if crossing.threshold >= 100:
        return f"Limit reached: {name}"
    if crossing.threshold >= 90:
        return f"Almost at the limit: {name}"
    return f"{crossing.threshold}% used: {name}"


def message_of(crossing: Crossing) -> str:
    """One sentence with the figures, thousands separated."""
    step, threshold = crossing
    rule = step.rule
    used = f"{amount_text(rule.metric, step.after)} of {amount_text(rule.metric, rule.amount or 0)}"
    what = f"{used} {_noun(rule)} this {rule.window.replace('_', ' ')}"
    if threshold < 100:
        return f"You have used {what}, which is {threshold}% or more of the limit."
    if rule.action == "block":
        return f"You have used {what}. Calls that ask first are denied until the limit resets."
    return f"You have used {what}. The limit only warns, so calls go on."


def amount_text(metric: str, value: int) -> str:
    """An amount for people, thousands separated, with `$` where it is money."""
    if metric == "cost_usd":
        whole, dot, fraction = to_usd(value).partition(".")
        return f"${int(whole):,}{dot}{fraction}"
    return f"{value:,}"


def _noun(rule: Rule) -> str:
    noun = {"cost_usd": "spend", "calls": "calls"}.get(rule.metric, rule.metric.replace("_", " "))
    of = rule.model or rule.provider
    return f"{of} {noun}" if of else noun
