"""An event that tells of several calls is recorded whole or not at all."""

from collections.abc import Collection, Mapping, Sequence

from app.db.engine import Tx
from app.usage.ledger import Entry, Logged, Torn, append, as_wrapped, find_many
from app.usage.wrapped import NONE_WRAPPED, WrappedIds, find_wrapped

Id = tuple[str, str]
Event = Sequence[Entry]


async def append_whole(
    tx: Tx,
    entries: Sequence[Entry],
    places: Sequence[int],
    *,
    again: bool = False,
    wrapped: WrappedIds = NONE_WRAPPED,
) -> tuple[list[Entry], list[Logged]]:
    """Append events; `places` counts each event's entries from 0.

    Returns the entries that are new, and what became of each event. An event of several entries
    is a `duplicate` if its first one is, and a `conflict` if any of its ids stands for something
    else; nothing of it is written then. One whose id may be forgotten is `out_of_window`. `again`
    and `wrapped` are as for `append`.

    Raises:
        Torn: roll back and try again.
    """
    if not entries:
        return [], []
    if wrapped.known_from is not None and any(one[2] < wrapped.known_from for one in entries):
        return await _append_known(tx, _events(entries, places), wrapped, again=again)
    if not any(places):
        return await append(tx, entries, again=again, wrapped=wrapped)
    return await _append_events(tx, _events(entries, places), wrapped, again=again)


async def _append_known(
    tx: Tx, events: Sequence[Event], wrapped: WrappedIds, *, again: bool
) -> tuple[list[Entry], list[Logged]]:
    """Append those events whose ids cannot have been forgotten."""
    since = wrapped.known_from
    known = [event for event in events if since is None or event[0].timestamp >= since]
    fresh, rows = await _append_events(tx, known, wrapped, again=again)
    left = iter(rows)
    return fresh, [
        next(left)
        if since is None or event[0].timestamp >= since
        else Logged("out_of_window", event[0], tuple(event[1:]))
        for event in events
    ]


async def _append_events(
    tx: Tx, events: Sequence[Event], wrapped: WrappedIds, *, again: bool
) -> tuple[list[Entry], list[Logged]]:
    ids = {entry[:2] for event in events if len(event) > 1 for entry in event}
    standing: dict[Id, Entry] = {entry[:2]: entry for entry in await find_many(tx, sorted(ids))}
    if wrapped.exist:
        standing |= await _standing_wrapped(tx, events, ids - standing.keys())
    admitted = _admitted(events, standing.keys())
    wanted = [
        entry for event, fits in zip(events, admitted, strict=True) if fits for entry in event
    ]
    fresh: list[Entry] = []
    rows: list[Logged] = []
    if wanted:
        fresh, rows = await append(tx, wanted, again=again, wrapped=wrapped)
    standing |= {row.entry[:2]: row.entry for row in rows}
    new = {entry[:2] for entry in fresh}
    logged, left = [], iter(rows)
    for event, fits in zip(events, admitted, strict=True):
        told = [next(left) for _ in event] if fits else []
        if fits and len(event) == 1:
            logged.append(told[0])
            continue
        written = sum(entry[:2] in new for entry in event) if fits else 0
        if written == len(event):
            logged.append(Logged("recorded", event[0], tuple(event[1:])))
        elif written:
            raise Torn
        else:
            logged.append(_stood(event, standing, again))
    return fresh, logged


async def _standing_wrapped(
    tx: Tx, events: Sequence[Event], ids: Collection[Id]
) -> dict[Id, Entry]:
    """The entries that were wrapped under these ids, as they are sent now."""
    found = await find_wrapped(tx, sorted(ids))
    sent = {entry[:2]: entry for event in reversed(events) for entry in reversed(event)}
    return {key: as_wrapped(sent[key], row) for key, row in found.items()}


def _events(entries: Sequence[Entry], places: Sequence[int]) -> list[Event]:
    starts = [index for index, place in enumerate(places) if not place]
    ends = [*starts[1:], len(entries)]
    return [entries[start:end] for start, end in zip(starts, ends, strict=True)]


def _admitted(events: Sequence[Event], stored: Collection[Id]) -> list[bool]:
    """Whether each event may be written: of several entries, all ids must still be free."""
    taken = set(stored)
    found = []
    for event in events:
        ids = [entry[:2] for entry in event]
        fits = len(ids) == 1 or taken.isdisjoint(ids)
        if fits:
            taken.update(ids)
        found.append(fits)
    return found


def _stood(event: Event, standing: Mapping[Id, Entry], again: bool) -> Logged:
    """What becomes of an event of several entries when some of its ids were taken before."""
    first = event[0]
    found = [standing[entry[:2]] for entry in event if entry[:2] in standing]
    ours = [entry for entry in found if entry.body_hash == first.body_hash]
    if not ours or ours[0][:2] != first[:2]:
        return Logged("conflict", first, tuple(entry for entry in found if entry not in ours))
    recorded = again and ours[0].recorded_at == first.recorded_at
    return Logged("recorded" if recorded else "duplicate", ours[0], tuple(ours[1:]))
