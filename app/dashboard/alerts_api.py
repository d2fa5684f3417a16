"""Pages of alerts, and of the rules of what to be told."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from app.access.api import Cursor, Place, page_of, place_of
from app.access.deps import Db, Now
from app.alerts import rule_api
from app.alerts.notices import TYPES, threshold_out
from app.alerts.read import AlertRow, mark_read
from app.alerts.rule_shapes import RuleIn, RulePatch
from app.alerts.rules import AlertRuleRow, list_rules
from app.core.clock import rfc3339
from app.core.errors import Conflict, InvalidInput
from app.dashboard.alerts_page import (
    SEVERITIES,
    Asked,
    find_alerts,
    mark_all_read,
    newest,
    scope_of,
)
from app.dashboard.csv_rows import csv_rows
from app.dashboard.deps import Managing, SeenAll, Viewer, form
from app.dashboard.filled import (
    Filled,
    amount_in,
    body_of,
    said,
    scope_in,
    whole_in,
    wholes_in,
    wrong,
)
from app.dashboard.frame import page
from app.dashboard.moves import Note, SeenAllHere, cursor_links, see
from app.dashboard.overview import MOST_UNREAD, count_unread
from app.db.engine import Tx
from app.limits.windows import WINDOWS

router = APIRouter()
HOME, RULES = "/dashboard/alerts", "/dashboard/alerts/rules"
ROWS, CSV_ROWS = 50, 20_000
SCOPES = {"user": "user_id", "team": "team_id", "plan": "plan_id"}
Whose = Annotated[str, Query(max_length=256)]


@router.get(HOME)
async def alerts(
    viewer: SeenAll,
    db: Db,
    state: str = "unread",
    severity: str = "",
    kind: Annotated[str, Query(alias="type")] = "",
    scope: str = "",
    of: Whose = "",
    cursor: Cursor = None,
    format: str = "",
    done: str = "",
) -> Response:
    """Alerts of everyone, those that nobody has read first."""
    asked = Asked("all" if state == "all" else "unread", severity, kind, scope_of(scope, of))
    before = place_of(cursor)
    most = CSV_ROWS if format == "csv" else ROWS

    async def work(tx: Tx) -> tuple[list[AlertRow], int]:
        return await find_alerts(tx, asked, before, most + 1), await count_unread(tx, viewer.now)

    rows, unread = await db.read(work)
    shown, more = page_of(rows, most, lambda alert: Place(alert.created_at, alert.id))
    if format == "csv":
        return csv_rows("alerts", AlertRow._fields, map(_csv_row, shown))
    keep = {"state": asked.state, "severity": severity, "type": kind, "scope": scope, "of": of}
    latest = newest(shown)
    return page(
        viewer,
        "alerts.html",
        alerts=shown,
        asked=asked,
        keep=keep,
        unread=unread,
        most_unread=MOST_UNREAD,
        until="" if latest is None else rfc3339(latest),
        severities=[(name, name) for name in SEVERITIES],
        types=[(name, name.replace("_", " ")) for name in TYPES],
        links=cursor_links(HOME, keep, cursor, more),
        done=done,
    )


def _csv_row(alert: AlertRow) -> list[Any]:
    facts = alert._asdict() | {"threshold": threshold_out(alert.threshold)}
    return list(facts.values())


@router.post(HOME + "/read")
async def read_all(request: Request, viewer: SeenAllHere, db: Db, clock: Now) -> Response:
    """Mark every alert as read that was on the list, also on its further pages."""
    values = await form(request)
    now = clock.now()
    scope_key = scope_of(values.get("scope", ""), values.get("of", ""))
    asked = Asked("unread", values.get("severity", ""), values.get("type", ""), scope_key)
    until = _instant(values.get("until", ""))
    await db.write(lambda tx: mark_all_read(tx, asked, until, now))
    return see(f"{HOME}?done=read")


@router.post(HOME + "/{alert_id}/read")
async def read_one(alert_id: str, viewer: SeenAllHere, db: Db, clock: Now) -> Response:
    """Mark one alert as read; as a part of the page, the row as it then is."""
    now = clock.now()
    alert = await db.write(lambda tx: mark_read(tx, alert_id, None, now))
    if viewer.part:
        return page(viewer, "alert_row.html", alert=alert)
    return see(HOME)


def _instant(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise InvalidInput.at("/until", "an instant is expected")
    return found


# ---- rules ------------------------------------------------------------------------------------


@router.get(RULES)
async def rules(
    viewer: SeenAll, db: Db, cursor: Cursor = None, done: str = "", format: str = ""
) -> Response:
    """What somebody wants to be told of, or not."""
    if format == "csv":
        found = await db.read(lambda tx: list_rules(tx, limit=CSV_ROWS))
        return csv_rows("alert-rules", AlertRuleRow._fields, found)
    return await _rules(viewer, db, cursor, Filled(), done)


async def _rules(
    viewer: Viewer, db: Db, cursor: str | None, filled: Filled, done: str, status: int = 200
) -> Response:
    after = place_of(cursor)
    rows = await db.read(lambda tx: list_rules(tx, after=after, limit=ROWS + 1))
    shown, more = page_of(rows, ROWS, lambda rule: Place(rule.created_at, rule.id))
    return page(
        viewer,
        "alert_rules.html",
        status=status,
        rules=shown,
        links=cursor_links(RULES, {}, cursor, more),
        windows=[(name, name.replace("_", " ")) for name in WINDOWS],
        filled=filled,
        done=done,
    )


def _body(values: dict[str, str]) -> RuleIn:
    metric = values.get("metric", "")
    facts: dict[str, Any] = said(values, ("name", "type", "limit_id", "metric", "window"))
    facts |= {"scope": scope_in(values, SCOPES), "enabled": values.get("enabled") != "no"}
    for name in ("amount", "min_amount"):
        if values.get(name, "").strip():
            facts[name] = amount_in(values[name], metric or "cost_usd")
    thresholds = wholes_in(values.get("thresholds", ""), "/thresholds")
    if thresholds:
        facts["thresholds"] = thresholds
    sensitivity = whole_in(values.get("sensitivity", ""), "/sensitivity")
    if sensitivity is not None:
        facts["sensitivity"] = sensitivity
    return body_of(RuleIn, facts)


@router.post(RULES)
async def make_rule(request: Request, viewer: Managing, db: Db, clock: Now, note: Note) -> Response:
    """Make the rule that the form says."""
    values = await form(request)
    try:
        await rule_api.create(body=_body(values), key=viewer.key, db=db, clock=clock, note=note)
    except (InvalidInput, Conflict) as error:
        filled = wrong(values, error, {"scope": "scope_of"})
        return await _rules(viewer, db, None, filled, "", error.status)
    return see(f"{RULES}?done=made")


@router.post(RULES + "/{rule_id}/switch")
async def switch(
    rule_id: str, request: Request, viewer: Managing, db: Db, clock: Now, note: Note
) -> Response:
    """Enable or disable a rule."""
    body = RulePatch(enabled=(await form(request)).get("enabled") == "yes")
    await rule_api.patch(rule_id, body=body, key=viewer.key, db=db, clock=clock, note=note)
    return see(f"{RULES}?done=changed")


@router.post(RULES + "/{rule_id}/delete")
async def remove_rule(rule_id: str, viewer: Managing, db: Db, clock: Now, note: Note) -> Response:
    """Remove a rule, and the limit that a threshold is."""
    await rule_api.delete(rule_id, key=viewer.key, db=db, clock=clock, note=note)
    return see(f"{RULES}?done=deleted")
