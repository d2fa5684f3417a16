"""What may go wrong, said so that the caller knows what to do about it."""

from collections.abc import Sequence
from typing import Any

from tollgate_client.answers import LimitState


class TollgateError(Exception):
    """Anything this package raises on its own."""


class Unavailable(TollgateError):
    """The service could not be asked; nothing was changed that a retry would change twice."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.retry_after_s = reason, retry_after_s


class LimitReached(TollgateError):
    """A limit that blocks is spent: `binding` is the limit, `retry_after_s` counts to its reset."""

    def __init__(
        self, message: str, binding: LimitState | None, retry_after_s: float | None
    ) -> None:
        super().__init__(message)
        self.binding, self.retry_after_s = binding, retry_after_s


class Refused(TollgateError):
    """The service understood and said no: `status`, its `detail`, and the places in `errors`."""

    def __init__(self, status: int, detail: str, errors: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(f"{status}: {detail}")
        self.status, self.detail, self.errors = status, detail, list(errors)


class QueueFull(TollgateError):
    """There is no room to keep another event; it was not taken."""
