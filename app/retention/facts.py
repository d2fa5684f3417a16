"""What rows of the log add up to, and the manifest that says so beside their file. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from app.retention.fold import SUMMED
from app.summaries.fold import measures_of
from app.summaries.tables import MEASURES
from app.usage.ledger import Entry

FORMAT = 1
"""The version of the files' columns and of the manifest; one that is not ours is not read."""

_COLUMN = {"retries": "retry_count"}
_RARER = tuple(
    (name, Entry._fields.index(_COLUMN.get(name, name))) for name in SUMMED if name not in MEASURES
)


class Facts(msgspec.Struct, frozen=True):
    """How many rows, whose, from when to when, and what they add up to, by name in `SUMMED`."""

    users: int
    events: int
    first_at: datetime | None
    last_at: datetime | None
    last_recorded_at: datetime | None
    sums: dict[str, int]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands beside an archive's file, so that the file can be judged without the database."""

    format: int
    id: str
    month: str
    file: str
    bytes: int
    sha256: str
    columns: list[str]
    facts: Facts


class Written(NamedTuple):
    """A file that is durable: where, relative to where archives are kept, and how to know it."""

    path: str
    bytes: int
    sha256: str


class Seen(msgspec.Struct, frozen=True):
    """What a file is found to be; `problems` is empty where it agrees with its manifest.

    Without `facts` it cannot be read; `user_ids` names whose rows it holds.
    """

    bytes: int
    sha256: str
    facts: Facts | None
    user_ids: list[str]
    problems: list[str]


def facts_of(entries: Sequence[Entry]) -> Facts:
    """Count and sum the entries; every sum is exact."""
    measures, rarer = [0] * len(MEASURES), dict.fromkeys((name for name, _ in _RARER), 0)
    for entry in entries:
        for place, amount in measures_of(entry):
            measures[place] += amount
        row: Sequence[Any] = entry
        for name, place in _RARER:
            rarer[name] += row[place] or 0
    moments = [entry.timestamp for entry in entries]
    return Facts(
        users=len({entry.user_id for entry in entries}),
        events=len(entries),
        first_at=min(moments, default=None),
        last_at=max(moments, default=None),
        last_recorded_at=max((entry.recorded_at for entry in entries), default=None),
        sums=dict(zip(MEASURES, measures, strict=True)) | rarer,
    )
