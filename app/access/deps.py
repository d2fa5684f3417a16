"""What ordinary endpoints ask for: the database, the clock, and who is calling."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request

from app.access.guard import require, token_from
from app.access.keys import Key, KeyRing
from app.core.clock import Clock
from app.db.changes import Feed
from app.db.engine import Database


def database(request: Request) -> Database:
    """The database of this application."""
    db: Database = request.app.state.db
    return db


def clock(request: Request) -> Clock:
    """The clock of this application."""
    found: Clock = request.app.state.clock
    return found


def needs(scope: str) -> Callable[[Request], Awaitable[Key]]:
    """A dependency: the caller's key, refused unless it carries the scope.

    The newest configuration is read first, so that a key revoked a moment ago, by any process,
    opens nothing.
    """

    async def signed_in(request: Request) -> Key:
        token = token_from(request.headers.get("authorization"), request.headers.get("x-api-key"))
        feed: Feed = request.app.state.feed
        ring: KeyRing = request.app.state.keys
        await database(request).glance(feed.catch_up)
        key = ring.find(token, clock(request).now())
        require(key, scope)
        return key

    return signed_in


Db = Annotated[Database, Depends(database)]
Now = Annotated[Clock, Depends(clock)]
Reader = Annotated[Key, Depends(needs("read"))]
Manager = Annotated[Key, Depends(needs("manage"))]
Checker = Annotated[Key, Depends(needs("check"))]
Admin = Annotated[Key, Depends(needs("admin"))]
