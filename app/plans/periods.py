"""Billing periods: counted from an anchor in a time zone; half-open, no gaps, no overlaps.

Wall-clock arithmetic: a monthly period anchored on the 31st at 09:00 in Berlin starts at 09:00 in
Berlin on the last day of every shorter month, whatever the clocks do in between.
"""

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from app.core.clock import EPOCH

ON_EXPIRY = ("fallback", "renew", "refuse")
INTERVALS = ("day", "week", "month", "quarter", "year")
_MONTHS = {"month": 1, "quarter": 3, "year": 12}
_DAYS = {"day": 1, "week": 7}
FAR = datetime(9999, 1, 1, tzinfo=UTC)


class Period(NamedTuple):
    """One billing period. `key` is `2026-11` for calendar months in UTC, else the start's date."""

    start: datetime
    end: datetime
    key: str


class Terms(NamedTuple):
    """What a user agreed to from `starts_at` until `ends_at`.

    `on_expiry` says what is from `expires_at` on; `fallback_plan_id` is the plan of `fallback`.
    """

    starts_at: datetime
    ends_at: datetime
    plan_id: str
    anchor_at: datetime
    interval: str
    timezone: str
    expires_at: datetime | None = None
    on_expiry: str = "fallback"
    fallback_plan_id: str | None = None

    def after_expiry(self) -> "Terms | None":
        """The terms that follow by themselves; None where these go on until others start."""
        expires_at = self.expires_at
        if expires_at is None or expires_at >= self.ends_at or self.on_expiry == "refuse":
            return None
        if self.on_expiry == "renew":
            return self._replace(starts_at=expires_at, anchor_at=expires_at, expires_at=None)
        months = calendar_months(self.fallback_plan_id or self.plan_id)
        return months._replace(starts_at=expires_at, ends_at=self.ends_at)

    def refuses_at(self, moment: datetime) -> bool:
        """Whether calls that ask first are refused, the subscription being over."""
        expires_at = self.expires_at
        return self.on_expiry == "refuse" and expires_at is not None and expires_at <= moment


@lru_cache(maxsize=512)
def zone(name: str) -> ZoneInfo:
    """The IANA time zone of that name; KeyError where there is none."""
    if name.startswith(("/", ".")) or ".." in name or len(name) > 64:
        raise KeyError(name)
    try:
        return ZoneInfo(name)
    except (ValueError, OSError) as error:
        raise KeyError(name) from error


@lru_cache(maxsize=65_536)
def _counted(terms: Terms, index: int) -> datetime:
    """The start of the index-th period counted from the anchor, as a UTC instant."""
    local = terms.anchor_at.astimezone(zone(terms.timezone))
    if terms.interval in _DAYS:
        moved = local.replace(tzinfo=None) + timedelta(days=_DAYS[terms.interval] * index)
    else:
        months = local.year * 12 + local.month - 1 + _MONTHS[terms.interval] * index
        year, month = divmod(months, 12)
        day = min(local.day, monthrange(year, month + 1)[1])
        moved = local.replace(tzinfo=None, year=year, month=month + 1, day=day)
    return moved.replace(tzinfo=zone(terms.timezone)).astimezone(UTC)


def _index_near(terms: Terms, moment: datetime) -> int:
    local = moment.astimezone(zone(terms.timezone))
    anchor = terms.anchor_at.astimezone(zone(terms.timezone))
    if terms.interval in _DAYS:
        return (local.date() - anchor.date()).days // _DAYS[terms.interval]
    months = (local.year - anchor.year) * 12 + local.month - anchor.month
    return months // _MONTHS[terms.interval]


def period_of(moment: datetime, terms: Terms) -> Period:
    """The period of these terms that contains `moment`, which must be inside the terms."""
    index = _index_near(terms, moment)
    while _counted(terms, index) > moment:
        index -= 1
    while _counted(terms, index + 1) <= moment:
        index += 1
    start = max(_counted(terms, index), terms.starts_at)
    end = min(_counted(terms, index + 1), terms.ends_at)
    return Period(start, end, key_of(start, end, terms))


def key_of(start: datetime, end: datetime, terms: Terms) -> str:
    """How a period is called: its month if it is a whole calendar month in UTC, else its start."""
    if terms.interval == "month" and terms.timezone == "UTC":
        anchor = terms.anchor_at
        if anchor.day == 1 and not (anchor.hour or anchor.minute or anchor.second):
            whole = start.day == 1 and not (start.hour or start.minute or start.second)
            if whole and (end.day == 1 or end == terms.ends_at):
                return f"{start.year:04d}-{start.month:02d}"
    local = start.astimezone(zone(terms.timezone))
    return local.date().isoformat()


def calendar_months(plan_id: str) -> Terms:
    """What a user has whom nobody subscribed: calendar months in UTC, for ever."""
    return Terms(EPOCH, FAR, plan_id, EPOCH, "month", "UTC")
