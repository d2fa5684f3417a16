"""`POST /v1/holds` and `POST /v1/holds/{id}/settle`: through the queue that events go through."""

import asyncio
from datetime import datetime
from functools import partial
from hashlib import blake2b
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from app.access.guard import require, require_user, token_of
from app.access.keys import Key, KeyRing, find_fresh
from app.core.clock import Clock
from app.core.errors import AppError, Forbidden, HoldClosed, IdReused, InvalidInput, NotFound
from app.core.ids import uuid7
from app.db.changes import Feed
from app.db.engine import Database
from app.ingest.calls import Window, calls_from, window_for
from app.ingest.decode import ONE_EVENT_BYTES, EventIn, decode_one
from app.ingest.hold_answers import hold_answer
from app.ingest.intake import Intake, Outcome, Submission
from app.ingest.receipts import receipt
from app.limits.door import MAX_BODY, AskIn
from app.limits.estimate import estimate
from app.limits.hold_ends import get_hold
from app.limits.hold_judge import HoldAsk
from app.limits.holds import HoldRow
from app.pricing.known import Prices
from app.web.lean import LeanAnswer, LeanRequest, media_type
from app.web.queries import flag
from app.web.strict import check_name, inflate, is_plain, read_json

JSON = ("application/json",)
LONGEST_S = 86_400
LONG_BYTES = 64 << 10
"""What is longer is judged in a thread: a long response may take half a second to read."""
_NAMES = ("id", "user_id", "provider", "model", "endpoint", "team_id", "api_key_id")
_SAME = ("provider", "endpoint", "team_id", "api_key_id")
"""What an event has in common with its hold, unless it says otherwise."""


class HoldIn(AskIn, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A hold as it is asked for: what a check asks, an id, and how long it lasts."""

    id: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    ttl_s: Annotated[int, Meta(ge=1, le=LONGEST_S)] = 600


class SettleIn(Struct, forbid_unknown_fields=True, gc=False):
    """The event that ends a hold; its fields are those of `EventIn`, still unread."""

    event: dict[str, Raw]


_hold = msgspec.json.Decoder(HoldIn)
_settle = msgspec.json.Decoder(SettleIn)
_encode = msgspec.json.Encoder(order="deterministic").encode


class HoldDoor:
    """Reads what a call may use at most, waits until that is held, and says what is."""

    def __init__(
        self,
        db: Database,
        feed: Feed,
        keys: KeyRing,
        intake: Intake,
        prices: Prices,
        clock: Clock,
    ) -> None:
        self._db, self._feed, self._keys = db, feed, keys
        self._intake, self._prices, self._clock = intake, prices, clock

    def swift(self, headers: dict[bytes, bytes], body: bytes, answer: Any) -> bool:
        """Take a plain request, to be answered when its batch is durable.

        Returns False for what the ordinary way reads better: encodings, keys memory does not admit.

        Raises:
            AppError: as `__call__`.
        """
        if b"content-encoding" in headers or headers.get(b"content-type") != b"application/json":
            return False
        now = self._clock.now()
        token = token_of(headers)
        try:
            key = self._keys.admit(token, now)
        except AppError:
            return False
        if not key.may("check"):
            return False
        ask = self._asked(key, body, now)
        answer.render = partial(hold_answer, clock=self._clock)
        version = self._feed.version
        self._intake.enqueue(Submission((), key, token, version, answer, events=0, ask=ask))
        return True

    async def __call__(self, request: LeanRequest) -> LeanAnswer:
        """Answer one request.

        Raises:
            LimitReached: it does not fit; nothing is held.
            IdReused, HoldClosed: the id stands for another hold, or for one that has ended.
        """
        now = self._clock.now()
        token = token_of(request.headers)
        version = self._feed.version
        key = await find_fresh(self._db, self._feed, self._keys, token, now, "check")
        require(key, "check")
        request.parameters()
        ask = self._asked(key, await _body_of(request, MAX_BODY), now)
        outcome = await self._intake.submit((), key, token, version, events=0, ask=ask)
        return hold_answer(outcome, clock=self._clock)

    def _asked(self, key: Key, body: bytes, now: datetime) -> HoldAsk:
        said = read_json(_hold, body)
        require_user(key, said.user_id)
        if not is_plain(body):
            for field in _NAMES:
                if value := getattr(said, field):
                    check_name(value, f"/{field}", 512 if field == "id" else 1024)
        digest = blake2b(_encode(said), digest_size=8).digest()
        return HoldAsk(
            said.id or f"hold_{uuid7()}",
            said.user_id,
            int.from_bytes(digest, "big", signed=True),
            said.ttl_s,
            *(said.provider, said.model, said.endpoint, said.team_id, said.api_key_id),
            estimate(said, now, self._prices.catalog),
        )


class SettleDoor:
    """Reads the event of a hold and records it in the commit that ends the hold."""

    def __init__(
        self,
        db: Database,
        feed: Feed,
        keys: KeyRing,
        intake: Intake,
        clock: Clock,
        window: Window,
    ) -> None:
        self._db, self._feed, self._keys = db, feed, keys
        self._intake, self._clock, self._window = intake, clock, window

    async def __call__(self, request: LeanRequest) -> LeanAnswer:
        """Answer one request with the receipt of its event.

        Raises:
            NotFound: this user has no such hold.
            HoldClosed: another event has settled it, or it was released; nothing was recorded.
            IdReused: the event's id stands for another event.
        """
        now = self._clock.now()
        token = token_of(request.headers)
        version = self._feed.version
        key = await find_fresh(self._db, self._feed, self._keys, token, now, "ingest", "check")
        if not key.may("ingest") and not key.may("check"):
            needed = "this needs a key with the scope `ingest` or `check`"
            raise Forbidden(needed, scope="ingest")
        backfill = flag(request.parameters("backfill"), "backfill")
        window = window_for(key, self._window, backfill=backfill)
        hold_id = check_name(request.path.split("/", 3)[3].rpartition("/")[0], "/id", 1024)
        body = await _body_of(request, ONE_EVENT_BYTES + MAX_BODY)
        said = read_json(_settle, body).event
        hold = await self._hold_of(hold_id, said, key)
        own_id = "id" not in said
        event, same = _event_of(said, hold)
        plain = is_plain(body) and is_plain(same)
        judge = partial(calls_from, event, now, window, plain=plain, base="/event", body=same)
        calls = await asyncio.to_thread(judge) if len(body) > LONG_BYTES else judge()
        key_of_hold = (hold.user_id, hold.id)
        outcome = await self._intake.submit(
            *(calls, key, token, version),
            events=1,
            stand=True,
            settles=key_of_hold,
            door="settle",
        )
        return _receipt(outcome, own_id=own_id)

    async def _hold_of(self, hold_id: str, said: dict[str, Raw], key: Key) -> HoldRow:
        user_id = key.user_id
        if "user_id" in said:
            try:
                user_id = msgspec.json.decode(said["user_id"], type=str)
            except msgspec.DecodeError:
                raise InvalidInput.at("/event/user_id", "Expected `str`") from None
            require_user(key, check_name(user_id, "/event/user_id", 1024))
        if len(hold_id) > 256:
            raise NotFound("no such hold")
        try:
            return await self._db.glance(lambda tx: get_hold(tx, hold_id, user_id))
        except InvalidInput as error:
            raise _under_event(error) from None


async def _body_of(request: LeanRequest, bound: int) -> bytes:
    media_type(request, JSON)
    body = await request.body(bound)
    if encoding := request.header(b"content-encoding").strip().lower():
        body = inflate(body, encoding, bound)
    return body


def _event_of(said: dict[str, Raw], hold: HoldRow) -> tuple[EventIn, bytes]:
    """The event with what it leaves to its hold, and its canonical form."""
    whole: dict[str, Any] = dict(said)
    whole.setdefault("user_id", hold.user_id)
    whole.setdefault("id", f"settle:{hold.id}")
    whole.setdefault("hold_id", hold.id)
    same = _SAME if "response" in said else (*_SAME, "model")
    for name in same:
        value = getattr(hold, name)
        if value is not None and name not in said:
            whole[name] = value
    try:
        event, canonical = decode_one(_encode(whole))
    except InvalidInput as error:
        raise _under_event(error) from None
    if event.hold_id != hold.id:
        raise InvalidInput.at("/event/hold_id", "differs from the hold in the path")
    return event, canonical


def _under_event(error: InvalidInput) -> InvalidInput:
    places = [one | {"pointer": f"/event{one['pointer']}"} for one in error.extra["errors"]]
    return InvalidInput(error.detail, errors=places)


def _receipt(outcome: Outcome, *, own_id: bool) -> LeanAnswer:
    """The receipt; another event for the same hold under the id that is made from the hold's."""
    try:
        return receipt(outcome)
    except IdReused:
        if not own_id:
            raise
        raise HoldClosed("this hold has ended; nothing was recorded", state="settled") from None
