"""What the service answers before a call, with its fields under their own names."""

from collections.abc import Mapping
from datetime import UTC, datetime
from math import inf
from typing import Any, NamedTuple


class LimitState(NamedTuple):
    """How far along one limit is; amounts are as the service writes them, money in USD strings."""

    id: str
    name: str
    metric: str
    window: str
    limit: int | str | None
    used: int | str
    held: int | str
    remaining: int | str | None
    resets_at: str | None
    allowed: bool

    def resets_in_s(self) -> float:
        """Seconds until the limit starts anew, at least 1; one that never does has no end."""
        if self.resets_at is None:
            return inf
        until = datetime.fromisoformat(self.resets_at) - datetime.now(UTC)
        return max(1.0, until.total_seconds())


class Verdict(NamedTuple):
    """Whether a call may be made.

    `known` is False where the service could not be asked and the client was told to let calls
    through; `message` then has the reason.
    """

    allowed: bool
    message: str
    estimated_cost_usd: str | None = None
    binding: LimitState | None = None
    limits: tuple[LimitState, ...] = ()
    usage_status: str | None = None
    known: bool = True


def state_of(said: Mapping[str, Any]) -> LimitState:
    """One limit of an answer; fields that are not known here are left out."""
    told: dict[str, Any] = {name: said.get(name) for name in LimitState._fields}
    return LimitState(**told)


def verdict_of(said: Mapping[str, Any]) -> Verdict:
    """The answer of `POST /v1/limits/check`."""
    binding = said.get("binding")
    return Verdict(
        bool(said["allowed"]),
        str(said["message"]),
        said.get("estimated_cost_usd"),
        state_of(binding) if binding else None,
        tuple(map(state_of, said.get("limits", ()))),
        said.get("usage_status"),
    )
