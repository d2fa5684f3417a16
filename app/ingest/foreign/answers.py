"""What a request in another program's format is answered with, as far as formats agree."""

from collections.abc import Mapping
from copy import copy
from typing import Any, TypeVar

from app.core.errors import AppError, BadRequest, Forbidden, OutOfWindow
from app.ingest.foreign.submit import Told
from app.ingest.receipts import summary
from app.web.lean import LeanAnswer

E = TypeVar("E", bound=AppError)
MOST_SHOWN = 100


def places_of(refused: Mapping[int, AppError]) -> list[dict[str, str]]:
    """What was wrong, place by place, the first hundred."""
    found: list[dict[str, str]] = []
    for error in refused.values():
        found += error.extra.get("errors") or [{"pointer": "", "detail": error.detail}]
    return found[:MOST_SHOWN]


def refusal_of(told: Told) -> AppError | None:
    """Why nothing at all was recorded, or None. Pure."""
    if told.logged or not told.refused:
        return None
    errors = list(told.refused.values())
    if all(isinstance(error, Forbidden) for error in errors):
        return errors[0]
    shown = places_of(told.refused)
    kind = OutOfWindow if all(isinstance(error, OutOfWindow) for error in errors) else BadRequest
    detail = shown[0]["detail"] if told.total == 1 else "nothing was recorded"
    return kind(detail, errors=shown)


def in_part(told: Told) -> LeanAnswer:
    """The summary that `POST /v1/events` gives to many."""
    places = sorted(told.logged)
    logged = [told.logged[place] for place in places]
    return summary(told.total, places, logged, dict(told.refused), every=False)


def without_conflicts(told: Told) -> LeanAnswer:
    """As `in_part`; an id that stands for another event is one that was sent before."""
    logged = {
        place: one._replace(status="duplicate") if one.status == "conflict" else one
        for place, one in told.logged.items()
    }
    return in_part(told._replace(logged=logged))


def with_members(error: E, members: Mapping[str, Any]) -> E:
    """The refusal with members that a format's own clients look for."""
    found = copy(error)
    found.extra = {**error.extra, **members}
    return found
