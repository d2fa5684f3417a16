"""`POST /v1/events`: bytes in, receipts out. Both doors, lean and ordinary, end here."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from app.access.guard import require, require_user, token_of
from app.access.keys import Key, KeyRing, find_fresh
from app.core.clock import Clock
from app.core.errors import AppError, Forbidden, InvalidInput, TooLarge
from app.db.changes import Feed
from app.db.engine import Database
from app.ingest.calls import Call, Window, calls_from, window_for
from app.ingest.counted import REJECTED, count_statuses
from app.ingest.decode import (
    BATCH_BYTES,
    NO_RESPONSE,
    EventIn,
    canonical,
    decode_array,
    decode_lines,
    decode_one,
)
from app.ingest.intake import Intake, Outcome, Submission
from app.ingest.receipts import Refusals, all_refused, receipt, summary
from app.metrics.figures import Figures
from app.web.lean import LeanAnswer, LeanRequest, media_type
from app.web.queries import flag
from app.web.strict import MARK, inflate, is_plain

JSON, NDJSON = "application/json", "application/x-ndjson"
_PLAIN_JSON = b"application/json"
PARAMETERS = ("atomic", "backfill", "results")
LONG_BYTES = 64 << 10
"""What is longer is judged in a thread: a long response may take half a second to read."""
YIELD_BYTES = 16 << 10
"""After so much of responses, or some 5 ms, others have a turn."""
MAX_CALLS = 20_000
"""How many calls the responses in one request may bill together."""


class EventsDoor:
    """Reads, judges and hands over events; answers when they are durable."""

    def __init__(
        self,
        db: Database,
        feed: Feed,
        keys: KeyRing,
        intake: Intake,
        clock: Clock,
        window: Window,
        figures: Figures | None = None,
    ) -> None:
        self._figures = figures or Figures(clock)
        self._db, self._feed, self._keys = db, feed, keys
        self._intake, self._clock, self._window = intake, clock, window

    def swift(self, headers: dict[bytes, bytes], body: bytes, answer: Any) -> bool:
        """Take a plain single event, to be answered when its batch is durable.

        Returns False for what the ordinary way reads better: batches, encodings, and keys that
        memory does not admit.

        Raises:
            AppError: as `__call__`.
        """
        if b"content-encoding" in headers or headers.get(b"content-type") != _PLAIN_JSON:
            return False
        if body[:1] != b"{":
            return False
        now = self._clock.now()
        token = token_of(headers)
        try:
            key = self._keys.admit(token, now)
        except AppError:
            return False
        if not key.may("ingest"):
            return False
        try:
            event, same, plain = _read_one(headers, body, key)
            calls = calls_from(event, now, self._window, plain=plain, body=same)
        except AppError:
            self._refused(1)
            raise
        answer.render = receipt
        self._intake.enqueue(
            Submission(calls, key, token, self._feed.version, answer, events=1, stand=True)
        )
        return True

    async def __call__(self, request: LeanRequest) -> LeanAnswer:
        """Answer one request.

        Raises:
            AppError: as the contract lists them; nothing was recorded then.
        """
        now = self._clock.now()
        token = token_of(request.headers)
        version = self._feed.version
        key = await find_fresh(self._db, self._feed, self._keys, token, now, "ingest")
        require(key, "ingest")
        asked = request.parameters(*PARAMETERS)
        window = window_for(key, self._window, backfill=flag(asked, "backfill"))
        atomic = flag(asked, "atomic")
        every = _wants_every(asked)
        kind = media_type(request, (JSON, NDJSON))
        body = await request.body(BATCH_BYTES)
        if encoding := request.header(b"content-encoding").strip().lower():
            body = inflate(body, encoding, BATCH_BYTES)
        body = body.removeprefix(MARK)
        if kind == JSON and body.lstrip()[:1] != b"[":
            try:
                event, same, plain = _read_one(request.headers, body, key)
                judge = partial(calls_from, event, now, window, plain=plain, body=same)
                calls = await asyncio.to_thread(judge) if len(body) > LONG_BYTES else judge()
            except AppError:
                self._refused(1)
                raise
            outcome = await self._intake.submit(calls, key, token, version, events=1, stand=True)
            return receipt(outcome)
        events = decode_array(body) if kind == JSON else decode_lines(body)
        calls, refused, places = await _judge(events, key, now, window, is_plain(body))
        self._refused(len(refused))
        if atomic and refused:
            raise all_refused(refused)
        outcome = Outcome([], None, [])
        if calls:
            outcome = await self._intake.submit(
                calls, key, token, version, events=len(places), atomic=atomic
            )
        return summary(len(events), places, outcome.logged, refused, every=every)

    def _refused(self, count: int) -> None:
        count_statuses(self._figures, "events", [(REJECTED, count)])


def _wants_every(asked: Mapping[str, str]) -> bool:
    if asked.get("results", "all") != "all":
        raise InvalidInput.at("/results", "results: `all`, or leave it out")
    return "results" in asked


def _read_one(headers: Mapping[bytes, bytes], body: bytes, key: Key) -> tuple[EventIn, bytes, bool]:
    """The event, its canonical form, and whether its names are plain."""
    plain = is_plain(body)
    event, same = decode_one(body)
    if b"idempotency-key" in headers:
        _name_event(event, _text(headers[b"idempotency-key"]))
        same, plain = canonical(event), False
    if key.user_id is not None:
        require_user(key, event.user_id)
    return event, same, plain


def _text(header: bytes) -> str:
    """A header as its sender will have meant it: UTF-8, as in a body, where it is that."""
    try:
        return header.decode()
    except UnicodeDecodeError:
        return header.decode("latin-1")


def _name_event(event: EventIn, given: str) -> None:
    given = given.strip().strip('"')
    if not 1 <= len(given) <= 512:
        raise InvalidInput.at("/Idempotency-Key", "1 to 512 characters")
    if event.id and event.id != given:
        raise InvalidInput.at("/id", "differs from the header Idempotency-Key")
    event.id = given


def _of_another_user(pointer: str) -> Forbidden:
    detail = "this key is bound to another user"
    return Forbidden(detail, errors=[{"pointer": pointer, "detail": detail}])


async def _judge(
    events: Sequence[EventIn | InvalidInput],
    key: Key,
    now: datetime,
    window: Window | None,
    plain: bool,
) -> tuple[list[Call], Refusals, list[int]]:
    """The calls, why events are refused by their place, and the places of those that are not."""
    calls: list[Call] = []
    refused: Refusals = {}
    places: list[int] = []
    bound = key.user_id
    unread = 0
    for place, event in enumerate(events):
        if isinstance(event, InvalidInput):
            refused[place] = event
            continue
        size = 0 if event.response is NO_RESPONSE else memoryview(event.response).nbytes
        unread += size
        if unread > YIELD_BYTES:
            await asyncio.sleep(0)
            unread = size
        try:
            if bound is not None and bound != event.user_id:
                raise _of_another_user(f"/{place}/user_id")
            if size > LONG_BYTES:
                judge = partial(calls_from, plain=plain, base=f"/{place}")
                calls += await asyncio.to_thread(judge, event, now, window)
            else:
                calls += calls_from(event, now, window, plain=plain, base=f"/{place}")
            places.append(place)
        except AppError as error:
            refused[place] = error
        if len(calls) > MAX_CALLS:
            raise TooLarge(f"the responses bill at most {MAX_CALLS:,} calls in one request")
    return calls, refused, places
