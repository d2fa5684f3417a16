"""What an alert says before it has an id: of a threshold, or of something that a job saw. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from app.alerts.crossings import Crossing, amount_text, message_of, severity_of, title_of, type_of
from app.core.money import to_usd

FORECAST, RECOVERED, ANOMALY = 0, -1, -2
"""Kinds of alerts that are no threshold, where the key of an alert has its threshold."""
TYPES = ("usage_warning", "limit_reached", "limit_forecast", "limit_recovered", "usage_anomaly")

NoticeKey = tuple[str, str, datetime, int]


class Notice(NamedTuple):
    """One alert to raise. `threshold` above 0 is one in percent, else it is a kind.

    `used` and `limit` are in the metric's own unit, and `limit` is the amount in force, or what is
    usual of an anomaly. `more` is what a message says besides, as strings for the wire.
    """

    scope_key: str
    limit_id: str
    window_start: datetime
    threshold: int
    type: str
    severity: str
    title: str
    message: str
    billing_period: str
    limit_name: str
    metric: str
    used: int
    limit: int | None
    more: Mapping[str, str] = {}

    @property
    def key(self) -> NoticeKey:
        """What makes an alert the same one: there is never a second of it."""
        return self[:4]


def notice_of(crossing: Crossing) -> Notice:
    """The alert of a threshold that was passed."""
    step, threshold = crossing
    return Notice(
        *(step.scope_key, step.rule.id, step.window_start, threshold),
        type=type_of(threshold),
        severity=severity_of(threshold),
        title=title_of(crossing),
        message=message_of(crossing),
        billing_period=step.billing_period,
        limit_name=step.rule.name,
        metric=step.rule.metric,
        used=step.after,
        limit=step.rule.amount,
    )


def shown(metric: str, amount: int) -> int | str:
    """An amount for the wire: a count, or a decimal string of US dollars."""
    return to_usd(amount) if metric == "cost_usd" else amount


def said(metric: str, amount: int) -> str:
    """An amount in a sentence: `$1,234.5`, `1,234 calls`, `1,234 tokens`."""
    text = amount_text(metric, amount)
    return text if metric == "cost_usd" else f"{text} {metric.replace('_', ' ')}"


def threshold_out(threshold: int) -> int | None:
    """A threshold for the wire: null of an alert that is of another kind."""
    return threshold if threshold > 0 else None
