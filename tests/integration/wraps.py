"""What the tests of wrapping share: logs to wrap, and the books of the log and what left it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import httpx

from app.core.clock import rfc3339
from app.db.engine import Database, Tx
from app.retention.policy import Policy, set_policy
from app.retention.wrap import Parts
from app.runtime import Runtime
from app.summaries.tables import MEASURES, HourTotal, PeriodTotal, WrappedUsage
from app.usage.tables import UsageEvent, WrappedEvent
from tests.conftest import START
from tests.properties.books import amounts_of, rows_of

Event = dict[str, Any]
Sums = dict[tuple[Any, ...], dict[str, int]]


def call(number: int, *, user: str = "ann", days: float = 0.0, **more: Any) -> Event:
    """One call of a user, so many days and `number` seconds before the frozen now."""
    at = START - timedelta(days=days, seconds=number)
    return {
        "user_id": user,
        "id": f"e{number}",
        "timestamp": rfc3339(at),
        "provider": "openai",
        "model": "gpt-4o-mini",
        "usage": {"input_tokens": 1000 + number, "output_tokens": 7},
        **more,
    }


async def send(client: httpx.AsyncClient, events: Sequence[Event]) -> list[str]:
    """Record the events, however old; what became of each one."""
    answer = await client.post("/v1/events?backfill=true&results=all", json=list(events))
    assert answer.status_code in (200, 207, 422), answer.text
    return [one["status"] for one in answer.json()["results"]]


async def keep(db: Database, now: datetime, *, rows: int | None, days: int | None = None) -> None:
    """Have so many of the newest rows kept, of everyone, and none older than so many days."""
    await db.write(lambda tx: set_policy(tx, None, Policy(rows, rows, days), now), alone=True)


async def ids_in_log(db: Database, user: str = "ann") -> list[str]:
    rows = await db.read(lambda tx: rows_of(tx, UsageEvent))
    return sorted(row["event_id"] for row in rows if row["user_id"] == user)


async def ids_kept(db: Database) -> int:
    return len(await db.read(lambda tx: rows_of(tx, WrappedEvent)))


def parts_of(runtime: Runtime, db: Database | None = None) -> Parts:
    return runtime.wrap if db is None else runtime.wrap._replace(db=db)


async def assert_accounted(db: Database) -> None:
    """What is in the log and what was wrapped is exactly what the totals say, by user and hour."""

    async def work(tx: Tx) -> tuple[Sums, Sums, int, int]:
        log = await rows_of(tx, UsageEvent)
        wrapped = await rows_of(tx, WrappedUsage)
        held: dict[tuple[Any, ...], Counter[str]] = {}
        by_period: dict[tuple[Any, ...], Counter[str]] = {}
        for row in log:
            hour = row["timestamp"].replace(minute=0, second=0, microsecond=0)
            month = hour.replace(day=1, hour=0)
            _add(held, (row["user_id"], hour, row["provider"], row["model"]), amounts_of(row))
            key = (row["user_id"], month, row["provider"], row["model"])
            _add(by_period, key, amounts_of(row))
        for row in wrapped:
            amounts = {name: row[name] for name in MEASURES}
            named = (row["provider"], row["model"])
            _add(held, (row["user_id"], row["hour"], *named), amounts)
            _add(by_period, (row["user_id"], row["period_start"], *named), amounts)
        hours = await rows_of(tx, HourTotal)
        counted: dict[tuple[Any, ...], Counter[str]] = {}
        for row in hours:
            key = (row["user_id"], row["hour"], row["provider"], row["model"])
            _add(counted, key, {name: row[name] for name in MEASURES})
        periods: dict[tuple[Any, ...], Counter[str]] = {}
        for row in await rows_of(tx, PeriodTotal):
            key = (row["user_id"], row["period_start"], row["provider"], row["model"])
            _add(periods, key, {name: row[name] for name in MEASURES})
        kept = len(await rows_of(tx, WrappedEvent))
        assert _tidy(by_period) == _tidy(periods)
        return _tidy(held), _tidy(counted), kept, sum(row["calls"] for row in wrapped)

    held, counted, kept, calls = await db.read(work)
    assert held == counted
    assert kept == calls


def _add(sums: dict[tuple[Any, ...], Counter[str]], key: Any, more: Mapping[str, int]) -> None:
    sums.setdefault(key, Counter()).update(more)


def _tidy(sums: Mapping[tuple[Any, ...], Counter[str]]) -> Sums:
    return {key: {name: value for name, value in one.items() if value} for key, one in sums.items()}
