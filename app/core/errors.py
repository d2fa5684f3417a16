"""Every failure we expect, as one tree.

Anything else is a bug: it is logged with its traceback and answered 500 without detail.
Each class is one documented problem type (RFC 9457); the slug never changes once released.
"""

from typing import Any, ClassVar


class AppError(Exception):
    """An expected failure, carrying what the caller may be told."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Something went wrong on our side"

    def __init__(self, detail: str = "", **extra: Any) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.extra = extra


class InvalidInput(AppError):
    """The request says something impossible; `errors` names each place."""

    status, slug, title = 422, "invalid-input", "The request is not valid"

    @classmethod
    def at(cls, pointer: str, detail: str) -> "InvalidInput":
        """One thing wrong at one place, a JSON pointer into the body."""
        return cls(detail, errors=[{"pointer": pointer, "detail": detail}])


class BadRequest(InvalidInput):
    """A request in another program's format is not what that format allows."""

    status, slug, title = 400, "bad-request", "The request is not what its format allows"


class OutOfWindow(InvalidInput):
    """The event is older or further ahead than the acceptance window allows."""

    slug, title = "out-of-window", "The event is outside the acceptance window"


class Unauthenticated(AppError):
    """We do not know this key, or it has expired or been revoked."""

    status, slug, title = 401, "unauthenticated", "A valid API key is needed"


class Forbidden(AppError):
    """We know the key, and it may not do that."""

    status, slug, title = 403, "forbidden", "This key may not do that"


class NotFound(AppError):
    """There is no such thing, or this key may not know of it."""

    status, slug, title = 404, "not-found", "There is no such thing"


class MethodNotAllowed(AppError):
    """The path exists and does not take this method."""

    status, slug, title = 405, "method-not-allowed", "This path does not take that method"


class Conflict(AppError):
    """What is asked contradicts what is already recorded."""

    status, slug, title = 409, "conflict", "This contradicts what is already recorded"


class IdReused(Conflict):
    """The same user and event id came with another body; the first one stays."""

    slug, title = "id-reused", "This id was already used for a different event"


class HoldClosed(Conflict):
    """The hold was settled, released or has expired, and ends only once."""

    slug, title = "hold-closed", "This hold has ended"


class Damaged(Conflict):
    """An archive's file is missing, or is not the one that was written; nothing was changed."""

    slug, title = "archive-damaged", "The archive is damaged"


class TooLarge(AppError):
    """The body, or a count in it, is beyond the documented bound."""

    status, slug, title = 413, "too-large", "The request is too large"


class HeadTooLarge(AppError):
    """The request line and headers together are beyond the bound."""

    status, slug, title = 431, "head-too-large", "The request head is too large"


class NotHttp(AppError):
    """The bytes are no HTTP/1.1 request, or a broken one."""

    status, slug, title = 400, "not-http", "This is not an HTTP request"


class UnsupportedMedia(AppError):
    """The media type or content encoding is not one we read."""

    status, slug, title = 415, "unsupported-media-type", "This media type is not supported"


class LimitReached(AppError):
    """A blocking limit is spent."""

    status, slug, title = 429, "limit-reached", "The limit for this period is spent"


class RateLimited(AppError):
    """This key has made as many requests within a minute as it may; `retry_after_s` says when."""

    status, slug, title = 429, "rate-limited", "This key makes too many requests"


class Unavailable(AppError):
    """The database or the queue cannot take it now; nothing was recorded, so try again."""

    status, slug, title = 503, "unavailable", "Not available right now; nothing was recorded"

    def __init__(self, detail: str = "", *, retry_after_s: int = 1, **extra: Any) -> None:
        super().__init__(detail, **extra)
        self.retry_after_s = retry_after_s
