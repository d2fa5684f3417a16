"""The endpoint for how far stated costs are from ours."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from app.access.deps import Db, Now, Reader
from app.access.guard import require_user
from app.analytics.costs import MOST_DAYS
from app.analytics.drift import Drift, drift, together
from app.core.money import to_usd
from app.summaries.grains import last_days

router = APIRouter(tags=["analytics"])
Days = Annotated[int, Query(ge=1, le=MOST_DAYS, description="Days in UTC, of which today is last")]
_FIGURES: dict[str, Any] = {
    "events": 1200,
    "events_over_5_percent": 3,
    "stated_cost_usd": "7.7",
    "our_cost_usd": "7.68",
    "drift_percent": 0.26,
}


class DriftFigures(BaseModel):
    """Events that have both costs, how many of them differ by more than 5 %, and both sums.

    `drift_percent` is how much more was stated than our prices come to; null where those are 0.
    """

    events: int
    events_over_5_percent: int
    stated_cost_usd: str
    our_cost_usd: str
    drift_percent: float | None


class DriftItem(DriftFigures):
    """One door and model: `events` is `POST /v1/events`, the others are formats' names."""

    source: str
    provider: str | None
    model: str | None


class DriftOut(DriftFigures):
    """All together, and each door and model by name; the items sum to the whole."""

    from_: datetime = Field(serialization_alias="from")
    to: datetime
    days: int
    items: list[DriftItem]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "from": "2026-10-22T00:00:00Z",
                "to": "2026-11-21T00:00:00Z",
                "days": 30,
                **_FIGURES,
                "items": [
                    {"source": "litellm", "provider": "openai", "model": "gpt-4o", **_FIGURES}
                ],
            }
        }
    )


@router.get("/v1/analytics/drift")
async def get_drift(db: Db, clock: Now, key: Reader, days: Days = 30) -> DriftOut:
    """How far the costs that callers stated are from ours, where both are of the same facts.

    A cost is compared that came with the tokens it was made of, for a call that we have a price
    for; a stated 0 is compared with nothing. A duplicate counts nothing; a void takes its event
    out; a correction compares what the event says then. Wrapping changes nothing. A re-rate moves
    ours where ours is charged; where the stated one is, ours stays that of when it was recorded.
    """
    require_user(key, None)
    span = last_days(clock.now(), days)
    found = await db.read(lambda tx: drift(tx, span.start, span.end))
    items = [
        DriftItem(
            source=one.source,
            provider=one.provider or None,
            model=one.model or None,
            **_figures(one).model_dump(),
        )
        for one in found
    ]
    whole = _figures(together(found)).model_dump()
    return DriftOut(from_=span.start, to=span.end, days=days, items=items, **whole)


def _figures(one: Drift) -> DriftFigures:
    return DriftFigures(
        events=one.events,
        events_over_5_percent=one.events_apart,
        stated_cost_usd=to_usd(one.stated_nanos),
        our_cost_usd=to_usd(one.priced_nanos),
        drift_percent=one.percent,
    )
