"""A price as a form says it, and as a question what a call would cost."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app.core.counters import COUNTERS, SECONDS
from app.core.errors import AppError, InvalidInput
from app.dashboard.filled import Filled, body_of, instant_in, said, whole_in
from app.dashboard.filled import wrong as told
from app.pricing.drafts import override_from
from app.pricing.guard import own_rates, suspicions
from app.pricing.known import Prices
from app.pricing.leaves import TOKENS
from app.pricing.prices_api import PriceIn
from app.pricing.quote import Explanation, explain
from app.pricing.rows import Override
from app.pricing.usage import usage_of

USUAL = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "requests")
OTHERS = tuple(name for name in COUNTERS if name not in USUAL)
RATE, USAGE = "rate_", "usage_"
MORE = (
    *("user_id", "team_id", "effective_from", "effective_to", "multiplier", "min_charge_usd"),
    *("context", "source", "default"),
)
"""Fields of a price that most prices leave empty."""
_HINT = "; if meant, send force"


def block_of(counter: str) -> int:
    """How many of a counter a rate of the form is for: a million tokens, else one."""
    return 1_000_000 if counter in TOKENS else 1


def price_in(values: Mapping[str, str]) -> PriceIn:
    """The body of a price, judged as if it had come over HTTP.

    Raises:
        InvalidInput: `errors` names each place.
    """
    names = ("provider", "model", "user_id", "team_id", "multiplier", "min_charge_usd", "source")
    facts: dict[str, Any] = {
        **said(values, names),
        "match": values.get("match") or "exact",
        "rates": {
            counter: {"usd": plain(text), "per": block_of(counter)}
            for counter in COUNTERS
            if (text := values.get(RATE + counter, "").strip())
        },
        "context": context_in(values.get("context", "")),
        "default": values.get("default") == "on",
        "force": values.get("force") == "on",
    }
    for name in ("effective_from", "effective_to"):
        if (instant := instant_in(values.get(name, ""))) is not None:
            facts[name] = instant
    return body_of(PriceIn, facts)


def plain(text: str) -> str:
    """An amount of dollars without what people put around it."""
    return text.strip().removeprefix("$").replace(",", "").strip()


def context_in(text: str) -> dict[str, str]:
    """Conditions, one `name=value` on each line.

    Raises:
        InvalidInput: a line without `=`.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, mark, value = line.partition("=")
        if line.strip() and not mark:
            raise InvalidInput.at("/context", "one condition on each line, as service_tier=flex")
        if line.strip():
            found[name.strip()] = value.strip()
    return found


def doubts(draft: Override, known: Prices, now: datetime) -> dict[str, str]:
    """Rates that look like a mistake, by their field of the form."""
    own = None
    if draft.match == "exact" and "*" not in (draft.provider, draft.model):
        own = known.catalog.resolve(draft.provider, draft.model, now)
    return {
        field_of(one["pointer"]): one["detail"].removesuffix(_HINT)
        for one in suspicions(draft, own_rates(own), known.usual())
    }


def drafted(body: PriceIn) -> Override:
    """The price as the catalogue takes it.

    Raises:
        InvalidInput: `errors` names everything that is wrong.
    """
    return override_from(body.said())


def field_of(pointer: str) -> str:
    """The field of the form that a pointer into the body is about."""
    steps = pointer.strip("/").split("/")
    if steps[0] in ("rates", "usage") and len(steps) > 1:
        return f"{RATE if steps[0] == 'rates' else USAGE}{steps[1]}"
    return steps[0]


def refused(values: Mapping[str, str], error: AppError) -> Filled:
    """The form again, each fault beside its field."""
    errors = [
        {"pointer": f"/{field_of(one['pointer'])}", "detail": one["detail"]}
        for one in error.extra.get("errors", ())
    ]
    fields = dict.fromkeys((RATE + name for name in COUNTERS), "")
    fields |= dict.fromkeys((USAGE + name for name in COUNTERS), "")
    return told(fields | dict(values), InvalidInput(error.detail, errors=errors))


# ---- what a call would cost ---------------------------------------------------------------------


def estimated(values: Mapping[str, str], known: Prices, now: datetime) -> Explanation | None:
    """What the call of the form would cost, line by line; None while no counter is filled in.

    Raises:
        InvalidInput: a counter that no call can have.
    """
    counts = {
        name: _count(values[USAGE + name], name) for name in COUNTERS if USAGE + name in values
    }
    usage = {name: value for name, value in counts.items() if value is not None}
    if not usage:
        return None
    at = _instant(values.get("at", ""), now)
    provider, model, user_id, team_id = (
        values.get(name, "").strip() or None for name in ("provider", "model", "user_id", "team_id")
    )
    context = context_in(values.get("context", ""))
    call = (provider, model, at, usage_of(usage), context, user_id, team_id)
    try:
        return explain(known.catalog, *call)
    except OverflowError:
        raise InvalidInput.at("", "a cost beyond $9.2 billion cannot be told") from None


def _count(text: str, name: str) -> int | float | None:
    if name not in SECONDS:
        return whole_in(text, f"/usage/{name}")
    try:
        return float(text) if text.strip() else None
    except ValueError:
        raise InvalidInput.at(f"/usage/{name}", "a number of seconds is expected") from None


def _instant(text: str, now: datetime) -> datetime:
    told_at = instant_in(text)
    if told_at is None:
        return now
    try:
        return datetime.fromisoformat(told_at)
    except ValueError:
        raise InvalidInput.at("/at", "an instant, as 2026-11-01T00:00") from None
