"""Pages of the service itself: the proof, its jobs, its database, retention, drift, settings."""

from typing import NamedTuple

from fastapi import APIRouter, Request, Response

from app.access.deps import Db, Now
from app.analytics.audit import PROOF_S, Proof, prove
from app.analytics.drift import Drift, drift
from app.core.errors import InvalidInput
from app.dashboard.csv_rows import csv_rows
from app.dashboard.deps import Managing, SeenAll, Viewer, form
from app.dashboard.filled import Filled, body_of, whole_in, wrong
from app.dashboard.frame import page
from app.dashboard.moves import Note, SeenAllHere, see
from app.dashboard.system_page import (
    DatabaseShown,
    JobShown,
    Told,
    keep_proof,
    last_proof,
    shown_database,
    shown_jobs,
    shown_settings,
    told,
)
from app.db.engine import Tx
from app.db.migrate import NEWEST
from app.retention import api as retention_api
from app.retention.api import DefaultRetentionIn, WindowDays, Wrapping
from app.retention.policy import Policies, policies
from app.settings import Settings
from app.summaries.grains import last_days

router = APIRouter()
HOME = "/dashboard/system"
BOUNDS = ("max_rows", "keep_rows", "max_age_days", "keep_ids_days")
DRIFT_DAYS, DRIFT_ROWS = 30, 20
_NO_FORM = Filled()


class Stands(NamedTuple):
    """What the page says of the service, read on one snapshot."""

    database: DatabaseShown
    jobs: list[JobShown]
    proof: Told | None
    policies: Policies
    drifts: list[Drift]


@router.get(HOME)
async def system(
    request: Request,
    viewer: SeenAll,
    db: Db,
    parts: Wrapping,
    done: str = "",
    format: str = "",
    table: str = "",
) -> Response:
    """How the service stands."""
    if format == "csv":
        return await _csv(request, viewer, db, table)
    return await _page(request, viewer, db, parts, done=done)


async def _page(
    request: Request,
    viewer: Viewer,
    db: Db,
    parts: Wrapping,
    *,
    done: str = "",
    filled: Filled = _NO_FORM,
    proof: Proof | None = None,
    status: int = 200,
) -> Response:
    names: list[str] = request.app.state.runtime.jobs.names
    days = last_days(viewer.now, DRIFT_DAYS)

    async def work(tx: Tx) -> Stands:
        return Stands(
            await shown_database(tx),
            await shown_jobs(tx, names),
            await last_proof(tx),
            await policies(tx, parts.by_default),
            await drift(tx, days.start, days.end),
        )

    found = await db.read(work)
    policy = found.policies.everyone
    if filled is _NO_FORM:
        bounds = {name: getattr(policy, name) for name in BOUNDS}
        filled = Filled({name: "" if one is None else str(one) for name, one in bounds.items()})
    apart = sorted(found.drifts, key=lambda one: -abs(one.stated_nanos - one.priced_nanos))
    return page(
        viewer,
        "system.html",
        status=status,
        stands=found,
        policy=policy,
        version=request.app.version,
        newest=NEWEST,
        drifts=apart[:DRIFT_ROWS],
        drift_days=DRIFT_DAYS,
        settings=shown_settings(_settings(request)),
        proof=found.proof if proof is None else told(proof),
        differences=[] if proof is None else proof.differences,
        filled=filled,
        done=done,
    )


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.runtime.settings
    return settings


async def _csv(request: Request, viewer: Viewer, db: Db, table: str) -> Response:
    if table == "settings":
        rows = shown_settings(_settings(request))
        return csv_rows("settings", ("name", "value", "is_default", "description"), rows)
    if table == "jobs":
        names: list[str] = request.app.state.runtime.jobs.names
        return csv_rows("jobs", JobShown._fields, await db.read(lambda tx: shown_jobs(tx, names)))
    days = last_days(viewer.now, DRIFT_DAYS)
    found = await db.read(lambda tx: drift(tx, days.start, days.end))
    return csv_rows("drift", (*Drift._fields, "percent"), [(*one, one.percent) for one in found])


@router.post(f"{HOME}/proof")
async def proof(
    request: Request, viewer: SeenAllHere, db: Db, clock: Now, parts: Wrapping
) -> Response:
    """Prove now that log, totals, limits and alerts agree; reads the whole log."""
    now = clock.now()
    found = await db.read(lambda tx: prove(tx, now), within_s=PROOF_S)
    await db.write(lambda tx: keep_proof(tx, found, now))
    if not viewer.part:
        return await _page(request, viewer, db, parts, proof=found)
    return page(viewer, "system_proof.html", proof=told(found), differences=found.differences)


@router.post(f"{HOME}/retention")
async def retention(
    request: Request,
    viewer: Managing,
    db: Db,
    clock: Now,
    note: Note,
    parts: Wrapping,
    days: WindowDays,
) -> Response:
    """Set how long detailed rows are kept for everyone; an empty field sets no bound."""
    values = await form(request)
    try:
        facts = {name: whole_in(values.get(name, ""), f"/{name}") for name in BOUNDS}
        await retention_api.put_default(
            body=body_of(DefaultRetentionIn, facts),
            key=viewer.key,
            db=db,
            clock=clock,
            parts=parts,
            days=days,
            note=note,
        )
    except InvalidInput as error:
        filled = wrong(values, error)
        return await _page(request, viewer, db, parts, filled=filled, status=error.status)
    return see(f"{HOME}?done=retention")
