"""One provider's answer laid out for its reader, and the bill made of what was read."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from app.core.counters import COUNTERS, MAX_COUNT, part_beyond_whole
from app.core.errors import InvalidInput
from app.ingest.responses.billed import Billed
from app.ingest.responses.cost import stated_cost
from app.ingest.responses.fields import Block

MODEL_KEYS = ("model", "modelVersion", "model_version", "model_name")
TIER_KEYS = ("service_tier", "serviceTier")
TRAFFIC_TIERS = {"ON_DEMAND_PRIORITY": "priority", "ON_DEMAND_FLEX": "flex"}


class Answer(NamedTuple):
    """An answer: `usage` holds the counts, `levels` what surrounds them, innermost first.

    A bare usage block is its own only level. `provider` is tidied, `api` in lower case with `_`.
    """

    usage: Block
    levels: tuple[Block, ...]
    provider: str
    api: str
    batch: bool

    @property
    def body(self) -> Block:
        """The response that the counts belong to."""
        return self.levels[0]

    def model(self) -> str | None:
        """The model as the answer names it."""
        return next((name for level in self.levels if (name := level.text(*MODEL_KEYS))), None)

    def refuse(self, detail: str) -> InvalidInput:
        """The refusal of the whole usage."""
        return InvalidInput.at(self.usage.pointer, detail)

    def bill(
        self,
        counts: Mapping[str, int],
        *,
        model: str | None = None,
        context: Mapping[str, str] | None = None,
    ) -> Billed:
        """One call with these counters, durations in microseconds; `model` if not the answer's."""
        usage = tuple(counts.get(name, 0) for name in COUNTERS)
        if max(usage) > MAX_COUNT:
            raise self.refuse("a counter is beyond 2^53-1")
        if beyond := part_beyond_whole(usage):
            raise self.refuse(f"{beyond[0]} is more than the {beyond[1]} that contain it")
        told = {**conditions(self), **(context or {})}
        cost = stated_cost(self.usage, self.body)
        return Billed(model or self.model(), usage, told, cost)


def conditions(answer: Answer) -> dict[str, str]:
    """What the answer reports that can select a price."""
    return dict(_conditions(answer))


def _conditions(answer: Answer) -> Iterator[tuple[str, str]]:
    usage = answer.usage
    for key in ("inference_geo", "speed", "search_context_size"):
        if value := usage.text(key):
            yield key, value
    traffic = usage.text("trafficType", "traffic_type")
    if traffic:
        yield "traffic_type", traffic
    tier = next((found for level in (usage, *answer.levels) if (found := _tier(level))), None)
    if tier := tier or TRAFFIC_TIERS.get(traffic or ""):
        yield "service_tier", tier
    if answer.batch or tier == "batch":
        yield "processing", "batch"


def _tier(level: Block) -> str | None:
    """Bedrock wraps the tier in an object, everybody else names it."""
    if isinstance(level.values.get("serviceTier"), dict):
        return level.block("serviceTier").text("type")
    return level.text(*TIER_KEYS)
