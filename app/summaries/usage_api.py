"""What the API answers about one user's days, months and series."""

from datetime import date, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from app.access.deps import Db, Now, Reader
from app.access.guard import require_user
from app.core.clock import EPOCH
from app.core.errors import InvalidInput
from app.summaries.daily import Day, Month, read_day, read_month
from app.summaries.detail import NO_PERCENTILES
from app.summaries.figures import EXAMPLE, FiguresOut, PercentilesOut, figures, percentiles_out
from app.summaries.grains import DAY, LAST_YEAR, Grain, Span, day_of, floor_of, month_of, next_of
from app.summaries.series import NAMES, Asked, Series, read_series
from app.usage.api import INSTANT, UserId, UserRoute, instant_from, legible

router = APIRouter(route_class=UserRoute, tags=["usage"])

DEFAULT_SPAN = {"hour": DAY, "day": 30 * DAY, "month": 365 * DAY}
"""How far back a series goes that does not say where it begins."""
_DAY = {"start": "2026-11-20T00:00:00Z", "end": "2026-11-21T00:00:00Z"}
_PERCENTILES = {"p50": 640.0, "p95": 1980.5, "p99": 2410.0}


class DailyOut(FiguresOut):
    """What a user used on one day in UTC; `requests_by_task` counts calls, unnamed as `general`."""

    date: date
    start: datetime
    end: datetime
    requests_by_task: dict[str, int]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"date": "2026-11-20", **_DAY, **EXAMPLE}
            | {"requests_by_task": {"chat": 9, "general": 3}}
        }
    )


class DayOut(FiguresOut):
    """One day of a month."""

    date: date


class MonthlyOut(FiguresOut):
    """What a user used in one calendar month in UTC; it is the sum of its days."""

    year: int
    month: int
    start: datetime
    end: datetime
    days: list[DayOut]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "year": 2026,
                "month": 11,
                "start": "2026-11-01T00:00:00Z",
                "end": "2026-12-01T00:00:00Z",
                **EXAMPLE,
                "days": [{"date": "2026-11-01", **EXAMPLE}],
            }
        }
    )


class PieceOut(FiguresOut):
    """One piece of time, `start <= t < end`, and what was used in it by one group.

    Percentiles are null where the log no longer holds each call, or too many.
    """

    start: datetime
    end: datetime
    group: dict[str, str | int | None]
    latency_ms: PercentilesOut | None
    ttft_ms: PercentilesOut | None


_PIECE = {
    **_DAY,
    "group": {"provider": "openai"},
    **EXAMPLE,
    "latency_ms": _PERCENTILES,
    "ttft_ms": _PERCENTILES,
}


class SeriesOut(BaseModel):
    """Pieces of time, oldest first, none left out; each with every group that occurs at all."""

    grain: Grain
    from_: datetime = Field(serialization_alias="from")
    to: datetime
    group_by: list[str]
    items: list[PieceOut]

    model_config = {
        "json_schema_extra": {
            "example": {
                "grain": "day",
                "from": "2026-11-20T00:00:00Z",
                "to": "2026-11-21T00:00:00Z",
                "group_by": ["provider"],
                "items": [_PIECE],
            }
        }
    }


def day_from(text: str | None, now: datetime) -> date:
    """The day of a query, today in UTC without one.

    Raises:
        InvalidInput: no such day, or none that can have usage.
    """
    if text is None:
        return now.date()
    try:
        day = date.fromisoformat(text) if len(text) == 10 else None
    except ValueError:
        day = None
    if day is None or not EPOCH.year <= day.year <= LAST_YEAR:
        raise InvalidInput.at("/date", f"date: expected a day from 1970 to {LAST_YEAR}: 2026-11-20")
    return day


@router.get("/v1/users/{user_id:path}/usage/daily")
async def get_daily(
    db: Db,
    clock: Now,
    key: Reader,
    user_id: UserId,
    date: Annotated[str | None, Query(description="`2026-11-20`; without it, today")] = None,
) -> DailyOut:
    """What a user used on one day in UTC, and how many calls each kind of task made."""
    require_user(key, user_id)
    legible(user_id, "user_id")
    day = day_from(date, clock.now())
    span = day_of(day)
    found: Day = await db.read(lambda tx: read_day(tx, user_id, span))
    return DailyOut(
        date=day,
        **span._asdict(),
        **figures(found.used),
        requests_by_task=dict(found.calls_by_task),
    )


@router.get("/v1/users/{user_id:path}/usage/monthly")
async def get_monthly(
    db: Db,
    clock: Now,
    key: Reader,
    user_id: UserId,
    year: Annotated[int | None, Query(ge=1970, le=LAST_YEAR, description="default: now")] = None,
    month: Annotated[int | None, Query(ge=1, le=12, description="default: now")] = None,
) -> MonthlyOut:
    """What a user used in one calendar month in UTC, and on each of its days."""
    require_user(key, user_id)
    legible(user_id, "user_id")
    if (year is None) != (month is None):
        missing = "month" if month is None else "year"
        raise InvalidInput.at(f"/{missing}", f"{missing}: `year` and `month` go together")
    now = clock.now()
    year, month = year or now.year, month or now.month
    span = month_of(year, month)
    found: Month = await db.read(lambda tx: read_month(tx, user_id, span))
    return MonthlyOut(
        year=year,
        month=month,
        **span._asdict(),
        **figures(found.used),
        days=[DayOut(date=day.start.date(), **figures(sums)) for day, sums in found.days],
    )


@router.get("/v1/users/{user_id:path}/usage/series")
async def get_series(
    db: Db,
    clock: Now,
    key: Reader,
    user_id: UserId,
    grain: Annotated[Grain, Query(description="Pieces begin on the hour, day or month")] = "day",
    from_: Annotated[str | None, Query(alias="from", description=INSTANT)] = None,
    to: Annotated[str | None, Query(description=INSTANT)] = None,
    group_by: Annotated[
        str | None, Query(max_length=200, description=f"Some of: {', '.join(NAMES)}")
    ] = None,
) -> SeriesOut:
    """A user's usage where `from` <= timestamp < `to`, piece by piece, with percentiles.

    Without `to` it ends with the running hour, day or month; without `from` it tells the last 24
    hours, 30 days or 12 months.
    """
    require_user(key, user_id)
    legible(user_id, "user_id")
    span = span_from(from_, to, grain, clock.now())
    asked = Asked(user_id, span, grain, names_from(group_by))
    found = await db.read(lambda tx: read_series(tx, asked))
    return SeriesOut(
        from_=span.start,
        grain=grain,
        to=span.end,
        group_by=list(asked.group_by),
        items=_pieces(asked, found),
    )


def span_from(from_: str | None, to: str | None, grain: Grain, now: datetime) -> Span:
    """The range of a query.

    Raises:
        InvalidInput: not instants, the wrong way round, or beyond what can have usage.
    """
    end = instant_from(to, "to")
    if end is None:
        end = next_of(floor_of(now, grain), grain)
    for name, moment in (("from", instant_from(from_, "from")), ("to", end)):
        if moment is not None and not EPOCH.year <= moment.year <= LAST_YEAR:
            detail = f"{name}: usage lies between 1970 and {LAST_YEAR}"
            raise InvalidInput.at(f"/{name}", detail)
    start = instant_from(from_, "from")
    if start is None:
        start = max(EPOCH, floor_of(end - DEFAULT_SPAN[grain], grain))
    if end < start:
        raise InvalidInput.at("/to", "to: lies before `from`")
    return Span(start, end)


def names_from(text: str | None) -> list[str]:
    """The names of a `group_by`, each once.

    Raises:
        InvalidInput: not a name to group by, or twice.
    """
    found = [name.strip() for name in text.split(",")] if text else []
    for name in found:
        if name not in NAMES:
            detail = f"group_by: expected some of {', '.join(NAMES)}, separated by commas"
            raise InvalidInput.at("/group_by", detail)
        if found.count(name) > 1:
            raise InvalidInput.at("/group_by", f"group_by: {name} is given twice")
    return found


def _pieces(asked: Asked, series: Series) -> list[PieceOut]:
    return [
        PieceOut(
            **span._asdict(),
            group={
                name: None if value == "" else value
                for name, value in zip(asked.group_by, group, strict=True)
            },
            **figures(series.at(place, group)),
            latency_ms=None
            if series.latency is None
            else percentiles_out(series.latency.get((place, group), NO_PERCENTILES)),
            ttft_ms=None
            if series.ttft is None
            else percentiles_out(series.ttft.get((place, group), NO_PERCENTILES)),
        )
        for place, span in enumerate(series.pieces)
        for group in series.groups
    ]
