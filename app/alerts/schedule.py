"""What comes after an attempt: delivered, once more later, or given up. Pure."""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import NamedTuple

DELAYS_S = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800, 28800)
"""Waits between attempts: about a day in all."""
SPREAD = 0.2
"""A wait is up to a tenth shorter or longer, so that what failed together does not return so."""
LONGEST_WAIT = timedelta(hours=8)
GONE = 410
TRY_LATER = (429, 503)


class Outcome(NamedTuple):
    """What came of one attempt. `error` says why it failed; None where it was taken."""

    took_ms: int
    status: int | None = None
    response: str | None = None
    error: str | None = None
    retry_after: str | None = None


class Verdict(NamedTuple):
    """The state of a delivery after an attempt, and when it is due again if it is."""

    state: str
    next_attempt_at: datetime | None = None
    webhook_is_gone: bool = False


def verdict_on(outcome: Outcome, failures: int, now: datetime, chance: float) -> Verdict:
    """Decide after an attempt; `failures` counts those before it, `chance` lies in [0, 1)."""
    if outcome.error is None:
        return Verdict("delivered")
    if outcome.status == GONE:
        return Verdict("dead", webhook_is_gone=True)
    if failures >= len(DELAYS_S):
        return Verdict("dead")
    wait = timedelta(seconds=DELAYS_S[failures]) * (1 + SPREAD * (chance - 0.5))
    if outcome.status in TRY_LATER:
        wait = max(wait, min(asked_wait(outcome.retry_after, now), LONGEST_WAIT))
    return Verdict("pending", now + wait)


def asked_wait(retry_after: str | None, now: datetime) -> timedelta:
    """How long a `Retry-After` asks to wait: seconds or a date; nothing where it is neither."""
    if retry_after is None:
        return timedelta(0)
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return timedelta(seconds=min(int(text[:9]), 10**8))
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, IndexError, TypeError, OverflowError):
        return timedelta(0)
    aware = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max(aware - now, timedelta(0))
