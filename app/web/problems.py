"""Failures on the wire: application/problem+json (RFC 9457)."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from loguru import logger
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

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
from app.web.strict import escaped

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
        binding = error.extra.get("binding") or {}
        if binding.get("metric") == "cost_usd":
            found["X-Tollgate-Remaining-USD"] = binding["remaining"]
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
            {"pointer": _pointer(item, error.body), "detail": str(item["msg"])[:200]}
            for item in error.errors()[:50]
        ]
        first = errors[0]
        at = first["pointer"].lstrip("/")
        detail = f"{at}: {first['detail']}" if at else first["detail"]
        return answer(InvalidInput(detail, errors=errors), request, shown)

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        kind = _BY_STATUS.get(error.status_code)
        if kind is None:
            kind = InvalidInput
        told, headers = str(error.detail), dict(error.headers or {})
        if kind is NotFound:
            told = "there is nothing at this path"
        elif kind is MethodNotAllowed:
            headers["Allow"] = ", ".join(_methods(request))
            told = f"this path takes {headers['Allow']}"
        given = answer(kind(told), request, shown)
        given.headers.update(headers)
        return given

    @app.exception_handler(Exception)
    async def on_bug(request: Request, error: Exception) -> Response:
        return answer(expected(error), request, shown)


def _pointer(item: Mapping[str, Any], body: Any) -> str:
    """Where in what was sent an error lies: of its steps those that can be taken there.

    The others name alternatives and checks of ours.
    """
    where, *steps = item["loc"]
    if where != "body":
        return "".join(f"/{escaped(str(step))}" for step in steps[:1])
    pointer, missing = "", item["type"] == "missing"
    for place, step in enumerate(steps, 1):
        if _can_be_taken(body, step):
            body = body[step]
        elif not (missing and place == len(steps)):
            continue
        pointer += f"/{escaped(str(step))}"
    return pointer


def _can_be_taken(body: Any, step: str | int) -> bool:
    if isinstance(body, dict):
        return step in body
    return isinstance(body, list) and isinstance(step, int) and step < len(body)


def _methods(request: Request) -> list[str]:
    """The methods that the path of a request takes."""
    routes: list[BaseRoute] = request.app.router.routes
    found = [
        method
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if any(one.matches({**request.scope, "method": method})[0] is Match.FULL for one in routes)
    ]
    return ["GET", "HEAD", *found[1:]] if found[:1] == ["GET"] else found
