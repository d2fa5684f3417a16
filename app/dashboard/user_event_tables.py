"""A user's events, billing periods and holds, as rows of tables. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from app.core.counters import COUNTERS
from app.core.money import from_usd, to_usd
from app.dashboard import shown
from app.dashboard.user_events import EventRow, GroupRow, Story
from app.dashboard.user_page import Agreed
from app.dashboard.user_tables import Row, amount_of, badge, columns, model_name
from app.limits.holds import HoldRow, shares_of

EVENTS = columns(
    ("Time", "at", "left"),
    ("Event", "id", "left"),
    ("Provider", "provider", "left"),
    ("Model", "model", "left"),
    ("Tokens", "tokens", "right"),
    ("Cost", "cost", "right"),
    ("Status", "status", "left"),
    ("Latency", "latency", "right"),
)


def event_rows(rows: Sequence[EventRow | GroupRow], href: str, *, raw: bool = False) -> list[Row]:
    """A row for each event and each wrapped group; `href` is where the user's events are."""
    return [
        _event_row(one, href, raw=raw) if isinstance(one, EventRow) else _group_row(one, raw=raw)
        for one in rows
    ]


def _event_row(row: EventRow, href: str, *, raw: bool) -> Row:
    entry = row.entry
    names: Row = {"provider": entry.provider, "model": entry.model}
    latency = None if entry.latency_us is None else entry.latency_us / 1000
    if raw:
        cost = None if entry.cost_nanos is None else to_usd(entry.cost_nanos)
        return names | {
            **{"at": entry.timestamp.isoformat(), "id": entry.event_id, "tokens": row.tokens},
            **{"cost": cost, "status": entry.status_code, "latency": latency},
        }
    cost_shown = Markup('<span title="{}">{}</span>').format(
        shown.exact_money(entry.cost_nanos), shown.money(entry.cost_nanos)
    )
    if entry.cost_status != "priced":
        tones = {"unpriced": "warn"}
        cost_shown += badge(entry.cost_status, tones.get(entry.cost_status, "neutral"))
    status = Markup('<span class="tone-{}">{}</span>').format(
        "bad" if entry.status_code >= 400 else "good", entry.status_code
    )
    if row.voided:
        status += badge("voided", "bad")
    elif row.corrections:
        status += badge("corrected", "warn")
    return names | {
        "at": shown.when(entry.timestamp),
        "id": shown.link(short(entry.event_id), f"{href}/{quote(entry.event_id, safe='')}"),
        "tokens": Markup('<span title="{:,} in, {:,} out">{}</span>').format(
            entry.input_tokens, entry.output_tokens, shown.compact(row.tokens)
        ),
        "cost": cost_shown,
        "status": status,
        "latency": "-" if latency is None else shown.duration_ms(latency),
    }


def short(text: str, most: int = 20) -> str:
    """The beginning of a long id."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _group_row(row: GroupRow, *, raw: bool) -> Row:
    group = row.group
    latency = group.latency_us / group.latency_calls / 1000 if group.latency_calls else None
    names: Row = {"provider": group.provider, "model": group.model}
    if raw:
        cost = None if row.cost_nanos is None else to_usd(row.cost_nanos)
        return names | {
            **{"at": group.last_at.isoformat(), "id": f"wrapped: {group.calls} calls"},
            **{"tokens": row.tokens, "cost": cost, "status": group.status_code},
            "latency": latency,
        }
    said = Markup("{} calls, {} to {}").format(
        shown.count(group.calls), f"{group.first_at:%H:%M}", f"{group.last_at:%H:%M}"
    )
    status = Markup('<span class="tone-{}">{}</span>').format(
        "bad" if group.status_code >= 400 else "good", group.status_code
    )
    cost_shown = Markup(shown.money(row.cost_nanos))
    if 0 < group.unpriced_calls < group.calls:
        cost_shown += badge(f"{shown.compact(group.unpriced_calls)} unpriced", "warn")
    return names | {
        "at": shown.when(group.last_at),
        "id": said + badge("wrapped"),
        "tokens": shown.compact(row.tokens),
        "cost": cost_shown,
        "status": status,
        "latency": "-" if latency is None else f"{shown.duration_ms(latency)} avg",
    }


USUAL = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")


def correctable(story: Story) -> list[str]:
    """The counters that a form for a correction shows: the usual ones and those that are used."""
    return [name for name in COUNTERS if name in USUAL or name in story.usage]


# ---- periods and holds --------------------------------------------------------------------------

PERIODS = columns(
    ("Period", "period", "left"),
    ("From", "start", "left"),
    ("To", "end", "left"),
    ("Plan", "plan", "left"),
    ("Spend", "spend", "right"),
    ("Calls", "calls", "right"),
    ("Tokens", "tokens", "right"),
    ("Errors", "errors", "right"),
)


def period_rows(agreed: Agreed, *, raw: bool = False) -> list[Row]:
    """A row for each billing period, newest first."""
    return [
        {
            "period": Markup("{}").format(one.period.key)
            + (badge("running", "good") if one.current and not raw else ""),
            "start": _instant(one.period.start, raw=raw),
            "end": _instant(one.period.end, raw=raw),
            "plan": agreed.names.get(one.plan_id, one.plan_id),
            "spend": to_usd(one.used.cost_nanos) if raw else shown.money(one.used.cost_nanos),
            "calls": one.used.calls if raw else shown.count(one.used.calls),
            "tokens": one.used.tokens if raw else shown.compact(one.used.tokens),
            "errors": one.used.error_rate if raw else shown.percent(one.used.error_rate),
        }
        for one in agreed.periods
    ]


def _instant(moment: datetime, *, raw: bool) -> object:
    return moment.isoformat() if raw else shown.when(moment)


def hold_facts(row: HoldRow) -> dict[str, Any]:
    """One open hold: what it holds of each limit, and until when."""
    return {
        "row": row,
        "model": model_name((row.provider or "", row.model or ""))
        if row.provider or row.model
        else "any model",
        "shares": [
            (share.name, amount_of(nanos_of(share.amount), share.metric))
            for share in shares_of(row)
        ],
    }


def nanos_of(amount: int | str) -> int:
    """An amount as it was answered: money is a text, in dollars."""
    return from_usd(amount) if isinstance(amount, str) else amount
