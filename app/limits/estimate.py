"""How much a call may use at most, from what its caller says of it before making it. Pure."""

from datetime import datetime
from typing import Literal, NamedTuple

from app.core.counters import INPUT, NOTHING, OUTPUT, Usage
from app.core.errors import InvalidInput
from app.limits.door import AskIn
from app.pricing.catalog import Catalog
from app.pricing.model_limits import max_output_tokens
from app.pricing.usage import usage_of
from app.web.strict import stated_cost

Basis = Literal["stated", "usage", "model_maximum", "unknown"]


class Wanted(NamedTuple):
    """The most that a call may use of each metric; None is not known."""

    calls: int
    tokens: int | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: int | None

    def of(self, metric: str) -> int | None:
        """The amount of one metric, nano-dollars for cost."""
        amount: int | None = getattr(self, metric)
        return amount


class Estimate(NamedTuple):
    """What a call may use at most, and what that was taken from.

    `output_tokens` is the longest answer of the model, where that was taken.
    """

    basis: Basis
    wanted: Wanted
    output_tokens: int | None = None


UNKNOWN = Estimate("unknown", Wanted(1, None, None, None, None))


def estimate(said: AskIn, now: datetime, catalog: Catalog) -> Estimate:
    """What to hold for a call: what its caller states, else the longest answer of its model.

    Raises:
        InvalidInput: the usage or the cost is none.
    """
    usage = None if said.usage is None else usage_of(said.usage)
    stated = None if said.cost_usd is None else stated_cost(said.cost_usd, "/cost_usd")
    if usage is not None:
        cost = _cost(said, now, catalog, usage) if stated is None else stated
        basis: Basis = "usage" if stated is None else "stated"
        tokens = (usage[INPUT] + usage[OUTPUT], usage[INPUT], usage[OUTPUT])
        return Estimate(basis, Wanted(1, *tokens, cost))
    if stated is not None:
        return Estimate("stated", Wanted(1, None, None, None, stated))
    longest = _longest(said, now, catalog)
    if longest is None:
        return UNKNOWN
    usage = (*NOTHING[:OUTPUT], longest, *NOTHING[OUTPUT + 1 :])
    cost = _cost(said, now, catalog, usage)
    return Estimate("model_maximum", Wanted(1, longest, None, longest, cost), longest)


def _cost(said: AskIn, now: datetime, catalog: Catalog, usage: Usage) -> int | None:
    call = (said.provider, said.model, now, usage, said.context)
    try:
        return catalog.quote(*call, said.user_id, said.team_id)[0]
    except OverflowError as error:
        raise InvalidInput.at("/usage", str(error)) from None


def _longest(said: AskIn, now: datetime, catalog: Catalog) -> int | None:
    """By the name that was said, else by that of the model whose price it has."""
    if said.model is None:
        return None
    longest = max_output_tokens(said.provider, said.model)
    if longest is None:
        call = (said.provider, said.model, now, said.context)
        meant = catalog.resolve(*call, said.user_id, said.team_id)
        longest = meant and max_output_tokens(meant.provider, meant.model)
    return longest
