"""Endpoints for plans, and what a user is subscribed to.

Changes of a subscription move the windows of limits, so those endpoints are in `limits/api.py`.
"""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.access.api import (
    Body,
    Cursor,
    Id,
    JsonRoute,
    Name,
    Page,
    PageSize,
    Place,
    UserId,
    page_of,
    place_of,
)
from app.access.deps import Db, Manager, Note, Now, Reader
from app.access.guard import require_user
from app.db.engine import Tx
from app.plans.periods import Terms, calendar_months, period_of
from app.plans.subscriptions import (
    PlanRow,
    add_plan,
    change_plan,
    default_plan,
    get_plan,
    list_plans,
    terms_of,
)

router = APIRouter(route_class=JsonRoute)
KIND = "plan"
PlanName = Annotated[Name, StringConstraints(max_length=128)]


class PlanIn(Body):
    """A plan to make. `default`: who is first seen from now on gets it."""

    name: PlanName
    default: bool = False

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "pro", "default": False}]})


class PlanPut(Body):
    """A plan as it shall be; without `default`, that stays as it is."""

    name: PlanName
    default: bool = Field(default=False)

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "pro"}]})


class PlanPatch(PlanPut):
    """What shall change of a plan."""

    name: PlanName = Field(default="")

    model_config = ConfigDict(json_schema_extra={"examples": [{"default": True}]})


class PlanOut(BaseModel):
    """One plan. Exactly one is the default."""

    id: str
    name: str
    default: bool
    created_at: datetime

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "plan_4f0c9a1b2c3d4e5f",
                    "name": "pro",
                    "default": False,
                    "created_at": "2026-11-20T12:30:00Z",
                }
            ]
        }
    )


def plan_out(plan: PlanRow) -> PlanOut:
    """A plan for the wire."""
    return PlanOut(id=plan.id, name=plan.name, default=plan.is_default, created_at=plan.created_at)


@router.post("/v1/plans", status_code=201, tags=["plans"])
async def create(body: PlanIn, key: Manager, db: Db, clock: Now, note: Note) -> PlanOut:
    """Make a plan; 409 if another one has the name."""
    require_user(key, None)
    now = clock.now()

    async def work(tx: Tx) -> PlanOut:
        made = plan_out(await add_plan(tx, body.name, is_default=body.default, now=now))
        await note(tx, "create", KIND, made.id, None, made)
        return made

    return await db.write(work, alone=True)


@router.get("/v1/plans", tags=["plans"])
async def list_all(
    key: Reader, db: Db, cursor: Cursor = None, limit: PageSize = 100
) -> Page[PlanOut]:
    """Every plan, in the order they were made."""
    require_user(key, None)
    after = place_of(cursor)
    rows = await db.read(lambda tx: list_plans(tx, after, limit + 1))
    shown, more = page_of(rows, limit, lambda plan: Place(plan.created_at, plan.id))
    return Page(items=[plan_out(plan) for plan in shown], next_cursor=more)


@router.get("/v1/plans/{plan_id}", tags=["plans"])
async def get(plan_id: Id, key: Reader, db: Db) -> PlanOut:
    """One plan."""
    require_user(key, None)
    return plan_out(await db.read(lambda tx: get_plan(tx, plan_id)))


@router.put("/v1/plans/{plan_id}", tags=["plans"])
async def put(plan_id: Id, body: PlanPut, key: Manager, db: Db, clock: Now, note: Note) -> PlanOut:
    """Name a plan, and say whether it is the default; 409 if then none would be."""
    require_user(key, None)
    now = clock.now()
    sent = body.model_fields_set

    async def work(tx: Tx) -> PlanOut:
        before = plan_out(await get_plan(tx, plan_id))
        changed = await change_plan(
            tx,
            plan_id,
            name=body.name if "name" in sent else None,
            is_default=body.default if "default" in sent else None,
            now=now,
        )
        after = plan_out(changed)
        await note(tx, "change", KIND, plan_id, before, after)
        return after

    return await db.write(work, alone=True)


@router.patch("/v1/plans/{plan_id}", tags=["plans"])
async def patch(
    plan_id: Id, body: PlanPatch, key: Manager, db: Db, clock: Now, note: Note
) -> PlanOut:
    """Change what is named of a plan."""
    return await put(plan_id, body, key, db, clock, note)


# ---- subscriptions ----------------------------------------------------------------------------


class PeriodOut(BaseModel):
    """A billing period, `start <= t < end`."""

    key: str
    start: datetime
    end: datetime


class SubscriptionOut(BaseModel):
    """The newest terms of a user. `implicit`: nobody agreed to them, the user was never seen.

    `billing_period` is the running one. Terms start at once, or, where events with a timestamp
    ahead of the clock are recorded already, right after the last of those, or when it was said.
    `on_expiry` tells what is from `expires_at` on; with `refused` calls that ask are denied now.
    """

    user_id: str
    plan_id: str
    plan_name: str
    anchor: datetime
    timezone: str
    interval: str
    starts_at: datetime
    expires_at: datetime | None
    on_expiry: str | None
    refused: bool
    billing_period: PeriodOut
    implicit: bool

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user_id": "alice",
                    "plan_id": "plan_4f0c9a1b2c3d4e5f",
                    "plan_name": "pro",
                    "anchor": "2026-11-15T00:00:00Z",
                    "timezone": "UTC",
                    "interval": "month",
                    "starts_at": "2026-11-20T12:30:00Z",
                    "expires_at": "2027-11-15T00:00:00Z",
                    "on_expiry": "fallback",
                    "refused": False,
                    "billing_period": {
                        "key": "2026-11-20",
                        "start": "2026-11-20T12:30:00Z",
                        "end": "2026-12-15T00:00:00Z",
                    },
                    "implicit": False,
                }
            ]
        }
    )


async def subscription_out(
    tx: Tx, user_id: str, terms: Terms, now: datetime, *, implicit: bool = False
) -> SubscriptionOut:
    """A user's terms for the wire."""
    plan = await get_plan(tx, terms.plan_id)
    period = period_of(max(now, terms.starts_at), terms)
    return SubscriptionOut(
        user_id=user_id,
        plan_id=plan.id,
        plan_name=plan.name,
        anchor=terms.anchor_at,
        timezone=terms.timezone,
        interval=terms.interval,
        starts_at=terms.starts_at,
        expires_at=terms.expires_at,
        on_expiry=None if terms.expires_at is None else terms.on_expiry,
        refused=terms.refuses_at(now),
        billing_period=PeriodOut(key=period.key, start=period.start, end=period.end),
        implicit=implicit,
    )


@router.get("/v1/users/{user_id:path}/subscription", tags=["subscriptions"])
async def get_subscription(user_id: UserId, key: Reader, db: Db, clock: Now) -> SubscriptionOut:
    """What a user agreed to; for one never seen, the default plan and calendar months."""
    require_user(key, user_id)
    now = clock.now()

    async def work(tx: Tx) -> SubscriptionOut:
        terms = await terms_of(tx, user_id, now)
        if terms is not None:
            return await subscription_out(tx, user_id, terms, now)
        unseen = calendar_months((await default_plan(tx)).id)
        return await subscription_out(tx, user_id, unseen, now, implicit=True)

    return await db.read(work)
