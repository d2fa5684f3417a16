"""What a re-rate would change, by day, model and user: added up on the way, nothing is kept."""

import asyncio
from datetime import date
from typing import Any, NamedTuple

from app.core.money import to_usd
from app.db.engine import Database
from app.ingest.rerate import differs, revised
from app.pricing.catalog import Catalog
from app.usage.adjust import Revision
from app.usage.sweep import Filter, Key, page_to_rate

PAGE = 2_000
KEPT = 20_000
"""So many users, models and days are added up each; beyond twice that the smallest are let go."""
SHOWN = 100
"""So many users are shown, those whose cost changes most."""
SHOWN_MODELS = 1_000


class Shift(NamedTuple):
    """Some events that would be charged differently, and what they cost before and after."""

    events: int
    old_nanos: int
    new_nanos: int

    @property
    def delta_nanos(self) -> int:
        return self.new_nanos - self.old_nanos


class Tally:
    """Shifts by key, as many as there is room for: the keys with the smallest ones are let go.

    `count` is how many keys there were; one that was let go and came back is counted again.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept, self._gone = kept, 0
        self._shifts: dict[tuple[str, ...], list[int]] = {}

    @property
    def count(self) -> int:
        return self._gone + len(self._shifts)

    def add(self, key: tuple[str, ...], old: int, new: int) -> None:
        shift = self._shifts.get(key)
        if shift is None:
            if len(self._shifts) >= 2 * self._kept:
                self._let_go()
            shift = self._shifts[key] = [0, 0, 0]
        shift[0] += 1
        shift[1] += old
        shift[2] += new

    def most(self, shown: int) -> list[tuple[tuple[str, ...], Shift]]:
        """Those with the largest changes, largest first."""
        found = [(key, Shift(*shift)) for key, shift in self._shifts.items()]
        found.sort(key=lambda pair: (-abs(pair[1].delta_nanos), pair[0]))
        return found[:shown]

    def _let_go(self) -> None:
        kept = self.most(self._kept)
        self._gone += len(self._shifts) - len(kept)
        self._shifts = {key: list(shift) for key, shift in kept}


class Diff:
    """What would change. Costs are those of the events that would be charged differently."""

    def __init__(self) -> None:
        self.events = self.newly_priced = self.would_be_unpriced = self.corrected = 0
        self.total = Shift(0, 0, 0)
        self.days, self.models, self.users = Tally(), Tally(), Tally()

    def add(self, revision: Revision) -> None:
        """Count an event that was looked at."""
        self.events += 1
        entry, cost = revision.entry, revision.cost_nanos
        if cost is None:
            self.would_be_unpriced += entry.cost_nanos is not None
        if cost is None or not differs(revision):
            return
        self.newly_priced += entry.cost_nanos is None
        old = entry.cost_nanos or 0
        self.total = Shift(
            self.total.events + 1, self.total.old_nanos + old, self.total.new_nanos + cost
        )
        day: date = entry.timestamp.date()
        self.days.add((day.isoformat(),), old, cost)
        self.models.add((entry.provider, entry.model), old, cost)
        self.users.add((entry.user_id,), old, cost)

    def to_json(self) -> dict[str, Any]:
        """As it is kept and shown: money as decimal strings, days in order, the rest by size."""
        days = sorted(self.days.most(KEPT))
        models = self.models.most(SHOWN_MODELS)
        users = self.users.most(SHOWN)
        return {
            "events": self.events,
            "changed": self.total.events,
            **_money(self.total),
            "newly_priced": self.newly_priced,
            "newly_unpriced": 0,
            "would_be_unpriced": self.would_be_unpriced,
            "corrected": self.corrected,
            "by_day": [{"day": key[0], **_shown(shift)} for key, shift in days],
            "by_model": [
                {"provider": key[0], "model": key[1], **_shown(shift)} for key, shift in models
            ],
            "model_count": self.models.count,
            "by_user": [{"user_id": key[0], **_shown(shift)} for key, shift in users],
            "user_count": self.users.count,
        }


def _money(shift: Shift) -> dict[str, str]:
    return {
        "old_cost_usd": to_usd(shift.old_nanos),
        "new_cost_usd": to_usd(shift.new_nanos),
        "delta_usd": to_usd(shift.delta_nanos),
    }


def _shown(shift: Shift) -> dict[str, Any]:
    return {"events": shift.events, **_money(shift)}


async def plan(db: Database, wanted: Filter, catalog: Catalog) -> Diff:
    """What rating these events by these prices would change. Nothing is written.

    The log is read in short pages, each its own snapshot, with the event loop free in between.
    An event that was corrected is counted and left as it is.
    """
    diff = Diff()
    after: Key | None = None
    while True:
        page, said = await db.read(lambda tx, at=after: page_to_rate(tx, wanted, at, PAGE))  # type: ignore[misc]
        for entry in page.entries:
            if entry[:2] in said:
                diff.corrected += 1
                continue
            revision = revised(entry, catalog)
            if revision is not None:
                diff.add(revision)
        after = page.after
        if after is None:
            return diff
        await asyncio.sleep(0)
