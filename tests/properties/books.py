"""The books kept by hand: what every table must hold, summed again from single calls.

Nothing here is shared with the application: a sum is a loop, a window is a few lines.
"""

from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import select

from app.alerts.tables import Alert
from app.db.engine import Database, Tx
from app.db.types import Base, table_of
from app.limits.tables import Counter, Limit
from app.summaries.tables import HourDimension, HourTotal, PeriodTotal
from app.usage.tables import UsageEvent

Row = Mapping[str, Any]
Key = tuple[Any, ...]
Totals = dict[Key, dict[str, int]]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DEFAULT_PLAN = "plan_default"
SPELLED = {"OpenAI": "openai", "openai/GPT-4o-mini": "gpt-4o-mini"}
"""Other spellings in limits, and what calls are named that they mean."""
SUMMED = (
    *("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"),
    *("output_reasoning_tokens", "input_audio_tokens", "output_audio_tokens"),
    *("input_image_tokens", "output_image_tokens", "requests"),
)
NAMED = {"backend": "backend", "pool": "pool", "team": "team_id", "key": "api_key_id"}
EVERY_TABLE = sorted(Base.metadata.tables)


class Books(NamedTuple):
    """Everything that one event changes; totals without their zeros."""

    calls: int
    periods: Totals
    hours: Totals
    dimensions: Totals
    counters: dict[Key, int]
    alerts: list[Key]


def amounts_of(row: Row) -> Tally[str]:
    """What one call adds to each total that it is part of."""
    found = Tally({name: row.get(name) or 0 for name in SUMMED})
    found["calls"] = 1
    found["errors"] = int(row["status_code"] >= 400)
    found["cost_nanos"] = row["cost_nanos"] or 0
    found["unpriced_calls"] = int(row["cost_nanos"] is None)
    for name in ("latency", "ttft"):
        if row.get(f"{name}_us") is not None:
            found[f"{name}_us"] = row[f"{name}_us"]
            found[f"{name}_calls"] = 1
    return found


def bucket(micros: int) -> str:
    """The latency bucket: steps of a quarter doubling from one millisecond, the last open."""
    return next(f"{n:03d}" for n in count() if n == 84 or micros <= round(1000 * 2 ** (n / 4)))


def dimensions_of(row: Row) -> Iterable[tuple[str, str]]:
    """The cross-user totals that a call is part of, latency buckets aside."""
    yield "model", f"{row['provider']}\x1f{row['model']}"
    yield "endpoint", row.get("endpoint") or ""
    yield "status_code", str(row["status_code"])
    for name, column in NAMED.items():
        if row.get(column) is not None:
            yield name, row[column]
    if row.get("pool") is not None and row.get("backend") is not None:
        yield "pool_backend", f"{row['pool']}\x1f{row['backend']}"
    for name, column in (("team_calls", "team_id"), ("key_calls", "api_key_id")):
        if row.get(column) is not None:
            called = (row["provider"], row["model"], row.get("endpoint") or "")
            yield name, "\x1f".join((row[column], *called, str(row["status_code"])))


def month_of(at: datetime) -> datetime:
    return at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def window_of(window: str, at: datetime, zone: str = "UTC") -> tuple[datetime, datetime]:
    """Start and end of a limit's window for a user on calendar months.

    In a zone whose clocks do not move then, it is that of a clock which is so far ahead.
    """
    if zone != "UTC" and window not in ("billing_period", "lifetime"):
        ahead = at.astimezone(ZoneInfo(zone)).utcoffset() or timedelta()
        start, end = window_of(window, at + ahead)
        return start - ahead, end - ahead
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    hour = day.replace(hour=at.hour)
    starts = {
        "minute": (hour.replace(minute=at.minute), timedelta(minutes=1)),
        "hour": (hour, timedelta(hours=1)),
        "day": (day, timedelta(days=1)),
        "week": (day - timedelta(days=at.weekday()), timedelta(days=7)),
        "lifetime": (EPOCH, timedelta(days=365 * 1000)),
    }
    if window in starts:
        start, length = starts[window]
        return start, start + length
    return month_of(at), month_of(month_of(at) + timedelta(days=32))


def applies(limit: Row, row: Row) -> bool:
    """Whether a call counts towards a limit."""
    scopes = ("all", f"user:{row['user_id']}", f"plan:{DEFAULT_PLAN}")
    mine = (*scopes, f"team:{row.get('team_id')}", f"key:{row.get('api_key_id')}")
    return (
        limit["scope_key"] in mine
        and limit["endpoint"] in (None, row.get("endpoint"))
        and all(
            limit[name] is None or SPELLED.get(limit[name], limit[name]) == row.get(name)
            for name in ("provider", "model")
        )
    )


def used_by(metric: str, row: Row) -> int:
    tokens = {name: row.get(name) or 0 for name in ("input_tokens", "output_tokens")}
    return {
        "calls": 1,
        "tokens": sum(tokens.values()),
        "cost_usd": row["cost_nanos"] or 0,
        **tokens,
    }[metric]


def reached(used: int, limit: Row) -> list[int]:
    """The thresholds of a limit that this much has reached."""
    amount = limit["amount"]
    if amount is None or not used or limit["action"] == "shadow":
        return []
    thresholds = [int(text) for text in limit["thresholds"].split(",") if text]
    return [one for one in thresholds if used * 100 >= amount * one]


def books_of(rows: Iterable[Row], limits: Iterable[Row]) -> Books:
    """What the tables must hold if exactly these calls were made."""
    periods: dict[Key, Tally[str]] = {}
    hours: dict[Key, Tally[str]] = {}
    dimensions: dict[Key, Tally[str]] = {}
    counters: Tally[Key] = Tally()
    by_id = {limit["id"]: limit for limit in limits}
    calls = 0
    for row in rows:
        calls += 1
        amounts, at = amounts_of(row), row["timestamp"]
        named = (row["user_id"], row["provider"], row["model"])
        hour = at.replace(minute=0, second=0, microsecond=0)
        _grow(periods, (named[0], month_of(at), *named[1:]), amounts)
        _grow(hours, (named[0], hour, *named[1:], row.get("task_type") or ""), amounts)
        for dimension, value in dimensions_of(row):
            _grow(dimensions, (hour, dimension, value), amounts)
        for name in ("latency", "ttft"):
            if row.get(f"{name}_us") is not None:
                _grow(dimensions, (hour, name, bucket(row[f"{name}_us"])), Tally(calls=1))
        for limit in by_id.values():
            start, end = window_of(limit["window"], at, limit["timezone"])
            if applies(limit, row) and end > limit["counts_from"]:
                whose = limit["scope_key"]
                whose = f"user:{row['user_id']}" if whose.startswith("plan:") else whose
                counters[whose, limit["id"], start] += used_by(limit["metric"], row)
    alerts = [(*key, one) for key, used in counters.items() for one in reached(used, by_id[key[1]])]
    return Books(
        calls,
        _tidy(periods),
        _tidy(hours),
        _tidy(dimensions),
        {key: used for key, used in counters.items() if used},
        sorted(alerts),
    )


def _grow(totals: dict[Key, Tally[str]], key: Key, amounts: Tally[str]) -> None:
    totals.setdefault(key, Tally()).update(amounts)


def _tidy(totals: Mapping[Key, Tally[str]]) -> Totals:
    return {
        key: {name: value for name, value in sorted(total.items()) if value}
        for key, total in totals.items()
    }


async def rows_of(tx: Tx, mapped: type[Base]) -> list[Row]:
    return [row._mapping for row in await tx.fetch(select(table_of(mapped)))]


async def books_in(db: Database) -> Books:
    """What the tables hold, on one snapshot."""

    async def work(tx: Tx) -> Books:
        return Books(
            len(await rows_of(tx, UsageEvent)),
            *[
                _stored(await rows_of(tx, mapped), key)
                for mapped, key in (
                    (PeriodTotal, ("user_id", "period_start", "provider", "model")),
                    (HourTotal, ("user_id", "hour", "provider", "model", "task_type")),
                    (HourDimension, ("hour", "dimension", "value")),
                )
            ],
            {
                tuple(row.values())[:3]: row["used"]
                for row in await rows_of(tx, Counter)
                if row["used"]
            },
            sorted(tuple(row.values())[:4] for row in await rows_of(tx, Alert)),
        )

    return await db.read(work)


def _stored(rows: Iterable[Row], key: tuple[str, ...]) -> Totals:
    totals: dict[Key, Tally[str]] = {}
    names = set(amounts_of({"status_code": 0, "cost_nanos": 0, "latency_us": 0, "ttft_us": 0}))
    for row in rows:
        amounts = Tally({name: row[name] for name in names})
        _grow(totals, tuple(row[name] for name in key), amounts)
    return _tidy(totals)


async def log_in(db: Database) -> dict[Key, Row]:
    """The log by user and event id."""
    rows = await db.read(lambda tx: rows_of(tx, UsageEvent))
    return {(row["user_id"], row["event_id"]): row for row in rows}


async def limits_in(db: Database) -> list[Row]:
    return await db.read(lambda tx: rows_of(tx, Limit))


async def assert_balanced(db: Database) -> dict[Key, Row]:
    """Every table is what the log sums to; the log is given back."""
    log = await log_in(db)
    expected = books_of(log.values(), await limits_in(db))
    stored = await books_in(db)
    for name in Books._fields:
        assert getattr(stored, name) == getattr(expected, name), name
    return log


async def everything_in(db: Database) -> dict[str, list[Key]]:
    """Every row of every table, to see that nothing changed."""

    async def work(tx: Tx) -> dict[str, list[Key]]:
        tables = Base.metadata.tables
        return {
            name: sorted((tuple(row) for row in await tx.fetch(select(tables[name]))), key=repr)
            for name in EVERY_TABLE
        }

    return await db.read(work)
