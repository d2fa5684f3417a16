"""Endpoints for API keys."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

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
    page_of,
    place_of,
)
from app.access.deps import Admin, Db, Note, Now
from app.access.guard import require_user
from app.access.keys import Key, KeyRing, create_key, get_key, list_keys, revoke_key
from app.access.manage import (
    DAY_S,
    LONGEST_OVERLAP_S,
    MOST_A_MINUTE,
    change_key,
    expires_soon,
    refuse_environment,
    rotate_key,
)
from app.core.errors import InvalidInput
from app.db.engine import Tx

router = APIRouter(prefix="/v1/api-keys", tags=["keys"], route_class=JsonRoute)
KIND = "key"
Scope = Literal["ingest", "check", "read", "manage", "admin"]
Scopes = Annotated[list[Scope], Field(min_length=1, max_length=16)]
PerMinute = Annotated[int, Field(ge=1, le=MOST_A_MINUTE)]


def _known(request: Request) -> KeyRing:
    ring: KeyRing = request.app.state.keys
    return ring


Ring = Annotated[KeyRing, Depends(_known)]


class KeyIn(Body):
    """A key to make. `requests_per_minute`: how many each process admits; null is any number."""

    name: Name
    scopes: Scopes
    user_id: Name | None = None
    expires_at: Instant | None = None
    requests_per_minute: PerMinute | None = None

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "gateway", "scopes": ["ingest", "check"]}]}
    )


class KeyPatch(Body):
    """What shall change of a key; `expires_at: null` is never, a rate of null is any number."""

    name: Name = ""
    scopes: Scopes = Field(default_factory=list)
    expires_at: Instant | None = None
    requests_per_minute: PerMinute | None = None

    model_config = ConfigDict(json_schema_extra={"examples": [{"requests_per_minute": 600}]})


class RotateIn(Body):
    """How long the present key goes on opening; and until when the new one does, if not as long."""

    overlap_s: Annotated[int, Field(ge=0, le=LONGEST_OVERLAP_S)] = DAY_S
    expires_at: Instant | None = None

    model_config = ConfigDict(json_schema_extra={"examples": [{"overlap_s": DAY_S}]})


_KEY: dict[str, Any] = {
    "id": "key_4f0c9a1b2c3d4e5f",
    "prefix": "tg_k3V9xQ2a",
    "name": "gateway",
    "scopes": ["check", "ingest"],
    "user_id": None,
    "created_at": "2026-11-20T12:30:00Z",
    "expires_at": None,
    "expires_soon": False,
    "requests_per_minute": None,
    "replaces": None,
}
_LISTED = _KEY | {"last_used_at": "2026-11-20T12:41:07Z", "replaced_by": None, "revoked_at": None}


class KeyShown(BaseModel):
    """What may be known of a key: everything but the key. `expires_soon`: within a week."""

    id: str
    prefix: str
    name: str
    scopes: list[str]
    user_id: str | None
    created_at: datetime
    expires_at: datetime | None
    expires_soon: bool
    requests_per_minute: int | None
    replaces: str | None


class KeyOut(KeyShown):
    """A key as it is listed. `last_used_at` may be a minute behind."""

    last_used_at: datetime | None
    replaced_by: str | None
    revoked_at: datetime | None

    model_config = ConfigDict(json_schema_extra={"examples": [_LISTED]})


class NewKeyOut(KeyShown):
    """A key just made: `key` is the secret and is never shown again."""

    key: str

    model_config = ConfigDict(json_schema_extra={"examples": [_KEY | {"key": "tg_k3V9xQ2a…"}]})


def key_out(key: Key, now: datetime, last_used_at: datetime | None = None) -> KeyOut:
    """A key for the wire."""
    facts = _facts(key, now)
    return KeyOut(**facts | {"last_used_at": last_used_at or key.last_used_at})


def _facts(key: Key, now: datetime) -> dict[str, Any]:
    return key._asdict() | {"scopes": sorted(key.scopes), "expires_soon": expires_soon(key, now)}


def _ahead(at: datetime | None, now: datetime) -> None:
    if at is not None and at <= now:
        raise InvalidInput.at("/expires_at", "must lie ahead")


@router.post("", status_code=201)
async def create(body: KeyIn, key: Admin, db: Db, clock: Now, note: Note) -> NewKeyOut:
    """Make a key. The answer is the only place where it can be read."""
    require_user(key, None)
    now = clock.now()
    _ahead(body.expires_at, now)

    async def work(tx: Tx) -> tuple[Key, str]:
        made, token = await create_key(
            tx,
            name=body.name,
            scopes=body.scopes,
            user_id=body.user_id,
            expires_at=body.expires_at,
            now=now,
            requests_per_minute=body.requests_per_minute,
        )
        await note(tx, "create", KIND, made.id, None, key_out(made, now))
        return made, token

    made, token = await db.write(work, alone=True)
    return NewKeyOut(**_facts(made, now), key=token)


@router.get("")
async def list_all(
    key: Admin, db: Db, clock: Now, ring: Ring, cursor: Cursor = None, limit: PageSize = 1000
) -> Page[KeyOut]:
    """Every key there ever was, newest first; the one in TOLLGATE_ADMIN_KEY is not among them."""
    require_user(key, None)
    after, now = place_of(cursor), clock.now()
    rows = await db.read(lambda tx: list_keys(tx, after, limit + 1))
    shown, more = page_of(rows, limit, lambda one: Place(one.created_at, one.id))
    items = [key_out(one, now, ring.used_since(one)) for one in shown]
    return Page(items=items, next_cursor=more)


@router.get("/{key_id}")
async def get(key_id: Id, key: Admin, db: Db, clock: Now, ring: Ring) -> KeyOut:
    """One key, live or not."""
    require_user(key, None)
    found = await db.read(lambda tx: get_key(tx, key_id))
    return key_out(found, clock.now(), ring.used_since(found))


@router.patch("/{key_id}")
async def patch(key_id: Id, body: KeyPatch, key: Admin, db: Db, clock: Now, note: Note) -> KeyOut:
    """Change what is named of a key: from the answer on, in every process.

    Another user or another secret is another key.
    """
    require_user(key, None)
    refuse_environment(key_id)
    now = clock.now()
    _ahead(body.expires_at, now)
    said = {name: getattr(body, name) for name in body.model_fields_set}
    if "scopes" in said:
        said["scopes"] = frozenset(said["scopes"])

    async def work(tx: Tx) -> Key:
        known = await get_key(tx, key_id)
        changed = await change_key(tx, known, known._replace(**said), now)
        await note(tx, "change", KIND, key_id, key_out(known, now), key_out(changed, now))
        return changed

    return key_out(await db.write(work, alone=True), now)


@router.post("/{key_id}/rotate", status_code=201)
async def rotate(
    key_id: Id, body: RotateIn, key: Admin, db: Db, clock: Now, note: Note
) -> NewKeyOut:
    """Make a key with the same rights; the present one ends after `overlap_s`, with 0 at once.

    The new key ends when the present one would have ended, unless `expires_at` says otherwise. The
    answer is the only place where it can be read.
    """
    require_user(key, None)
    refuse_environment(key_id)
    now = clock.now()
    _ahead(body.expires_at, now)
    overlap = timedelta(seconds=body.overlap_s)

    async def work(tx: Tx) -> tuple[Key, str]:
        known = await get_key(tx, key_id)
        ends = body.expires_at if "expires_at" in body.model_fields_set else known.expires_at
        made, token, replaced = await rotate_key(tx, known, overlap, ends, now)
        await note(tx, "rotate", KIND, key_id, key_out(known, now), key_out(replaced, now))
        await note(tx, "create", KIND, made.id, None, key_out(made, now))
        return made, token

    made, token = await db.write(work, alone=True)
    return NewKeyOut(**_facts(made, now), key=token)


@router.post("/{key_id}/revoke")
async def revoke(key_id: Id, key: Admin, db: Db, clock: Now, note: Note) -> KeyOut:
    """From the answer on, the key opens nothing; revoking it again changes nothing."""
    require_user(key, None)
    refuse_environment(key_id)
    now = clock.now()

    async def work(tx: Tx) -> Key:
        found = await get_key(tx, key_id)
        return found if found.revoked_at is not None else await _revoked(tx, found, now, note)

    return key_out(await db.write(work, alone=True), now)


@router.delete("/{key_id}", status_code=204)
async def delete(key_id: Id, key: Admin, db: Db, clock: Now, note: Note) -> None:
    """The same as revoking; a key that is not live any more is 404."""
    require_user(key, None)
    refuse_environment(key_id)
    now = clock.now()

    async def work(tx: Tx) -> None:
        await _revoked(tx, await get_key(tx, key_id), now, note)

    await db.write(work, alone=True)


async def _revoked(tx: Tx, found: Key, now: datetime, note: Note) -> Key:
    await revoke_key(tx, found.id, now)
    gone = found._replace(revoked_at=now)
    await note(tx, "revoke", KIND, found.id, key_out(found, now), key_out(gone, now))
    return gone
