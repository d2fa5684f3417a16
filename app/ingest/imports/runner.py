"""Run an import: records become events, events go out in batches, nothing is dropped silently.

Ids are the source's own, or made of the line and what stands on it. So an import that broke off is
started again as it was: what is recorded already is a duplicate and changes nothing.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import msgspec

from app.ingest.imports.records import Record
from app.ingest.imports.senders import Result, Sender
from app.ingest.imports.values import UnfitError

BATCH_EVENTS = 1_000
BATCH_BYTES = 4 << 20
Event = dict[str, Any]
Convert = Callable[[Record], Sequence[Event]]


class Rejected(NamedTuple):
    """A line that was not recorded, and why."""

    line: int
    detail: str
    pointer: str
    record: Mapping[str, Any]


class Rejects(Protocol):
    """Where rejected lines are kept."""

    def add(self, one: Rejected) -> None: ...


@dataclass(slots=True)
class Report:
    """How far an import is. Every line up to `durable_line` has been dealt with for good."""

    records: int = 0
    recorded: int = 0
    duplicates: int = 0
    left_out: int = 0
    rejected: int = 0
    unpriced: int = 0
    cost_nanos: int = 0
    durable_line: int = 0
    users: set[str] = field(default_factory=set)
    more_users: bool = False

    @property
    def events(self) -> int:
        return self.recorded + self.duplicates


USERS_COUNTED = 100_000


class _Waiting(NamedTuple):
    record: Record
    event: Event
    body: bytes


async def run_import(
    records: AsyncIterator[Record],
    convert: Convert,
    sender: Sender,
    rejects: Rejects,
    *,
    report: Report,
    tell: Callable[[Report], None],
    from_line: int = 1,
) -> None:
    """Import the records, keeping `report` up to date after every batch.

    Raises:
        StoppedError: nothing more could be sent; `report` says how far it came.
    """
    waiting: list[_Waiting] = []
    size = 0
    last = 0
    async for record in records:
        last = record.line
        if record.line < from_line:
            continue
        report.records += 1
        events = _events(record, convert, report, rejects)
        for event in events:
            body = msgspec.json.encode(event)
            if waiting and (len(waiting) >= BATCH_EVENTS or size + len(body) > BATCH_BYTES):
                await _send(waiting, sender, rejects, report)
                report.durable_line = waiting[-1].record.line - (waiting[-1].record == record)
                tell(report)
                waiting, size = [], 0
            waiting.append(_Waiting(record, event, body))
            size += len(body)
    if waiting:
        await _send(waiting, sender, rejects, report)
    report.durable_line = last
    tell(report)


def _events(record: Record, convert: Convert, report: Report, rejects: Rejects) -> Sequence[Event]:
    if record.problem:
        _reject(Rejected(record.line, record.problem, "", record.fields), report, rejects)
        return ()
    try:
        events = convert(record)
    except UnfitError as error:
        _reject(Rejected(record.line, str(error), "", record.fields), report, rejects)
        return ()
    report.left_out += not events
    return events


async def _send(
    waiting: Sequence[_Waiting], sender: Sender, rejects: Rejects, report: Report
) -> None:
    results: list[Result] = await sender.send([one.body for one in waiting])
    if len(results) != len(waiting):
        raise RuntimeError(f"{len(waiting)} events were sent and {len(results)} answered")
    for one, result in zip(waiting, results, strict=True):
        if result.status == "recorded":
            report.recorded += 1
            report.cost_nanos += result.cost_nanos or 0
            report.unpriced += result.cost_nanos is None
            _count_user(str(one.event.get("user_id", "")), report)
        elif result.status == "duplicate":
            report.duplicates += 1
        else:
            line, fields = one.record.line, one.record.fields
            _reject(Rejected(line, result.detail, result.pointer, fields), report, rejects)


def _count_user(user_id: str, report: Report) -> None:
    if len(report.users) < USERS_COUNTED:
        report.users.add(user_id)
    elif user_id not in report.users:
        report.more_users = True


def _reject(one: Rejected, report: Report, rejects: Rejects) -> None:
    report.rejected += 1
    rejects.add(one)
