"""Keys: 256 random bits, shown once, kept as SHA-256 and found in memory."""

import secrets
from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

from sqlalchemy import func, insert, select, update

from app.access.tables import ApiKey
from app.core.errors import InvalidInput, NotFound, Unauthenticated
from app.core.ids import short_id
from app.db.changes import Feed, announce
from app.db.engine import Database, Tx

SCOPES = ("ingest", "check", "read", "manage", "admin")
PREFIX_LENGTH = 11


class Key(NamedTuple):
    """A key as the doors see it. `admin` may do everything."""

    id: str
    name: str
    prefix: str
    scopes: frozenset[str]
    user_id: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def may(self, scope: str) -> bool:
        """Whether the key carries that scope."""
        return scope in self.scopes or "admin" in self.scopes


def digest_of(token: str) -> str:
    """What is stored of a key. A fast hash is right for 256 random bits."""
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


class KeyRing:
    """Every live key in memory, by digest; reloaded whenever one of them changes.

    Finding a digest in a dictionary tells nothing about a key by its timing: what a caller could
    learn is how a SHA-256 that they cannot steer compares, so no constant-time loop is needed.
    """

    def __init__(self, admin_key: str | None, started_at: datetime) -> None:
        self._reloads = 0
        self._live: dict[str, Key] = {}
        self._fixed: dict[str, Key] = {}
        if admin_key:
            key = Key(
                "key_environment",
                "TOLLGATE_ADMIN_KEY",
                admin_key[:PREFIX_LENGTH],
                frozenset({"admin"}),
                None,
                started_at,
                None,
                None,
            )
            self._fixed[digest_of(admin_key)] = key

    async def reload(self, tx: Tx, _changed: set[str]) -> None:
        """Read every key that was not revoked."""
        self._reloads += 1
        reloads = self._reloads
        rows = await tx.fetch(select(*ApiKey.__table__.c).where(ApiKey.revoked_at.is_(None)))
        if reloads == self._reloads:  # else a later reload, which sees more, has the word
            self._live = {row.digest: _key(row) for row in rows} | self._fixed

    def find(self, token: str, now: datetime) -> Key:
        """The key that this token is.

        Raises:
            Unauthenticated: unknown, revoked or expired.
        """
        key = self._live.get(digest_of(token))
        if key is None:
            raise Unauthenticated("this key is not known, or was revoked")
        if key.expires_at is not None and key.expires_at <= now:
            raise Unauthenticated("this key has expired")
        return key


async def find_fresh(db: Database, feed: Feed, ring: KeyRing, token: str, now: datetime) -> Key:
    """As `KeyRing.find`; a key that is not in memory may have been made a moment ago, elsewhere."""
    try:
        return ring.find(token, now)
    except Unauthenticated:
        await db.glance(feed.catch_up)
        return ring.find(token, now)


def _key(row: Any) -> Key:
    return Key(
        row.id,
        row.name,
        row.prefix,
        frozenset(row.scopes.split(",")),
        row.user_id,
        row.created_at,
        row.expires_at,
        row.revoked_at,
    )


async def create_key(
    tx: Tx,
    *,
    name: str,
    scopes: Iterable[str],
    user_id: str | None,
    expires_at: datetime | None,
    now: datetime,
) -> tuple[Key, str]:
    """Make a key; the second value is the key itself and is never seen again."""
    wanted = sorted(set(scopes))
    if unknown := set(wanted) - set(SCOPES):
        raise InvalidInput.at("/scopes", f"unknown scope: {', '.join(sorted(unknown))}")
    if not wanted:
        raise InvalidInput.at("/scopes", "a key needs at least one scope")
    token = f"tg_{secrets.token_urlsafe(32)}"
    key_id = short_id("key")
    row = {
        "id": key_id,
        "name": name,
        "prefix": token[:PREFIX_LENGTH],
        "digest": digest_of(token),
        "scopes": ",".join(wanted),
        "user_id": user_id,
        "created_at": now,
        "expires_at": expires_at,
        "revoked_at": None,
    }
    await tx.run(insert(ApiKey), [row])
    await announce(tx, "keys", key_id, now)
    key = Key(
        key_id,
        name,
        token[:PREFIX_LENGTH],
        frozenset(wanted),
        user_id,
        now,
        expires_at,
        None,
    )
    return key, token


async def list_keys(tx: Tx) -> list[Key]:
    """Every key there ever was, newest first."""
    rows = await tx.fetch(select(*ApiKey.__table__.c).order_by(ApiKey.created_at.desc(), ApiKey.id))
    return [_key(row) for row in rows]


async def revoke_key(tx: Tx, key_id: str, now: datetime) -> None:
    """From the commit on, the key opens nothing, in any process."""
    changed = await tx.run(
        update(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    if not changed:
        raise NotFound("no such live key", id=key_id)
    await announce(tx, "keys", key_id, now)


async def any_key(tx: Tx) -> bool:
    """Whether a key was ever made."""
    return bool((await tx.fetch(select(func.count()).select_from(ApiKey)))[0][0])
