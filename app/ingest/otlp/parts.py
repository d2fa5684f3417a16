"""What is settled at once: a request, or a part of one that is very long."""

import asyncio
from collections.abc import Mapping, Sequence
from itertools import islice

from app.access.keys import Key
from app.ingest.otlp.settle import Arrived
from app.ingest.otlp.telling import Link, Spot, Telling

AT_ONCE = 10_000
"""So many tellings of one request are settled in one transaction, all or none."""


class Part:
    """Something of a request that is settled at once, and where what became of it will be."""

    __slots__ = ("answer", "arrived", "arrived_s", "key", "token", "version")

    def __init__(
        self, arrived: Arrived, key: Key, token: str, version: int, arrived_s: float
    ) -> None:
        self.arrived, self.key, self.token, self.version = arrived, key, token, version
        self.arrived_s = arrived_s
        self.answer: asyncio.Future[dict[Spot, str]] = asyncio.get_running_loop().create_future()

    @property
    def size(self) -> int:
        """How much of a transaction it takes."""
        return len(self.arrived.told) + len(self.arrived.links) // 50 + 1


def divided(
    told: Mapping[Spot, Telling], links: Mapping[Spot, Link]
) -> list[tuple[dict[Spot, Telling], dict[Spot, Link]]]:
    """What a request tells in parts of a transaction each, no trace in two of them if it fits."""
    order = sorted(told, key=lambda spot: (told[spot].end_ns, spot))
    traces = list(dict.fromkeys(spot[0] for spot in order))
    place = {trace: number for number, trace in enumerate(traces)}
    order.sort(key=lambda spot: place[spot[0]])
    parts: list[tuple[dict[Spot, Telling], dict[Spot, Link]]] = []
    spots = iter(order)
    while some := list(islice(spots, AT_ONCE)):
        parts.append(({spot: told[spot] for spot in some}, {}))
    if links or not parts:
        if not parts:
            parts.append(({}, {}))
        parts[0][1].update(links)
    return parts


def joined(several: Sequence[Arrived]) -> Arrived:
    first = several[0]
    if len(several) == 1:
        return first
    told: dict[Spot, Telling] = {}
    links: dict[Spot, Link] = {}
    for one in several:
        told |= one.told
        links |= one.links
    return first._replace(told=told, links=links)


def halves(arrived: Arrived) -> list[Arrived]:
    spots = list(arrived.told)
    middle = len(spots) // 2
    return [
        arrived._replace(told={spot: arrived.told[spot] for spot in some})
        for some in (spots[:middle], spots[middle:])
    ]
