"""From another program's request to the one intake: the door that all foreign formats share.

A decoder makes drafts of a request: events of ours, and where each came from. They are judged by
the code that judges `POST /v1/events`, and recorded by the same intake.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from app.access.guard import require, require_user, token_of
from app.access.keys import Key, KeyRing, find_fresh
from app.core.clock import Clock
from app.core.errors import (
    AppError,
    BadRequest,
    IdReused,
    InvalidInput,
    OutOfWindow,
    TooLarge,
)
from app.core.money import from_usd, to_usd
from app.db.changes import Feed
from app.db.engine import Database
from app.ingest.calls import Call, Window, calls_from, window_for
from app.ingest.counted import REJECTED, count_statuses
from app.ingest.decode import BATCH_BYTES, MAX_EVENTS, EventIn
from app.ingest.door import LONG_BYTES
from app.ingest.foreign.identity import Identity
from app.ingest.foreign.tally import Tally
from app.ingest.intake import FORGOTTEN, Intake
from app.metrics.figures import Figures
from app.pricing.known import Prices
from app.summaries.drifts import COMPARED, PRICED, STATED, drifts
from app.usage.ledger import Logged
from app.web.lean import LeanRequest
from app.web.strict import UNREADABLE, inflate, refusal

T = TypeVar("T")
E = TypeVar("E", bound=AppError)
_NOWHERE: Mapping[str, str] = MappingProxyType({})
_TURN = 200
"""After so many drafts others have a turn."""


class Draft(NamedTuple):
    """One event of ours as a dict, the pointer to what it was made of, and for our fields the
    pointers to theirs. `comparable`: a stated cost and ours were made of the same facts.
    """

    event: dict[str, Any]
    pointer: str
    places: Mapping[str, str] = _NOWHERE
    comparable: bool = True


Drafts = Sequence[Draft | AppError]
"""An error takes the place of what could not become an event."""


class Opened(NamedTuple):
    """A request whose key may record events, with its body unpacked."""

    headers: Mapping[bytes, bytes]
    key: Key
    token: str
    version: int
    now: datetime
    window: Window | None
    body: bytes

    @property
    def kind(self) -> str:
        """The media type, without its parameters; empty where none is given."""
        given = self.headers.get(b"content-type", b"").decode("latin-1")
        return given.partition(";")[0].strip().lower()


class Told(NamedTuple):
    """What became of a request's drafts, by their places: those judged good, and those refused."""

    total: int
    logged: Mapping[int, Logged]
    refused: Mapping[int, AppError]

    @property
    def recorded(self) -> int:
        """How many events are new."""
        return sum(one.status == "recorded" for one in self.logged.values())

    @property
    def conflicts(self) -> list[int]:
        """Places whose id stands for an event with other content; the first one stays."""
        return [place for place, one in self.logged.items() if one.status == "conflict"]


class Foreign:
    """Opens requests in other programs' formats and hands their drafts to the intake.

    `trust` says when a stated cost wins: `needed`, `always` or `never`.
    """

    def __init__(
        self,
        db: Database,
        feed: Feed,
        keys: KeyRing,
        intake: Intake,
        prices: Prices,
        clock: Clock,
        window: Window,
        identity: Identity,
        tally: Tally,
        trust: str,
        figures: Figures | None = None,
    ) -> None:
        self.figures = figures or Figures(clock)
        self._db, self._feed, self._keys, self._intake = db, feed, keys, intake
        self._prices, self._clock, self._window = prices, clock, window
        self.identity, self.tally, self.trust = identity, tally, trust

    async def open(self, request: LeanRequest, bound: int = BATCH_BYTES) -> Opened:
        """Read a request: its key, the window for its events, and its body, at most `bound` bytes.

        Raises:
            Unauthenticated, Forbidden: no key, or one without `ingest` (`manage` to backfill).
            TooLarge, UnsupportedMedia, InvalidInput: the body cannot be read.
        """
        now, token, version = self._clock.now(), token_of(request.headers), self._feed.version
        key = await find_fresh(self._db, self._feed, self._keys, token, now, "ingest")
        require(key, "ingest")
        backfill = bool(request.query) and request.flag("backfill")
        window = window_for(key, self._window, backfill=backfill)
        body = await request.body(bound)
        if encoding := request.header(b"content-encoding").strip().lower():
            body = inflate(body, encoding, bound)
        return Opened(request.headers, key, token, version, now, window, body)

    async def within(self, user_id: str | None) -> Opened:
        """What stands for a request where a job goes on with what was accepted before.

        `user_id` is the user that the request's key was bound to.
        """
        await self._db.glance(self._feed.catch_up)
        now = self._clock.now()
        key = Key("", "", "", frozenset({"ingest"}), user_id, now, None, None)
        return Opened({}, key, "", self._feed.version, now, None, b"")

    async def submit(
        self, opened: Opened, source: str, drafts: Drafts, *, atomic: bool = False
    ) -> Told:
        """Record the drafts that are good; answer when they are durable.

        `atomic` records all or none: with any refused, `refused` tells why and nothing is logged.

        Raises:
            TooLarge: more than 10,000 drafts.
            Unavailable: nothing was recorded; send it again.
            IdReused, OutOfWindow: `atomic`, and an id stands for another event, or one that is
                forgotten.
        """
        if len(drafts) > MAX_EVENTS:
            raise TooLarge(f"at most {MAX_EVENTS:,} events in one request", events=len(drafts))
        calls: list[Call] = []
        refused: dict[int, AppError] = {}
        places: list[int] = []
        for place, draft in enumerate(drafts):
            if place % _TURN == _TURN - 1:
                await asyncio.sleep(0)
            try:
                if isinstance(draft, AppError):
                    raise draft
                found = judged(draft, opened)
                calls += [self.compared(call, source, draft.comparable) for call in found]
                places.append(place)
            except AppError as error:
                refused[place] = error
        self.tally.add(source, REJECTED, len(refused))
        count_statuses(self.figures, source, [(REJECTED, len(refused))])
        if not calls or (atomic and refused):
            return Told(len(drafts), {}, refused)
        try:
            outcome = await self._intake.submit(
                *(calls, opened.key, opened.token, opened.version),
                events=len(places),
                atomic=atomic,
                door=source,
            )
        except (IdReused, OutOfWindow) as error:  # `atomic`: all drafts were good until then
            raise _placed_whole(error, drafts) from None
        logged = dict(zip(places, outcome.logged, strict=True))
        for place, one in list(logged.items()):
            self._count(source, one)
            if one.status == "out_of_window":
                refused[place] = _forgotten(drafts[place])
                del logged[place]
        return Told(len(drafts), logged, refused)

    def compared(self, call: Call, source: str, comparable: bool) -> Call:
        """The call with our price beside the one that was stated; far apart is counted."""
        context = call.event.context
        stated = (context or {}).get(STATED)
        if context is None or stated is None:
            return call
        event = call.event
        try:
            ours = self._prices.catalog.quote(
                *(event.provider or None, event.model or None, call.at, call.usage),
                *(context, event.user_id, event.team_id),
            ).cost_nanos
        except OverflowError:
            return call
        if ours is None:
            return call
        more = {COMPARED: source} if comparable else {}
        if comparable and drifts(from_usd(stated), ours):
            self.tally.add(source, "drift")
        if call.cost_nanos is not None:
            more[PRICED] = to_usd(ours)
        return call._replace(event=replace(event, context={**context, **more}))

    def _count(self, source: str, one: Logged) -> None:
        self.tally.add(source, one.status)
        if one.status == "recorded" and one.entry.cost_status == "unpriced":
            self.tally.add(source, "unpriced")
        if one.status == "recorded" and '"usage":"unknown"' in (one.entry.context or ""):
            self.tally.add(source, "unknown_usage")


def judged(draft: Draft, opened: Opened) -> list[Call]:
    """The calls of a draft, valid in every respect.

    Raises:
        AppError: as for an event; the pointer leads to what the draft was made of.
    """
    try:
        event = msgspec.convert(draft.event, EventIn)
        if opened.key.user_id is not None:
            require_user(opened.key, event.user_id)
        return calls_from(event, opened.now, opened.window, plain=False)
    except msgspec.ValidationError as error:
        raise _placed(refusal(error, ""), draft) from None
    except InvalidInput as error:
        raise _placed(error, draft) from None


def _forgotten(draft: Draft | AppError) -> AppError:
    if isinstance(draft, AppError):
        return draft
    return OutOfWindow.at(draft.places.get("timestamp", draft.pointer), FORGOTTEN)


def _placed_whole(error: E, drafts: Drafts) -> E:
    """The refusal of all drafts as one of what those that hinder it were made of."""
    found = []
    for one in error.extra.get("errors", []):
        place, _, field = one["pointer"].strip("/").partition("/")
        draft = drafts[int(place)]
        theirs = draft.places.get(field, draft.pointer) if isinstance(draft, Draft) else ""
        found.append({**one, "pointer": theirs})
    return type(error)(error.detail, errors=found)


def _placed(error: InvalidInput, draft: Draft) -> InvalidInput:
    """The refusal of an event's field as one of what the field was made of."""
    found = []
    for one in error.extra.get("errors", []):
        field = one["pointer"].strip("/")
        name = field.replace("/", ".")
        theirs = draft.places.get(field) or draft.places.get(field.partition("/")[0])
        detail = f"{name}: {one['detail']}" if name else one["detail"]
        found.append({"pointer": theirs or draft.pointer, "detail": detail})
    detail = found[0]["detail"] if found else error.detail
    return type(error)(detail, errors=found)


async def decoded(body: bytes, decode: Callable[[bytes], T]) -> T:
    """What a decoder makes of a body; a long one is read in a thread."""
    if len(body) > LONG_BYTES:
        return await asyncio.to_thread(decode, body)
    return decode(body)


_json = msgspec.json.Decoder()


def read_any(body: bytes) -> Any:
    """Any JSON document, numbers as Python's, a key given twice as its last value.

    Raises:
        BadRequest: not JSON.
    """
    try:
        return _json.decode(body)
    except UNREADABLE as error:
        raise BadRequest.at("", refusal(error, "").detail) from None
