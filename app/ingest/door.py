"""`POST /v1/events`: bytes in, receipts out. Both doors, lean and ordinary, end here."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from app.access.guard import require, require_user, token_of
from app.access.keys import Key, KeyRing, find_fresh
from app.core.clock import Clock
from app.core.counters import COUNTERS, FIRST_SECONDS, as_mapping
from app.core.errors import (
    AppError,
    Forbidden,
    IdReused,
    InvalidInput,
    OutOfWindow,
)
from app.core.money import to_usd
from app.db.changes import Feed
from app.db.engine import Database
from app.ingest.calls import Call, Window, call_from
from app.ingest.decode import (
    BATCH_BYTES,
    EventIn,
    canonical,
    decode_array,
    decode_lines,
    decode_one,
)
from app.ingest.intake import Intake, Outcome, Submission
from app.usage.ledger import Entry, Logged, usage_of
from app.web.lean import LeanAnswer, LeanRequest, media_type
from app.web.strict import inflate, is_plain

JSON, NDJSON = "application/json", "application/x-ndjson"
_PLAIN_JSON = b"application/json"
_encode = msgspec.json.Encoder().encode
Refusals = dict[int, InvalidInput | AppError]


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
    ) -> None:
        self._db, self._feed, self._keys = db, feed, keys
        self._intake, self._clock, self._window = intake, clock, window

    def swift(self, headers: dict[bytes, bytes], body: bytes, answer: Any) -> bool:
        """Take a plain single event, to be answered when its batch is durable.

        Returns False for what the ordinary way reads better: batches, encodings, and keys that are
        not in memory.

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
            key = self._keys.find(token, now)
        except AppError:
            return False
        require(key, "ingest")
        call = self._one(headers, body, key, now, self._window)
        answer.render = _receipt
        self._intake.enqueue(
            Submission((call,), key, token, self._feed.version, answer, stand=True)
        )
        return True

    def _one(
        self,
        headers: Mapping[bytes, bytes],
        body: bytes,
        key: Key,
        now: datetime,
        window: Window | None,
    ) -> Call:
        plain = is_plain(body)
        event, same = decode_one(body)
        if b"idempotency-key" in headers:
            _name_event(event, headers[b"idempotency-key"].decode("latin-1"))
            same, plain = canonical(event), False
        if key.user_id is not None:
            require_user(key, event.user_id)
        return call_from(event, now, window, plain=plain, body=same)

    async def __call__(self, request: LeanRequest) -> LeanAnswer:
        """Answer one request.

        Raises:
            AppError: as the contract lists them; nothing was recorded then.
        """
        now = self._clock.now()
        token = token_of(request.headers)
        version = self._feed.version
        key = await find_fresh(self._db, self._feed, self._keys, token, now)
        require(key, "ingest")
        window = self._window if not request.query else self._window_for(request, key)
        kind = media_type(request, (JSON, NDJSON))
        body = await request.body(BATCH_BYTES)
        if encoding := request.header(b"content-encoding").strip().lower():
            body = inflate(body, encoding, BATCH_BYTES)
        if kind == JSON and body.lstrip()[:1] != b"[":
            call = self._one(request.headers, body, key, now, window)
            outcome = await self._intake.submit((call,), key, token, version, stand=True)
            return _receipt(outcome)
        events = decode_array(body) if kind == JSON else decode_lines(body)
        atomic, every = False, False
        if request.query:
            atomic = request.flag("atomic")
            every = "results=all" in request.query
        calls, refused, places = _judge(events, key, now, window, is_plain(body))
        if atomic and refused:
            raise _all_refused(refused)
        outcome = Outcome([], None, [])
        if calls:
            outcome = await self._intake.submit(calls, key, token, version, atomic=atomic)
        return _summary(len(events), places, outcome.logged, refused, every=every)

    def _window_for(self, request: LeanRequest, key: Key) -> Window | None:
        if not request.flag("backfill"):
            return self._window
        if not key.may("manage"):
            raise Forbidden("a backfill needs a key with the scope `manage`", scope="manage")
        return None


def _name_event(event: EventIn, given: str) -> None:
    given = given.strip().strip('"')
    if not 1 <= len(given) <= 512:
        raise InvalidInput.at("Idempotency-Key", "1 to 512 characters")
    if event.id and event.id != given:
        raise InvalidInput.at("/id", "differs from the header Idempotency-Key")
    event.id = given


def _judge(
    events: Sequence[EventIn | InvalidInput],
    key: Key,
    now: datetime,
    window: Window | None,
    plain: bool,
) -> tuple[list[Call], Refusals, list[int]]:
    calls: list[Call] = []
    refused: Refusals = {}
    places: list[int] = []
    bound = key.user_id
    for place, event in enumerate(events):
        if isinstance(event, InvalidInput):
            refused[place] = event
            continue
        try:
            if bound is not None:
                require_user(key, event.user_id)
            calls.append(call_from(event, now, window, plain=plain, base=f"/{place}"))
            places.append(place)
        except AppError as error:
            refused[place] = error
    return calls, refused, places


# ---- answers ----------------------------------------------------------------------------------


class Receipt(Struct, gc=False):
    """One event's receipt, as the contract has it."""

    id: str
    status: str
    user_id: str
    timestamp: datetime
    billing_period: str
    usage: Struct | dict[str, int | float]
    cost_usd: str | None
    cost_status: str
    usage_status: str


UsageOut: Any = msgspec.defstruct(
    "UsageOut",
    [(name, int, -1 if name in ("input_tokens", "output_tokens") else 0) for name in COUNTERS],
    omit_defaults=True,
    gc=False,
)
"""Counters for the wire: input and output tokens always, the others where they are not zero."""


def _usage_out(entry: Entry) -> Any:
    usage = usage_of(entry)
    return as_mapping(usage) if any(usage[FIRST_SECONDS:]) else UsageOut(*usage)


def _usd(entry: Entry) -> str | None:
    return None if entry.cost_nanos is None else to_usd(entry.cost_nanos)


def _receipt(outcome: Outcome) -> LeanAnswer:
    logged = outcome.logged[0]
    if logged.status == "conflict":
        raise IdReused(
            "this user already has another event under this id; the first one stays",
            id=logged.entry.event_id,
        )
    standing, entry = outcome.standing, logged.entry
    if standing is None:
        raise RuntimeError("the submission of a single event asks how its user stands")
    cost = _usd(entry)
    body = _encode(
        Receipt(
            entry.event_id,
            logged.status,
            entry.user_id,
            entry.timestamp,
            outcome.billing_periods[0],
            _usage_out(entry),
            cost,
            entry.cost_status,
            standing.usage_status,
        )
    )
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if cost is not None:
        headers = ((b"x-tollgate-cost-usd", cost.encode()),)
    if standing.remaining_nanos is not None:
        left = to_usd(standing.remaining_nanos).encode()
        headers += ((b"x-tollgate-remaining-usd", left),)
    return LeanAnswer(201 if logged.status == "recorded" else 200, body, headers)


def _all_refused(refused: Refusals) -> AppError:
    errors = [found for error in refused.values() for found in _errors(error)]
    if all(isinstance(error, Forbidden) for error in refused.values()):
        return Forbidden("this key is bound to another user", errors=errors[:100])
    return InvalidInput("nothing was recorded: some events are not valid", errors=errors[:100])


def _errors(error: AppError) -> list[dict[str, str]]:
    found: list[dict[str, str]] = error.extra.get("errors", [{"pointer": "", "detail": str(error)}])
    return found


def _summary(
    count: int,
    places: Sequence[int],
    logged: Sequence[Logged],
    refused: Refusals,
    *,
    every: bool,
) -> LeanAnswer:
    results: dict[int, dict[str, Any]] = {
        place: {
            "index": place,
            "id": None,
            "status": "out_of_window" if isinstance(error, OutOfWindow) else "rejected",
            "detail": _errors(error)[0]["detail"],
            "pointer": _errors(error)[0]["pointer"],
        }
        for place, error in refused.items()
    }
    recorded = duplicates = cost = 0
    for place, one in zip(places, logged, strict=True):
        if one.status == "recorded":
            recorded += 1
            cost += one.entry.cost_nanos or 0
        elif one.status == "duplicate":
            duplicates += 1
        else:
            results[place] = _result(place, one)
            continue
        if every:
            results[place] = _result(place, one)
    rejected = count - recorded - duplicates
    status = 200 if not rejected else 422 if rejected == count else 207
    if rejected == count:
        status = _status_of_all(refused, logged)
    body = {
        "recorded": recorded,
        "duplicates": duplicates,
        "rejected": rejected,
        "cost_usd": to_usd(cost),
        "results": [results[place] for place in sorted(results)],
    }
    return LeanAnswer(status, _encode(body))


def _status_of_all(refused: Refusals, logged: Sequence[Logged]) -> int:
    if logged or not all(isinstance(error, Forbidden) for error in refused.values()):
        return 422
    return 403


def _result(place: int, one: Logged) -> dict[str, Any]:
    found: dict[str, Any] = {
        "index": place,
        "id": one.entry.event_id,
        "status": "rejected" if one.status == "conflict" else one.status,
        "detail": "",
        "pointer": "",
    }
    if one.status == "conflict":
        found["detail"] = "id-reused: this user already has another event under this id"
        found["pointer"] = f"/{place}/id"
    else:
        found["cost_usd"] = _usd(one.entry)
        found["cost_status"] = one.entry.cost_status
    return found
