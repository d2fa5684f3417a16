"""What was used in the last hours, by everyone or by one user, key or team, and of what."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement

from app.analytics.budgets import Budgets, read_budgets
from app.analytics.everyone import first_hour, used_in
from app.analytics.percentiles import percentiles_of
from app.core.errors import InvalidInput
from app.db.engine import Tx
from app.db.types import table_of
from app.summaries.buckets import Names, TooManyError, by_names, summed
from app.summaries.detail import (
    NO_PERCENTILES,
    Percentiles,
    details,
    is_readable,
    percentiles,
    used_in_hours,
)
from app.summaries.grains import Span
from app.summaries.sources import HOURS, Source
from app.summaries.sums import NONE, Sums
from app.summaries.tables import HourTotal

MOST_NAMES = 100_000

_hour = table_of(HourTotal).c
ByName = Mapping[Names, Sums]


class Whose(NamedTuple):
    """Whose calls; all None means everyone's."""

    user_id: str | None = None
    api_key_id: str | None = None
    team_id: str | None = None

    @property
    def scope_key(self) -> str | None:
        """The narrowest scope whose budgets concern these calls."""
        if self.api_key_id is not None:
            return f"key:{self.api_key_id}"
        if self.team_id is not None:
            return f"team:{self.team_id}"
        return None if self.user_id is None else f"user:{self.user_id}"


class Parts(NamedTuple):
    """Some calls, whole and by name. None where nothing kept can tell: never a part of the truth.

    `endpoints` and `status_codes` are keyed by one name, `models` by provider and model.
    """

    used: Sums
    models: ByName | None
    endpoints: ByName | None
    status_codes: ByName | None
    latency: Percentiles | None
    ttft: Percentiles | None


class Metrics(NamedTuple):
    """What the last hours came to; calls a minute are over the time since anything was known."""

    span: Span
    parts: Parts
    covered_minutes: float
    budgets: Budgets

    @property
    def calls_per_minute(self) -> float:
        minutes = self.covered_minutes
        return round(self.parts.used.calls / minutes, 4) if minutes else 0.0


async def read_metrics(tx: Tx, whose: Whose, span: Span, now: datetime) -> Metrics:
    """The figures of these calls in `span`, which is of whole hours.

    Raises:
        InvalidInput: nothing is kept by all that was named together.
    """
    try:
        parts = await _parts(tx, whose, span)
    except TooManyError:
        raise InvalidInput.at("/hours", f"hours: more than {MOST_NAMES:,} names in them") from None
    first = await first_hour(tx)
    known = now if first is None else max(first, span.start)
    minutes = max(0.0, (now - known).total_seconds() / 60)
    return Metrics(span, parts, minutes, await read_budgets(tx, whose.scope_key, now))


async def _parts(tx: Tx, whose: Whose, span: Span) -> Parts:
    if whose.user_id is not None:
        return await _of_user(tx, whose.user_id, whose, span)
    if whose.api_key_id is not None and whose.team_id is not None:
        detail = "team_id: no totals are kept by key and team together; name the user_id as well"
        raise InvalidInput.at("/team_id", detail)
    if whose.api_key_id is not None:
        return await of_named(tx, "key", whose.api_key_id, span)
    if whose.team_id is not None:
        return await of_named(tx, "team", whose.team_id, span)
    return await of_everyone(tx, span)


async def of_everyone(tx: Tx, span: Span) -> Parts:
    """The calls of all users."""
    models = await used_in(tx, "model", span)
    return Parts(
        sum(models.values(), NONE),
        models,
        await used_in(tx, "endpoint", span),
        await used_in(tx, "status_code", span),
        await _bucketed(tx, "latency", span),
        await _bucketed(tx, "ttft", span),
    )


async def _bucketed(tx: Tx, dimension: str, span: Span) -> Percentiles:
    counts = await used_in(tx, dimension, span)
    return percentiles_of({name: sums.calls for (name,), sums in counts.items()})


async def of_named(tx: Tx, dimension: str, value: str, span: Span) -> Parts:
    """The calls that name a key or a team; by name where all of them were also kept so."""
    used = (await used_in(tx, dimension, span, value)).get((value,), NONE)
    called = await used_in(tx, f"{dimension}_calls", span, value)
    if sum(called.values(), NONE) != used:
        return Parts(used, None, None, None, None, None)
    return Parts(used, _by(called, 1, 2), _by(called, 3), _by(called, 4), None, None)


async def _of_user(tx: Tx, user_id: str, whose: Whose, span: Span) -> Parts:
    all_used = await used_in_hours(tx, user_id, span)
    readable = await is_readable(tx, user_id, span, all_used)
    asked = {
        name: value
        for name, value in (("api_key_id", whose.api_key_id), ("team_id", whose.team_id))
        if value is not None
    }

    def where(source: Source) -> list[ColumnElement[bool]]:
        return [source.table.c[name] == value for name, value in asked.items()]

    if asked and not readable:
        pointer = "api_key_id" if whose.api_key_id is not None else "team_id"
        detail = f"{pointer}: the single calls that decide this are no longer all kept; ask without"
        raise InvalidInput.at(f"/{pointer}", detail)
    if not readable:
        return Parts(all_used, await _models_of(tx, user_id, span), None, None, None, None)
    names = ("provider", "model", "endpoint", "status_code")
    called = by_names(await details(tx, user_id, where, names, [span], MOST_NAMES))
    latency, ttft = [
        (await percentiles(tx, user_id, measure, where, (), [span])).get((0, ()), NO_PERCENTILES)
        for measure in ("latency_us", "ttft_us")
    ]
    used = sum(called.values(), NONE)
    return Parts(used, _by(called, 0, 1), _by(called, 2), _by(called, 3), latency, ttft)


async def _models_of(tx: Tx, user_id: str, span: Span) -> ByName:
    own = [_hour.user_id == user_id]
    found = await summed(tx, HOURS, own, [_hour.provider, _hour.model], [span], MOST_NAMES)
    return by_names(found)


def _by(called: ByName, *places: int) -> ByName:
    """The sums by some of the names alone. Pure."""
    found: dict[Names, Sums] = {}
    for names, sums in called.items():
        key = tuple(names[place] for place in places)
        found[key] = found.get(key, NONE) + sums
    return found


def errors_of(status_codes: ByName) -> tuple[int, int]:
    """How many calls failed for the caller's fault (4xx), and how many otherwise. Pure."""
    failed = [(int(names[0]), sums.calls) for names, sums in status_codes.items()]
    client = sum(calls for status, calls in failed if 400 <= status < 500)
    return client, sum(calls for status, calls in failed if status >= 500)


def top(found: ByName, count: int) -> Sequence[tuple[Names, Sums]]:
    """The names with the most calls; of equals the one that comes first by name. Pure."""
    return sorted(found.items(), key=lambda one: (-one[1].calls, tuple(map(str, one[0]))))[:count]
