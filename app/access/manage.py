"""Change a key, and put a new one in the place of another."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import update

from app.access.keys import ENVIRONMENT, Key, create_key, get_key, revoke_key
from app.access.tables import ApiKey
from app.core.errors import Conflict
from app.db.changes import announce
from app.db.engine import Tx

MOST_A_MINUTE = 100_000
"""The highest limit of requests a minute: a process serves no more."""
DAY_S, LONGEST_OVERLAP_S = 24 * 3600, 30 * 24 * 3600
SOON = timedelta(days=7)


def refuse_environment(key_id: str) -> None:
    """Refuse to change the key that the environment sets.

    Raises:
        Conflict: it is that key.
    """
    if key_id == ENVIRONMENT:
        raise Conflict("this key is TOLLGATE_ADMIN_KEY: change it where that is set, and restart")


def expires_soon(key: Key, now: datetime) -> bool:
    """Whether a live key has a week left at most."""
    return key.is_live(now) and key.has_expired(now + SOON)


async def change_key(tx: Tx, known: Key, changed: Key, now: datetime) -> Key:
    """Give a key another name, other scopes, expiry or rate; the newest word, in every process.

    Raises:
        Conflict: it was revoked, which is for good.
    """
    if known.revoked_at is not None:
        raise Conflict("this key was revoked; make a new one", id=known.id)
    values: dict[str, Any] = {
        "name": changed.name,
        "scopes": ",".join(sorted(changed.scopes)),
        "expires_at": changed.expires_at,
        "requests_per_minute": changed.requests_per_minute,
    }
    await tx.run(update(ApiKey).where(ApiKey.id == known.id).values(**values))
    await announce(tx, "keys", known.id, now)
    return changed


async def rotate_key(
    tx: Tx, known: Key, overlap: timedelta, expires_at: datetime | None, now: datetime
) -> tuple[Key, str, Key]:
    """Make a key with the rights of another, which ends when the overlap is over.

    Gives the new key, the key itself, which is never seen again, and the one that is replaced.
    Without an overlap that opens nothing from the commit on.

    Raises:
        Conflict: it was revoked, has expired, or was replaced before.
    """
    if known.revoked_at is not None:
        raise Conflict("this key was revoked; make a new one", id=known.id)
    if known.has_expired(now):
        raise Conflict("this key has expired; make a new one", id=known.id)
    if known.replaced_by is not None:
        raise Conflict("this key was replaced before", id=known.id, replaced_by=known.replaced_by)
    made, token = await create_key(
        tx,
        name=known.name,
        scopes=known.scopes,
        user_id=known.user_id,
        expires_at=expires_at,
        now=now,
        requests_per_minute=known.requests_per_minute,
    )
    ends = now + overlap if known.expires_at is None else min(now + overlap, known.expires_at)
    replaced = update(ApiKey).where(ApiKey.id == known.id)
    await tx.run(replaced.values(replaced_by=made.id, expires_at=ends))
    if overlap:
        await announce(tx, "keys", known.id, now)
    else:
        await revoke_key(tx, known.id, now)
    return made._replace(replaces=known.id), token, await get_key(tx, known.id)
