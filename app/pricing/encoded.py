"""Price rows as database rows and back. Pure."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, time
from typing import Any

from app.pricing.leaves import Rate, Step
from app.pricing.rows import Listing, Override, PriceRow

ENTRY = (
    *("id", "version_id", "layer", "provider", "model", "matching", "user_id", "team_id"),
    *("conditions", "effective_from", "effective_to", "weekdays", "windows", "multiplier_ppm"),
    *("min_charge_nanos", "least", "is_default", "source", "created_at", "created_by"),
)
RATE = ("entry_id", "position", "unit", "per", "above", "graduated", "rate_nanos")
Values = tuple[Any, ...]


def entry_of(row: PriceRow, version_id: str, listing: Listing, now: datetime, by: str) -> Values:
    """An entry of a version: the columns of `ENTRY`."""
    where = (version_id, listing.layer, listing.provider, listing.model, "", None, None)
    return _entry(row, where, is_default=False, now=now, by=by)


def override_entry(override: Override, now: datetime, by: str) -> Values:
    """An operator's price: the columns of `ENTRY`."""
    where = (
        *(None, "override", override.provider, override.model, override.match),
        *(override.user_id, override.team_id),
    )
    return _entry(override.row, where, is_default=override.default, now=now, by=by)


def _entry(row: PriceRow, where: Values, *, is_default: bool, now: datetime, by: str) -> Values:
    return (
        row.id,
        *where,
        _json(dict(row.when)),
        row.start,
        row.end,
        ",".join(map(str, row.weekdays)) or None,
        ",".join(f"{begin:%H:%M:%S}-{end:%H:%M:%S}" for begin, end in row.windows) or None,
        row.multiplier_ppm,
        row.min_charge_nanos,
        _json(dict(row.least)),
        is_default,
        row.source,
        now,
        by,
    )


def rates_of(row: PriceRow) -> Iterator[Values]:
    """The rates of a row: the columns of `RATE`."""
    position = 0
    for unit, rate in row.rates:
        for step in rate.steps:
            yield row.id, position, unit, rate.per, step.above, rate.graduated, step.nanos
            position += 1


def _json(pairs: Mapping[str, object]) -> str | None:
    return json.dumps(pairs) if pairs else None


class Decoder:
    """Rows of a database to price rows; what is the same is one object, however often it comes."""

    def __init__(self, rates: Iterable[Values]) -> None:
        self._rates: dict[str, dict[str, Rate]] = {}
        self._same: dict[Any, Any] = {}
        self.learn(rates)

    def learn(self, rates: Iterable[Values]) -> None:
        """Take more rates, those of an entry in their order."""
        for entry_id, _, unit, per, above, graduated, nanos in rates:
            found = self._rates.setdefault(entry_id, {})
            step = self._once(Step(above, nanos))
            before = found.get(unit)
            steps = (step,) if before is None else (*before.steps, step)
            found[sys.intern(unit)] = self._once(Rate(per, self._once(steps), bool(graduated)))

    def row(self, entry: Any) -> PriceRow:
        """The price row of an entry, with its rates."""
        return PriceRow(
            entry.id,
            self._once(tuple(self._rates.get(entry.id, {}).items())),
            self._once(tuple(sorted((entry.conditions or {}).items()))),
            entry.effective_from,
            entry.effective_to,
            self._once(tuple(_windows(entry.windows))),
            tuple(int(day) for day in (entry.weekdays or "").split(",") if day),
            entry.multiplier_ppm,
            entry.min_charge_nanos,
            self._once(tuple(sorted((entry.least or {}).items()))),
            self._once(entry.source),
        )

    def override(self, entry: Any) -> Override:
        """An operator's price."""
        return Override(
            self.row(entry),
            entry.provider,
            entry.model,
            entry.matching,
            entry.user_id,
            entry.team_id,
            entry.is_default,
            entry.created_at,
        )

    def _once(self, value: Any) -> Any:
        return self._same.setdefault(value, value)


def _windows(text: str | None) -> Iterator[tuple[time, time]]:
    for window in (text or "").split(","):
        begin, mark, end = window.partition("-")
        if mark:
            yield time.fromisoformat(begin), time.fromisoformat(end)
