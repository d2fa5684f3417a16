"""Pages of limits: find, look at, make, change, raise and delete them."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from app.access.api import Cursor, Place, page_of, place_of
from app.access.deps import Db, Now
from app.alerts import limit_api
from app.alerts.limit_shapes import FIELDS, LimitIn, RaiseIn, shown_amount
from app.core.errors import Conflict, InvalidInput
from app.core.money import to_usd
from app.dashboard.csv_rows import csv_rows
from app.dashboard.deps import Managing, SeenAll, Viewer, form
from app.dashboard.filled import (
    Filled,
    amount_in,
    body_of,
    instant_in,
    said,
    scope_in,
    wholes_in,
    wrong,
)
from app.dashboard.frame import page
from app.dashboard.limits_page import SCOPES, Asked, Shown, find_limits, shown_limits
from app.dashboard.moves import Note, cursor_links, see
from app.dashboard.plans_page import plan_names
from app.db.engine import Tx
from app.limits.known import ACTIONS, METRICS, Rule
from app.limits.manage import RaiseRow, get_limit, list_raises
from app.limits.windows import WINDOWS
from app.plans.subscriptions import list_plans

router = APIRouter()
HOME = "/dashboard/limits"
ROWS, CSV_ROWS, RAISES, COUNTERS = 25, 5_000, 20, 20
_METRICS = [("cost_usd", "cost in US dollars")] + [
    (name, name.replace("_", " ")) for name in METRICS if name != "cost_usd"
]
_FIELDS = {"match": "model", "scope": "scope_of"}
_NO_FORM = Filled()


# ---- looking ----------------------------------------------------------------------------------


@router.get(HOME)
async def limits(
    viewer: SeenAll,
    db: Db,
    clock: Now,
    q: Annotated[str, Query(max_length=256)] = "",
    action: str = "",
    scope: str = "",
    cursor: Cursor = None,
    format: str = "",
    done: str = "",
) -> Response:
    """Limits, newest first, each as full as its fullest counter is now."""
    asked, before = Asked(q.strip(), action, scope), place_of(cursor)
    most = CSV_ROWS if format == "csv" else ROWS

    async def work(tx: Tx) -> tuple[list[Shown], str | None, dict[str, str]]:
        rows = await find_limits(tx, asked, before, most + 1)
        rules, more = page_of(rows, most, lambda rule: Place(rule.created_at, rule.id))
        found: list[Shown] = []
        for start in range(0, len(rules), 100):
            part = rules[start : start + 100]
            found += await shown_limits(tx, part, clock, plans_later=format != "csv")
        return found, more, await plan_names(tx)

    found, more, names = await db.read(work)
    if format == "csv":
        return csv_rows("limits", _CSV, map(_csv_row, found))
    keep = {"q": asked.text, "action": action, "scope": scope}
    return page(
        viewer,
        "limits.html",
        limits=found,
        plan_names=names,
        asked=asked,
        actions=[(name, name) for name in ACTIONS],
        scopes=list(SCOPES.items()),
        links=cursor_links(HOME, keep, cursor, more),
        done=done,
    )


_CSV = (
    *("id", "name", "scope", "provider", "model", "endpoint", "metric", "window", "time zone"),
    *("action", "amount", "used", "held", "percent", "resets at", "raised until"),
)


def _csv_row(one: Shown) -> list[Any]:
    rule = one.rule
    amounts = [shown_amount(value, rule.metric) for value in (rule.amount, one.used, one.held)]
    return [
        *(rule.id, rule.name, rule.scope_key, rule.provider, rule.model, rule.endpoint),
        *(rule.metric, rule.window, rule.timezone, rule.action, *amounts, one.percent),
        one.resets_at,
        rule.raised_until,
    ]


@router.get(f"{HOME}/new")
async def new(viewer: SeenAll, db: Db, scope: str = "user", of: str = "") -> Response:
    """The form for a limit that does not exist yet."""
    values = {"scope": scope if scope in SCOPES else "user", "scope_of": of[:256]}
    return await _form(viewer, db, None, Filled(values))


async def _form(
    viewer: Viewer, db: Db, rule: Rule | None, filled: Filled, status: int = 200
) -> Response:
    plans = await db.read(lambda tx: list_plans(tx, None, 200))
    return page(
        viewer,
        "limit_edit.html",
        status=status,
        limit=rule,
        filled=filled,
        plans=plans,
        scopes=list(SCOPES.items()),
        metrics=_METRICS,
        windows=[(name, name.replace("_", " ")) for name in WINDOWS],
    )


@router.get(HOME + "/{limit_id}")
async def limit(limit_id: str, viewer: SeenAll, db: Db, clock: Now, done: str = "") -> Response:
    """One limit: how full it is, for whom it is fullest, and what may be done about it."""
    return await _one(viewer, db, clock, limit_id, _NO_FORM, done)


async def _one(
    viewer: Viewer, db: Db, clock: Now, limit_id: str, filled: Filled, done: str, status: int = 200
) -> Response:
    async def work(tx: Tx) -> tuple[Shown, list[RaiseRow], dict[str, str]]:
        rule = await get_limit(tx, limit_id)
        found = (await shown_limits(tx, [rule], clock, COUNTERS))[0]
        raises = await list_raises(tx, limit_id, None, RAISES)
        return found, raises, await plan_names(tx)

    found, raises, names = await db.read(work)
    return page(
        viewer,
        "limit.html",
        status=status,
        one=found,
        plan_names=names,
        raises=raises,
        filled=filled,
        done=done,
        most=COUNTERS,
    )


@router.get(HOME + "/{limit_id}/fullest")
async def fullest(limit_id: str, viewer: SeenAll, db: Db, clock: Now) -> Response:
    """How full a limit is: a part of the lists of limits, which do not wait for it."""

    async def work(tx: Tx) -> Shown:
        return (await shown_limits(tx, [await get_limit(tx, limit_id)], clock))[0]

    return page(viewer, "limit_fill.html", one=await db.read(work))


@router.get(HOME + "/{limit_id}/edit")
async def edit(limit_id: str, viewer: SeenAll, db: Db) -> Response:
    """The form of a limit as it stands."""
    rule = await db.read(lambda tx: get_limit(tx, limit_id))
    kind, _, of = rule.scope_key.partition(":")
    amount = "" if rule.amount is None else str(rule.amount)
    if rule.amount is not None and rule.metric == "cost_usd":
        amount = to_usd(rule.amount)
    plain = ("name", "provider", "model", "endpoint", "metric", "window", "timezone", "action")
    values = {name: getattr(rule, name) or "" for name in plain} | {
        "scope": kind,
        "scope_of": of,
        "amount": amount,
        "thresholds": ", ".join(map(str, rule.thresholds)),
    }
    return await _form(viewer, db, rule, Filled(values))


# ---- deciding ---------------------------------------------------------------------------------


def _body(values: dict[str, str]) -> LimitIn:
    metric = values.get("metric", "")
    facts: dict[str, Any] = said(values, ("name", "metric", "window", "timezone", "action")) | {
        "scope": scope_in(values, FIELDS),
        "match": said(values, ("provider", "model", "endpoint")),
        "amount": amount_in(values.get("amount", ""), metric),
        "thresholds": wholes_in(values.get("thresholds", ""), "/thresholds"),
    }
    return body_of(LimitIn, facts)


@router.post(HOME)
async def make(request: Request, viewer: Managing, db: Db, clock: Now, note: Note) -> Response:
    """Make the limit that the form says, and show it."""
    values = await form(request)
    try:
        made = await limit_api.create(
            body=_body(values), key=viewer.key, db=db, clock=clock, note=note
        )
    except (InvalidInput, Conflict) as error:
        return await _form(viewer, db, None, wrong(values, error, _FIELDS), error.status)
    return see(f"{HOME}/{made.id}?done=made")


@router.post(HOME + "/{limit_id}")
async def change(
    limit_id: str, request: Request, viewer: Managing, db: Db, clock: Now, note: Note
) -> Response:
    """Decide everything about a limit anew, as the form says."""
    values = await form(request)
    try:
        await limit_api.put(
            limit_id, body=_body(values), key=viewer.key, db=db, clock=clock, note=note
        )
    except (InvalidInput, Conflict) as error:
        rule = await db.read(lambda tx: get_limit(tx, limit_id))
        return await _form(viewer, db, rule, wrong(values, error, _FIELDS), error.status)
    return see(f"{HOME}/{limit_id}?done=changed")


@router.post(HOME + "/{limit_id}/raise")
async def raise_for_a_time(
    limit_id: str, request: Request, viewer: Managing, db: Db, clock: Now, note: Note
) -> Response:
    """Put another amount in force until an instant."""
    values = await form(request)
    known = await db.read(lambda tx: get_limit(tx, limit_id))
    facts: dict[str, Any] = {
        "amount": amount_in(values.get("amount", ""), known.metric),
        "until": instant_in(values.get("until", "")),
        **said(values, ("reason",)),
    }
    try:
        await limit_api.post_raise(
            limit_id,
            body=body_of(RaiseIn, facts),
            key=viewer.key,
            db=db,
            clock=clock,
            note=note,
        )
    except InvalidInput as error:
        return await _one(viewer, db, clock, limit_id, wrong(values, error), "", error.status)
    return see(f"{HOME}/{limit_id}?done=raised")


@router.post(HOME + "/{limit_id}/end-raise")
async def end(limit_id: str, viewer: Managing, db: Db, clock: Now, note: Note) -> Response:
    """Put the standing amount in force again."""
    await limit_api.delete_raise(limit_id, key=viewer.key, db=db, clock=clock, note=note)
    return see(f"{HOME}/{limit_id}?done=ended")


@router.post(HOME + "/{limit_id}/delete")
async def delete(limit_id: str, viewer: Managing, db: Db, clock: Now, note: Note) -> Response:
    """Remove a limit and its counters; the alerts that it raised stay readable."""
    await limit_api.delete(limit_id, key=viewer.key, db=db, clock=clock, note=note)
    return see(f"{HOME}?done=deleted")
