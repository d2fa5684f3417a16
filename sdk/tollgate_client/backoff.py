"""How long to wait before the next attempt."""

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

FIRST_S = 0.25
LONGEST_S = 60.0
LONGEST_ASKED_S = 300.0
"""What a service may ask for at most; a wrong clock must not silence a client for a day."""


def pause_s(attempt: int, asked_s: float | None, draw: Callable[[], float]) -> float:
    """Seconds to wait after so many failed attempts, from 1.

    Doubles from a quarter of a second to a minute, and half of it is left to chance (`draw` gives
    0 to 1), so that callers who failed together do not return together. It is never shorter than
    what the service asked for.
    """
    longest: float = min(LONGEST_S, FIRST_S * 2 ** min(attempt - 1, 20))
    own = longest * (0.5 + draw() / 2)
    if asked_s is None:
        return own
    return min(asked_s, LONGEST_ASKED_S) + own * 0.2


def asked_pause_s(header: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a `Retry-After` header asks for; None where it says nothing that can be read."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())
