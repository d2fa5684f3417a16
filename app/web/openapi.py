"""The description of the service for machines: every failure is a problem document."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel

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
        _restore_models(schemas)
        for context in iter_route_contexts(app.routes):
            if isinstance(route := context.original_route, APIRoute):
                _restore_route(found["paths"].get(route.path_format, {}), route)
        for path, operations in found["paths"].items():
            for operation in operations.values():
                _complete(operation, signed_in=path not in _OPEN)
        app.openapi_schema = found
        return found

    return openapi


def _others(response: dict[str, Any]) -> dict[str, Any]:
    """What else than a problem a route says it may answer with a status; not what FastAPI adds."""
    found: dict[str, Any] = response.get("content", {})
    return {kind: said for kind, said in found.items() if "HTTPValidationError" not in str(said)}


def _restore_models(schemas: dict[str, Any]) -> None:
    for model in _below(BaseModel):
        said = model.model_config.get("json_schema_extra")
        if isinstance(said, dict):
            where = model.__module__.replace(".", "__")  # so are two of one name told apart
            for name in (model.__name__, f"{where}__{model.__name__}"):
                _restore(schemas.get(name, {}), said)


def _below(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for sub in kind.__subclasses__():
        yield sub
        yield from _below(sub)


def _restore_route(operations: dict[str, Any], route: APIRoute) -> None:
    said = {str(status): response for status, response in route.responses.items()}
    for method in route.methods or ():
        if (operation := operations.get(method.lower())) is not None:
            _restore(operation, {"responses": said, **(route.openapi_extra or {})})


def _restore(found: dict[str, Any], said: Mapping[str, Any]) -> None:
    """Put each example back as it was given: FastAPI drops every null, also where it counts."""
    for name, value in said.items():
        if name in ("example", "examples") and name in found:
            found[name] = value
        elif isinstance(value, dict) and isinstance(found.get(name), dict):
            _restore(found[name], value)


def _complete(operation: dict[str, Any], *, signed_in: bool) -> None:
    responses = operation["responses"]
    for status, response in responses.items():
        if int(status) >= 400:
            response["content"] = _others(response) | _CONTENT
    responses["default"] = {"description": "A problem document", "content": _CONTENT}
    if signed_in:
        operation["security"] = [{"key": []}]
