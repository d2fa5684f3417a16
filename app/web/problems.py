"""Failures on the wire: application/problem+json (RFC 9457)."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from loguru import logger
from starlette.exceptions import HTTPException

from app.core.errors import (
    AppError,
    InvalidInput,
    LimitReached,
    MethodNotAllowed,
    NotFound,
    RateLimited,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnsupportedMedia,
)

MEDIA_TYPE = "application/problem+json"
Shown = Callable[[AppError, Request], Response | None]
"""What a person's browser gets instead of the document; None where a program asked."""
_BY_STATUS: Mapping[int, type[AppError]] = {
    kind.status: kind
    for kind in (Unauthenticated, NotFound, MethodNotAllowed, TooLarge, UnsupportedMedia)
}


def document(error: AppError, request_id: str) -> bytes:
    """The problem as JSON; what the caller sent is never in it."""
    body: dict[str, Any] = {
        "type": f"/docs/problems#{error.slug}",
        "title": error.title,
        "status": error.status,
        "instance": request_id,
    }
    if error.detail:
        body["detail"] = error.detail
    return json.dumps(body | error.extra, default=str).encode()


def headers_of(error: AppError) -> dict[str, str]:
    """What goes beside the document: when to come back, how to sign in."""
    found = {"Content-Type": MEDIA_TYPE}
    if isinstance(error, Unavailable):
        found["Retry-After"] = str(error.retry_after_s)
    elif isinstance(error, LimitReached | RateLimited):
        found["Retry-After"] = str(error.extra.get("retry_after_s", 60))
    elif isinstance(error, Unauthenticated):
        found["WWW-Authenticate"] = "Bearer"
    return found


def expected(error: Exception) -> AppError:
    """The error to answer with; an unexpected one is a bug, logged and told without detail."""
    if isinstance(error, AppError):
        return error
    logger.opt(exception=error).error("request.failed")
    return AppError("an unexpected error was logged under this request id")


def answer(error: AppError, request: Request, shown: Shown | None = None) -> Response:
    """The problem as a response."""
    if shown is not None and (found := shown(error, request)) is not None:
        return found
    request_id = request.scope.get("state", {}).get("request_id", "")
    return Response(document(error, request_id), error.status, headers=headers_of(error))


def install(app: FastAPI, shown: Shown | None = None) -> None:
    """Answer every failure with a problem document, or with what `shown` makes of it."""

    @app.exception_handler(AppError)
    async def on_expected(request: Request, error: AppError) -> Response:
        return answer(error, request, shown)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        errors = [
            {
                "pointer": "".join(f"/{step}"[:65] for step in item["loc"][1:]),
                "detail": str(item["msg"])[:200],
            }
            for item in error.errors()[:50]
        ]
        first = errors[0]
        detail = f"{first['pointer'].lstrip('/')}: {first['detail']}"
        return answer(InvalidInput(detail, errors=errors), request, shown)

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        kind = _BY_STATUS.get(error.status_code)
        if kind is None:
            kind = InvalidInput
        given = answer(kind("" if kind is not InvalidInput else str(error.detail)), request, shown)
        for name, value in (error.headers or {}).items():
            given.headers[name] = value
        return given

    @app.exception_handler(Exception)
    async def on_bug(request: Request, error: Exception) -> Response:
        return answer(expected(error), request, shown)
