"""Endpoints for prices and models."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.access.api import Body, Instant, JsonRoute, Name, Page, PageSize, Provider
from app.access.deps import Now, Reader, needs
from app.access.guard import require_user
from app.access.keys import Key
from app.core.errors import InvalidInput, NotFound
from app.core.money import to_usd
from app.pricing.entries import ALWAYS, MIDNIGHT
from app.pricing.known import Prices
from app.pricing.quote import Line, explain
from app.pricing.usage import usage_of

router = APIRouter(route_class=JsonRoute)


def prices(request: Request) -> Prices:
    """The prices that this application knows."""
    found: Prices = request.app.state.prices
    return found


Known = Annotated[Prices, Depends(prices)]
Estimator = Annotated[Key, Depends(needs("check", "read"))]
Short = Annotated[str, StringConstraints(max_length=64)]
Text = Annotated[str, StringConstraints(max_length=512)]


def start_of_page(cursor: str | None) -> int:
    """The place in a list in memory where a page begins.

    Raises:
        InvalidInput: not a cursor of such a list.
    """
    if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 10):
        raise InvalidInput.at("/cursor", "not a cursor of this list")
    return int(cursor or 0)


class EstimateIn(Body):
    """A call to price, as an event would describe it."""

    provider: Provider | None = None
    model: Name | None = None
    usage: dict[str, Any] = Field(max_length=64, description="Counters, as an event has them.")
    timestamp: Instant | None = None
    context: dict[Short, Text] | None = Field(default=None, max_length=16)
    user_id: Name | None = None
    team_id: Name | None = None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "provider": "openai",
                    "model": "gpt-4o-mini",
                    "usage": {"input_tokens": 1200, "output_tokens": 300},
                }
            ]
        }
    )


class LineOut(BaseModel):
    """One kind of unit; the amounts of all lines sum to the cost, to the last nano-dollar.

    `price_row` is the id of the price entry that the rate is from, see `GET /v1/prices/{price_id}`.
    """

    unit: str
    quantity: int | float
    usd_per_block: str
    block: int
    amount_usd: str
    price_row: str


def line_out(line: Line) -> LineOut:
    """A line for the wire."""
    return LineOut(
        unit=line.unit,
        quantity=line.quantity,
        usd_per_block=line.usd,
        block=line.block,
        amount_usd=to_usd(line.amount_nanos),
        price_row=line.row,
    )


class EstimateOut(BaseModel):
    """What the call would cost; null is an unknown price, "0" is free."""

    cost_usd: str | None
    cost_nano_usd: int | None
    cost_status: str
    price_ref: str
    tier: str
    why: str
    lines: list[LineOut]

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "cost_usd": "0.00036",
                    "cost_nano_usd": 360000,
                    "cost_status": "priced",
                    "price_ref": "cat_1a2b3c4d:openai/gpt-4o-mini",
                    "tier": "",
                    "why": "as written",
                    "lines": [
                        {
                            "unit": "input_mtok",
                            "quantity": 1200,
                            "usd_per_block": "0.15",
                            "block": 1000000,
                            "amount_usd": "0.00018",
                            "price_row": "cat_1a2b3c4d:openai/gpt-4o-mini",
                        },
                        {
                            "unit": "output_mtok",
                            "quantity": 300,
                            "usd_per_block": "0.6",
                            "block": 1000000,
                            "amount_usd": "0.00018",
                            "price_row": "cat_1a2b3c4d:openai/gpt-4o-mini",
                        },
                    ],
                }
            ]
        }
    )


@router.post("/v1/prices/estimate", tags=["prices"])
async def estimate(body: EstimateIn, key: Estimator, known: Known, clock: Now) -> EstimateOut:
    """Price a call, line by line; nothing is stored."""
    if body.user_id is not None:
        require_user(key, body.user_id)
    usage = usage_of(body.usage)
    at = body.timestamp or clock.now()
    call = (body.provider, body.model, at, usage, body.context)
    try:
        found = explain(known.catalog, *call, body.user_id or key.user_id, body.team_id)
    except OverflowError:
        raise InvalidInput.at("/usage", "a cost beyond $9.2 billion cannot be told") from None
    cost, status, price_ref = found.quote
    return EstimateOut(
        cost_usd=None if cost is None else to_usd(cost),
        cost_nano_usd=cost,
        cost_status=status,
        price_ref=price_ref,
        tier=found.tier,
        why=found.why,
        lines=[line_out(line) for line in found.lines],
    )


class TierOut(BaseModel):
    """The rate of a unit from a call's total input on."""

    above_input_tokens: int
    usd: str


class RateOut(BaseModel):
    """What a block of one unit costs, and the price entry that says so.

    Thresholds are of the call's total input; of the unit's own quantity where it is no token, or
    the rate is `graduated`, so that each part has its own rate.
    """

    unit: str
    counter: str
    block: int
    tiers: list[TierOut]
    graduated: bool
    price_row: str


class ResolutionOut(BaseModel):
    """Which price a spelling means. `sure` is false where a name or condition was guessed.

    The price holds from `effective_from` until `effective_to` (null: always, for ever) and, where
    it changes with the time of day, in `hours` of UTC.
    """

    provider: str
    model: str
    name: str
    origin: str
    why: str
    sure: bool
    price_ref: str
    effective_from: datetime | None
    effective_to: datetime | None
    hours: str | None
    weekdays: list[int]
    rates: list[RateOut]

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "provider": "openai",
                    "model": "gpt-4o-mini",
                    "name": "gpt 4o mini",
                    "origin": "genai",
                    "why": "as written",
                    "sure": True,
                    "price_ref": "cat_1a2b3c4d:openai/gpt-4o-mini",
                    "effective_from": None,
                    "effective_to": None,
                    "hours": None,
                    "weekdays": [],
                    "rates": [
                        {
                            "unit": "input_mtok",
                            "counter": "input_tokens",
                            "block": 1000000,
                            "tiers": [{"above_input_tokens": 0, "usd": "0.15"}],
                            "graduated": False,
                            "price_row": "cat_1a2b3c4d:openai/gpt-4o-mini",
                        }
                    ],
                }
            ]
        }
    )


@router.get("/v1/prices/resolve", tags=["prices"])
async def resolve(
    key: Reader,
    known: Known,
    clock: Now,
    provider: Annotated[Provider | None, Query()] = None,
    model: Annotated[Name | None, Query()] = None,
    at: Annotated[Instant | None, Query(description="An instant; default: now.")] = None,
    user_id: Annotated[Name | None, Query(description="With this user's own prices.")] = None,
    team_id: Annotated[Name | None, Query(description="With this team's own prices.")] = None,
) -> ResolutionOut:
    """Which price a provider and model, as spelled, are charged at; 404 where none is known."""
    if user_id is not None:
        require_user(key, user_id)
    if provider is None and model is None:
        raise InvalidInput.at("/model", "model: say which model, or a provider for its default one")
    whose = (user_id or key.user_id, team_id)
    found = known.catalog.resolve(provider, model, at or clock.now(), None, *whose)
    if found is None:
        raise NotFound("no price is known for this provider and model")
    period = found.period
    whole_day = period.begin == period.until == MIDNIGHT
    return ResolutionOut(
        provider=found.provider,
        model=found.model,
        name=found.name,
        origin=found.layer,
        why=found.rule,
        sure=found.sure,
        price_ref=found.price_ref,
        effective_from=None if period.start == ALWAYS else period.start,
        effective_to=period.end,
        hours=None if whole_day else f"{period.begin:%H:%M}-{period.until:%H:%M}",
        weekdays=list(period.weekdays),
        rates=[
            RateOut(
                unit=rate.unit,
                counter=rate.counter,
                block=rate.per,
                tiers=[TierOut(above_input_tokens=above, usd=usd) for above, usd in rate.usd],
                graduated=rate.graduated,
                price_row=rate.row,
            )
            for rate in found.rates
        ],
    )


class ModelOut(BaseModel):
    """A model in the price catalogue."""

    provider: str
    model: str
    name: str

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"provider": "openai", "model": "gpt-4o-mini", "name": "gpt 4o mini"}]
        }
    )


@router.get("/v1/models", tags=["prices"])
async def list_models(
    _: Reader,
    known: Known,
    provider: Annotated[Provider | None, Query()] = None,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
    limit: PageSize = 100,
) -> Page[ModelOut]:
    """Every model with a price, in the catalogue's order; of one provider, if one is named."""
    start = start_of_page(cursor)
    found = [one for one in known.catalog.models() if provider is None or one[0] == provider]
    items = [
        ModelOut(provider=of, model=model, name=name)
        for of, model, name in found[start : start + limit]
    ]
    more = start + limit
    return Page(items=items, next_cursor=str(more) if more < len(found) else None)
