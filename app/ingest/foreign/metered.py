"""An event out of an object that its sender shaped: a model call, or a count on a plain meter."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from app.core.errors import InvalidInput
from app.ingest.foreign.costs import Weighed, weigh
from app.ingest.foreign.counts import UNKNOWN, Counts, counts_of, kind_of, number_of
from app.ingest.foreign.identity import text_of
from app.ingest.foreign.names import told_apart

METER = "meter"
"""The provider of what is no model call; its model is the meter's name, so it can have a price."""
_OWN = (
    *("endpoint", "method", "status_code", "error_message", "retry_count", "latency_ms"),
    *("ttft_ms", "request_bytes", "response_bytes", "user_agent", "ip_address", "api_key_id"),
    *("task_type", "backend", "pool", "hold_id"),
)
"""Fields of ours that stand in such an object under our names."""
_NUMBERS = {
    **dict.fromkeys(("status_code", "retry_count", "request_bytes", "response_bytes"), False),
    **dict.fromkeys(("latency_ms", "ttft_ms"), True),
}
"""Those that are numbers, and whether they may have a fraction."""
_COSTS = ("cost_usd", "response_cost", "cost", "total_cost")
_VALUES = ("value", "quantity", "count", "tokens")
_CONDITIONS = ("service_tier", "processing", "region", "inference_geo", "speed")
LEAST_ERROR = 400


class Metered(NamedTuple):
    """Fields of an event, and whether the cost it states is comparable to ours."""

    event: dict[str, Any]
    comparable: bool


def metered(
    said: Mapping[str, object],
    meter: str,
    pointer: str,
    trust: str,
    *,
    cents: object = None,
    mapped: Mapping[str, int | float] | None = None,
) -> Metered:
    """What an object says of a call: names, usage, cost, outcome.

    With a `model` or tokens it is a model call; of one token kind if it says `type` (or
    `token_type`) and a number. Otherwise it counts on the plain meter of that name: `value`, or 1.
    Tokens may stand in a `usage` of its own, as in a provider's response. `cents` is a cost that
    stands beside the object, `mapped` counters found by configuration.

    Raises:
        InvalidInput: a number or an amount is none; `errors` names the place.
    """
    provider, model = told_apart(text_of(said.get("provider")) or "", _model_of(said))
    counts = _counts(said, pointer)
    if mapped:
        counts = counts._replace(usage={**counts.usage, **mapped}, known=any(mapped.values()))
    event = _own(said, pointer)
    context = {
        name: value for name in _CONDITIONS if isinstance(value := said.get(name), str) and value
    }
    weighed = _cost(said, counts, pointer, trust, cents)
    context |= weighed.context
    if not model and not counts.known and not _fails(event):
        event |= _on_meter(said, meter, pointer)
    else:
        event |= {"usage": counts.usage}
        if not counts.known and not _fails(event):
            context |= UNKNOWN
        if provider:
            event["provider"] = provider
        if model:
            event["model"] = model
    if context:
        event["context"] = context
    if weighed.cost_usd is not None:
        event["cost_usd"] = weighed.cost_usd
    return Metered(event, weighed.comparable)


def _own(said: Mapping[str, object], pointer: str) -> dict[str, Any]:
    """The fields of ours in it; their numbers may be strings."""
    found = {name: said[name] for name in _OWN if said.get(name) is not None}
    for name in _NUMBERS.keys() & found.keys():
        if isinstance(found[name], str):
            found[name] = number_of(found[name], f"{pointer}/{name}", _NUMBERS[name])
    return found


def _counts(said: Mapping[str, object], pointer: str) -> Counts:
    counts = _one_kind(said, pointer) or counts_of(said, pointer)
    within = said.get("usage")
    if counts.known or not isinstance(within, dict):
        return counts
    return counts_of(within, f"{pointer}/usage")


def _model_of(said: Mapping[str, object]) -> str:
    model = said.get("model")
    return model.strip() if isinstance(model, str) else ""


def _one_kind(said: Mapping[str, object], pointer: str) -> Counts | None:
    for name in ("token_type", "type"):
        for value in _VALUES:
            if said.get(name) is not None and said.get(value) is not None:
                found = kind_of(said[name], said[value], f"{pointer}/{value}")
                if found is not None:
                    return found
    return None


def _on_meter(said: Mapping[str, object], meter: str, pointer: str) -> dict[str, Any]:
    for name in _VALUES:
        if said.get(name) not in (None, ""):
            value = number_of(said[name], f"{pointer}/{name}")
            return {"provider": METER, "model": meter, "usage": {"requests": value}}
    return {"provider": METER, "model": meter, "usage": {"requests": 1}}


def _cost(
    said: Mapping[str, object], counts: Counts, pointer: str, trust: str, cents: object
) -> Weighed:
    free = said.get("cache_hit") is True
    if cents not in (None, ""):
        return weigh(
            *(cents,),
            tokens=counts.tokens,
            complete=counts.split,
            trust=trust,
            pointer=pointer,
            free=free,
            scale=100,
        )
    name = next((one for one in _COSTS if said.get(one) not in (None, "")), _COSTS[0])
    return weigh(
        said.get(name),
        tokens=counts.tokens,
        complete=counts.split,
        trust=trust,
        pointer=f"{pointer}/{name}",
        free=free,
    )


def _fails(event: Mapping[str, Any]) -> bool:
    """Whether the call failed; a failed one need not say what it used."""
    status = event.get("status_code")
    return isinstance(status, int) and status >= LEAST_ERROR


def object_of(value: object, pointer: str) -> dict[str, Any]:
    """A JSON object; nothing is an empty one.

    Raises:
        InvalidInput: anything else.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInput.at(pointer, "an object was looked for")
    return value
