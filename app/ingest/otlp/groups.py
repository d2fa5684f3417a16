"""Which tellings are of one and the same call. Pure: the same tellings give the same groups.

A wrapper with one call below it is that call; one with several only sums them up. Two libraries
that watch the same call are told by the id of its response, or by its tokens and the moment it
ended, and by overlapping in time: an id alone is not enough, some providers count to 999.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from app.ingest.otlp.telling import Link, Spot, Telling

Lineage = Mapping[Spot, Link]
Pair = tuple[int, Telling, Telling]
ENDS_WITHIN_NS = 60_000_000
"""How far apart two libraries see the same call end."""
MEET_WITHIN_NS = 250_000_000
"""How far apart the halves of a call may be in time that are in no common span."""
NEIGHBOURS = 16
"""With so many of those that come next in time a telling is compared."""
STEPS = 256
"""How many ancestors are walked; a chain of spans is rarely longer than 20."""


class Groups:
    """Sets of tellings that are united step by step."""

    def __init__(self, tellings: Iterable[Telling]) -> None:
        self._members = {one.spot: [one] for one in tellings}
        self._of = {spot: spot for spot in self._members}

    def of(self, spot: Spot) -> Spot:
        """The name of the group that a telling is in."""
        return self._of[spot]

    def members(self, name: Spot) -> list[Telling]:
        return self._members[name]

    def unite(self, one: Spot, other: Spot) -> None:
        """Make one group of those that these two are in."""
        kept, gone = sorted((self._of[one], self._of[other]))
        if kept != gone:
            moved = self._members.pop(gone)
            self._members[kept] += moved
            for each in moved:
                self._of[each.spot] = kept

    def drop(self, spot: Spot) -> None:
        """Take a telling that is a group of its own out."""
        del self._members[spot]

    def all(self) -> list[list[Telling]]:
        return list(self._members.values())


def ancestors(telling: Telling, lineage: Lineage) -> list[Spot]:
    """The spans above a telling, the nearest first, as far as they are known."""
    found: list[Spot] = []
    seen = {telling.spot}
    spot = (telling.trace_id, telling.parent_id)
    while spot[1] and spot not in seen and len(found) < STEPS:
        seen.add(spot)
        found.append(spot)
        link = lineage.get(spot)
        spot = (spot[0], link.parent_id if link else "")
    return found


def grouped(tellings: Sequence[Telling], lineage: Lineage) -> list[list[Telling]]:
    """One list of tellings per call. `lineage` has the tellings' own links too."""
    ordered = sorted(tellings, key=lambda one: one.spot)
    groups = Groups(ordered)
    above = _nearest(ordered, lineage)
    below: dict[Spot, list[Spot]] = defaultdict(list)
    for spot, parent in above.items():
        below[parent].append(spot)
    _unite_twins(groups, [one for one in ordered if one.spot not in below])
    dropped = _unite_wrappers(groups, ordered, above, below)
    _unite_twins(groups, [one for one in ordered if one.spot not in dropped])
    return groups.all()


def _nearest(tellings: Sequence[Telling], lineage: Lineage) -> dict[Spot, Spot]:
    """The nearest telling above each one that has any."""
    known = {one.spot for one in tellings}
    found: dict[Spot, Spot] = {}
    for one in tellings:
        parent = next((spot for spot in ancestors(one, lineage) if spot in known), None)
        if parent is not None:
            found[one.spot] = parent
    return found


def _unite_wrappers(
    groups: Groups,
    tellings: Sequence[Telling],
    above: Mapping[Spot, Spot],
    below: Mapping[Spot, Sequence[Spot]],
) -> set[Spot]:
    """Unite each wrapper with the one call below it; drop those that sum several up."""
    by_spot = {one.spot: one for one in tellings}
    dropped: set[Spot] = set()
    for spot in sorted(below, key=lambda spot: (-_depth(spot, above), spot)):
        mine = by_spot[spot]
        same = [one for one in below[spot] if by_spot[one].embeds == mine.embeds]
        calls = {groups.of(one) for one in same if one not in dropped}
        if len(calls) > 1 or any(one in dropped for one in same):
            groups.drop(spot)
            dropped.add(spot)
        elif calls:
            groups.unite(spot, calls.pop())
    return dropped


def _depth(spot: Spot, above: Mapping[Spot, Spot]) -> int:
    steps = 0
    while spot in above and steps < STEPS:
        spot, steps = above[spot], steps + 1
    return steps


# ---- twins --------------------------------------------------------------------------------------


def _unite_twins(groups: Groups, tellings: Sequence[Telling]) -> None:
    """Unite what several libraries tell of one call, those that fit best first."""
    pairs = [
        *_pairs(tellings, by=_answer, at=_start, fits=_share_an_answer, apart=_ends_apart),
        *_pairs(tellings, by=_counts, at=_end, fits=are_alike, apart=_ends_apart),
        *_pairs(tellings, by=_half, at=seam, fits=are_halves, apart=_seams_apart),
        *_pairs(tellings, by=_lone_half, at=seam, fits=are_halves, apart=_seams_apart),
    ]
    for _, one, other in sorted(pairs, key=lambda pair: (pair[0], pair[1].spot, pair[2].spot)):
        mine, theirs = groups.of(one.spot), groups.of(other.spot)
        if mine != theirs and _may_be_one(groups.members(mine), groups.members(theirs)):
            groups.unite(mine, theirs)


def _pairs(
    tellings: Sequence[Telling],
    *,
    by: Callable[[Telling], object],
    at: Callable[[Telling], int],
    fits: Callable[[Telling, Telling], bool],
    apart: Callable[[Telling, Telling], int],
) -> list[Pair]:
    """Those of a kind that fit, each compared with those next to it, and how far apart they are."""
    kinds: dict[object, list[Telling]] = defaultdict(list)
    for one in tellings:
        kind = by(one)
        if kind is not None:
            kinds[kind].append(one)
    found: list[Pair] = []
    for alike in kinds.values():
        if len(alike) == 1:
            continue
        alike.sort(key=lambda one: (at(one), one.spot))
        for place, one in enumerate(alike):
            for other in alike[place + 1 : place + 1 + NEIGHBOURS]:
                if fits(one, other):
                    found.append((apart(one, other), one, other))
    return found


def _start(telling: Telling) -> int:
    return telling.start_ns


def _end(telling: Telling) -> int:
    return telling.end_ns


def _ends_apart(one: Telling, other: Telling) -> int:
    return abs(one.end_ns - other.end_ns)


def _answer(telling: Telling) -> object:
    return telling.response_id or None


def _counts(telling: Telling) -> object:
    return telling.instance, telling.counted, telling.failed, telling.embeds


def _share_an_answer(one: Telling, other: Telling) -> bool:
    return one.scope != other.scope and _overlap(one, other)


def are_alike(one: Telling, other: Telling) -> bool:
    """Whether two libraries of one process tell of one call, not both with its answer's id."""
    return (
        _counts(one) == _counts(other)
        and one.scope != other.scope
        and not (one.response_id and other.response_id)
        and _ends_apart(one, other) <= ENDS_WITHIN_NS
        and _have_a_model_in_common(one, other)
    )


def _overlap(one: Telling, other: Telling) -> bool:
    """Whether both tell of one moment; a record has no length and may come a little later."""
    return (
        one.start_ns <= other.end_ns + ENDS_WITHIN_NS
        and other.start_ns <= one.end_ns + ENDS_WITHIN_NS
    )


def _have_a_model_in_common(one: Telling, other: Telling) -> bool:
    return not {one.model, one.requested_model}.isdisjoint({other.model, other.requested_model})


def is_half(telling: Telling) -> bool:
    """Whether it is a request that says nothing of what it used, or a stream's record."""
    return bool(telling.half) or not (telling.is_known or telling.response_id or telling.failed)


def _half(telling: Telling) -> object:
    """Halves are of one span's children."""
    if not is_half(telling):
        return None
    return telling.trace_id, telling.parent_id, telling.scope


def _lone_half(telling: Telling) -> object:
    """Outside of any span each half is a trace of its own."""
    if telling.parent_id or not is_half(telling):
        return None
    return telling.instance, telling.people, telling.scope


def seam(telling: Telling) -> int:
    """Where the halves of a call meet: a stream begins where its request ended."""
    return telling.start_ns if telling.half else telling.end_ns


def _seams_apart(one: Telling, other: Telling) -> int:
    return abs(seam(one) - seam(other))


def are_halves(one: Telling, other: Telling) -> bool:
    """Whether one is the request and the other the stream of one call."""
    return (
        one.half != other.half
        and _have_a_model_in_common(one, other)
        and (one.trace_id == other.trace_id or _seams_apart(one, other) <= MEET_WITHIN_NS)
    )


def _may_be_one(one: Sequence[Telling], other: Sequence[Telling]) -> bool:
    """Whether two groups can be one call: no library tells of it twice, and no two answers."""
    for scope in {each.scope for each in one} & {each.scope for each in other}:
        halves = [each.half for each in (*one, *other) if each.scope == scope]
        if sorted(halves) != ["", "stream"]:
            return False
    answers = {each.response_id for each in (*one, *other) if each.response_id}
    return len(answers) <= 1
