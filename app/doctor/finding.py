"""What one look came to."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from app.core.clock import Clock
from app.db.engine import Database
from app.settings import Settings

State = Literal["ok", "warn", "fail"]


class Finding(NamedTuple):
    """One thing that was looked at, how it stands, and what to do about it unless it is fine."""

    check: str
    state: State
    found: str
    advice: str = ""


class Patient(NamedTuple):
    """What is examined: the settings, the environment they came from, and the open database."""

    settings: Settings
    environment: Mapping[str, str]
    db: Database
    clock: Clock
    replicas: int


def size(count: float) -> str:
    """Bytes as people read them: `3.2 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit in ("bytes", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
