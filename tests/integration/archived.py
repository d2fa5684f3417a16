"""A user with a log, and most of it in an archive."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from app.core.clock import FrozenClock, rfc3339
from app.retention.archives import ArchiveRow, Asked, list_archives
from app.retention.policy import Policy
from app.retention.store import ArchiveStore
from app.retention.wrap import Parts, wrap
from app.runtime import Runtime
from tests.conftest import START

ROWS, KEPT = 40, 4
WRAPPED = ROWS - KEPT


def event(number: int, user_id: str = "alice", **more: Any) -> dict[str, Any]:
    """One of the events of a user, a minute apart and all before `START`."""
    said: dict[str, Any] = {
        "id": f"e{number}",
        "user_id": user_id,
        "timestamp": rfc3339(START - timedelta(minutes=number + 1)),
        "provider": "openai",
        "model": "gpt-4o-mini" if number % 3 else "no-such-model",
        "usage": {"input_tokens": 1000 + number, "output_tokens": number},
        "endpoint": "/chat",
        "status_code": 200 if number % 5 else 500,
        "latency_ms": 12.5 + number,
        "tags": {"käse": f"n{number % 2}"},
        "context": {"service_tier": "standard"},
        "team_id": "red" if number % 2 else "blue",
    }
    if number % 3 == 0:  # nothing has a price for all of these
        said["usage"] |= {"audio_seconds": 1.5, "output_citation_tokens": 2}
    return said | more


async def send(client: httpx.AsyncClient, *users: str, rows: int = ROWS) -> None:
    """Record the events of these users."""
    for user_id in users:
        body = [event(number, user_id) for number in range(rows)]
        answer = await client.post("/v1/events", json=body)
        assert answer.status_code == 200, answer.text


async def wrap_all(
    runtime: Runtime, *users: str, keep: int = KEPT, store: ArchiveStore | None = None
) -> list[ArchiveRow]:
    """Wrap by age, so that unpriced rows go too; the archives there are now, oldest first."""
    clock = FrozenClock(START - timedelta(minutes=keep, seconds=30))
    await wrap(Parts(runtime.db, store or runtime.store, clock, Policy(None, None, 0)), users)
    return await archives(runtime)


async def archives(runtime: Runtime) -> list[ArchiveRow]:
    """Every archive, oldest first."""
    found = await runtime.db.read(lambda tx: list_archives(tx, Asked(), None, 1000))
    return found[::-1]


def files_in(folder: Path) -> list[str]:
    """The names of all files below a folder, hidden ones too."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())
