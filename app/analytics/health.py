"""One figure for how things are: what is wrong takes points from 100, and says so."""

from collections.abc import Sequence
from typing import NamedTuple

from app.analytics.budgets import Budgets
from app.analytics.metrics import Parts, errors_of
from app.settings import Settings
from app.summaries.sums import percent

Steps = Sequence[tuple[float, int]]
"""From how much on, and how many points that takes; the highest one passed counts."""


class Weights(NamedTuple):
    """What takes how many points. Rates and budgets in percent, latency in seconds."""

    server_errors: Steps
    client_errors: Steps
    latency: Steps
    budgets: Steps
    highest_budget: Steps
    healthy: int
    warning: int


class Finding(NamedTuple):
    """One thing that is wrong, and what to do about it."""

    points: int
    issue: str
    recommendation: str


class Health(NamedTuple):
    """The score and what it came from."""

    score: int
    status: str
    findings: Sequence[Finding]
    client_error_rate: float
    server_error_rate: float


def weights_of(settings: Settings) -> Weights:
    """The weights as they are set."""
    return Weights(
        steps_from(settings.health_server_errors),
        steps_from(settings.health_client_errors),
        steps_from(settings.health_latency_s),
        steps_from(settings.health_budgets),
        steps_from(settings.health_highest_budget),
        settings.health_healthy,
        settings.health_warning,
    )


def steps_from(text: str) -> Steps:
    """Steps from `5:15,10:30`: above 5 takes 15 points, above 10 takes 30."""
    pairs = (pair.partition(":") for pair in text.split(",") if pair)
    return sorted((float(above), int(points)) for above, _, points in pairs)


def health_of(parts: Parts, budgets: Budgets, weights: Weights) -> Health:
    """Judge the calls of everyone and all budgets. Pure.

    Of the caller's own errors (4xx) by default nothing is taken: they tell of a client.
    """
    used = parts.used
    client, server = errors_of(parts.status_codes or {})
    client_rate, server_rate = percent(client, used.calls), percent(server, used.calls)
    seconds = (used.avg_latency_ms or 0.0) / 1000
    checks = (
        (
            *(server_rate, weights.server_errors, False),
            f"{server_rate}% of the calls failed on the server's side",
            "Look at the providers' status and at the backends with the most errors.",
        ),
        (
            *(client_rate, weights.client_errors, False),
            f"{client_rate}% of the calls were refused as the client's fault",
            "Look at the status codes: keys, rate limits and malformed requests.",
        ),
        (
            *(seconds, weights.latency, False),
            f"calls take {seconds:.2f} s on average",
            "Take faster models, shorter prompts or streaming, or more capacity.",
        ),
        (
            *(budgets.percent, weights.budgets, False),
            f"{budgets.percent}% of all budgets together is spent",
            "Raise the budgets or lower the spending before they are gone.",
        ),
        (
            *(budgets.highest, weights.highest_budget, True),
            f"{budgets.exceeded} of {len(budgets.items)} budgets exceeded; the fullest stands at "
            f"{budgets.highest}%",
            "Look at the fullest budgets: raise them, or find out who spends them.",
        ),
    )
    findings = [
        Finding(points, issue, recommendation)
        for value, steps, at_least, issue, recommendation in checks
        if (points := points_for(value, steps, at_least=at_least))
    ]
    score = max(0, 100 - sum(one.points for one in findings))
    return Health(score, _status(score, weights), findings, client_rate, server_rate)


def points_for(value: float, steps: Steps, *, at_least: bool = False) -> int:
    """What the highest step takes that a value is above of, or also at it. Pure."""
    taken = 0
    for above, points in steps:
        if value > above or (at_least and value == above):
            taken = points
    return taken


def _status(score: int, weights: Weights) -> str:
    if score >= weights.healthy:
        return "healthy"
    return "warning" if score >= weights.warning else "critical"
