"""Who is signed in: sessions of browsers, and links that sign in once. Only digests are kept."""

import secrets
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import delete, insert, select, update

from app.access.keys import Key, digest_of
from app.access.tables import DashboardSession, SignInLink
from app.db.engine import Tx

LASTS = timedelta(hours=12)
LINK_LASTS = timedelta(minutes=15)


class Session(NamedTuple):
    """One signed-in browser: with which key, and what its forms have to carry."""

    key_id: str
    csrf: str
    expires_at: datetime


async def sign_in(tx: Tx, key: Key, now: datetime) -> str:
    """Begin a session with a key, and return what its cookie holds; it is never seen again.

    Sessions that are over are removed on the way.
    """
    token = secrets.token_urlsafe(32)
    await tx.run(delete(DashboardSession).where(DashboardSession.expires_at <= now))
    row = {
        "digest": digest_of(token),
        "key_id": key.id,
        "csrf": secrets.token_urlsafe(32),
        "created_at": now,
        "expires_at": now + LASTS,
    }
    await tx.run(insert(DashboardSession), [row])
    return token


async def find_session(tx: Tx, token: str, now: datetime) -> Session | None:
    """The session of a cookie, if it goes on. Whether its key still opens, the caller judges."""
    found = DashboardSession
    query = select(found.key_id, found.csrf, found.expires_at)
    row = await tx.first(query.where(found.digest == digest_of(token), found.expires_at > now))
    return None if row is None else Session._make(row)


async def end_session(tx: Tx, token: str) -> None:
    """From the commit on the cookie opens nothing."""
    await tx.run(delete(DashboardSession).where(DashboardSession.digest == digest_of(token)))


async def make_link(tx: Tx, key_id: str, now: datetime) -> str:
    """A token that signs in with that key, once, within a quarter of an hour."""
    token = secrets.token_urlsafe(32)
    await tx.run(delete(SignInLink).where(SignInLink.expires_at <= now))
    row = {
        "digest": digest_of(token),
        "key_id": key_id,
        "expires_at": now + LINK_LASTS,
        "used_at": None,
    }
    await tx.run(insert(SignInLink), [row])
    return token


async def use_link(tx: Tx, token: str, now: datetime) -> str | None:
    """The id of the key that the link stands for; None if it was used, is too old or unknown."""
    link, digest = SignInLink, digest_of(token)
    fresh = (link.digest == digest, link.used_at.is_(None), link.expires_at > now)
    if not await tx.run(update(link).where(*fresh).values(used_at=now)):
        return None
    row = await tx.first(select(link.key_id).where(link.digest == digest))
    return None if row is None else row[0]
