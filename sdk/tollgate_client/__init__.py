"""The Python client of Tollgate: record what AI calls used, ask before, hold while they run."""

from tollgate_client.answers import LimitState, Verdict
from tollgate_client.client import AsyncTollgate, Tollgate
from tollgate_client.errors import LimitReached, QueueFull, Refused, TollgateError, Unavailable
from tollgate_client.events import Ask, Event
from tollgate_client.holds import AsyncHold, Hold
from tollgate_client.ids import uuid7
from tollgate_client.metering import meter
from tollgate_client.middleware import TollgateMiddleware
from tollgate_client.stats import Stats
from tollgate_client.users import acting_for

__all__ = [
    "Ask",
    "AsyncHold",
    "AsyncTollgate",
    "Event",
    "Hold",
    "LimitReached",
    "LimitState",
    "QueueFull",
    "Refused",
    "Stats",
    "Tollgate",
    "TollgateError",
    "TollgateMiddleware",
    "Unavailable",
    "Verdict",
    "acting_for",
    "meter",
    "uuid7",
]
