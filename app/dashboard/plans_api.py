"""Pages of plans: what limits each has, who is on it; make, change and delete one."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from app.access.deps import Db, Now
from app.core.errors import Conflict, InvalidInput
from app.dashboard.csv_rows import csv_rows
from app.dashboard.deps import Managing, SeenAll, Viewer, form
from app.dashboard.filled import Filled, body_of, said, wrong
from app.dashboard.frame import page
from app.dashboard.limits_page import Shown, shown_limits
from app.dashboard.moves import Note, cursor_links, linked, see
from app.dashboard.plans_page import Member, PlanShown, members, shown_plans
from app.db.engine import Tx
from app.limits import api as limits_api
from app.limits.manage import list_limits
from app.plans import api as plans_api
from app.plans.api import PlanIn, PlanPut
from app.plans.subscriptions import PlanRow, get_plan

router = APIRouter()
HOME = "/dashboard/limits/plans"
ROWS, MOST_LIMITS, CSV_ROWS = 50, 100, 100_000
_NO_FORM = Filled()


@router.get(HOME)
async def plans(viewer: SeenAll, db: Db, clock: Now, done: str = "", format: str = "") -> Response:
    """Every plan, with the number of its limits and of the users on it."""
    if format == "csv":
        found = await db.read(lambda tx: shown_plans(tx, clock.now()))
        columns = ("id", "name", "default", "limits", "users", "created at")
        return csv_rows("plans", columns, map(_csv_row, found))
    return await _all(viewer, db, clock, _NO_FORM, done)


def _csv_row(one: PlanShown) -> list[Any]:
    plan = one.plan
    return [plan.id, plan.name, plan.is_default, one.limits, one.users, plan.created_at]


async def _all(
    viewer: Viewer, db: Db, clock: Now, filled: Filled, done: str, status: int = 200
) -> Response:
    found = await db.read(lambda tx: shown_plans(tx, clock.now()))
    return page(viewer, "plans.html", status=status, plans=found, filled=filled, done=done)


@router.get(HOME + "/{plan_id}")
async def plan(
    plan_id: str,
    viewer: SeenAll,
    db: Db,
    clock: Now,
    after: Annotated[str, Query(max_length=256)] = "",
    done: str = "",
    format: str = "",
) -> Response:
    """One plan: its limits, and who is on it."""
    if format == "csv":
        now = clock.now()
        rows = await db.read(lambda tx: members(tx, plan_id, "", CSV_ROWS, now))
        return csv_rows("plan-users", Member._fields, rows)
    return await _one(viewer, db, clock, plan_id, after, _NO_FORM, done)


async def _one(
    viewer: Viewer,
    db: Db,
    clock: Now,
    plan_id: str,
    after: str,
    filled: Filled,
    done: str,
    status: int = 200,
) -> Response:
    now = clock.now()

    async def work(tx: Tx) -> tuple[PlanRow, list[Shown], list[Member]]:
        found = await get_plan(tx, plan_id)
        rules = await list_limits(tx, f"plan:{plan_id}", None, MOST_LIMITS)
        shown = await shown_limits(tx, rules, clock, plans_later=True)
        return found, shown, await members(tx, plan_id, after, ROWS + 1, now)

    found, shown, users = await db.read(work)
    more = users[ROWS - 1].user_id if len(users) > ROWS else None
    url = f"{HOME}/{plan_id}"
    links = cursor_links(url, {}, after or None, None)
    if more:
        links["next"] = linked(url, {"after": more})
    return page(
        viewer,
        "plan.html",
        status=status,
        plan=found,
        limits=shown,
        users=users[:ROWS],
        links=links,
        filled=filled,
        done=done,
    )


@router.post(HOME)
async def make(request: Request, viewer: Managing, db: Db, clock: Now, note: Note) -> Response:
    """Make a plan."""
    values = await form(request)
    facts = said(values, ("name",)) | {"default": "default" in values}
    try:
        made = await plans_api.create(
            body=body_of(PlanIn, facts), key=viewer.key, db=db, clock=clock, note=note
        )
    except (InvalidInput, Conflict) as error:
        return await _all(viewer, db, clock, wrong(values, error), "", error.status)
    return see(f"{HOME}/{made.id}?done=made")


@router.post(HOME + "/{plan_id}")
async def change(
    plan_id: str, request: Request, viewer: Managing, db: Db, clock: Now, note: Note
) -> Response:
    """Rename a plan, or make it the default."""
    values = await form(request)
    facts: dict[str, Any] = {"name": values.get("name", "").strip()}
    if "default" in values:
        facts["default"] = True
    try:
        await plans_api.put(
            plan_id, body=body_of(PlanPut, facts), key=viewer.key, db=db, clock=clock, note=note
        )
    except (InvalidInput, Conflict) as error:
        filled = wrong(values, error)
        return await _one(viewer, db, clock, plan_id, "", filled, "", error.status)
    return see(f"{HOME}/{plan_id}?done=changed")


@router.post(HOME + "/{plan_id}/delete")
async def delete(plan_id: str, viewer: Managing, db: Db, clock: Now, note: Note) -> Response:
    """Remove a plan that nobody was ever on, with its limits."""
    try:
        await limits_api.remove_plan(plan_id, key=viewer.key, db=db, clock=clock, note=note)
    except Conflict as error:
        filled = wrong({}, error)
        return await _one(viewer, db, clock, plan_id, "", filled, "", error.status)
    return see(f"{HOME}?done=deleted")
