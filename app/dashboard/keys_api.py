"""Pages of keys, and of who changed what; both for admins alone."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from app.access import keys_api
from app.access.api import Cursor, Place, page_of, place_of
from app.access.changelog import Change, list_changes
from app.access.deps import Db, Now
from app.access.guard import require
from app.access.keys import SCOPES, SESSION_OF, Key, get_key, list_keys
from app.access.keys_api import KeyIn, KeyOut, KeyPatch, Ring, RotateIn, key_out
from app.core.errors import Conflict, InvalidInput
from app.dashboard.changes_page import differing
from app.dashboard.csv_rows import csv_rows
from app.dashboard.deps import AdminOnly, SeenAll, Viewer, form
from app.dashboard.filled import (
    Filled,
    body_of,
    in_field,
    instant_in,
    overlap_in,
    said,
    whole_in,
    wrong,
)
from app.dashboard.frame import page
from app.dashboard.moves import Note, cursor_links, see

router = APIRouter()
KEYS, CHANGES = "/dashboard/system/keys", "/dashboard/system/changes"
ROWS, CSV_ROWS = 100, 10_000
_NO_FORM = Filled()
Word = Annotated[str, Query(max_length=512)]


def _admin(viewer: Viewer) -> None:
    require(viewer.key, "admin")


# ---- looking ----------------------------------------------------------------------------------


@router.get(KEYS)
async def keys(
    viewer: SeenAll,
    db: Db,
    ring: Ring,
    state: str = "live",
    cursor: Cursor = None,
    done: str = "",
    format: str = "",
) -> Response:
    """Keys, newest first: those that open something, or every one there ever was."""
    _admin(viewer)
    if format == "csv":
        rows = await db.read(lambda tx: list_keys(tx, None, CSV_ROWS))
        shown = [key_out(one, viewer.now, ring.used_since(one)) for one in rows]
        names = tuple(KeyOut.model_fields)
        return csv_rows("keys", names, [[getattr(one, name) for name in names] for one in shown])
    return await _all(viewer, db, ring, state=state, cursor=cursor, done=done)


async def _all(
    viewer: Viewer,
    db: Db,
    ring: Ring,
    *,
    state: str = "live",
    cursor: str | None = None,
    done: str = "",
    made: str | None = None,
    filled: Filled = _NO_FORM,
    status: int = 200,
) -> Response:
    after = place_of(cursor)
    rows = await db.read(lambda tx: list_keys(tx, after, ROWS + 1))
    found, more = page_of(rows, ROWS, lambda one: Place(one.created_at, one.id))
    shown = [
        key_out(one, viewer.now, ring.used_since(one))
        for one in found
        if state == "all" or _is_live(one, viewer)
    ]
    return page(
        viewer,
        "keys.html",
        status=status,
        keys=shown,
        state="all" if state == "all" else "live",
        scopes=SCOPES,
        links=cursor_links(KEYS, {"state": state}, cursor, more),
        made=made,
        filled=filled,
        done=done,
    )


def _is_live(key: Key, viewer: Viewer) -> bool:
    """Whether a key opens something, and somebody made it: sessions come and go by themselves."""
    return key.is_live(viewer.now) and not key.name.startswith(SESSION_OF)


@router.get(KEYS + "/{key_id}")
async def key(key_id: str, viewer: SeenAll, db: Db, ring: Ring, done: str = "") -> Response:
    """One key, and what may be done about it."""
    _admin(viewer)
    return await _one(viewer, db, ring, key_id, done=done)


async def _one(
    viewer: Viewer,
    db: Db,
    ring: Ring,
    key_id: str,
    *,
    done: str = "",
    made: str | None = None,
    filled: Filled = _NO_FORM,
    status: int = 200,
) -> Response:
    found = await db.read(lambda tx: get_key(tx, key_id))
    return page(
        viewer,
        "key.html",
        status=status,
        key=key_out(found, viewer.now, ring.used_since(found)),
        is_live=found.is_live(viewer.now),
        scopes=SCOPES,
        expires_at=in_field(found.expires_at),
        made=made,
        filled=filled,
        done=done,
    )


# ---- deciding ---------------------------------------------------------------------------------


def _facts(values: dict[str, str]) -> dict[str, Any]:
    return {
        "name": values.get("name", "").strip(),
        "scopes": [scope for scope in SCOPES if f"scope_{scope}" in values],
        "expires_at": instant_in(values.get("expires_at", "")),
        "requests_per_minute": whole_in(
            values.get("requests_per_minute", ""), "/requests_per_minute"
        ),
    }


_FIELDS = {"scopes": "scope_read"}


@router.post(KEYS)
async def make(
    request: Request, viewer: AdminOnly, db: Db, clock: Now, note: Note, ring: Ring
) -> Response:
    """Make a key; the page that answers is the only place where it can be read."""
    values = await form(request)
    try:
        facts = _facts(values) | said(values, ("user_id",))
        made = await keys_api.create(
            body=body_of(KeyIn, facts), key=viewer.key, db=db, clock=clock, note=note
        )
    except InvalidInput as error:
        filled = wrong(values, error, _FIELDS)
        return await _all(viewer, db, ring, filled=filled, status=error.status)
    return await _one(viewer, db, ring, made.id, made=made.key, done="made", status=201)


@router.post(KEYS + "/{key_id}")
async def change(
    key_id: str,
    request: Request,
    viewer: AdminOnly,
    db: Db,
    clock: Now,
    note: Note,
    ring: Ring,
) -> Response:
    """Change a key's name, scopes, expiry or rate."""
    values = await form(request)
    known = await db.read(lambda tx: get_key(tx, key_id))
    try:
        facts = _facts(values)
        if values.get("expires_at", "") == in_field(known.expires_at):
            del facts["expires_at"]
        await keys_api.patch(
            key_id,
            body=body_of(KeyPatch, facts),
            key=viewer.key,
            db=db,
            clock=clock,
            note=note,
        )
    except (InvalidInput, Conflict) as error:
        filled = wrong(values, error, _FIELDS)
        return await _one(viewer, db, ring, key_id, filled=filled, status=error.status)
    return see(f"{KEYS}/{key_id}?done=changed")


@router.post(KEYS + "/{key_id}/rotate")
async def rotate(
    key_id: str,
    request: Request,
    viewer: AdminOnly,
    db: Db,
    clock: Now,
    note: Note,
    ring: Ring,
) -> Response:
    """Put a new key in the place of this one, which goes on opening for the overlap."""
    values = await form(request)
    try:
        facts = overlap_in(values)
        made = await keys_api.rotate(
            key_id,
            body=body_of(RotateIn, facts),
            key=viewer.key,
            db=db,
            clock=clock,
            note=note,
        )
    except (InvalidInput, Conflict) as error:
        filled = wrong(values, error, {"overlap_s": "overlap_h"})
        return await _one(viewer, db, ring, key_id, filled=filled, status=error.status)
    return await _one(viewer, db, ring, made.id, made=made.key, done="rotated", status=201)


@router.post(KEYS + "/{key_id}/revoke")
async def revoke(key_id: str, viewer: AdminOnly, db: Db, clock: Now, note: Note) -> Response:
    """From the answer on, the key opens nothing."""
    await keys_api.revoke(key_id, key=viewer.key, db=db, clock=clock, note=note)
    return see(f"{KEYS}?done=revoked")


# ---- who changed what -------------------------------------------------------------------------


@router.get(CHANGES)
async def changes(
    viewer: SeenAll,
    db: Db,
    kind: Word = "",
    ref: Word = "",
    key_id: Word = "",
    cursor: Cursor = None,
    format: str = "",
) -> Response:
    """What was changed by hand, newest first, each with what it was before and after."""
    _admin(viewer)
    after = place_of(cursor)
    most = CSV_ROWS if format == "csv" else ROWS
    rows = await db.read(
        lambda tx: list_changes(tx, kind or None, ref or None, key_id or None, after, most + 1)
    )
    shown, more = page_of(rows, most, lambda one: Place(one.at, one.id))
    if format == "csv":
        return csv_rows("changes", Change._fields, shown)
    keep = {"kind": kind, "ref": ref, "key_id": key_id}
    return page(
        viewer,
        "changes.html",
        differing=differing,
        changes=shown,
        keep=keep,
        links=cursor_links(CHANGES, keep, cursor, more),
    )
