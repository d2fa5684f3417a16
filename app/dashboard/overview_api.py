"""The first page. What takes longer to read is fetched once the page stands."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from markupsafe import Markup

from app.access.deps import Db, Now
from app.analytics.everyone import first_hour, used_in
from app.analytics.health import health_of, weights_of
from app.core.money import NANOS_PER_USD
from app.dashboard import shown
from app.dashboard.deps import SeenAll
from app.dashboard.frame import csv_answer, page
from app.dashboard.gauges import Gauge
from app.dashboard.overview import (
    ByName,
    Headline,
    count_active,
    read_headline,
    read_standing,
)
from app.dashboard.span import Span, piece_label, span_from
from app.dashboard.user_tables import columns
from app.dashboard.users import Listed, Used, Wanted, list_users
from app.db.engine import Tx
from app.settings import Settings
from app.summaries.buckets import Names
from app.summaries.grains import Span as Range
from app.summaries.sums import Sums, percent

TOP = 8
MOST_SERIES = 8
Measure = Callable[[Sums], int]
Rows = list[dict[str, Any]]

MODEL_COLUMNS = {
    "cost": columns(
        ("Model", "model", "left"),
        ("Spend", "spend", "right"),
        ("Share", "share", "right"),
        ("Calls", "calls", "right"),
    ),
    "tokens": columns(
        ("Model", "model", "left"),
        ("Tokens", "tokens", "right"),
        ("Share", "share", "right"),
        ("Cached", "cached", "right"),
    ),
}
USER_COLUMNS = columns(
    ("User", "user", "left"),
    ("Spend", "spend", "right"),
    ("Share", "share", "right"),
    ("Calls", "calls", "right"),
    ("Tokens", "tokens", "right"),
)
ENDPOINT_COLUMNS = columns(
    ("Endpoint", "endpoint", "left"),
    ("Calls", "calls", "right"),
    ("Errors", "errors", "right"),
    ("Latency", "latency", "right"),
    ("Spend", "spend", "right"),
)

router = APIRouter(include_in_schema=False)


@router.get("/dashboard")
async def overview(
    request: Request,
    viewer: SeenAll,
    db: Db,
    clock: Now,
    by: Literal["provider", "model"] = "provider",
    format: Literal["html", "csv"] = "html",
    table: Literal["cost", "tokens", "days"] = "cost",
) -> Response:
    """What everyone used in a range, beside the range before it."""
    now = clock.now()
    span = span_from(request.query_params, now)

    async def work(tx: Tx) -> tuple[Headline, bool]:
        found = await read_headline(tx, span, now)
        anything = bool(found.used.calls or found.before.calls)
        return found, anything or await first_hour(tx) is not None

    found, anything = await db.read(work)
    if format == "csv":
        return _csv(found, span, table)
    models = found.models
    return page(
        viewer,
        "overview.html",
        span=span,
        keep={"by": by} if by != "provider" else {},
        unread=found.unread,
        by=by,
        anything=anything,
        address=f"{request.url.scheme}://{request.headers.get('host', 'localhost')}",
        used=found.used,
        before=found.before,
        changes=_changes(found.used, found.before),
        cached=percent(found.used.cache_read_tokens, found.used.input_tokens),
        trend=_trend(found, span, by),
        columns=MODEL_COLUMNS,
        by_cost=model_rows(models, lambda sums: sums.cost_nanos, TOP),
        by_tokens=model_rows(models, lambda sums: sums.tokens, TOP),
        more_models=max(0, len(models) - TOP),
    )


def _changes(used: Sums, before: Sums) -> dict[str, float | None]:
    """By how many percent each figure grew. Pure."""
    return {
        "spend": shown.change_of(used.cost_nanos, before.cost_nanos),
        "calls": shown.change_of(used.calls, before.calls),
        "tokens": shown.change_of(used.tokens, before.tokens),
        "latency": shown.change_of(
            round((used.avg_latency_ms or 0) * 1_000), round((before.avg_latency_ms or 0) * 1_000)
        ),
        "errors": used.error_rate - before.error_rate,
    }


def _trend(found: Headline, span: Span, by: str) -> dict[str, Any]:
    series = found.series(by, MOST_SERIES)
    return {
        "labels": [piece_label(piece.start, span.grain) for piece in found.pieces],
        "series": [
            {"name": name, "values": [nanos / NANOS_PER_USD for nanos in nanoss]}
            for name, nanoss in series
        ],
    }


def model_rows(models: ByName, measure: Measure, most: int | None) -> Rows:
    """The models with the most of something, each with its share of all. Pure."""
    whole = sum(map(measure, models.values()))
    order = sorted(models.items(), key=lambda one: (-measure(one[1]), one[0]))
    return [
        {
            "model": _model(names),
            "spend": shown.money(sums.cost_nanos if sums.priced_calls else None),
            "share": shown.percent(percent(measure(sums), whole)),
            "calls": shown.count(sums.calls),
            "tokens": shown.tokens(sums.tokens),
            "cached": shown.percent(percent(sums.cache_read_tokens, sums.input_tokens)),
        }
        for names, sums in order[:most]
        if measure(sums) or most is None or sums.unpriced_calls
    ]


def _model(names: Names) -> Markup:
    provider, model = names
    return Markup('<span class="name">{}</span> <span class="quiet">{}</span>').format(
        model or "unnamed", provider
    )


def _csv(found: Headline, span: Span, table: str) -> Response:
    if table == "days":
        columns = [{"name": name, "key": name} for name in ("start", "cost_usd")]
        whole = [
            sum(values)
            for values in zip(*(v for _, v in found.series("provider", 1_000)), strict=True)
        ]
        rows = [
            {"start": piece.start.isoformat(), "cost_usd": shown.plain_usd(nanos)}
            for piece, nanos in zip(found.pieces, whole or [0] * len(found.pieces), strict=True)
        ]
        return csv_answer(f"spend-{span.name}", columns, rows)
    names = ("provider", "model", "calls", "errors", "input_tokens", "output_tokens")
    columns = [
        {"name": n, "key": n} for n in (*names, "cache_read_tokens", "cost_usd", "unpriced_calls")
    ]
    rows = [
        {"provider": provider, "model": model, "cost_usd": shown.plain_usd(sums.cost_nanos)}
        | sums._asdict()
        for (provider, model), sums in sorted(found.models.items())
    ]
    return csv_answer(f"models-{span.name}", columns, rows)


# ---- the parts that come later ------------------------------------------------------------------


@router.get("/dashboard/overview/people")
async def people(
    request: Request,
    viewer: SeenAll,
    db: Db,
    clock: Now,
    format: Literal["html", "csv"] = "html",
) -> Response:
    """Who spends the most, and how many users there were."""
    span = span_from(request.query_params, clock.now())
    wanted = Wanted(Range(span.start, span.end), size=TOP if format == "html" else 1_000)

    async def work(tx: Tx) -> tuple[Listed, int]:
        return await list_users(tx, wanted, clock), await count_active(tx, span)

    listed, active = await db.read(work)
    if format == "csv":
        return csv_answer(f"users-{span.name}", USER_COLUMNS, _user_rows(listed, span))
    return page(
        viewer,
        "overview_people.html",
        picked=span,
        columns=USER_COLUMNS,
        rows=_user_rows(listed, span),
        active=active,
        known=listed.known,
    )


def _user_rows(listed: Listed, span: Span) -> Rows:
    return [
        {
            "user": shown.link(row.user_id, shown.user_href(row.user_id, span.query)),
            "spend": shown.money(_known_cost(row.used)),
            "share": shown.percent(row.share),
            "calls": shown.count(row.used.calls),
            "tokens": shown.tokens(row.used.tokens),
        }
        for row in listed.rows
    ]


def _known_cost(used: Used) -> int | None:
    """What the calls cost; None where no price of any is known. Pure."""
    return None if used.calls and used.calls == used.unpriced_calls else used.cost_nanos


@router.get("/dashboard/overview/endpoints")
async def endpoints(
    request: Request,
    viewer: SeenAll,
    db: Db,
    clock: Now,
    format: Literal["html", "csv"] = "html",
) -> Response:
    """Which of the callers' endpoints make the calls."""
    span = span_from(request.query_params, clock.now())
    found = await db.read(lambda tx: used_in(tx, "endpoint", Range(span.start, span.end)))
    order = sorted(found.items(), key=lambda one: (-one[1].calls, one[0]))
    rows = [
        {
            "endpoint": Markup('<span class="name">{}</span>').format(names[0] or "unnamed"),
            "calls": shown.count(sums.calls),
            "errors": shown.percent(sums.error_rate),
            "latency": shown.duration_ms(sums.avg_latency_ms) if sums.latency_calls else "-",
            "spend": shown.money(sums.cost_nanos if sums.priced_calls else None),
        }
        for names, sums in order[: TOP if format == "html" else None]
    ]
    if format == "csv":
        return csv_answer(f"endpoints-{span.name}", ENDPOINT_COLUMNS, rows)
    return page(viewer, "overview_endpoints.html", picked=span, columns=ENDPOINT_COLUMNS, rows=rows)


@router.get("/dashboard/overview/standing")
async def standing(request: Request, viewer: SeenAll, db: Db, clock: Now) -> Response:
    """How things stand now: the outlook, the limits, what is held, the health score."""
    settings: Settings = request.app.state.runtime.settings
    found = await db.read(lambda tx: read_standing(tx, clock))
    return page(
        viewer,
        "overview_standing.html",
        outlook=found.outlook,
        gauges=[_gauge(one) for one in found.gauges],
        held=found.held,
        health=health_of(found.parts, found.budgets, weights_of(settings)),
        calls=found.parts.used.calls,
    )


def _gauge(one: Gauge) -> Mapping[str, Any]:
    """A gauge in words. Pure."""
    write = shown.money if one.rule.metric == "cost_usd" else shown.compact
    unit = "" if one.rule.metric == "cost_usd" else f" {one.rule.metric.replace('_', ' ')}"
    return {
        "label": f"{one.rule.name} · {_whose(one.scope_key)}",
        "used": write(one.used),
        "held": write(one.held) if one.held else "",
        "amount": f"{write(one.amount)}{unit}",
        "percent": one.percent,
        "held_percent": percent(one.held, one.amount),
        "action": {"block": "blocks", "warn": "warns"}.get(one.rule.action, one.rule.action),
        "resets": one.resets_at,
    }


def _whose(scope_key: str) -> str:
    kind, _, name = scope_key.partition(":")
    return "everyone" if kind == "all" else f"{kind} {name}"
