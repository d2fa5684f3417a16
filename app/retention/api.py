"""Endpoints for retention: how long detailed rows are kept, and wrapping a user's log now."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from app.access.api import Body, JsonRoute, UserId
from app.access.deps import Db, Manager, Note, Now, Reader
from app.access.guard import require_user
from app.core.money import to_usd
from app.db.engine import Tx
from app.retention.policy import (
    Policies,
    Policy,
    judge,
    policies,
    set_policy,
    unset_policy,
)
from app.retention.summary import Group, Result
from app.retention.wrap import Parts, foresee, wrap

router = APIRouter(route_class=JsonRoute, tags=["retention"])
KIND, EVERYONE = "retention", "everyone"
MAX_ROWS, MAX_DAYS = 100_000_000, 36_500
WAIT_S = 5.0
"""How long a wrap that is asked for waits for one that is running."""


def parts_of(request: Request) -> Parts:
    """What wrapping needs of this application."""
    found: Parts = request.app.state.wrap
    return found


def window_of(request: Request) -> int:
    """For how many days an event is accepted after it happened."""
    days: int = request.app.state.runtime.settings.window_past_days
    return days


Wrapping = Annotated[Parts, Depends(parts_of)]
WindowDays = Annotated[int, Depends(window_of)]
Rows = Annotated[int, Field(ge=0, le=MAX_ROWS)]
Days = Annotated[int, Field(ge=1, le=MAX_DAYS)]
_POLICY: dict[str, Any] = {"max_rows": 5000, "keep_rows": 4000, "max_age_days": 90}


class RetentionIn(Body):
    """Bounds to set; null switches one off, what is left out stays as it is."""

    max_rows: Rows | None = None
    keep_rows: Rows | None = None
    max_age_days: Days | None = None

    model_config = ConfigDict(json_schema_extra={"examples": [_POLICY]})


class DefaultRetentionIn(RetentionIn):
    """Bounds for everyone, and for how long ids of wrapped events are known (null: for ever)."""

    keep_ids_days: Days | None = None

    model_config = ConfigDict(json_schema_extra={"examples": [_POLICY | {"keep_ids_days": None}]})


class RetentionOut(BaseModel):
    """When detailed rows of a user are wrapped; a bound that is null is not set.

    `source` is `settings` where nothing was set, `default` for what was set for everyone, `user`
    for a user's own.
    """

    max_rows: int | None
    keep_rows: int | None
    max_age_days: int | None
    keep_ids_days: int | None
    source: Literal["settings", "default", "user"]

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [_POLICY | {"keep_ids_days": None, "source": "settings"}],
        }
    )


def _out(known: Policies, user_id: str | None = None) -> RetentionOut:
    policy = known.everyone if user_id is None else known.of(user_id)
    source: Literal["settings", "default", "user"] = "default" if known.is_set else "settings"
    if user_id is not None and user_id in known.own:
        source = "user"
    return RetentionOut(**policy._asdict(), source=source)


def _merged(policy: Policy, body: RetentionIn, window_days: int) -> Policy:
    """The policy with what is named in the body; rows without a bound keep no number either."""
    said = {name: getattr(body, name) for name in body.model_fields_set}
    if "max_rows" in said and said["max_rows"] is None:
        said.setdefault("keep_rows", None)
    found = policy._replace(**said)
    judge(found, window_days)
    return found


@router.get("/v1/retention")
async def get_default(key: Reader, db: Db, parts: Wrapping) -> RetentionOut:
    """How long detailed rows are kept for everyone who has no retention of their own."""
    return _out(await db.read(lambda tx: policies(tx, parts.by_default)))


@router.put("/v1/retention")
async def put_default(
    body: DefaultRetentionIn,
    key: Manager,
    db: Db,
    clock: Now,
    parts: Wrapping,
    days: WindowDays,
    note: Note,
) -> RetentionOut:
    """Set how long detailed rows are kept for everyone.

    With `keep_ids_days` ids of older wrapped events are forgotten, once a day; from then on events
    of that age are refused by every door, backfills included, so that none counts twice.
    """
    require_user(key, None)

    async def work(tx: Tx) -> RetentionOut:
        known = await policies(tx, parts.by_default)
        await set_policy(tx, None, _merged(known.everyone, body, days), clock.now())
        after = _out(await policies(tx, parts.by_default))
        await note(tx, "change", KIND, EVERYONE, _out(known), after)
        return after

    return await db.write(work, alone=True)


@router.get("/v1/retention/users/{user_id:path}")
async def get_own(user_id: UserId, key: Reader, db: Db, parts: Wrapping) -> RetentionOut:
    """How long a user's detailed rows are kept."""
    require_user(key, user_id)
    return _out(await db.read(lambda tx: policies(tx, parts.by_default, [user_id])), user_id)


@router.put("/v1/retention/users/{user_id:path}")
async def put_own(
    user_id: UserId,
    body: RetentionIn,
    key: Manager,
    db: Db,
    clock: Now,
    parts: Wrapping,
    note: Note,
) -> RetentionOut:
    """Give a user a retention of their own; what is left out is as everyone's is now."""
    require_user(key, user_id)

    async def work(tx: Tx) -> RetentionOut:
        known = await policies(tx, parts.by_default, [user_id])
        now_theirs = known.of(user_id)._replace(keep_ids_days=None)
        await set_policy(tx, user_id, _merged(now_theirs, body, 0), clock.now())
        after = _out(await policies(tx, parts.by_default, [user_id]), user_id)
        await note(tx, "change", KIND, f"user:{user_id}", _out(known, user_id), after)
        return after

    return await db.write(work, alone=True)


@router.delete("/v1/retention/users/{user_id:path}", status_code=204)
async def delete_own(
    user_id: UserId, key: Manager, db: Db, clock: Now, parts: Wrapping, note: Note
) -> None:
    """Have everyone's retention hold for this user again."""
    require_user(key, user_id)

    async def work(tx: Tx) -> None:
        before = _out(await policies(tx, parts.by_default, [user_id]), user_id)
        await unset_policy(tx, user_id, clock.now())
        after = _out(await policies(tx, parts.by_default, [user_id]), user_id)
        await note(tx, "delete", KIND, f"user:{user_id}", before, after)

    await db.write(work, alone=True)


# ---- wrapping now -----------------------------------------------------------------------------

_GROUP: dict[str, Any] = {
    "provider": "openai",
    "billing_period": "2026-08",
    "calls": 1000,
    "errors": 4,
    "input_tokens": 1200000,
    "output_tokens": 300000,
    "cost_usd": "0.36",
    "unpriced_calls": 0,
    "from": "2026-08-01T00:00:12Z",
    "to": "2026-08-19T17:30:00Z",
}


class GroupOut(BaseModel):
    """What the wrapped calls of one provider in one billing period come to."""

    provider: str | None
    billing_period: str
    calls: int
    errors: int
    input_tokens: int
    output_tokens: int
    cost_usd: str
    unpriced_calls: int
    first_at: datetime = Field(serialization_alias="from")
    last_at: datetime = Field(serialization_alias="to")


class WrapOut(BaseModel):
    """What wrapping a user's log did, or with `dry_run` would do.

    `wrapped_events` rows left the log for archives; everything that was counted stays as it was.
    """

    wrapped: bool
    dry_run: bool
    total_before: int
    total_after: int
    wrapped_events: int
    trigger_reasons: list[str]
    groups: list[GroupOut]
    message: str
    max_rows: int | None
    keep_rows: int | None
    max_age_days: int | None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "wrapped": True,
                    "dry_run": False,
                    "total_before": 5200,
                    "total_after": 4000,
                    "wrapped_events": 1200,
                    "trigger_reasons": [
                        "count limit: 5,200 rows are more than 5,000; the newest 4,000 stay"
                    ],
                    "groups": [_GROUP],
                    "message": "wrapped 1,200 of 5,200 rows; 4,000 stay",
                    **_POLICY,
                }
            ]
        }
    )


def wrap_out(result: Result) -> WrapOut:
    """A result for the wire."""
    policy = result.cut.policy
    return WrapOut(
        wrapped=bool(result.wrapped_events) and not result.dry_run,
        dry_run=result.dry_run,
        total_before=result.cut.total,
        total_after=result.total_after,
        wrapped_events=result.wrapped_events,
        trigger_reasons=result.cut.reasons,
        groups=[_group_out(group) for group in result.groups],
        message=result.message,
        max_rows=policy.max_rows,
        keep_rows=policy.keep_rows,
        max_age_days=policy.max_age_days,
    )


def _group_out(group: Group) -> GroupOut:
    figures = group._asdict()
    cost = to_usd(figures.pop("cost_nanos"))
    return GroupOut(**(figures | {"provider": group.provider or None}), cost_usd=cost)


@router.post("/v1/users/{user_id:path}/logs/wrap")
async def wrap_now(
    user_id: UserId,
    key: Manager,
    parts: Wrapping,
    note: Note,
    dry_run: Annotated[bool, Query(description="Say what would be wrapped, and stop.")] = False,
) -> WrapOut:
    """Wrap a user's log as far as their retention asks for it; a job does the same by itself.

    Rows go to archives, and groups of what they add up to stay in their place: totals, limits and
    alerts do not change, and their ids stay known. Rows without a price are wrapped by age only.
    409 while another wrap is running; 503 where archives cannot be kept now. Either way what was
    not wrapped is in the log as before, and it can be asked for again.
    """
    require_user(key, user_id)
    if dry_run:
        return wrap_out(await foresee(parts, user_id))
    await parts.db.write(lambda tx: note(tx, "wrap", "log", user_id, None, None))
    return wrap_out((await wrap(parts, [user_id], wait_s=WAIT_S))[0])
