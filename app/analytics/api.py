"""What the API answers about usage and its proof."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from app.access.deps import Db, Now, Reader
from app.access.guard import require_user
from app.analytics.as_of import read_as_of
from app.analytics.audit import PROOF_S, prove
from app.analytics.usage import (
    TrendsOut,
    UsageOut,
    read_trends,
    read_usage,
    trend_out,
    usage_out,
)
from app.metrics.figures import Figures
from app.retention.store import ArchiveStore
from app.usage.api import INSTANT, UserId, UserRoute, instant_from, legible

router = APIRouter(route_class=UserRoute)


@router.get("/v1/users/{user_id:path}/usage", tags=["usage"], response_model_exclude_unset=True)
async def get_usage(
    request: Request,
    db: Db,
    clock: Now,
    key: Reader,
    user_id: UserId,
    billing_period: Annotated[
        str | None,
        Query(
            max_length=64,
            description="`2026-11`, the start date, or the instant at which it starts, which tells "
            "those apart that share a key; without it, the one that runs now",
        ),
    ] = None,
    as_of: Annotated[
        str | None, Query(description=f"The period as it was known then. {INSTANT}")
    ] = None,
) -> UsageOut:
    """What a user used in one billing period, and how their limits stand now.

    With `as_of`, what was recorded of it until then; `changed_since` tells what came afterwards.
    """
    require_user(key, user_id)
    legible(user_id, "user_id")
    at = instant_from(as_of, "as_of")
    if at is not None:
        store: ArchiveStore = request.app.state.store
        return await read_as_of(db, store, user_id, billing_period, at, clock.now())
    return usage_out(await db.read(lambda tx: read_usage(tx, user_id, billing_period, clock)))


@router.get("/v1/users/{user_id:path}/usage/trends", tags=["usage"])
async def get_trends(
    db: Db,
    clock: Now,
    key: Reader,
    user_id: UserId,
    periods: Annotated[int, Query(ge=1, le=120)] = 6,
) -> TrendsOut:
    """What a user used in each of the last billing periods, oldest first, none left out."""
    require_user(key, user_id)
    legible(user_id, "user_id")
    now = clock.now()
    found = await db.read(lambda tx: read_trends(tx, user_id, periods, now))
    return TrendsOut(items=[trend_out(period, models) for period, models in found])


class IdentityOut(BaseModel):
    """One thing that must hold, and how many places were compared."""

    name: str
    holds: bool
    compared: int


class DifferenceOut(BaseModel):
    """One place where it does not hold."""

    identity: str
    where: dict[str, str]
    expected: int | str
    found: int | str


_CONSISTENCY: dict[str, Any] = {
    "consistent": False,
    "checked_at": "2026-11-20T12:30:00Z",
    "identities": [{"name": "log_equals_hour_totals", "holds": False, "compared": 42}],
    "differences": [
        {
            "identity": "log_equals_hour_totals",
            "where": {
                "user_id": "alice",
                "provider": "openai",
                "model": "gpt-4o-mini",
                "measure": "calls",
            },
            "expected": 12,
            "found": 11,
        }
    ],
    "difference_count": 1,
}


class ConsistencyOut(BaseModel):
    """Whether the books agree. At most 1,000 differences are shown; the count is of all."""

    consistent: bool
    checked_at: datetime
    identities: list[IdentityOut]
    differences: list[DifferenceOut]
    difference_count: int

    model_config = {"json_schema_extra": {"example": _CONSISTENCY}}


@router.get("/v1/audit/consistency", tags=["audit"])
async def get_consistency(request: Request, db: Db, clock: Now, key: Reader) -> ConsistencyOut:
    """Prove that log, totals, limits and alerts agree, on one snapshot; reads the whole log."""
    require_user(key, None)
    now = clock.now()
    proof = await db.read(lambda tx: prove(tx, now), within_s=PROOF_S)
    figures: Figures = request.app.state.figures
    figures.proof(proof.consistent, proof.differing)
    return ConsistencyOut(
        consistent=proof.consistent,
        checked_at=proof.checked_at,
        identities=[
            IdentityOut(name=one.name, holds=one.holds, compared=one.compared)
            for one in proof.verdicts
        ],
        differences=[DifferenceOut(**one._asdict()) for one in proof.differences],
        difference_count=proof.differing,
    )
