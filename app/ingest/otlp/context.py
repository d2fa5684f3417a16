"""Keep what is known of recent traces, and find what belongs to that which has just arrived."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import astuple
from sqlalchemy import delete, select, tuple_, update

from app.db.engine import Tx
from app.db.types import table_of
from app.db.upsert import Append, Find
from app.ingest.otlp.groups import (
    ENDS_WITHIN_NS,
    MEET_WITHIN_NS,
    are_alike,
    are_halves,
    is_half,
    seam,
)
from app.ingest.otlp.plan import Belongs, Known
from app.ingest.otlp.tables import OtlpLinks, OtlpTelling
from app.ingest.otlp.telling import Link, Spot, Telling

NAME = "forget-telemetry"
EVERY_S = 60.0
ONE_AT_A_TIME = 0x6F746C70
"""Advisory lock: one process at a time takes telemetry in, so that none misses another's."""
AT_ONCE = 1_000
"""So many rows are forgotten in one transaction."""
MAX_NEAR = 256
"""With so many that ended at about the same time a kept telling is compared."""
ROUNDS = 4
"""How often what was found leads on to more: a twin, its trace, the twins of those in it."""
_MOMENT_NS = 2 * ENDS_WITHIN_NS
"""Likenesses of so long are looked through; no shorter than twice what twins may end apart."""
_SEAM_NS = 2 * MEET_WITHIN_NS
"""The same for where the halves of a call meet."""

_KEY = ("owner", "trace_id", "span_id")
_EVENT = ("event_user", "event_id", "event_hash")
_COLUMNS = (*_KEY, "response_key", "likeness", "telling", *_EVENT, "expires_at")
_table, _links_table = table_of(OtlpTelling), table_of(OtlpLinks)
_t, _l = _table.c, _links_table.c
_SHOWN = ("telling", *_EVENT)
_append = Append(_table, _COLUMNS, _KEY)
_by_trace = Find(_table, ("owner", "trace_id"), _SHOWN)
_by_answer = Find(_table, ("owner", "response_key"), _SHOWN)
_by_likeness = Find(_table, ("owner", "likeness"), _SHOWN)
_links_of = Find(_links_table, ("owner", "trace_id"), ("trace_id", "links"))
_LINK_COLUMNS = ("owner", "trace_id", "digest", "links", "expires_at")
_append_links = Append(_links_table, _LINK_COLUMNS, ("owner", "trace_id", "digest"))

_encode = msgspec.json.Encoder(order="deterministic").encode
_telling = msgspec.json.Decoder(Telling)
_links = msgspec.json.Decoder(dict[str, Link])


class Context(NamedTuple):
    """What is known around that which has just arrived."""

    known: dict[Spot, Known]
    links: dict[Spot, Link]


async def alone(tx: Tx) -> None:
    """Wait until no other process takes in telemetry, and keep it so until `tx` ends."""
    if tx.dialect == "postgresql":  # SQLite has one writer anyway
        await tx.hot.execute(f"SELECT pg_advisory_xact_lock({ONE_AT_A_TIME})")


async def context_of(
    tx: Tx, owner: str, told: Mapping[Spot, Telling], links: Mapping[Spot, Link]
) -> Context:
    """Everything kept that may belong to these: of their traces, and their twins in others."""
    known: dict[Spot, Known] = {}
    traces = {spot[0] for spot in (*told, *links)}
    asked: set[str] = set()
    fresh = list(told.values())
    for _ in range(ROUNDS):
        found = [
            *await _found(tx, _by_trace, owner, traces - asked),
            *await _twins(tx, owner, fresh),
        ]
        asked |= traces
        fresh = [one.telling for one in found if one.telling.spot not in {**known, **told}]
        known |= {one.telling.spot: one for one in found}
        traces |= {spot[0] for spot in known}
        if not fresh:
            break
    return Context(known, {**await _stored_links(tx, owner, traces), **links})


async def keep(
    tx: Tx,
    owner: str,
    told: Mapping[Spot, Telling],
    belongs: Mapping[Spot, Belongs],
    known: Mapping[Spot, Known],
    until: datetime,
) -> None:
    """Keep the tellings that are new, and note which event each of all these is part of now."""
    rows = [
        (
            *(owner, *spot, _answer_key(one) or _seam_key(one, seam(one))),
            _likeness(one, one.end_ns, named=bool(one.response_id)),
            *(_encode(one).decode(), *belongs[spot].event, belongs[spot].event_hash, until),
        )
        for spot, one in sorted(told.items())
        if spot not in known and spot in belongs
    ]
    if rows:
        await _append(tx, rows)
    for spot, one in known.items():
        if spot in belongs and one[1:] != belongs[spot]:
            event, event_hash = belongs[spot]
            where = (_t.owner == owner) & (_t.trace_id == spot[0]) & (_t.span_id == spot[1])
            values = dict(zip(_EVENT, (*event, event_hash), strict=True))
            await tx.run(update(_table).where(where).values(**values))


async def keep_links(tx: Tx, owner: str, links: Mapping[Spot, Link], until: datetime) -> None:
    """Keep whose children these spans are."""
    traces: dict[str, dict[str, Link]] = {}
    for (trace_id, span_id), link in links.items():
        traces.setdefault(trace_id, {})[span_id] = link
    rows = []
    for trace_id, found in sorted(traces.items()):
        body = _encode(found)
        digest = blake2b(body, digest_size=8).digest()
        number = int.from_bytes(digest, "big", signed=True)
        rows.append((owner, trace_id, number, body.decode(), until))
    if rows:
        await _append_links(tx, rows)


async def is_old(tx: Tx, now: datetime) -> bool:
    """Whether anything is kept longer than it shall be."""
    for table in (_table, _links_table):
        if await tx.first(select(table.c.owner).where(table.c.expires_at <= now).limit(1)):
            return True
    return False


async def forget(tx: Tx, now: datetime) -> int:
    """Forget some of what has been kept for long enough; how many rows those were."""
    count = 0
    for table, key in ((_table, _KEY), (_links_table, _LINK_COLUMNS[:3])):
        columns = [table.c[name] for name in key]
        rows = await tx.fetch(
            select(*columns).where(table.c.expires_at <= now).order_by(*columns).limit(AT_ONCE)
        )
        if rows:
            await tx.run(delete(table).where(tuple_(*columns).in_([tuple(row) for row in rows])))
        count += len(rows)
    return count


# ---- finding ------------------------------------------------------------------------------------


async def _found(tx: Tx, find: Find, owner: str, keys: Collection[str]) -> list[Known]:
    rows = await find(tx, [(owner, key) for key in sorted(keys)])
    return [_known(row) for row in rows]


def _known(row: Sequence[Any]) -> Known:
    text, user, event_id, event_hash = row
    return Known(_telling.decode(text), (user, event_id), event_hash)


async def _stored_links(tx: Tx, owner: str, traces: Iterable[str]) -> dict[Spot, Link]:
    found: dict[Spot, Link] = {}
    for trace_id, text in await _links_of(tx, [(owner, one) for one in sorted(traces)]):
        for span_id, link in _links.decode(text).items():
            found[trace_id, span_id] = link
    return found


async def _twins(tx: Tx, owner: str, tellings: Sequence[Telling]) -> list[Known]:
    """What is kept of the same calls as these, whatever trace it is of."""
    answers = {key for one in tellings if (key := _answer_key(one))}
    meeting = [one for one in tellings if _seam_key(one, 0)]
    alike = await _found(tx, _by_likeness, owner, _neighbourhood(tellings))
    halves = await _found(tx, _by_answer, owner, _seams(meeting))
    return [
        *await _found(tx, _by_answer, owner, answers),
        *_fitting(alike, tellings, at=_end, within_ns=ENDS_WITHIN_NS, fits=are_alike),
        *_fitting(halves, meeting, at=seam, within_ns=MEET_WITHIN_NS, fits=are_halves),
    ]


def _fitting(
    found: Iterable[Known],
    tellings: Iterable[Telling],
    *,
    at: Callable[[Telling], int],
    within_ns: int,
    fits: Callable[[Telling, Telling], bool],
) -> list[Known]:
    """Those that fit one of these that is near in time."""
    ordered = sorted(tellings, key=at)
    moments = [at(one) for one in ordered]
    kept = []
    for one in found:
        first = bisect_left(moments, at(one.telling) - within_ns)
        last = bisect_right(moments, at(one.telling) + within_ns)
        near = ordered[first : min(last, first + MAX_NEAR)]
        if any(fits(one.telling, other) for other in near):
            kept.append(one)
    return kept


def _end(one: Telling) -> int:
    return one.end_ns


def _answer_key(one: Telling) -> str | None:
    if len(one.response_id) <= 64:
        return one.response_id or None
    return blake2b(one.response_id.encode(), digest_size=24).hexdigest()


def _seam_key(one: Telling, moment_ns: int) -> str | None:
    """What the halves of a call have in common that are in no common span."""
    if one.response_id or one.parent_id or not is_half(one):
        return None
    moment = str(moment_ns // _SEAM_NS)
    parts = (one.instance, one.scope, *astuple(one.people), moment)
    return "seam:" + blake2b("|".join(parts).encode(), digest_size=12).hexdigest()


def _seams(tellings: Iterable[Telling]) -> set[str]:
    return {
        key
        for one in tellings
        for moment in (seam(one) - MEET_WITHIN_NS, seam(one) + MEET_WITHIN_NS)
        if (key := _seam_key(one, moment))
    }


def _likeness(one: Telling, moment_ns: int, *, named: bool) -> str:
    """What twins have in common of which not both know their answer's id, and when they ended."""
    moment = str(moment_ns // _MOMENT_NS)
    parts = (one.instance, *map(str, one.counted), moment, "named" if named else "")
    return blake2b("|".join(parts).encode(), digest_size=12).hexdigest()


def _neighbourhood(tellings: Iterable[Telling]) -> set[str]:
    return {
        _likeness(one, moment, named=named)
        for one in tellings
        for moment in (one.end_ns - ENDS_WITHIN_NS, one.end_ns + ENDS_WITHIN_NS)
        for named in ((False,) if one.response_id else (False, True))
    }
