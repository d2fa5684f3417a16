"""The endpoint for a rebuild: work everything out again, and put right what differs."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from app.access.api import Body, JsonRoute, Name
from app.access.deps import Db, Manager, Note, Now
from app.access.guard import require_user
from app.analytics.api import DifferenceOut
from app.analytics.repair import rebuild

router = APIRouter(route_class=JsonRoute, tags=["audit"])


class RebuildIn(Body):
    """What to work out again: everything, or what one user used. `dry_run` only names it."""

    user_id: Name | None = None
    dry_run: bool = False

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"dry_run": True}, {"user_id": "alice"}]}
    )


_REBUILT: dict[str, Any] = {
    "rebuilt": True,
    "checked": 4210,
    "repaired": [
        {
            "identity": "log_equals_period_totals",
            "where": {
                "user_id": "alice",
                "period_start": "2026-11-01T00:00:00Z",
                "provider": "openai",
                "model": "gpt-4o-mini",
                "measure": "calls",
            },
            "expected": 12,
            "found": 11,
        }
    ],
    "repaired_count": 1,
}


class RebuiltOut(BaseModel):
    """How many rows were worked out again, and which values differed.

    They were put right where `rebuilt` is true. At most 1,000 are shown; the count is of all.
    """

    rebuilt: bool
    checked: int
    repaired: list[DifferenceOut]
    repaired_count: int

    model_config = ConfigDict(json_schema_extra={"example": _REBUILT})


@router.post("/v1/audit/rebuild")
async def post_rebuild(
    key: Manager, db: Db, clock: Now, note: Note, body: RebuildIn | None = None
) -> RebuiltOut:
    """Work totals and limit counters out again from all that was recorded, while ingest goes on.

    Each value that differs is put right and named. Events, alerts and holds are never changed.
    Without a body it is everyone's.
    """
    body = body or RebuildIn()
    require_user(key, body.user_id)
    if not body.dry_run:
        whose = body.user_id or "everyone"
        await db.write(lambda tx: note(tx, "rebuild", "totals", whose, None, None))
    found = await rebuild(db, clock, body.user_id, dry_run=body.dry_run)
    return RebuiltOut(
        rebuilt=found.rebuilt,
        checked=found.checked,
        repaired=[DifferenceOut(**one._asdict()) for one in found.differences],
        repaired_count=found.differing,
    )
