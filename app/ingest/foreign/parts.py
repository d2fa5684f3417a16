"""Keep the parts of a call until it can be recorded, and give them back together."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import and_, delete, false, or_, select, true, update

from app.db.engine import Tx
from app.db.types import table_of
from app.db.upsert import Append
from app.ingest.foreign.tables import ForeignPart

KEPT = timedelta(days=1)
_MANY = 500
_table = table_of(ForeignPart)
_part = _table.c
_append = Append(_table, tuple(_part.keys()), ("owner", "subject", "part_id"))
CALL, TRACE = "call:", "trace:"


class Part(NamedTuple):
    """One part, as `ForeignPart` keeps it."""

    owner: str
    subject: str
    part_id: str
    trace_id: str
    said_at: datetime
    received_at: datetime
    waiting: bool
    body: dict[str, Any]
    user_id: str = ""


async def keep(tx: Tx, parts: Sequence[Part]) -> list[Part]:
    """Write the parts that are new; return every part of their calls and traces.

    Of a trace these are its own parts and those of calls in it that still wait.
    """
    rows = {part[:3]: part for part in parts}
    await _append(tx, [_row(rows[key]) for key in sorted(rows)])
    owner = parts[0].owner
    traces = sorted({part.trace_id for part in parts if part.trace_id})
    subjects = sorted({part.subject for part in parts})
    found = await _of_subjects(tx, owner, subjects)
    more = sorted({part.trace_id for part in found.values() if part.trace_id} | set(traces))
    waiting: set[str] = set()
    for some in _chunks(more):
        query = select(_part.subject).where(
            _part.owner == owner, _part.trace_id.in_(some), _part.waiting == true()
        )
        waiting |= {row[0] for row in await tx.fetch(query.distinct())}
    wanted = waiting | {f"{TRACE}{trace}" for trace in more}
    found |= await _of_subjects(tx, owner, sorted(wanted - set(subjects)))
    return list(found.values())


def _row(part: Part) -> tuple[Any, ...]:
    return (*part[:-2], msgspec.json.encode(part.body).decode(), part.user_id)


async def _of_subjects(
    tx: Tx, owner: str, subjects: Sequence[str]
) -> dict[tuple[str, str, str], Part]:
    found = {}
    for some in _chunks(subjects):
        named = select(*_part).where(_part.owner == owner, _part.subject.in_(some))
        for row in await tx.fetch(named):
            part = Part(*row)
            found[part.owner, part.subject, part.part_id] = part
    return found


def _chunks(names: Sequence[str]) -> Iterable[Sequence[str]]:
    return (names[at : at + _MANY] for at in range(0, len(names), _MANY))


async def claim(tx: Tx, owner: str, users: Mapping[str, str]) -> None:
    """These calls are recorded for these users from now on, whoever is named later."""
    by_user: dict[str, list[str]] = {}
    for subject, user in users.items():
        by_user.setdefault(user, []).append(subject)
    for user in sorted(by_user):
        for some in _chunks(sorted(by_user[user])):
            await tx.run(
                update(ForeignPart)
                .where(_part.owner == owner, _part.subject.in_(some), _part.user_id == "")
                .values(user_id=user)
            )


async def settle(tx: Tx, owner: str, subjects: Collection[str]) -> None:
    """These calls wait no more."""
    for some in _chunks(sorted(subjects)):
        await tx.run(
            update(ForeignPart)
            .where(_part.owner == owner, _part.subject.in_(some))
            .values(waiting=False)
        )


def _old(now: datetime) -> Any:
    return and_(_part.waiting == false(), _part.received_at <= now - KEPT)


async def is_anything_due(tx: Tx, now: datetime, wait: timedelta) -> bool:
    """Whether a call has waited long enough, or parts are old."""
    late = and_(_part.waiting == true(), _part.received_at <= now - wait)
    found = await tx.first(select(_part.subject).where(or_(late, _old(now))).limit(1))
    return found is not None


async def late_ones(tx: Tx, now: datetime, wait: timedelta) -> dict[str, list[Part]]:
    """Of some calls that have waited long enough every part, with their traces', by owner."""
    late = and_(_part.waiting == true(), _part.received_at <= now - wait)
    named = select(_part.owner, _part.subject, _part.trace_id).where(late).distinct()
    wanted: dict[str, set[str]] = {}
    for owner, subject, trace in await tx.fetch(named.limit(_MANY)):
        wanted.setdefault(owner, set()).update((subject, f"{TRACE}{trace}"))
    return {
        owner: list((await _of_subjects(tx, owner, sorted(subjects))).values())
        for owner, subjects in wanted.items()
    }


async def tidy(tx: Tx, now: datetime) -> int:
    """Delete parts that are old and wait for nothing; how many."""
    return await tx.run(delete(ForeignPart).where(_old(now)))
