"""What a form says, as the body that the API takes: the same rules, told field by field."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from app.core.errors import AppError, InvalidInput

B = TypeVar("B", bound=BaseModel)
MOST_ERRORS = 20


class Filled(NamedTuple):
    """A form as it is shown: what stands in each field, what is wrong with it, and what besides."""

    values: Mapping[str, str] = {}
    errors: Mapping[str, str] = {}
    problem: str = ""

    def value(self, name: str, otherwise: str = "") -> str:
        """What stands in a field."""
        return self.values.get(name, otherwise)

    def error(self, name: str) -> str:
        """What is wrong with a field; empty where nothing is."""
        return self.errors.get(name, "")


def body_of(shape: type[B], facts: Mapping[str, Any]) -> B:
    """The body of an endpoint, judged as if it had come over HTTP.

    Raises:
        InvalidInput: `errors` names each place.
    """
    try:
        return shape.model_validate(facts)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[:MOST_ERRORS]
        errors = [
            {"pointer": "".join(f"/{step}" for step in one["loc"]), "detail": one["msg"][:200]}
            for one in found
        ]
        raise InvalidInput("the form is not valid", errors=errors) from None


def wrong(
    values: Mapping[str, str], error: AppError, fields: Mapping[str, str] | None = None
) -> Filled:
    """The form again, with what was refused beside the field that it is about.

    `fields` maps the first step of a pointer to the field, where their names differ.
    """
    errors: dict[str, str] = {}
    besides = []
    for one in error.extra.get("errors", ()):
        step = one["pointer"].strip("/").partition("/")[0]
        field = (fields or {}).get(step, step)
        if field in values:
            errors.setdefault(field, one["detail"])
        else:
            besides.append(f"{step}: {one['detail']}" if step else one["detail"])
    problem = "; ".join(besides) or ("" if errors else error.detail or error.title)
    return Filled(values, errors, problem)


def amount_in(text: str, metric: str) -> int | str | None:
    """An amount as the API takes it: nothing is unlimited; `$1,000` is 1000."""
    plain = text.strip().removeprefix("$").replace(",", "").replace("_", "").strip()
    if not plain:
        return None
    if metric == "cost_usd":
        return plain
    return int(plain) if plain.isascii() and plain.isdigit() and len(plain) <= 19 else plain


def instant_in(text: str) -> str | None:
    """An instant as the API takes it; a date and time without an offset is in UTC."""
    plain = text.strip().replace(" ", "T")
    if not plain:
        return None
    if len(plain) == len("2026-11-24T00:00"):
        plain += ":00"
    return plain if plain[-1:] in "zZ" or plain[-6:-5] in ("+", "-") else f"{plain}Z"


def in_field(moment: datetime | None) -> str:
    """An instant as a field of date and time holds it, to the minute in UTC; empty for none."""
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M}"


def whole_in(text: str, pointer: str) -> int | None:
    """A whole number; nothing is None.

    Raises:
        InvalidInput: at the pointer, if it is not one.
    """
    plain = text.strip().replace(",", "").replace("_", "")
    if not plain:
        return None
    if not (plain.isascii() and plain.isdigit() and len(plain) <= 19):
        raise InvalidInput.at(pointer, "a whole number is expected")
    return int(plain)


def overlap_in(values: Mapping[str, str]) -> dict[str, int]:
    """How long the old secret goes on, of the field `overlap_h` in hours; nothing is left out.

    Raises:
        InvalidInput: it is no whole number.
    """
    hours = whole_in(values.get("overlap_h", ""), "/overlap_h")
    return {} if hours is None else {"overlap_s": hours * 3600}


def wholes_in(text: str, pointer: str) -> list[int]:
    """Whole numbers with commas or spaces between them.

    Raises:
        InvalidInput: at the pointer, if one is not.
    """
    parts = text.replace(",", " ").replace("%", " ").split()
    return [number for part in parts if (number := whole_in(part, pointer)) is not None]


def said(values: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Those of the fields that are not empty."""
    return {name: text for name in names if (text := values.get(name, "").strip())}


def scope_in(values: Mapping[str, str], kinds: Mapping[str, str]) -> dict[str, Any]:
    """A scope as the API takes it, of the fields `scope` (its kind) and `scope_of` (whose)."""
    kind = values.get("scope", "all")
    return {kinds[kind]: values.get("scope_of", "").strip()} if kind in kinds else {"all": True}
