"""The endpoints for what was spent and served: by day, ever since, by backend and by pool."""

import datetime as times
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from app.access.deps import Db, Now, Reader
from app.access.guard import require_user
from app.analytics.backends import MOST_PIECES, Pieces, read_backends, read_pools
from app.analytics.costs import MOST_DAYS, Costs, read_costs, read_totals
from app.analytics.metrics_api import Whom
from app.analytics.shapes import EndpointOut, ModelOut, named_figures
from app.core.clock import EPOCH, hour_of
from app.core.errors import InvalidInput
from app.core.money import divide_half_even, to_usd
from app.summaries.figures import EXAMPLE, FiguresOut, figures
from app.summaries.grains import HOUR, Span, day_of, last_days, last_hours
from app.summaries.sums import Sums
from app.summaries.usage_api import DayOut, day_from
from app.usage.api import INSTANT, instant_from

router = APIRouter(tags=["analytics"])

ALL = 100_000
Days = Annotated[int, Query(ge=1, le=MOST_DAYS, description="Days in UTC, of which today is last")]
_MONTH = {"from": "2026-10-22T00:00:00Z", "to": "2026-11-21T00:00:00Z"}
_MODEL = {"provider": "openai", "model": "gpt-4o-mini", **EXAMPLE}


class CostsOut(FiguresOut):
    """What some days cost. Models, days and endpoints each sum to the whole, none is left out.

    Costs by call are over calls whose cost is known. `by_endpoint` is null where the log no longer
    holds each call of the user.
    """

    from_: datetime = Field(serialization_alias="from")
    to: datetime
    days: int
    total_cost_cents: str
    cost_per_call_usd: str | None
    cost_per_million_tokens_usd: str | None
    cost_per_token_usd: str | None
    tokens_per_call: float | None
    by_model: list[ModelOut]
    by_endpoint: list[EndpointOut] | None
    daily: list[DayOut]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                **_MONTH,
                "days": 30,
                **EXAMPLE,
                "total_cost_cents": "0.432",
                "cost_per_call_usd": "0.00036",
                "cost_per_million_tokens_usd": "0.24",
                "cost_per_token_usd": "0.00000024",
                "tokens_per_call": 1500.0,
                "by_model": [_MODEL],
                "by_endpoint": [{"endpoint": "/v1/chat/completions", **EXAMPLE}],
                "daily": [{"date": "2026-10-22", **EXAMPLE}],
            }
        }
    )


class TotalsOut(FiguresOut):
    """All that was ever used, and the first hour of it."""

    first_hour: datetime | None

    model_config = ConfigDict(
        json_schema_extra={"example": {**EXAMPLE, "first_hour": "2026-11-01T09:00:00Z"}}
    )


class DailyCostOut(FiguresOut):
    """What all users together used on one day in UTC."""

    date: times.date
    by_model: list[ModelOut]

    model_config = ConfigDict(
        json_schema_extra={"example": {"date": "2026-11-20", **EXAMPLE, "by_model": [_MODEL]}}
    )


class BackendOut(FiguresOut):
    """What one backend served."""

    backend: str


class BackendHourOut(BaseModel):
    """An hour, and each backend that served in it."""

    hour: datetime
    backends: list[BackendOut]


class BackendsOut(BaseModel):
    """Hours, newest first, none left out."""

    from_: datetime = Field(serialization_alias="from")
    to: datetime
    items: list[BackendHourOut]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "from": "2026-11-13T12:00:00Z",
                "to": "2026-11-20T13:00:00Z",
                "items": [
                    {
                        "hour": "2026-11-20T12:00:00Z",
                        "backends": [{"backend": "gpu-1", **EXAMPLE}],
                    }
                ],
            }
        }
    )


class PoolOut(FiguresOut):
    """What one pool served, and how many backends its calls named."""

    pool: str
    backends: int


class PoolDayOut(BaseModel):
    """A day in UTC, and each pool that served on it."""

    date: times.date
    pools: list[PoolOut]


class PoolsOut(BaseModel):
    """Days, newest first, none left out."""

    from_: datetime = Field(serialization_alias="from")
    to: datetime
    items: list[PoolDayOut]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                **_MONTH,
                "items": [
                    {
                        "date": "2026-11-20",
                        "pools": [{"pool": "eu", "backends": 2, **EXAMPLE}],
                    }
                ],
            }
        }
    )


@router.get("/v1/analytics/costs")
async def get_costs(
    db: Db, clock: Now, key: Reader, days: Days = 30, user_id: Whom = None
) -> CostsOut:
    """What everyone or one user spent in the last days, by model, endpoint and day."""
    require_user(key, None)
    span = last_days(clock.now(), days)
    return _costs_out(await db.read(lambda tx: read_costs(tx, user_id, span)), span, days)


@router.get("/v1/analytics/totals")
async def get_totals(db: Db, key: Reader) -> TotalsOut:
    """All that everyone ever used."""
    require_user(key, None)
    used, first = await db.read(read_totals)
    return TotalsOut(**figures(used), first_hour=first)


@router.get("/v1/analytics/daily-cost")
async def get_daily_cost(
    db: Db,
    clock: Now,
    key: Reader,
    date: Annotated[str | None, Query(description="`2026-11-20`; without it, today")] = None,
) -> DailyCostOut:
    """What all users together spent on one day in UTC."""
    require_user(key, None)
    day = day_from(date, clock.now())
    span = day_of(day)
    found = await db.read(lambda tx: read_costs(tx, None, span))
    return DailyCostOut(date=day, **figures(found.used), by_model=_models(found))


@router.get("/v1/analytics/backends")
async def get_backends(
    db: Db,
    clock: Now,
    key: Reader,
    backend: Annotated[str | None, Query(max_length=512)] = None,
    since: Annotated[str | None, Query(description=INSTANT)] = None,
    hours: Annotated[int, Query(ge=1, le=MOST_PIECES, description="How many, if no `since`")] = 168,
) -> BackendsOut:
    """What each backend served in each hour, newest first; since an instant, or the last hours."""
    require_user(key, None)
    span = _since(instant_from(since, "since"), hours, clock.now())
    found = await db.read(lambda tx: read_backends(tx, backend, span))
    return BackendsOut(from_=span.start, to=span.end, items=_hours_out(found))


@router.get("/v1/analytics/pools")
async def get_pools(
    db: Db,
    clock: Now,
    key: Reader,
    days: Annotated[int, Query(ge=1, le=MOST_DAYS)] = 30,
) -> PoolsOut:
    """What each pool served on each of the last days in UTC, newest first."""
    require_user(key, None)
    span = last_days(clock.now(), days)
    found = await db.read(lambda tx: read_pools(tx, span))
    items = [
        PoolDayOut(
            date=day.start.date(),
            pools=[
                PoolOut(pool=one.name, backends=one.backends, **figures(one.used)) for one in served
            ],
        )
        for day, served in found
    ]
    return PoolsOut(from_=span.start, to=span.end, items=items)


def _since(since: datetime | None, hours: int, now: datetime) -> Span:
    """From the hour that contains `since`, to the end of the running one."""
    if since is None:
        return last_hours(now, hours)
    end = hour_of(now) + HOUR
    start = hour_of(max(since, EPOCH))
    if start >= end:
        raise InvalidInput.at("/since", "since: lies ahead")
    if end - start > MOST_PIECES * HOUR:
        raise InvalidInput.at("/since", f"since: at most {MOST_PIECES:,} hours ago")
    return Span(start, end)


def _hours_out(found: Pieces) -> list[BackendHourOut]:
    return [
        BackendHourOut(
            hour=hour.start,
            backends=[BackendOut(backend=one.name, **figures(one.used)) for one in served],
        )
        for hour, served in found
    ]


def _models(found: Costs) -> list[ModelOut]:
    return [ModelOut(**one) for one in named_figures(found.models, ("provider", "model"), ALL)]


def _costs_out(found: Costs, span: Span, days: int) -> CostsOut:
    used, endpoints = found.used, found.endpoints
    cost = used.cost_per_call
    named: list[dict[str, Any]] | None = None
    if endpoints is not None:
        named = named_figures(endpoints, ("endpoint",), ALL)
    return CostsOut(
        from_=span.start,
        to=span.end,
        days=days,
        **figures(used),
        total_cost_cents=to_usd(used.cost_nanos * 100),
        cost_per_call_usd=None if cost is None else to_usd(cost),
        cost_per_million_tokens_usd=_per_tokens(used, 1_000_000),
        cost_per_token_usd=_per_tokens(used, 1),
        tokens_per_call=used.tokens_per_call,
        by_model=_models(found),
        by_endpoint=None if named is None else [EndpointOut(**one) for one in named],
        daily=[DayOut(date=day.start.date(), **figures(sums)) for day, sums in found.days],
    )


def _per_tokens(used: Sums, tokens: int) -> str | None:
    """The cost of so many tokens on average, all calls together."""
    if not used.tokens:
        return None
    return to_usd(divide_half_even(used.cost_nanos * tokens, used.tokens))
