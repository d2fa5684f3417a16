"""Price lists and usages for tests, in few words."""

from collections.abc import Mapping
from math import lcm
from typing import Any

from app.core.counters import INDEX, MICROS_PER_SECOND, NOTHING, SECONDS, Usage
from app.core.money import from_usd
from app.pricing.leaves import Rate, Step, flat
from app.pricing.rows import PER_MILLION, Listing, Override, PriceList, PriceRow

MTOK = 1_000_000


def usage(**counts: float) -> Usage:
    """A usage by counter; durations in seconds."""
    values = list(NOTHING)
    for name, count in counts.items():
        values[INDEX[name]] = round(count * MICROS_PER_SECOND) if name in SECONDS else int(count)
    return tuple(values)


def row(id: str, rates: Mapping[str, str] | None = None, **rest: Any) -> PriceRow:
    """A row of rates in USD, for a million tokens or one of anything else."""
    made = {
        name: flat(from_usd(usd), MTOK if name.endswith("_tokens") else 1)
        for name, usd in (rates or {}).items()
    }
    return PriceRow(id, tuple(made.items()), **rest)


def listing(model: str, *rows: PriceRow, layer: str = "genai", **rest: Any) -> Listing:
    """A model of the provider `acme` that goes by its own name."""
    return Listing(
        layer,
        rest.get("provider", "acme"),
        model,
        model,
        rest.get("names", (model,)),
        rest.get("patterns", ()),
        rows,
        rest.get("adds", False),
    )


def price_list(*listings: Listing) -> PriceList:
    """A list without providers."""
    return PriceList("test", (), listings)


def rate_stated(said: Mapping[str, Any]) -> Rate:
    """A rate as an operator states it: `usd` for `per`, or tiers with a last unit each."""
    if "tiers" not in said:
        return flat(from_usd(said["usd"]), said["per"])
    per = lcm(*(tier["per"] for tier in said["tiers"]))
    above, steps = -1, []
    for tier in said["tiers"]:
        steps.append(Step(above, from_usd(tier["usd"]) * (per // tier["per"])))
        above = tier["up_to"]
    return Rate(per, tuple(steps), said["mode"] == "graduated")


def override_stated(id: str, said: Mapping[str, Any]) -> Override:
    """An override as an operator states it."""
    whole, _, part = said.get("multiplier", "1").partition(".")
    row = PriceRow(
        id,
        tuple((name, rate_stated(rate)) for name, rate in said["rates"].items()),
        multiplier_ppm=int(whole) * PER_MILLION + int(part.ljust(6, "0") or 0),
        min_charge_nanos=from_usd(said.get("min_charge_usd", "0")),
    )
    return Override(row, said["provider"], said["model"], default=said.get("default", False))
