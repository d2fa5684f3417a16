"""What ordinary endpoints ask for: the database, the clock, and who is calling."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, ClassVar

from fastapi import Depends, Request
from pydantic import BaseModel

from app.access.changelog import note_change
from app.access.guard import require, token_from
from app.access.keys import Key, KeyRing
from app.core.clock import Clock
from app.db.changes import Feed
from app.db.engine import Database, Tx
from app.web.queries import refuse_unknown


def database(request: Request) -> Database:
    """The database of this application."""
    db: Database = request.app.state.db
    return db


def clock(request: Request) -> Clock:
    """The clock of this application."""
    found: Clock = request.app.state.clock
    return found


def needs(*scopes: str) -> Callable[[Request], Awaitable[Key]]:
    """A dependency: the caller's key, refused unless it carries one of the scopes.

    The newest configuration is read first, so that a key revoked a moment ago, by any process,
    opens nothing.
    """

    async def signed_in(request: Request) -> Key:
        token = token_from(request.headers.get("authorization"), request.headers.get("x-api-key"))
        feed: Feed = request.app.state.feed
        ring: KeyRing = request.app.state.keys
        await database(request).glance(feed.catch_up)
        key = ring.admit(token, clock(request).now())
        if not any(key.may(scope) for scope in scopes[:-1]):
            require(key, scopes[-1])
        request.state.key = key
        refuse_unknown(request)
        return key

    return signed_in


Shown = BaseModel | Mapping[str, Any] | None


class Noted:
    """Writes down a change under the key and the id of the request that makes it."""

    via: ClassVar[str] = "api"

    def __init__(self, request: Request) -> None:
        self._request = request

    async def __call__(
        self, tx: Tx, action: str, kind: str, ref: str, before: Shown, after: Shown
    ) -> None:
        """Write it down in the transaction that changes the thing; as the API shows it."""
        state = self._request.state
        await note_change(
            tx,
            state.key,
            via=self.via,
            action=action,
            kind=kind,
            ref=ref,
            before=_facts(before),
            after=_facts(after),
            now=clock(self._request).now(),
            request_id=getattr(state, "request_id", None),
        )


def _facts(shown: Shown) -> Mapping[str, Any] | None:
    return shown.model_dump(mode="json", by_alias=True) if isinstance(shown, BaseModel) else shown


Db = Annotated[Database, Depends(database)]
Now = Annotated[Clock, Depends(clock)]
Reader = Annotated[Key, Depends(needs("read"))]
Manager = Annotated[Key, Depends(needs("manage"))]
Checker = Annotated[Key, Depends(needs("check"))]
Admin = Annotated[Key, Depends(needs("admin"))]
Note = Annotated[Noted, Depends(Noted)]
