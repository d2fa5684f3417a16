"""One telling of a model call: what a span or a log record says of it, in our own words."""

from msgspec import Struct, field

Spot = tuple[str, str]
"""Where something stands: the ids of its trace and of its span."""


class People(Struct, omit_defaults=True, frozen=True):
    """Whom something belongs to, as far as it says so."""

    user: str = ""
    team: str = ""
    session: str = ""


NOBODY = People()


class Link(Struct, omit_defaults=True, frozen=True, array_like=True):
    """Whose child a span is, and whom it names."""

    parent_id: str = ""
    people: People = NOBODY


class Telling(Struct, omit_defaults=True, kw_only=True):
    """What one span or log record tells of a model call; empty where it does not say.

    `usage` has inclusive counters, `counted` the input and output tokens as they were sent, -1
    where they were not. `rank` is 0 for a provider's own library, 1 for a framework, 2 for what
    instruments either. `half` is `stream` for the second part of a call that is told in two.
    """

    trace_id: str
    span_id: str
    scope: str
    instance: str
    start_ns: int
    end_ns: int
    rank: int = 1
    parent_id: str = ""
    half: str = ""
    response_id: str = ""
    provider: str = ""
    model: str = ""
    requested_model: str = ""
    operation: str = ""
    usage: dict[str, int] = field(default_factory=dict)
    counted: tuple[int, int] = (-1, -1)
    failed: bool = False
    status_code: int = 0
    error: str = ""
    streaming: bool = False
    ttft_ns: int = 0
    cost_usd: str = ""
    cached_answer: bool = False
    service_tier: str = ""
    speed: str = ""
    people: People = NOBODY
    around: People = NOBODY
    api_key: str = ""
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def spot(self) -> Spot:
        return self.trace_id, self.span_id

    @property
    def embeds(self) -> bool:
        """Whether it is a call for embeddings, which is never the same call as another kind."""
        return self.operation.startswith("embed")

    @property
    def is_known(self) -> bool:
        """Whether it says what was used; no token at all says nothing."""
        return bool(self.usage.get("input_tokens") or self.usage.get("output_tokens"))
