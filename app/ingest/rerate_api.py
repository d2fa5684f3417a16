"""Endpoints for re-rates: see what today's prices would change of past events, then change it."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from app.access.api import (
    Body,
    Cursor,
    Id,
    Instant,
    JsonRoute,
    Name,
    Page,
    PageSize,
    Place,
    Provider,
    page_of,
    place_of,
    printable,
)
from app.access.deps import Manager, Note
from app.access.guard import require_user
from app.core.errors import InvalidInput
from app.core.money import to_usd
from app.db.engine import Tx
from app.ingest.rerate_apply import Parts, apply_rerate
from app.ingest.rerate_plan import plan
from app.ingest.rerate_store import RerateRow, add_rerate, cancel, get_rerate, list_rerates
from app.usage.sweep import RATED, Filter

router = APIRouter(route_class=JsonRoute, tags=["re-rates"])
KIND = "rerate"
MAX_IDS = 1_000
_WHY = "price list corrected"


def parts_of(request: Request) -> Parts:
    """What rating needs of this application."""
    state = request.app.state
    return Parts(state.db, state.feed, state.house, state.clock)


Served = Annotated[Parts, Depends(parts_of)]
EventId = Annotated[str, StringConstraints(min_length=1, max_length=512), AfterValidator(printable)]
Status = Literal["priced", "estimated", "unpriced"]


class RerateFilter(Body):
    """Which events: those that are all of what is given. `from` is included, `to` is not."""

    user_id: Name | None = None
    team_id: Name | None = None
    provider: Provider | None = None
    model: Name | None = None
    since: Instant | None = Field(default=None, alias="from")
    until: Instant | None = Field(default=None, alias="to")
    cost_status: list[Status] | None = Field(default=None, min_length=1, max_length=3)
    event_ids: list[EventId] | None = Field(default=None, min_length=1, max_length=MAX_IDS)


class RerateIn(Body):
    """What to rate by today's prices. Without `dry_run: false` nothing is changed yet."""

    filter: RerateFilter
    dry_run: bool = True
    reason: Name | None = None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "filter": {"model": "gpt-4o-mini", "from": "2026-11-01T00:00:00Z"},
                    "dry_run": True,
                    "reason": _WHY,
                }
            ]
        }
    )


class ShiftOut(BaseModel):
    """Some events that cost something else by today's prices."""

    events: int
    old_cost_usd: str
    new_cost_usd: str
    delta_usd: str


class DayShiftOut(ShiftOut):
    """Those of one day, in UTC."""

    day: str


class ModelShiftOut(ShiftOut):
    """Those of one model."""

    provider: str
    model: str


class UserShiftOut(ShiftOut):
    """Those of one user."""

    user_id: str


class AppliedOut(BaseModel):
    """How far a re-rate has come: events looked at, events changed, and by how much in all."""

    scanned: int
    changed: int
    delta_usd: str


_SHIFT = {"events": 2, "old_cost_usd": "0.0003", "new_cost_usd": "0.00036", "delta_usd": "0.00006"}
_RERATE: dict[str, Any] = {
    "id": "rer_4f0c9a1b2c3d4e5f",
    "state": "planned",
    "created_at": "2026-11-20T12:30:00Z",
    "created_by": "key_4f0c9a1b2c3d4e5f",
    "finished_at": None,
    "reason": _WHY,
    "filter": {"model": "gpt-4o-mini", "from": "2026-11-01T00:00:00Z"},
    "events": 40,
    "changed": 2,
    "old_cost_usd": "0.0003",
    "new_cost_usd": "0.00036",
    "delta_usd": "0.00006",
    "newly_priced": 0,
    "newly_unpriced": 0,
    "would_be_unpriced": 0,
    "corrected": 0,
    "by_day": [{"day": "2026-11-19", **_SHIFT}],
    "by_model": [{"provider": "openai", "model": "gpt-4o-mini", **_SHIFT}],
    "model_count": 1,
    "by_user": [{"user_id": "alice", **_SHIFT}],
    "user_count": 1,
    "applied": {"scanned": 0, "changed": 0, "delta_usd": "0"},
}


class RerateOut(BaseModel):
    """A re-rate: what its plan found, and what was changed so far.

    `events` were looked at; `changed` of them cost something else, and every cost is of those.
    `by_model` and `by_user` name the largest changes; `model_count` and `user_count` say how many
    there are. An event that today's prices do not cover keeps its cost: `would_be_unpriced`. One
    that was voided or corrected stays as it was said to be: `corrected` counts them, `events` does
    not.
    """

    id: str
    state: Literal["planned", "applying", "applied", "cancelled"]
    created_at: datetime
    created_by: str
    finished_at: datetime | None
    reason: str
    filter: dict[str, Any]
    events: int
    changed: int
    old_cost_usd: str
    new_cost_usd: str
    delta_usd: str
    newly_priced: int
    newly_unpriced: int
    would_be_unpriced: int
    corrected: int = 0
    by_day: list[DayShiftOut]
    by_model: list[ModelShiftOut]
    model_count: int
    by_user: list[UserShiftOut]
    user_count: int
    applied: AppliedOut

    model_config = ConfigDict(json_schema_extra={"examples": [_RERATE]})


def filter_in(body: RerateFilter) -> Filter:
    """The filter that a client means."""
    if body.since is not None and body.until is not None and body.since >= body.until:
        raise InvalidInput.at("/filter/to", "must be after `from`")
    return Filter(
        body.user_id,
        body.team_id,
        body.provider,
        body.model,
        body.since,
        body.until,
        tuple(name for name in RATED if name in (body.cost_status or RATED)),
        tuple(sorted(set(body.event_ids or ()))),
    )


def rerate_out(row: RerateRow) -> RerateOut:
    """A re-rate for the wire."""
    names = {"start": "from", "end": "to"}
    return RerateOut(
        id=row.id,
        state=row.state,  # type: ignore[arg-type]
        created_at=row.created_at,
        created_by=row.created_by,
        finished_at=row.finished_at,
        reason=row.reason,
        filter={names.get(name, name): value for name, value in row.filter.items()},
        applied=AppliedOut(
            scanned=row.scanned_count,
            changed=row.changed_count,
            delta_usd=to_usd(row.delta_nanos),
        ),
        **row.diff,
    )


@router.post("/v1/rerates", status_code=201)
async def create(body: RerateIn, key: Manager, parts: Served, note: Note) -> RerateOut:
    """Plan a re-rate, and with `dry_run: false` apply it at once. Reads every event that is meant.

    A cost that the caller stated is never changed.
    """
    require_user(key, None)
    wanted = filter_in(body.filter)
    diff = await plan(parts.db, wanted, parts.house.prices.catalog)
    kept, now, reason = diff.to_json(), parts.clock.now(), body.reason or ""

    async def work(tx: Tx) -> RerateRow:
        made = await add_rerate(tx, wanted, kept, by=key.id, reason=reason, now=now)
        await note(tx, "plan" if body.dry_run else "apply", KIND, made.id, None, rerate_out(made))
        return made

    row = await parts.db.write(work)
    return rerate_out(row if body.dry_run else await apply_rerate(parts, row.id))


@router.get("/v1/rerates")
async def list_all(
    key: Manager, parts: Served, cursor: Cursor = None, limit: PageSize = 20
) -> Page[RerateOut]:
    """Every re-rate, newest first."""
    require_user(key, None)
    before = place_of(cursor)
    rows = await parts.db.read(lambda tx: list_rerates(tx, before, limit + 1))
    shown, more = page_of(rows, limit, lambda row: Place(row.created_at, row.id))
    return Page(items=[rerate_out(row) for row in shown], next_cursor=more)


@router.get("/v1/rerates/{rerate_id}")
async def get(rerate_id: Id, key: Manager, parts: Served) -> RerateOut:
    """One re-rate, and how far it has come."""
    require_user(key, None)
    return rerate_out(await parts.db.read(lambda tx: get_rerate(tx, rerate_id)))


@router.post("/v1/rerates/{rerate_id}/apply")
async def apply(rerate_id: Id, key: Manager, parts: Served, note: Note) -> RerateOut:
    """Charge the events what they cost by the prices in force now.

    Applied twice, it changes nothing more. One that was interrupted goes on where it stopped; 503
    means that it was, and what was changed until then stays changed.
    """
    require_user(key, None)

    async def asked(tx: Tx) -> None:
        before = rerate_out(await get_rerate(tx, rerate_id))
        await note(tx, "apply", KIND, rerate_id, before, None)

    await parts.db.write(asked)
    return rerate_out(await apply_rerate(parts, rerate_id))


@router.post("/v1/rerates/{rerate_id}/cancel")
async def stop(rerate_id: Id, key: Manager, parts: Served, note: Note) -> RerateOut:
    """Change nothing more; what was changed so far stays. 409 once it was applied to the end."""
    require_user(key, None)
    now = parts.clock.now()

    async def work(tx: Tx) -> RerateOut:
        before = rerate_out(await get_rerate(tx, rerate_id))
        after = rerate_out(await cancel(tx, rerate_id, now))
        await note(tx, "cancel", KIND, rerate_id, before, after)
        return after

    return await parts.db.write(work)
