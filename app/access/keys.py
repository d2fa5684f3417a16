"""Keys: 256 random bits, shown once, kept as SHA-256 and found in memory."""

import secrets
from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

from sqlalchemy import and_, func, insert, or_, select, update
from sqlalchemy.orm import aliased

from app.access.recent import Recent, Uses
from app.access.tables import ApiKey
from app.core.errors import Forbidden, InvalidInput, NotFound, RateLimited, Unauthenticated
from app.core.ids import short_id
from app.db.changes import Feed, announce
from app.db.engine import Database, Tx

SCOPES = ("ingest", "check", "read", "manage", "admin")
PREFIX_LENGTH = 11
ENVIRONMENT = "key_environment"
"""The id of the key in TOLLGATE_ADMIN_KEY, which stands in no table."""
SESSION_OF = "session of "
"""How the name of a key begins that lasts minutes and stands in for another one."""


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
    last_used_at: datetime | None = None
    replaced_by: str | None = None
    replaces: str | None = None
    requests_per_minute: int | None = None

    def may(self, scope: str) -> bool:
        """Whether the key carries that scope."""
        return scope in self.scopes or "admin" in self.scopes

    def has_expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= now

    def is_live(self, now: datetime) -> bool:
        """Whether it opens something: neither revoked nor expired."""
        return self.revoked_at is None and not self.has_expired(now)


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
        self._by_id: dict[str, Key] = {}
        self._fixed: dict[str, Key] = {}
        self._recent: dict[str, Recent] = {}
        self.uses = Uses()
        if admin_key:
            named = (ENVIRONMENT, "TOLLGATE_ADMIN_KEY", admin_key[:PREFIX_LENGTH])
            key = Key(*named, frozenset({"admin"}), None, started_at, None, None)
            self._fixed[digest_of(admin_key)] = key

    async def reload(self, tx: Tx, _changed: set[str]) -> None:
        """Read every key that was not revoked."""
        self._reloads += 1
        reloads = self._reloads
        rows = await tx.fetch(_WITH_REPLACED.where(ApiKey.revoked_at.is_(None)))
        if reloads == self._reloads:  # else a later reload, which sees more, has the word
            self._live = {row.digest: _key(row) for row in rows} | self._fixed
            self._by_id = {key.id: key for key in self._live.values()}
            self._recent = self._counted_together()

    def _counted_together(self) -> dict[str, Recent]:
        """Where the requests of each key with a limit are counted.

        A key and the one that replaces it count in the same place: two of them allow no more.
        """
        limited = [key for key in self._by_id.values() if key.requests_per_minute is not None]
        newest = {key.id: self._newest(key) for key in limited}
        place: dict[str, Recent] = {}
        for key in limited:
            for known in (key.id, key.replaces):
                if known in self._recent:
                    place.setdefault(newest[key.id], self._recent[known])
        return {key_id: place.setdefault(last, Recent()) for key_id, last in newest.items()}

    def _newest(self, key: Key) -> str:
        while key.replaced_by is not None and key.replaced_by in self._by_id:
            key = self._by_id[key.replaced_by]
        return key.id

    def find(self, token: str, now: datetime) -> Key:
        """The key that this token is.

        Raises:
            Unauthenticated: unknown, revoked or expired.
        """
        return _unexpired(self._live.get(digest_of(token)), now)

    def find_still(self, token: str, now: datetime, *scopes: str) -> Key:
        """As `find`, for a request under way: the key may have changed since it began.

        Raises:
            Unauthenticated: unknown, revoked or expired.
            Forbidden: it has none of these scopes any more.
        """
        key = self.find(token, now)
        if not any(key.may(scope) for scope in scopes):
            raise Forbidden("the scopes of this key were changed", scope=scopes[0])
        return key

    def find_by_id(self, key_id: str, now: datetime) -> Key:
        """The key of that id, for whoever has shown it before.

        Raises:
            Unauthenticated: unknown, revoked or expired.
        """
        return _unexpired(self._by_id.get(key_id), now)

    def admit(self, token: str, now: datetime) -> Key:
        """As `find`, where a request begins: it is counted and the key is seen to be in use.

        Raises:
            Unauthenticated: unknown, revoked or expired.
            RateLimited: the key has made as many requests in the last minute as it may.
        """
        key = self.find(token, now)
        if key.id != ENVIRONMENT:
            self.uses.note(key.id, now)
        if key.requests_per_minute is not None:
            wait_s = self._recent[key.id].wait_s(now, key.requests_per_minute)
            if wait_s:
                raise RateLimited(
                    f"this key makes at most {key.requests_per_minute:,} requests a minute",
                    requests_per_minute=key.requests_per_minute,
                    retry_after_s=wait_s,
                )
        return key

    def used_since(self, key: Key) -> datetime | None:
        """When the key was last used, as far as its row and this process know."""
        told = (key.last_used_at, self.uses.last(key.id))
        return max((at for at in told if at is not None), default=None)


def _unexpired(key: Key | None, now: datetime) -> Key:
    if key is None:
        raise Unauthenticated("this key is not known, or was revoked")
    if key.has_expired(now):
        raise Unauthenticated("this key has expired")
    return key


async def find_fresh(
    db: Database, feed: Feed, ring: KeyRing, token: str, now: datetime, *scopes: str
) -> Key:
    """As `KeyRing.admit`; a key may have been made, or given more, a moment ago, elsewhere.

    It is looked at again where it is refused, or has none of the scopes that are asked for.
    """
    try:
        key = ring.admit(token, now)
    except (Unauthenticated, RateLimited):
        await db.glance(feed.catch_up)
        return ring.admit(token, now)
    if not scopes or any(key.may(scope) for scope in scopes):
        return key
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
        row.last_used_at,
        row.replaced_by,
        row.replaces,
        row.requests_per_minute,
    )


async def create_key(
    tx: Tx,
    *,
    name: str,
    scopes: Iterable[str],
    user_id: str | None,
    expires_at: datetime | None,
    now: datetime,
    requests_per_minute: int | None = None,
) -> tuple[Key, str]:
    """Make a key; the second value is the key itself and is never seen again."""
    wanted = judged_scopes(scopes)
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
        "requests_per_minute": requests_per_minute,
    }
    await tx.run(insert(ApiKey), [row])
    await announce(tx, "keys", key_id, now)
    key = Key(
        *(key_id, name, token[:PREFIX_LENGTH], frozenset(wanted), user_id),
        *(now, expires_at, None),
        requests_per_minute=requests_per_minute,
    )
    return key, token


def judged_scopes(scopes: Iterable[str]) -> list[str]:
    """Scopes in order, each once.

    Raises:
        InvalidInput: one is unknown, or there is none.
    """
    wanted = sorted(set(scopes))
    if unknown := set(wanted) - set(SCOPES):
        raise InvalidInput.at("/scopes", f"unknown scope: {', '.join(sorted(unknown))}")
    if not wanted:
        raise InvalidInput.at("/scopes", "a key needs at least one scope")
    return wanted


_replaced = aliased(ApiKey)
_WITH_REPLACED = select(*ApiKey.__table__.c, _replaced.id.label("replaces")).outerjoin(
    _replaced, _replaced.replaced_by == ApiKey.id
)


async def list_keys(
    tx: Tx, after: tuple[datetime, str] | None = None, limit: int | None = None
) -> list[Key]:
    """Keys there ever were, newest first; those that come after a place in that order."""
    query = _WITH_REPLACED.order_by(ApiKey.created_at.desc(), ApiKey.id).limit(limit)
    if after is not None:
        at, key_id = after
        same = and_(ApiKey.created_at == at, ApiKey.id > key_id)
        query = query.where(or_(ApiKey.created_at < at, same))
    return [_key(row) for row in await tx.fetch(query)]


async def get_key(tx: Tx, key_id: str) -> Key:
    """The key of that id, live or not.

    Raises:
        NotFound: there is none.
    """
    row = await tx.first(_WITH_REPLACED.where(ApiKey.id == key_id))
    if row is None:
        raise NotFound("no such key", id=key_id)
    return _key(row)


async def revoke_key(tx: Tx, key_id: str, now: datetime) -> None:
    """From the commit on, the key and the sessions it opened open nothing, in any process."""
    changed = await tx.run(
        update(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    if not changed:
        raise NotFound("no such live key", id=key_id)
    sessions = (ApiKey.name == f"{SESSION_OF}{key_id}", ApiKey.scopes == "ingest")
    await tx.run(
        update(ApiKey).where(*sessions, ApiKey.revoked_at.is_(None)).values(revoked_at=now)
    )
    await announce(tx, "keys", key_id, now)


async def any_key(tx: Tx) -> bool:
    """Whether a key was ever made."""
    return bool((await tx.fetch(select(func.count()).select_from(ApiKey)))[0][0])
