"""What a provider itself says that it charged; credits are not a cost."""

from app.core.money import CEILING, divide_half_even
from app.ingest.responses.fields import Block

TICKS_PER_NANO = 10
"""xAI counts in ticks of 10^-10 USD."""


def stated_cost(usage: Block, body: Block) -> int | None:
    """The cost in nano-dollars that stands in the usage or the body, or None where none does."""
    ticks = usage.count("cost_in_usd_ticks")
    if ticks is not None:
        return divide_half_even(ticks, TICKS_PER_NANO)
    if body.has("costDollars"):
        return body.block("costDollars").nanos("total")
    if isinstance(usage.values.get("cost"), dict):
        return usage.block("cost").nanos("total_cost")
    fee = usage.nanos("cost")
    if fee is None or usage.values.get("is_byok") is not True:
        return fee
    upstream = usage.block("cost_details").nanos("upstream_inference_cost")
    if upstream is not None and fee + upstream > CEILING:
        raise usage.refuse("cost", "money beyond $9.2 billion cannot be recorded")
    return None if upstream is None else fee + upstream
