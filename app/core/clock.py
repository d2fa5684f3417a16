"""Time is an aware UTC datetime in Python; SQLite keeps it as whole microseconds since 1970."""

import time
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Count microseconds since the epoch; a naive datetime is a bug, not a guess."""
    return (moment - EPOCH) // MICROSECOND


def from_micros(micros: int) -> datetime:
    """The instant that many microseconds after the epoch."""
    return EPOCH + micros * MICROSECOND


def hour_of(moment: datetime) -> datetime:
    """The start of the UTC hour that contains `moment` (which must be in UTC)."""
    return moment.replace(minute=0, second=0, microsecond=0)


def rfc3339(moment: datetime) -> str:
    """Write an instant in UTC with `Z`, and a fraction only where there is one."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return f"{moment.isoformat()[:-6]}Z"


def unix_ms() -> int:
    """Milliseconds since the epoch, for identifiers that sort by time."""
    return time.time_ns() // 1_000_000


class Clock:
    """The only place that asks the machine what time it is."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def database_now(self, told: datetime) -> datetime:
        """The time by the database's clock, which has just told it."""
        return told

    def monotonic_s(self) -> float:
        """Seconds on a clock that never goes back; for deadlines and durations."""
        return time.monotonic()


class FrozenClock(Clock):
    """A clock for tests; it moves when told to."""

    def __init__(self, start: datetime) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def database_now(self, told: datetime) -> datetime:
        """The time it was told to be, whatever the database says."""
        return self._now

    def advance(self, by: timedelta) -> None:
        self._now += by
