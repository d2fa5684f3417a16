"""Conditions of a call that move its price: how they are spelled, and which ask for nothing."""

from collections.abc import Iterable, Mapping

from app.pricing.rows import Condition, PriceRow

NEUTRAL = frozenset({"", "standard", "default", "auto", "on_demand", "none", "normal"}) | {
    "standard_only",
    "online",
    "on-demand",
    "realtime",
    "global",
    "global-standard",
    "globalstandard",
    "not_available",
    "traffic_type_unspecified",
}
"""Values that ask for nothing special: `auto` is a request setting, not a billed tier."""
PRICED_CONDITIONS = ("service_tier", "processing", "speed", "inference_geo", "region")
"""Conditions that move prices at some provider; unanswered by an entry, they make a guess of it."""
TRAFFIC_TIERS = {"on_demand_priority": "priority", "on_demand_flex": "flex"}
"""Vertex names the tier in the type of its traffic."""
SEARCH_CONTEXT = "search_context_size"
"""Where a fee per request depends on it, a call that does not tell it is a guess."""

Conditions = frozenset[Condition]


def conditions_of(context: Mapping[str, str]) -> Conditions:
    """Conditions as price lists spell them: lower case, and `batch` is a kind of processing.

    A type of traffic that names a tier is that tier, whatever else is said of it.
    """
    plain = {key: value.strip().lower() for key, value in context.items()}
    if tier := TRAFFIC_TIERS.get(plain.get("traffic_type", "")):
        plain = {key: value for key, value in plain.items() if key != "traffic_type"}
        plain["service_tier"] = tier
    if plain.get("service_tier") == "batch":
        plain |= {"processing": "batch", "service_tier": "standard"}
    return frozenset(plain.items())


def applies(row: PriceRow, said: Conditions) -> bool:
    """Whether a call made under these conditions meets those of the row.

    What a row asks for beside something special may be left unsaid where it is nothing special:
    `size=1024x1792` means the row of that size and the standard quality.
    """
    if not row.when or said.issuperset(row.when):
        return True
    special = [pair for pair in row.when if pair[1] not in NEUTRAL]
    if not special or not said.issuperset(special):
        return False
    busy = {key for key, value in said if value not in NEUTRAL}
    return all(key not in busy for key, value in row.when if value in NEUTRAL)


def asks_for_search_context(rows: Iterable[PriceRow]) -> bool:
    """Whether a fee per request depends on the size of the search context."""
    return any(
        key == SEARCH_CONTEXT and any(name == "requests" for name, _ in row.rates)
        for row in rows
        for key, _ in row.when
    )
