"""How often somebody may try to sign in: ten times a minute from one address."""

from functools import cached_property
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limits.strategies import MovingWindowRateLimiter

FROM_ONE_ADDRESS, FROM_ALL = 10, 300
"""Tries a minute, in each process. The second only bounds the work: keys cannot be guessed."""


class Tries:
    """Counts tries in memory and forgets them after a minute."""

    @cached_property
    def _limiter(self) -> "MovingWindowRateLimiter":
        from limits.storage import MemoryStorage  # noqa: PLC0415  (first use)
        from limits.strategies import MovingWindowRateLimiter  # noqa: PLC0415

        return MovingWindowRateLimiter(MemoryStorage())

    def allow(self, address: str) -> bool:
        """Whether one more try may be made from there; if so it is counted."""
        from limits import RateLimitItemPerMinute  # noqa: PLC0415  (first use)

        return self._limiter.hit(
            RateLimitItemPerMinute(FROM_ONE_ADDRESS), network_of(address)
        ) and self._limiter.hit(RateLimitItemPerMinute(FROM_ALL), "all")


def network_of(address: str) -> str:
    """Who is counted together: an IPv4 address, or the /64 that one customer has of IPv6. Pure."""
    try:
        found = ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped or IPv6Address(int(found) >> 64 << 64))
    return str(found)
