"""Keys that last minutes, for clients that trade their key for a token before they send."""

from datetime import datetime, timedelta

from sqlalchemy import delete, func, select

from app.access.keys import SESSION_OF, Key, create_key
from app.access.tables import ApiKey
from app.core.errors import LimitReached
from app.db.engine import Database, Tx

MOST = 20
"""How many sessions of one key are open at once."""
FORGOTTEN_AFTER = timedelta(hours=1)


async def open_session(db: Database, key: Key, now: datetime, lasts: timedelta) -> tuple[Key, str]:
    """Make a key that may only record events, for the user that `key` is bound to, if any.

    It lasts no longer than `key`. The second value is the key itself and is never seen again.

    Raises:
        LimitReached: 20 sessions of this key are open.
    """
    name = f"{SESSION_OF}{key.id}"
    ends = min(now + lasts, key.expires_at) if key.expires_at else now + lasts

    async def work(tx: Tx) -> tuple[Key, str]:
        await tx.run(
            delete(ApiKey).where(
                ApiKey.name.startswith(SESSION_OF),
                ApiKey.scopes == "ingest",
                ApiKey.expires_at <= now - FORGOTTEN_AFTER,
            )
        )
        count = select(func.count()).select_from(ApiKey)
        row = await tx.first(count.where(ApiKey.name == name, ApiKey.expires_at > now))
        if row is not None and row[0] >= MOST:
            raise LimitReached(f"at most {MOST} sessions of a key at once", retry_after_s=60)
        return await create_key(
            tx,
            name=name,
            scopes=("ingest",),
            user_id=key.user_id,
            expires_at=ends,
            now=now,
            requests_per_minute=key.requests_per_minute,
        )

    return await db.write(work, alone=True)
