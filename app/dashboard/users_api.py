"""The page that lists users."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from markupsafe import Markup, escape

from app.access.api import printable
from app.access.deps import Db, Now
from app.core.errors import InvalidInput
from app.core.money import to_usd
from app.dashboard import shown
from app.dashboard.deps import SeenAll
from app.dashboard.frame import csv_answer, page
from app.dashboard.span import Span, span_from
from app.dashboard.standings import MOST_NEAR, Standing
from app.dashboard.users import MOST_EXPORTED, ORDERS, PAGE, Listed, Order, UserRow, Wanted
from app.dashboard.users import list_users as listed
from app.pricing.api import start_of_page
from app.summaries.grains import Span as Range

router = APIRouter()
HOME = "/dashboard/users"
Search = Annotated[str, Query(max_length=256)]
Column = dict[str, Any]
_COLUMNS: Sequence[tuple[str, str, Order | None]] = (
    ("User", "user", "user"),
    ("Spend", "spend", "spend"),
    ("Share", "share", None),
    ("Calls", "calls", "calls"),
    ("Tokens (cached)", "tokens", "tokens"),
    ("Errors", "errors", None),
    ("Billing period", "period", None),
    ("Limits", "limit", "limit"),
    ("Last used", "seen", "seen"),
)
_EXPORTED = [
    {"name": name, "key": key}
    for name, key in (
        *(("User", "user"), ("Spend", "spend"), ("Share", "share"), ("Calls", "calls")),
        *(("Tokens", "tokens"), ("Input", "input"), ("Output", "output"), ("Cached", "cached")),
        *(("Errors", "errors"), ("Unpriced calls", "unpriced"), ("Billing period", "period")),
        *(("Status", "status"), ("Percent", "percent"), ("Limit", "limit"), ("Last used", "seen")),
    )
]
_AT_LEAST = Markup('<span class="tone-warn">≥<span class="hidden"> at least</span></span> ')
_TONES = {"active": "good", "warning": "warn", "limit_reached": "bad"}
_SAID = {"active": "active", "warning": "warning", "limit_reached": "limit reached"}


@router.get(HOME)
async def users(
    request: Request,
    viewer: SeenAll,
    db: Db,
    clock: Now,
    q: Search = "",
    sort: str = "spend",
    cursor: Annotated[str | None, Query(max_length=12)] = None,
    format: str = "",
) -> Response:
    """Users with what they used in the range, found by how their id begins."""
    span, prefix = span_from(request.query_params, clock.now()), searched(q)
    order: Order = next((one for one in ORDERS if one == sort), "spend")
    whole = format == "csv"
    wanted = Wanted(
        *(Range(span.start, span.end), order, prefix, start_of_page(cursor) // PAGE * PAGE),
        MOST_EXPORTED if whole else PAGE,
    )
    found: Listed = await db.read(lambda tx: listed(tx, wanted, clock))
    keep = {name: text for name, text in (("q", prefix), ("sort", order)) if text}
    if whole:
        return csv_answer("users", _EXPORTED, [_raw(row) for row in found.rows])
    return page(
        viewer,
        "users.html",
        span=span,
        keep=keep,
        prefix=prefix,
        order=order,
        known=found.known,
        columns=_columns(span, order, prefix),
        rows=[_row(row, span, viewer.now) for row in found.rows],
        most_near=MOST_NEAR,
        some_unpriced=any(row.used.unpriced_calls for row in found.rows),
        **_links(span, keep, wanted, found),
    )


def searched(text: str) -> str:
    """What somebody looks for, refused where no name can hold it.

    Raises:
        InvalidInput: control characters, or half ones.
    """
    try:
        return printable(text.strip()) or ""
    except ValueError:
        raise InvalidInput.at("/q", "q: must be printable text") from None


def _links(span: Span, keep: dict[str, str], wanted: Wanted, found: Listed) -> dict[str, Any]:
    here = f"{HOME}?{span.query}&{urlencode(keep)}"
    back, on = wanted.skip - wanted.size, wanted.skip + wanted.size
    return {
        "previous": f"{here}&cursor={max(back, 0)}" if wanted.skip else None,
        "next": f"{here}&cursor={on}" if found.more else None,
        "csv": f"{here}&format=csv",
    }


def _columns(span: Span, order: Order, prefix: str) -> list[Column]:
    found: list[Column] = []
    for name, key, by in _COLUMNS:
        column: Column = {"name": name, "key": key}
        column["align"] = "left" if key in ("user", "period", "limit") else "right"
        if by is not None:
            query = urlencode({"sort": by} | ({"q": prefix} if prefix else {}))
            column["sort"] = f"{HOME}?{span.query}&{query}"
            column["sorted"] = None if by != order else "asc" if by == "user" else "desc"
        found.append(column)
    return found


def _row(row: UserRow, span: Span, now: datetime) -> dict[str, object]:
    used = row.used
    title, least = shown.exact_money(used.cost_nanos), Markup()
    if used.unpriced_calls:
        title = f"at least {title}: {shown.count(used.unpriced_calls)} unpriced"
        least = _AT_LEAST
    spend = Markup('<span title="{}">{}{}</span>').format(
        title, least, shown.money(used.cost_nanos)
    )
    return {
        "user": shown.link(row.user_id, shown.user_href(row.user_id, span.query)),
        "spend": spend,
        "share": shown.percent(row.share),
        "calls": shown.count(used.calls),
        "tokens": Markup(
            '<span title="{} in, {} out">{}</span> <span class="quiet">{}</span>'
        ).format(
            shown.count(used.input_tokens),
            shown.count(used.output_tokens),
            shown.compact(used.tokens),
            shown.percent(used.cached),
        ),
        "errors": shown.percent(used.error_rate),
        "period": row.standing.period.key,
        "limit": limit_badge(row.standing),
        "seen": shown.ago(row.last_hour, now),
    }


def limit_badge(standing: Standing) -> Markup:
    """How a user stands, as a badge with the percentage of the limit that is nearest."""
    if standing.refused:
        return Markup('<span class="badge badge-bad">subscription over</span>')
    if standing.percent is None:
        return Markup('<span class="quiet">no limit</span>')
    said = f"{_SAID[standing.status]} · {shown.percent(standing.percent)}"
    return Markup('<span class="badge badge-{}" title="{}">{}</span>').format(
        _TONES[standing.status], escape(standing.limit or ""), said
    )


def _raw(row: UserRow) -> dict[str, object]:
    standing = row.standing
    return {
        "user": row.user_id,
        "spend": to_usd(row.used.cost_nanos),
        "share": row.share,
        "calls": row.used.calls,
        "tokens": row.used.tokens,
        "input": row.used.input_tokens,
        "output": row.used.output_tokens,
        "cached": row.used.cached,
        "errors": row.used.error_rate,
        "unpriced": row.used.unpriced_calls,
        "period": standing.period.key,
        "status": "subscription over" if standing.refused else _SAID[standing.status],
        "percent": standing.percent,
        "limit": standing.limit,
        "seen": "" if row.last_hour is None else row.last_hour.isoformat(),
    }
