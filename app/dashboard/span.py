"""The one time picker: which range a page shows, and which range it is compared with. Pure."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from urllib.parse import urlencode

from app.core.clock import hour_of
from app.core.errors import InvalidInput
from app.summaries.grains import DAY, HOUR, LAST_YEAR, Grain, day_of, floor_of, next_of

CHOICES = (
    ("24h", "24 hours"),
    ("7d", "7 days"),
    ("30d", "30 days"),
    ("90d", "90 days"),
    ("month", "This month"),
    ("last_month", "Last month"),
)
NAMES = dict(CHOICES)
DEFAULT = "30d"
LONGEST_BY_HOUR, LONGEST_BY_DAY, LONGEST = 2 * DAY, 100 * DAY, 3_660 * DAY


class Span(NamedTuple):
    """A half-open range of whole hours in UTC, and the one before it, of the same length.

    Where the range runs up to now, the one before ends at the same time of its own day, so that
    half a day is not compared with a whole one. `query` keeps the choice in a link.
    """

    name: str
    start: datetime
    end: datetime
    before_start: datetime
    before_end: datetime
    grain: Grain
    label: str
    query: str

    @property
    def choices(self) -> tuple[tuple[str, str], ...]:
        """What can be picked, as (name, text)."""
        return CHOICES

    @property
    def first_day(self) -> str:
        return self.start.date().isoformat()

    @property
    def last_day(self) -> str:
        return (self.end - timedelta(microseconds=1)).date().isoformat()


def span_from(query: Mapping[str, str], now: datetime) -> Span:
    """The range that a page's address asks for; 30 days where it asks for none.

    Raises:
        InvalidInput: no such range, or the days of a custom one make none.
    """
    name = query.get("range") or DEFAULT
    if name == "custom":
        return _custom(query, now)
    if name not in NAMES:
        raise InvalidInput.at("/range", f"range: one of {', '.join(NAMES)} or custom")
    return _named(name, now)


def _named(name: str, now: datetime) -> Span:
    until = hour_of(now) + HOUR
    today, this_month = floor_of(now, "day"), floor_of(now, "month")
    month_before = floor_of(this_month - DAY, "month")
    if name == "24h":
        start, before = until - DAY, until - 2 * DAY
    elif name == "month":
        start, before = this_month, month_before
    elif name == "last_month":
        start, until, before = month_before, this_month, floor_of(month_before - DAY, "month")
    else:
        days = int(name[:-1])
        start, before = today - (days - 1) * DAY, today - (2 * days - 1) * DAY
    before_end = min(before + (until - start), start)
    if name == "last_month":
        before_end = start
    grain: Grain = "hour" if name == "24h" else "day"
    return Span(
        *(name, start, until, before, before_end, grain),
        f"{NAMES[name]}: {_shown(start, until, grain)}",
        urlencode({"range": name}),
    )


def _custom(query: Mapping[str, str], now: datetime) -> Span:
    first, last = _day(query, "from"), _day(query, "to")
    if last < first:
        raise InvalidInput.at("/to", "to: not before the first day")
    start = day_of(first).start
    end = min(day_of(last).end, max(hour_of(now) + HOUR, start + HOUR))
    if end - start > LONGEST:
        raise InvalidInput.at("/from", f"from: at most {LONGEST // DAY:,} days at once")
    grain: Grain = "month"
    if end - start <= LONGEST_BY_DAY:
        grain = "hour" if end - start <= LONGEST_BY_HOUR else "day"
    days = -(-(end - start) // DAY)
    before = start - days * DAY
    return Span(
        *("custom", start, end, before, before + (end - start), grain),
        _shown(start, end, grain),
        urlencode({"range": "custom", "from": first.isoformat(), "to": last.isoformat()}),
    )


def _day(query: Mapping[str, str], name: str) -> date:
    try:
        found = date.fromisoformat(query.get(name, ""))
    except ValueError:
        raise InvalidInput.at(f"/{name}", f"{name}: a day, as 2026-11-01") from None
    if not 1980 <= found.year <= LAST_YEAR:
        raise InvalidInput.at(f"/{name}", f"{name}: a day between 1980 and {LAST_YEAR}")
    return found


def _shown(start: datetime, end: datetime, grain: Grain) -> str:
    if grain == "hour":
        return f"{start:%d %b %H:%M} to {end:%d %b %Y %H:%M} UTC"
    last = end - timedelta(microseconds=1)
    return f"{start:%d %b} to {last:%d %b %Y}, days in UTC"


def piece_label(start: datetime, grain: Grain) -> str:
    """How a chart names the hour, day or month that begins then."""
    form = {"hour": "%d %b %H:00", "day": "%d %b", "month": "%b %Y"}[grain]
    return start.astimezone(UTC).strftime(form)


def next_piece(start: datetime, grain: Grain) -> datetime:
    """When the piece that holds this instant ends."""
    return next_of(floor_of(start, grain), grain)
