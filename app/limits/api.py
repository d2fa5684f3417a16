"""Endpoints for how a user stands against limits, and for what moves the windows of limits.

Limits themselves are managed in `alerts/limit_api.py`: making one may raise alerts.
"""

from datetime import datetime
from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field

from app.access.api import Body, Id, Instant, JsonRoute, Name, Page, UserId
from app.access.deps import Db, Manager, Note, Now, Reader
from app.access.guard import require_user
from app.core.clock import EPOCH
from app.core.errors import InvalidInput
from app.db.engine import Tx
from app.limits.door import AskIn, state_out
from app.limits.manage import delete_limits_of_plan, next_start, states_now
from app.plans.api import SubscriptionOut, plan_out, subscription_out
from app.plans.periods import zone
from app.plans.subscriptions import Wish, delete_plan, get_plan, renew, subscribe, terms_of
from app.web.asgi import delegate

router = APIRouter(route_class=JsonRoute)
LAST_ANCHOR_YEAR = 2199
SUBSCRIPTION = "subscription"

_STATE: dict[str, Any] = {
    "id": "lim_4f0c9a1b2c3d4e5f",
    "name": "monthly budget",
    "metric": "cost_usd",
    "window": "billing_period",
    "scope": {"user_id": "alice"},
    "limit": "100",
    "used": "81.2",
    "held": "0",
    "remaining": "18.8",
    "percent_used": 81.2,
    "resets_at": "2026-12-01T00:00:00Z",
    "action": "block",
    "allowed": True,
    "raised_until": None,
}


class StateOut(BaseModel):
    """How far along one limit is in the window running now; `limit` null is unlimited.

    `percent_used` is rounded down; `resets_at` is null of a lifetime, which never does.
    """

    id: str
    name: str
    metric: str
    window: str
    scope: dict[str, str | bool]
    limit: int | str | None
    used: int | str
    held: int | str
    remaining: int | str | None
    percent_used: float
    resets_at: str | None
    action: str
    allowed: bool
    raised_until: str | None

    model_config = ConfigDict(json_schema_extra={"examples": [_STATE]})


class CheckOut(BaseModel):
    """Whether the call may happen, and every limit that was asked; always 200."""

    allowed: bool
    message: str
    estimated_cost_usd: str | None
    binding: StateOut | None
    limits: list[StateOut]
    usage_status: Literal["active", "warning", "limit_reached"]

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "allowed": True,
                    "message": "allowed",
                    "estimated_cost_usd": "0.00036",
                    "binding": None,
                    "limits": [_STATE],
                    "usage_status": "warning",
                }
            ]
        }
    )


_ASK: dict[str, Any] = msgspec.json.schema(AskIn)["$defs"]["AskIn"] | {
    "examples": [
        {
            "user_id": "alice",
            "provider": "openai",
            "model": "gpt-4o-mini",
            "usage": {"input_tokens": 1200, "output_tokens": 300},
        }
    ]
}


_VERDICT: dict[str, Any] = {
    "allowed": True,
    "message": "allowed",
    "estimated_cost_usd": "0.00036",
    "binding": None,
    "limits": [_STATE],
    "usage_status": "active",
}


async def check(request: Request) -> Response:
    """May this call happen? Reads what is committed; needs a key with the scope `check`."""
    return await delegate(request, request.app.state.check)


router.add_api_route(
    "/v1/limits/check",
    check,
    methods=["POST"],
    tags=["limits"],
    responses={
        200: {
            "model": CheckOut,
            "description": "The verdict",
            "content": {"application/json": {"example": _VERDICT}},
        }
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ASK, "example": _ASK["examples"][0]}},
        }
    },
    route_class_override=APIRoute,  # the door reads the body itself
)


@router.get("/v1/users/{user_id:path}/limits", tags=["limits"])
async def list_states(user_id: UserId, key: Reader, db: Db, clock: Now) -> Page[StateOut]:
    """Every limit that applies to a user, and how far along it is now."""
    require_user(key, user_id)
    states = await db.read(lambda tx: states_now(tx, user_id, clock))
    return Page(items=[StateOut(**state_out(state)) for state in states])


@router.delete("/v1/plans/{plan_id}", status_code=204, tags=["plans"])
async def remove_plan(plan_id: Id, key: Manager, db: Db, clock: Now, note: Note) -> None:
    """Remove a plan and its limits; 409 if it is the default or anyone is or was on it."""
    require_user(key, None)
    now = clock.now()

    async def work(tx: Tx) -> None:
        await note(tx, "delete", "plan", plan_id, plan_out(await get_plan(tx, plan_id)), None)
        await delete_plan(tx, plan_id, now)
        await delete_limits_of_plan(tx, plan_id, now)

    await db.write(work, alone=True)


# ---- subscriptions ----------------------------------------------------------------------------


class SubscriptionIn(Body):
    """Terms to agree to; what is left out stays as it is, or is calendar months in UTC."""

    plan_id: Name
    anchor: Instant | None = None
    timezone: str | None = Field(default=None, min_length=1, max_length=64)
    interval: Literal["month", "year", "quarter", "week", "day"] | None = None
    starts_at: Instant | None = None
    expires_at: Instant | None = None
    on_expiry: Literal["fallback", "renew", "refuse"] | None = None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "plan_id": "plan_4f0c9a1b2c3d4e5f",
                    "anchor": "2026-11-15T00:00:00Z",
                    "timezone": "Europe/Berlin",
                    "interval": "month",
                    "expires_at": "2027-11-15T00:00:00Z",
                    "on_expiry": "fallback",
                }
            ]
        }
    )


@router.put("/v1/users/{user_id:path}/subscription", tags=["subscriptions"])
async def put_subscription(
    user_id: UserId, body: SubscriptionIn, key: Manager, db: Db, clock: Now, note: Note
) -> SubscriptionOut:
    """Subscribe a user to a plan.

    The first terms of a user nobody ever saw hold for all time: periods are counted from the
    anchor both ways. Whoever has terms, if only by having sent an event, keeps them until now; the
    new ones start a new period at once, or right after the last event recorded with a timestamp
    ahead of the clock, or at `starts_at`. Nothing that was counted moves. Asking again changes
    nothing, and another expiry alone starts no period. At `expires_at` the user falls back to the
    default plan of today and calendar months (`fallback`), starts a new period on the same terms
    (`renew`), or is refused when asking while events still count (`refuse`); null is never.
    """
    require_user(key, user_id)
    says_expiry = "expires_at" in body.model_fields_set
    expiry = (says_expiry, body.expires_at, body.on_expiry)
    wish = Wish(body.plan_id, body.anchor, body.timezone, body.interval, *expiry)
    if body.anchor is not None and not EPOCH.year <= body.anchor.year <= LAST_ANCHOR_YEAR:
        raise InvalidInput.at("/anchor", f"between {EPOCH.year} and {LAST_ANCHOR_YEAR}")
    if body.timezone is not None:
        try:
            zone(body.timezone)
        except KeyError:
            raise InvalidInput.at("/timezone", "no such IANA time zone") from None
    now = clock.now()
    if body.starts_at is not None and body.starts_at <= now:
        raise InvalidInput.at("/starts_at", "must lie ahead; without it terms start at once")

    async def work(tx: Tx) -> SubscriptionOut:
        before = await _agreed(tx, user_id, now)
        earliest = await next_start(tx, user_id, now)
        starts_at = max(earliest, body.starts_at or earliest)
        terms = await subscribe(tx, user_id, wish, earliest=earliest, starts_at=starts_at, now=now)
        agreed = await subscription_out(tx, user_id, terms, now)
        await note(tx, "subscribe", SUBSCRIPTION, user_id, before, agreed)
        return agreed

    return await db.write(work, alone=True)


async def _agreed(tx: Tx, user_id: str, now: datetime) -> SubscriptionOut | None:
    """What a user has agreed to so far; None for one never seen."""
    terms = await terms_of(tx, user_id, now)
    return None if terms is None else await subscription_out(tx, user_id, terms, now)


@router.post("/v1/users/{user_id:path}/subscription/renew", tags=["subscriptions"])
async def post_renew(
    user_id: UserId, key: Manager, db: Db, clock: Now, note: Note
) -> SubscriptionOut:
    """Start a new period now, on the same terms, counted from now; nothing is zeroed or lost.

    "Now" is right after the last recorded event, if that has a timestamp ahead of the clock: what
    was counted in the period that ends stays in it, and the new one starts empty.
    """
    require_user(key, user_id)
    now = clock.now()

    async def work(tx: Tx) -> SubscriptionOut:
        before = await _agreed(tx, user_id, now)
        starts_at = await next_start(tx, user_id, now)
        terms = await renew(tx, user_id, starts_at=starts_at, now=now)
        agreed = await subscription_out(tx, user_id, terms, now)
        await note(tx, "renew", SUBSCRIPTION, user_id, before, agreed)
        return agreed

    return await db.write(work, alone=True)


@router.post("/v1/users/{user_id:path}/usage/reset", tags=["subscriptions"])
async def post_reset(
    user_id: UserId, key: Manager, db: Db, clock: Now, note: Note
) -> SubscriptionOut:
    """Start a new period now: the same as renewing the subscription."""
    return await post_renew(user_id, key, db, clock, note)
