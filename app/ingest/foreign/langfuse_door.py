"""A Langfuse batch from its bytes to its answer, and the job that ends calls nobody ended."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

from app.core.clock import Clock
from app.core.errors import AppError, BadRequest, Conflict, InvalidInput, TooLarge
from app.db.engine import Database, Tx
from app.ingest.correct import Order
from app.ingest.correct_fields import Edit
from app.ingest.correct_run import ReadRow, done
from app.ingest.decode import MAX_EVENTS
from app.ingest.foreign.langfuse import SOURCE, Said, digest, merged, said_in, whole
from app.ingest.foreign.parts import (
    CALL,
    TRACE,
    Part,
    claim,
    is_anything_due,
    keep,
    late_ones,
    settle,
    tidy,
)
from app.ingest.foreign.submit import Draft, Foreign, Opened, decoded, judged, read_any
from app.ingest.rerate_apply import Parts

NAME = "langfuse"
EVERY_S = 30.0
_AMENDED = (
    *("provider", "model", "usage", "status_code", "error_message", "latency_ms", "ttft_ms"),
    *("context", "team_id", "session_id", "cost_usd"),
)


class Ready(NamedTuple):
    """A call that is to be recorded now, or why it cannot be."""

    subject: str
    draft: Draft | AppError


class Langfuse:
    """Keeps the parts of calls until they are whole, and records each call once.

    What has not been ended after `wait` is recorded as it stands, its usage unknown.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        foreign: Foreign,
        books: Parts,
        read_row: ReadRow,
        wait: timedelta,
    ) -> None:
        self._db, self._clock, self._foreign = db, clock, foreign
        self._books, self._read_row, self._wait = books, read_row, wait

    async def take(self, opened: Opened) -> dict[str, Any]:
        """Keep and record what a batch says; the answer names every item.

        Raises:
            BadRequest: not a batch. TooLarge: more than 10,000 items.
            Unavailable: send it again.
        """
        owner = opened.key.user_id or ""
        items = await decoded(opened.body, _batch_of)
        read = [self._read(item, f"/batch/{at}", owner, opened) for at, item in enumerate(items)]
        parts = [one.part for one in read if isinstance(one, Said) and one.part is not None]
        refused: Mapping[str, AppError] = {}
        if parts:
            where = {part.subject: _pointer_to(part, read) for part in reversed(parts)}

            async def work(tx: Tx) -> list[Ready]:
                found = self._ready(await keep(tx, parts), opened, where, final=False)
                await claim(tx, owner, _users(found))
                return found

            refused = await self._record(opened, owner, await self._db.write(work))
        return _answer(items, read, refused)

    def _read(self, item: object, pointer: str, owner: str, opened: Opened) -> Said | AppError:
        try:
            return said_in(item, pointer, owner, self._foreign.identity, opened.now)
        except InvalidInput as error:
            return error

    def _ready(
        self, parts: Sequence[Part], opened: Opened, where: Mapping[str, str], *, final: bool
    ) -> list[Ready]:
        """The calls among these parts that can be recorded; `final` leaves none waiting."""
        by_subject: dict[str, list[Part]] = {}
        for part in parts:
            by_subject.setdefault(part.subject, []).append(part)
        found = []
        for subject, mine in sorted(by_subject.items()):
            if not subject.startswith(CALL):
                continue
            trace_id = next((part.trace_id for part in mine if part.trace_id), "")
            trace = merged(by_subject.get(f"{TRACE}{trace_id}", []))
            pointer = where.get(subject, "")
            try:
                call = whole(subject, merged(mine), trace, pointer, self._foreign.trust)
            except InvalidInput as error:
                found.append(Ready(subject, error))
                continue
            event = call.draft.event
            claimed = next((part.user_id for part in mine if part.user_id), None)
            user = claimed or event.get("user_id") or opened.key.user_id
            if final and not user:
                user = self._foreign.identity.user(opened.key, SOURCE)
            if final or claimed or (user and call.is_over):
                event = event | ({"user_id": user} if user else {})
                found.append(Ready(subject, call.draft._replace(event=event)))
        return found

    async def _record(
        self, opened: Opened, owner: str, ready: Sequence[Ready]
    ) -> Mapping[str, AppError]:
        """Record the calls; those that say more than was recorded are corrected. Who is refused."""
        if not ready:
            return {}
        told = await self._foreign.submit(opened, SOURCE, [one.draft for one in ready])
        refused = {ready[place].subject: error for place, error in told.refused.items()}
        for place in told.conflicts:
            draft = ready[place].draft
            if isinstance(draft, Draft):
                try:
                    await self._amend(draft, opened)
                except Conflict as error:
                    refused[ready[place].subject] = error
        subjects = {one.subject for one in ready}
        await self._db.write(partial(settle, owner=owner, subjects=subjects))
        return refused

    async def _amend(self, draft: Draft, opened: Opened) -> None:
        call = self._foreign.compared(judged(draft, opened)[0], SOURCE, draft.comparable)
        names = set(_AMENDED) | ({"timestamp"} & draft.event.keys())
        await done(
            self._books,
            self._read_row,
            Order(
                *(draft.event["user_id"], draft.event["id"], Edit(frozenset(names), call)),
                *("its sender told more of the call later", opened.key.id or NAME),
                *(digest(draft), None),
            ),
        )

    async def is_due(self) -> bool:
        """Whether a call has waited long enough, or there is something to tidy."""
        now = self._clock.now()
        return await self._db.read(lambda tx: is_anything_due(tx, now, self._wait))

    async def finish(self) -> None:
        """Record what has waited long enough, and delete what is old."""
        while True:
            now = self._clock.now()
            late = await self._db.read(lambda tx: late_ones(tx, now, self._wait))  # noqa: B023
            for owner, parts in late.items():
                await self._finish(owner, parts)
            if not late:
                break
        await self._db.write(lambda tx: tidy(tx, self._clock.now()))

    async def _finish(self, owner: str, parts: Sequence[Part]) -> None:
        opened = await self._foreign.within(owner or None)
        ready = self._ready(parts, opened, {}, final=True)
        await self._db.write(lambda tx: claim(tx, owner, _users(ready)))
        await self._record(opened, owner, ready)


def _users(ready: Sequence[Ready]) -> dict[str, str]:
    return {
        one.subject: one.draft.event["user_id"]
        for one in ready
        if isinstance(one.draft, Draft) and "user_id" in one.draft.event
    }


def _batch_of(body: bytes) -> list[Any]:
    said = read_any(body)
    batch = said.get("batch") if isinstance(said, dict) else None
    if not isinstance(batch, list):
        raise BadRequest.at("/batch", "an array was looked for")
    if len(batch) > MAX_EVENTS:
        raise TooLarge(f"at most {MAX_EVENTS:,} items in one request")
    return batch


def _pointer_to(part: Part, read: Sequence[Said | AppError]) -> str:
    place = next(at for at, one in enumerate(read) if isinstance(one, Said) and one.part is part)
    return f"/batch/{place}/body"


def _answer(
    items: Sequence[Any], read: Sequence[Said | AppError], refused: Mapping[str, AppError]
) -> dict[str, Any]:
    successes, errors = [], []
    for item, one in zip(items, read, strict=True):
        why: AppError | None
        if isinstance(one, Said):
            why = refused.get(one.part.subject) if one.part else None
            item_id: object = one.id
        else:
            why = one
            item_id = item.get("id") if isinstance(item, dict) else None
        if why is None:
            successes.append({"id": item_id, "status": 201})
            continue
        shown = (why.extra.get("errors") or [{"pointer": "", "detail": why.detail}])[0]
        named = str(item_id)[:512] if isinstance(item_id, str | int) else ""
        status = why.status if why.status in (403, 409) else 400
        said = {"id": named, "status": status, "message": shown["detail"]}
        errors.append({**said, "error": shown["pointer"]})
    return {"successes": successes, "errors": errors}
