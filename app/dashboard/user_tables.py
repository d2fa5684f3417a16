"""One user's figures as a page writes them: gauges, cards, the trend, rows of tables. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from markupsafe import Markup

from app.core.money import NANOS_PER_USD, to_usd
from app.dashboard import shown
from app.dashboard.span import piece_label
from app.dashboard.user_page import Model, UserUsage
from app.limits.check import State
from app.limits.counters import percent_of
from app.plans.periods import FAR
from app.summaries.grains import Grain
from app.summaries.sums import NONE, Sums, percent

Measure = Literal["spend", "tokens", "calls"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
UNITS = {"spend": "usd", "tokens": "tokens", "calls": "calls"}
MOST_SERIES = 7
Row = dict[str, object]
_ACTIONS = {"block": "blocks", "warn": "warns only", "shadow": "shadow: refuses nothing"}
_WINDOWS = {"billing_period": "a billing period", "lifetime": "in all"}


def columns(*said: tuple[str, str, str]) -> list[dict[str, Any]]:
    """Columns of a table from (name, key, alignment)."""
    return [{"name": name, "key": key, "align": align} for name, key, align in said]


def gauges(states: Sequence[State]) -> list[dict[str, Any]]:
    """The limits as gauges, the fullest first; what is held is part of what is filled."""
    found = sorted(states, key=lambda one: -percent_of(one.used + one.held, one.rule.amount))
    return [_gauge(one) for one in found]


def _gauge(state: State) -> dict[str, Any]:
    rule = state.rule
    window = _WINDOWS.get(rule.window, f"a {rule.window}")
    match = "/".join(one for one in (rule.provider, rule.model, rule.endpoint) if one)
    scope = "" if rule.scope_key.startswith("user:") else f" · {_scope(rule.scope_key)}"
    return {
        "id": rule.id,
        "label": f"{rule.name}{f' ({match})' if match else ''}",
        "used": amount_of(state.used, rule.metric),
        "held": amount_of(state.held, rule.metric) if state.held else None,
        "amount": "no limit"
        if rule.amount is None
        else f"{amount_of(rule.amount, rule.metric)} {window}{scope}",
        "percent": percent_of(state.used + state.held, rule.amount),
        "held_percent": min(100.0, percent_of(state.held, rule.amount)),
        "action": _ACTIONS.get(rule.action, rule.action)
        + ("" if rule.raised_until is None else ", raised for a time"),
        "resets": None if state.resets_at >= FAR else shown.when(state.resets_at),
    }


def _scope(scope_key: str) -> str:
    kind, _, of = scope_key.partition(":")
    return {"plan": "of the plan", "all": "shared by everyone"}.get(kind, f"of {kind} {of}")


def amount_of(amount: int, metric: str) -> str:
    """An amount in its metric's unit."""
    if metric == "cost_usd":
        return shown.money(amount)
    unit = metric.replace("_", " ")
    return f"{shown.count(amount)} {unit.removesuffix('s') if amount == 1 else unit}"


# ---- what was used ------------------------------------------------------------------------------


def measured(sums: Sums, measure: Measure) -> int:
    """The figure that a trend is drawn of, money in nano-dollars."""
    return {"tokens": sums.tokens, "calls": sums.calls}.get(measure, sums.cost_nanos)


def trend(usage: UserUsage, measure: Measure, grain: Grain) -> dict[str, Any]:
    """The trend by model, the largest first and the rest as one; dollars only to draw them."""
    ordered = by_size(usage.models, measure)
    found = [
        {"name": model_name(model), "values": _drawn(usage.series_of(model), measure)}
        for model, _ in ordered[: MOST_SERIES - (len(ordered) > MOST_SERIES)]
    ]
    rest = [model for model, _ in ordered[len(found) :]]
    if rest:
        together = [sum(each, NONE) for each in zip(*map(usage.series_of, rest), strict=True)]
        found.append({"name": f"{len(rest)} others", "values": _drawn(together, measure)})
    return {
        "labels": [piece_label(piece.start, grain) for piece in usage.pieces],
        "series": found,
        "unit": UNITS[measure],
    }


def _drawn(sums: Sequence[Sums], measure: Measure) -> list[float | int]:
    values = [measured(one, measure) for one in sums]
    return [value / NANOS_PER_USD for value in values] if measure == "spend" else [*values]


def by_size(models: Mapping[Model, Sums], measure: Measure) -> list[tuple[Model, Sums]]:
    """Models with what they used, the largest first."""
    return sorted(models.items(), key=lambda one: (-measured(one[1], measure), one[0]))


def model_name(model: Model) -> str:
    """A provider and model as people read them; one that was not named is `unnamed`."""
    return "/".join(name or "unnamed" for name in model)


MODELS = columns(
    ("Provider", "provider", "left"),
    ("Model", "model", "left"),
    ("Spend", "spend", "right"),
    ("Share", "share", "right"),
    ("Calls", "calls", "right"),
    ("Input", "input", "right"),
    ("Output", "output", "right"),
    ("Cached", "cached", "right"),
    ("Errors", "errors", "right"),
    ("Latency", "latency", "right"),
)


def model_rows(models: Mapping[Model, Sums], measure: Measure, *, raw: bool = False) -> list[Row]:
    """A row for each model; `raw` writes plain figures, for CSV."""
    total = sum((one.cost_nanos for one in models.values()), 0)
    return [_model_row(*one, total, raw=raw) for one in by_size(models, measure)]


def _model_row(model: Model, sums: Sums, total: int, *, raw: bool) -> Row:
    cached, share = (
        percent(sums.cache_read_tokens, sums.input_tokens),
        percent(sums.cost_nanos, total),
    )
    names: Row = {"provider": model[0] or "unnamed", "model": model[1] or "unnamed"}
    if raw:
        return names | {
            **{"spend": to_usd(sums.cost_nanos), "share": share, "calls": sums.calls},
            **{"input": sums.input_tokens, "output": sums.output_tokens, "cached": cached},
            **{"errors": sums.error_rate, "latency": sums.avg_latency_ms},
        }
    spend = Markup(shown.money(sums.cost_nanos))
    if sums.unpriced_calls:
        spend += badge(f"{shown.compact(sums.unpriced_calls)} unpriced", "warn")
    latency = sums.avg_latency_ms
    return names | {
        "spend": spend,
        "share": shown.percent(share),
        "calls": shown.count(sums.calls),
        "input": shown.compact(sums.input_tokens),
        "output": shown.compact(sums.output_tokens),
        "cached": shown.percent(cached),
        "errors": shown.percent(sums.error_rate),
        "latency": "-" if latency is None else shown.duration_ms(latency),
    }


def badge(text: str, tone: str = "neutral") -> Markup:
    """A small label, set apart from what stands before it."""
    return Markup(' <span class="badge badge-{}">{}</span>').format(tone, text)
