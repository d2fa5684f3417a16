"""What an event is answered with once it is durable: a receipt, or a summary of many."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType

from app.core.counters import COUNTERS, FIRST_SECONDS, Usage, as_mapping
from app.core.errors import AppError, Forbidden, IdReused, InvalidInput, OutOfWindow
from app.core.money import to_usd
from app.ingest.intake import FORGOTTEN, Outcome
from app.usage.ledger import Entry, Logged, usage_of
from app.web.lean import LeanAnswer

_encode = msgspec.json.Encoder().encode
Refusals = dict[int, AppError]


class CallOut(Struct, gc=False):
    """One of several calls that an event tells of."""

    id: str
    model: str | None
    usage: Struct | dict[str, int | float]
    cost_usd: str | None
    cost_status: str


class Receipt(Struct, gc=False):
    """One event's receipt, as the contract has it; the figures are sums where it lists `calls`."""

    id: str
    status: str
    user_id: str
    timestamp: datetime
    billing_period: str
    usage: Struct | dict[str, int | float]
    cost_usd: str | None
    cost_status: str
    usage_status: str
    calls: list[CallOut] | UnsetType = UNSET


UsageOut: Any = msgspec.defstruct(
    "UsageOut",
    [(name, int, -1 if name in ("input_tokens", "output_tokens") else 0) for name in COUNTERS],
    omit_defaults=True,
    gc=False,
)
"""Counters for the wire: input and output tokens always, the others where they are not zero."""


def _usage_out(usage: Usage) -> Any:
    return as_mapping(usage) if any(usage[FIRST_SECONDS:]) else UsageOut(*usage)


def _usd(cost: int | None) -> str | None:
    return None if cost is None else to_usd(cost)


class Bill(NamedTuple):
    """What an event comes to: the sums over its calls."""

    usage: Usage
    cost_nanos: int | None
    cost_status: str
    calls: list[CallOut] | UnsetType


WORST = ("unpriced", "estimated", "provided", "priced")
"""Of several calls the first of these that any has is the status of the event."""


def bill_of(logged: Logged) -> Bill:
    """Sum the calls of an event; the cost is unknown if that of any call is. Pure."""
    entry = logged.entry
    if not logged.others:
        return Bill(usage_of(entry), entry.cost_nanos, entry.cost_status, UNSET)
    entries = (entry, *logged.others)
    costs = [one.cost_nanos for one in entries]
    known = [cost for cost in costs if cost is not None]
    return Bill(
        tuple(map(sum, zip(*map(usage_of, entries), strict=True))),
        sum(known) if len(known) == len(costs) else None,
        min((one.cost_status for one in entries), key=WORST.index),
        [_call_out(one) for one in entries],
    )


def _call_out(entry: Entry) -> CallOut:
    return CallOut(
        entry.event_id,
        entry.model or None,
        _usage_out(usage_of(entry)),
        _usd(entry.cost_nanos),
        entry.cost_status,
    )


def receipt(outcome: Outcome) -> LeanAnswer:
    """The answer to a single event.

    Raises:
        IdReused: the id stands for another event.
        OutOfWindow: the event is so old that its id may have been forgotten.
    """
    logged = outcome.logged[0]
    if logged.status == "out_of_window":
        raise OutOfWindow.at("/timestamp", FORGOTTEN)
    if logged.status == "conflict":
        raise IdReused(
            "this user already has another event under this id; the first one stays",
            id=_in_the_way(logged),
        )
    standing, entry = outcome.standing, logged.entry
    if standing is None:
        raise RuntimeError("the submission of a single event asks how its user stands")
    bill = bill_of(logged)
    cost = _usd(bill.cost_nanos)
    body = _encode(
        Receipt(
            entry.event_id,
            logged.status,
            entry.user_id,
            entry.timestamp,
            outcome.billing_periods[0],
            _usage_out(bill.usage),
            cost,
            bill.cost_status,
            standing.usage_status,
            bill.calls,
        )
    )
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if cost is not None:
        headers = ((b"x-tollgate-cost-usd", cost.encode()),)
    if standing.remaining_nanos is not None:
        left = to_usd(standing.remaining_nanos).encode()
        headers += ((b"x-tollgate-remaining-usd", left),)
    return LeanAnswer(201 if logged.status == "recorded" else 200, body, headers)


def _in_the_way(logged: Logged) -> str:
    """The id under which another event stands: the one sent, or that of a further call of it."""
    return (logged.others or (logged.entry,))[0].event_id


def all_refused(refused: Refusals) -> AppError:
    """Why an atomic batch is refused, naming every place."""
    errors = [found for error in refused.values() for found in _errors(error)]
    if all(isinstance(error, Forbidden) for error in refused.values()):
        return Forbidden("this key is bound to another user", errors=errors[:100])
    return InvalidInput("nothing was recorded: some events are not valid", errors=errors[:100])


def _errors(error: AppError) -> list[dict[str, str]]:
    found: list[dict[str, str]] = error.extra.get("errors", [{"pointer": "", "detail": str(error)}])
    return found


def summary(
    count: int,
    places: Sequence[int],
    logged: Sequence[Logged],
    refused: Refusals,
    *,
    every: bool,
) -> LeanAnswer:
    """The answer to many events; `places` says where each logged one stood. Pure."""
    results: dict[int, dict[str, Any]] = {
        place: {
            "index": place,
            "id": None,
            "status": "out_of_window" if isinstance(error, OutOfWindow) else "rejected",
            "detail": _errors(error)[0]["detail"],
            "pointer": _errors(error)[0]["pointer"],
        }
        for place, error in refused.items()
    }
    recorded = duplicates = cost = 0
    for place, one in zip(places, logged, strict=True):
        if one.status == "recorded":
            recorded += 1
            cost += sum(entry.cost_nanos or 0 for entry in one.others) if one.others else 0
            cost += one.entry.cost_nanos or 0
        elif one.status == "duplicate":
            duplicates += 1
        else:
            results[place] = _result(place, one)
            continue
        if every:
            results[place] = _result(place, one)
    rejected = count - recorded - duplicates
    status = 200 if not rejected else 422 if rejected == count else 207
    if rejected == count:
        status = _status_of_all(refused, logged)
    body = {
        "recorded": recorded,
        "duplicates": duplicates,
        "rejected": rejected,
        "cost_usd": (known := to_usd(cost)),
        "results": [results[place] for place in sorted(results)],
    }
    return LeanAnswer(status, _encode(body), ((b"x-tollgate-cost-usd", known.encode()),))


def _status_of_all(refused: Refusals, logged: Sequence[Logged]) -> int:
    if logged or not all(isinstance(error, Forbidden) for error in refused.values()):
        return 422
    return 403


def _result(place: int, one: Logged) -> dict[str, Any]:
    found: dict[str, Any] = {
        "index": place,
        "id": one.entry.event_id,
        "status": "rejected" if one.status == "conflict" else one.status,
        "detail": "",
        "pointer": "",
    }
    if one.status == "out_of_window":
        found["detail"], found["pointer"] = FORGOTTEN, f"/{place}/timestamp"
    elif one.status == "conflict":
        other = _in_the_way(one)
        under = "this id" if other == one.entry.event_id else other
        found["detail"] = f"id-reused: this user already has another event under {under}"
        found["pointer"] = f"/{place}/id"
    else:
        bill = bill_of(one)
        found["cost_usd"] = _usd(bill.cost_nanos)
        found["cost_status"] = bill.cost_status
        if bill.calls is not UNSET:
            found["calls"] = bill.calls
    return found
