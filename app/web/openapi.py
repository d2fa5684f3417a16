"""The description of the service for machines: every failure is a problem document."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from app.web.pages import kinds

_PROBLEM: dict[str, Any] = {
    "type": "object",
    "title": "Problem",
    "description": "A problem document (RFC 9457). `type` points to its explanation.",
    "required": ["type", "title", "status", "instance"],
    "properties": {
        "type": {
            "type": "string",
            "enum": [f"/docs/problems#{kind.slug}" for kind in kinds()],
        },
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "description": "The request id."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
_CONTENT = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_OPEN = ("/healthz", "/readyz", "/docs/problems")


def describe(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """FastAPI's description, with our failures and our way to sign in."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        found = plain()
        parts = found.setdefault("components", {})
        schemas = parts.setdefault("schemas", {})
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        schemas["Problem"] = _PROBLEM
        parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations in found["paths"].items():
            for operation in operations.values():
                _complete(operation, signed_in=path not in _OPEN)
        app.openapi_schema = found
        return found

    return openapi


def _complete(operation: dict[str, Any], *, signed_in: bool) -> None:
    responses = operation["responses"]
    for status, response in responses.items():
        if int(status) >= 400:
            response["content"] = _CONTENT
    responses["default"] = {"description": "A problem document", "content": _CONTENT}
    if signed_in:
        operation["security"] = [{"key": []}]
