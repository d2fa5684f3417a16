"""The call as it shall be: some of its fields replaced, or an amount added to its cost. Pure."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from app.core.counters import COLUMNS
from app.core.errors import InvalidInput
from app.core.money import Nanos
from app.ingest.calls import Call
from app.ingest.meter import rated
from app.pricing.catalog import Catalog
from app.usage.ledger import Entry, usage_of

_PRICED_BY = ("timestamp", "provider", "model", "context", "team_id", *COLUMNS)
_COLUMN = {"latency_ms": "latency_us", "ttft_ms": "ttft_us"}


class Amount(NamedTuple):
    """An amount that is added to the cost of an event, as one call less or none.

    `names` say which calls the event may be one of, where its row cannot be read.
    """

    cost_nanos: int
    calls: int
    names: Mapping[str, Any]


class Edit(NamedTuple):
    """The fields of an event that are replaced: their names, and a call that has their values."""

    names: frozenset[str]
    call: Call


def edited(entry: Entry, edit: Edit, catalog: Catalog, now: datetime) -> Entry:
    """The entry with these fields replaced, charged anew by the prices at its time.

    A cost that is stated stays, or replaces ours; stated as null, it gives way to ours. Where
    nothing was changed that a price depends on, a cost is never taken away.
    """
    given = rated(edit.call._replace(cost_nanos=Nanos(0)), catalog, now)
    names = set(edit.names)
    replaced: dict[str, Any] = {}
    if "usage" in names or "response" in names:
        replaced.update(zip(COLUMNS, usage_of(given), strict=True))
    if "response" in names:
        replaced |= _told_by_response(entry, edit)
    for name in names - {"usage", "response", "api", "cost_usd"}:
        column = _COLUMN.get(name, name)
        replaced[column] = getattr(given, column)
    if "response" in names and "context" in names:
        replaced["context"] = given.context
    found = Entry(**entry._asdict() | replaced)
    return _charged(found, entry, edit, catalog)


def _told_by_response(entry: Entry, edit: Edit) -> dict[str, Any]:
    """The model and the conditions that the response names, where the caller names none."""
    found: dict[str, Any] = {}
    event = edit.call.event
    if event.model:
        found["model"] = event.model
    if event.context:
        kept = json.loads(entry.context) if entry.context else {}
        found["context"] = msgspec.json.encode({**kept, **event.context}).decode()
    return found


def _charged(found: Entry, before: Entry, edit: Edit, catalog: Catalog) -> Entry:
    if edit.call.cost_nanos is not None:
        return _priced(found, edit.call.cost_nanos, "provided", "")
    if before.cost_status == "provided" and "cost_usd" not in edit.names:
        return found
    context = json.loads(found.context) if found.context else None
    cost, status, price_ref = catalog.quote(
        found.provider or None,
        found.model or None,
        found.timestamp,
        usage_of(found),
        context,
        found.user_id,
        found.team_id,
    )
    if cost is None and before.cost_status != "provided" and not _repriced(found, before):
        return found
    return _priced(found, cost, status, price_ref)


def _repriced(found: Entry, before: Entry) -> bool:
    return any(getattr(found, name) != getattr(before, name) for name in _PRICED_BY)


def _priced(entry: Entry, cost: int | None, status: str, price_ref: str) -> Entry:
    cost = None if cost is None else Nanos(cost)
    return entry._replace(cost_nanos=cost, cost_status=status, price_ref=price_ref)


def with_amount(entry: Entry, amount: Amount) -> Entry | None:
    """The entry with the amount added to its cost; None with one call less.

    Raises:
        InvalidInput: the cost would fall below zero, or a call is taken away whose cost is not.
    """
    cost = (entry.cost_nanos or 0) + amount.cost_nanos
    if amount.calls:
        if cost:
            raise InvalidInput.at("/cost_usd", "a call that is taken away takes all of its cost")
        return None
    if cost < 0:
        raise InvalidInput.at("/cost_usd", "the event costs less than that")
    return _priced(entry, cost, "provided", "")
