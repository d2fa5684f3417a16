"""Endpoints for holds: what the lean door serves too, and what is asked less often."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.access.api import (
    Body,
    JsonRoute,
    Page,
    PageSize,
    UserId,
    printable,
)
from app.access.deps import Checker, Db, Now
from app.access.guard import require_user
from app.access.keys import Key
from app.core.clock import Clock
from app.db.clock import database_now
from app.db.engine import Tx
from app.ingest.api import EVENT, RECEIPT
from app.ingest.hold_answers import hold_out
from app.ingest.holds_door import LONGEST_S, HoldIn
from app.limits.hold_ends import extend, get_hold, list_open, release
from app.limits.holds import HoldRow
from app.usage.read import MAX_CURSOR, Place, cursor_of, place_of
from app.web.asgi import delegate

router = APIRouter(tags=["holds"], route_class=JsonRoute)

HoldId = Annotated[str, Path(min_length=1, max_length=256), AfterValidator(printable)]
Whose = Annotated[
    str | None,
    Query(alias="user_id", min_length=1, max_length=256, description="Whose hold, if not unique"),
    AfterValidator(printable),
]

ASK: dict[str, Any] = {
    "user_id": "alice",
    "provider": "openai",
    "model": "gpt-4o-mini",
    "usage": {"input_tokens": 1200, "output_tokens": 1000},
    "ttl_s": 120,
}
HOLD: dict[str, Any] = {
    "id": "hold_019aa1f2-7c00-7a31-9c51-0d5f0a7b1c2d",
    "user_id": "alice",
    "status": "open",
    "created_at": "2026-11-20T12:30:00Z",
    "expires_at": "2026-11-20T12:32:00Z",
    "held": [
        {
            "limit_id": "lim_4f0c9a1b2c3d4e5f",
            "name": "monthly budget",
            "metric": "cost_usd",
            "window": "month",
            "scope": {"user_id": "alice"},
            "window_start": "2026-11-01T00:00:00Z",
            "resets_at": "2026-12-01T00:00:00Z",
            "amount": "0.00078",
        }
    ],
    "estimated_cost_usd": "0.00078",
    "estimate": {
        "basis": "usage",
        "detail": "the usage that was stated, at the price of the model",
        "output_tokens": None,
    },
    "provider": "openai",
    "model": "gpt-4o-mini",
    "settled_event_id": None,
    "closed_at": None,
}
_SETTLE = {"event": {name: EVENT[name] for name in ("usage", "latency_ms", "task_type")}}


class ShareOut(BaseModel):
    """What is held of one limit; money as a decimal string."""

    limit_id: str
    name: str
    metric: str
    window: str
    scope: dict[str, str | bool]
    window_start: str
    resets_at: str | None
    amount: int | str


class EstimateOut(BaseModel):
    """What the amounts were taken from; `output_tokens` where it was the model's longest answer."""

    basis: Literal["stated", "usage", "model_maximum", "unknown"]
    detail: str
    output_tokens: int | None


class HoldOut(BaseModel):
    """A hold, and what has become of it; `held` stays what was held when it was granted."""

    id: str
    user_id: str
    status: Literal["open", "settled", "released", "expired"]
    created_at: str
    expires_at: str
    held: list[ShareOut]
    estimated_cost_usd: str | None
    estimate: EstimateOut
    provider: str | None
    model: str | None
    settled_event_id: str | None
    closed_at: str | None

    model_config = ConfigDict(json_schema_extra={"examples": [HOLD]})


class ExtendIn(Body):
    """How long to keep a hold, counted from now."""

    ttl_s: int = Field(ge=1, le=LONGEST_S)

    model_config = ConfigDict(json_schema_extra={"examples": [{"ttl_s": 600}]})


def _example(description: str, example: Any) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"example": example}}}


_BODY: dict[str, Any] = msgspec.json.schema(HoldIn)["$defs"]["HoldIn"] | {"examples": [ASK]}
_HELD = {"model": HoldOut}
_ENDED: dict[int | str, dict[str, Any]] = {409: {"description": "The hold has ended"}}


async def post_hold(request: Request) -> Response:
    """Reserve what a call may use at most, before making it; needs the scope `check`.

    All limits that apply hold their part, or none does and the answer is 429 with the limit that
    is spent in `binding`. An `id` makes it safe to send again. Without `usage` and `cost_usd` the
    longest answer of the model is held, and `estimate` says so.
    """
    return await delegate(request, request.app.state.holds)


async def post_settle(request: Request, hold_id: HoldId) -> Response:
    """Record the call that was made under a hold, and end the hold in the same commit.

    Needs the scope `ingest` or `check`. The event takes user, provider, model, endpoint, team and
    key from the hold where it leaves them out. It is counted in full, more or less than was held,
    also after the hold expired. Sent again it is a duplicate.
    """
    return await delegate(request, request.app.state.settle)


router.add_api_route(
    "/v1/holds",
    post_hold,
    methods=["POST"],
    status_code=201,
    responses={
        201: _HELD | _example("Held", HOLD),
        200: _HELD | _example("The same was asked for before, and still stands", HOLD),
        409: {"description": "The id stands for another hold, or for one that has ended"},
        429: {"description": "It does not fit; nothing is held. `Retry-After` until the reset"},
        503: {"description": "Nothing is held; try again after `Retry-After`"},
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _BODY, "example": ASK}},
        }
    },
    route_class_override=APIRoute,  # the door reads the body itself
)
router.add_api_route(
    "/v1/holds/{hold_id:path}/settle",
    post_settle,
    methods=["POST"],
    status_code=201,
    responses={
        201: _example("Recorded, and the hold ended", RECEIPT),
        200: _example("Sent before", RECEIPT | {"status": "duplicate"}),
        404: {"description": "This user has no such hold"},
        409: {"description": "The hold has ended, or the event's id stands for another event"},
        503: {"description": "Nothing was recorded; try again after `Retry-After`"},
    },
    openapi_extra={
        "parameters": [
            {
                "name": "backfill",
                "in": "query",
                "schema": {"type": "boolean", "default": False},
                "description": "Accept any age; needs the scope `manage`.",
            }
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["event"],
                        "properties": {"event": {"type": "object"}},
                        "examples": [_SETTLE],
                    },
                    "example": _SETTLE,
                }
            },
        },
    },
    route_class_override=APIRoute,
)


def _whose(key: Key, user_id: str | None) -> str | None:
    """The user that a key is bound to, or the one named."""
    if user_id is not None:
        require_user(key, user_id)
    return user_id or key.user_id


async def _answered(tx: Tx, row: HoldRow, clock: Clock) -> HoldOut:
    return _shown(row, await database_now(tx, clock))


def _shown(row: HoldRow, now: datetime) -> HoldOut:
    return HoldOut(**msgspec.to_builtins(hold_out(row, now)))


@router.post("/v1/holds/{hold_id:path}/release", responses=_ENDED)
async def post_release(
    hold_id: HoldId, key: Checker, db: Db, clock: Now, user_id: Whose = None
) -> HoldOut:
    """Give back what is held, the call not having happened; 409 if an event settled the hold."""

    async def work(tx: Tx) -> HoldOut:
        found = await get_hold(tx, hold_id, _whose(key, user_id))
        row = await release(tx, (found.user_id, found.id), clock)
        return await _answered(tx, row, clock)

    return await db.write(work)


@router.post("/v1/holds/{hold_id:path}/extend", responses=_ENDED)
async def post_extend(
    hold_id: HoldId, body: ExtendIn, key: Checker, db: Db, clock: Now, user_id: Whose = None
) -> HoldOut:
    """Keep an open hold for so long from now; 409 if it has ended or expired."""

    async def work(tx: Tx) -> HoldOut:
        found = await get_hold(tx, hold_id, _whose(key, user_id))
        row = await extend(tx, (found.user_id, found.id), body.ttl_s, clock)
        return await _answered(tx, row, clock)

    return await db.write(work)


@router.get("/v1/holds/{hold_id:path}")
async def read_hold(
    hold_id: HoldId, key: Checker, db: Db, clock: Now, user_id: Whose = None
) -> HoldOut:
    """One hold, and what has become of it. Ids are unique per user: `user_id` says whose."""

    async def work(tx: Tx) -> HoldOut:
        row = await get_hold(tx, hold_id, _whose(key, user_id))
        return await _answered(tx, row, clock)

    return await db.read(work)


@router.get("/v1/users/{user_id:path}/holds")
async def list_holds(
    user_id: UserId,
    key: Checker,
    db: Db,
    clock: Now,
    cursor: Annotated[
        str | None, Query(max_length=MAX_CURSOR, description="`next_cursor` of the page before")
    ] = None,
    limit: PageSize = 100,
) -> Page[HoldOut]:
    """The open holds of a user, newest first."""
    require_user(key, user_id)
    after = None if cursor is None else place_of(cursor)

    async def work(tx: Tx) -> Page[HoldOut]:
        now = await database_now(tx, clock)
        rows = await list_open(tx, user_id, now, after, limit + 1)
        further = None
        if len(rows) > limit:
            further = cursor_of(Place(rows[limit - 1].created_at, rows[limit - 1].id))
        return Page(items=[_shown(row, now) for row in rows[:limit]], next_cursor=further)

    return await db.read(work)
