"""What may stand in the query of a request to a route of our own: what the route names, each once.

A misspelt parameter that nobody notices does something else than was meant: `?dryrun=true` would
do it in earnest.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request
from fastapi.routing import APIRoute

from app.core.errors import InvalidInput

LONGEST_SHOWN = 64
OTHERS = "other formats"
"""The tag of routes whose clients may add parameters as they like."""
FREE = ".NAME"
"""How the description of a route names a parameter whose name is free after its point."""


def parameters(query: str, known: Collection[str]) -> dict[str, str]:
    """The parameters of a query.

    Raises:
        InvalidInput: one that is not known, is given twice or cannot be read; it is named.
    """
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        before, _, free = name.partition(".")
        if name not in known and not (free and f"{before}{FREE}" in known):
            raise _refusal(name, "unknown query parameter")
        if name in found:
            raise _refusal(name, "given twice")
        if "\0" in name or "\0" in value:
            raise _refusal(name, "must not contain NUL")
        found[name] = value
    return found


def flag_in(query: str, name: str) -> bool:
    """One boolean parameter of a query that may have any others; absent is false.

    Raises:
        InvalidInput: it is given twice, or is neither true nor false.
    """
    given = [pair for pair in parse_qsl(query, keep_blank_values=True) if pair[0] == name]
    if len(given) > 1:
        raise _refusal(name, "given twice")
    return flag(dict(given), name)


def flag(found: Mapping[str, str], name: str) -> bool:
    """A boolean among parameters; absent is false, anything but true or false is refused."""
    value = found.get(name, "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise _refusal(name, "true or false")
    return value in ("true", "1")


def _refusal(name: str, detail: str) -> InvalidInput:
    shown = name[:LONGEST_SHOWN]
    return InvalidInput.at(f"/{shown}", f"{shown}: {detail}")


def refuse_unknown(request: Request) -> None:
    """Refuse what the route that was found does not take, unless it speaks another's format."""
    query: bytes = request.scope["query_string"]
    route: APIRoute = request.scope["route"]
    if query and OTHERS not in route.tags:
        parameters(query.decode("latin-1"), _known(route))


def _known(route: APIRoute) -> frozenset[str]:
    described: Iterable[dict[str, Any]] = (route.openapi_extra or {}).get("parameters", ())
    return frozenset(
        (*_named(route.dependant), *(one["name"] for one in described if one["in"] == "query"))
    )


def _named(dependant: Any) -> Iterator[str]:
    """The query parameters of a function and of all it depends on."""
    for one in dependant.query_params:
        yield one.alias
    for inner in dependant.dependencies:
        yield from _named(inner)
