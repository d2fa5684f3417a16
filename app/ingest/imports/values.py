"""What stands in somebody's column, as an event wants it. Pure; whatever does not fit is named."""

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from app.core.clock import rfc3339
from app.core.money import NANOS_PER_USD, divide_half_even, to_usd
from app.ingest.imports.records import Fields


class UnfitError(ValueError):
    """A record that is no event; the message says which field and why."""


def text_of(fields: Fields, *names: str, longest: int = 0) -> str | None:
    """The first of these fields that holds something, as text, cut to `longest`."""
    for name in names:
        value = fields.get(name)
        if value is None or value == "":
            continue
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        return text[:longest] if longest else text
    return None


def required(fields: Fields, *names: str) -> str:
    """As `text_of`.

    Raises:
        UnfitError: none of them holds anything.
    """
    found = text_of(fields, *names)
    if found is None:
        raise UnfitError(f"{' or '.join(names)} is missing")
    return found


def count_of(fields: Fields, *names: str) -> int | None:
    """A whole number, also where it is written `12.0` or as text.

    Raises:
        UnfitError: it is not one.
    """
    number = number_of(fields, *names)
    if number is None:
        return None
    if number != number.to_integral_value():
        raise UnfitError(f"{names[0]}: a whole number is expected")
    return int(number)


def number_of(fields: Fields, *names: str) -> Decimal | None:
    """A finite number, exactly as it is written.

    Raises:
        UnfitError: it is not one.
    """
    for name in names:
        value = fields.get(name)
        if value is None or value == "" or isinstance(value, bool):
            continue
        try:
            found = Decimal(str(value))
        except InvalidOperation:
            found = Decimal("NaN")
        if not found.is_finite() or abs(found) > 10**18:
            raise UnfitError(f"{name}: a number is expected")
        return found
    return None


def usd_of(fields: Fields, *names: str) -> str | None:
    """An amount in USD, rounded half to even to the nano-dollar: floats carry noise beyond.

    Raises:
        UnfitError: it is not an amount.
    """
    found = number_of(fields, *names)
    if found is None:
        return None
    numerator, denominator = found.as_integer_ratio()
    return to_usd(divide_half_even(numerator * NANOS_PER_USD, denominator))


def instant_of(fields: Fields, *names: str, naive_is_utc: bool) -> str:
    """When something happened, as RFC 3339 in UTC; seconds since 1970 are understood too.

    Raises:
        UnfitError: missing, unreadable, or without an offset where one is asked for.
    """
    text = required(fields, *names)
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        found = _since_1970(text, names[0])
    if found.tzinfo is None:
        if not naive_is_utc:
            raise UnfitError(f"{names[0]}: an instant with an offset is expected")
        found = found.replace(tzinfo=UTC)
    try:
        return rfc3339(found.astimezone(UTC))
    except OverflowError:
        raise UnfitError(f"{names[0]}: no such instant in UTC") from None


def _since_1970(text: str, name: str) -> datetime:
    try:
        seconds = Decimal(text)
        if not 10**8 < seconds < 10**11:
            raise UnfitError(f"{name}: an instant is expected")
        return datetime.fromtimestamp(int(seconds), UTC)
    except InvalidOperation:
        raise UnfitError(f"{name}: an instant is expected") from None


def object_of(fields: Fields, name: str) -> dict[str, Any]:
    """An object, also where it is JSON in a text; nothing where it is none."""
    value = fields.get(name)
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}


def pairs_of(found: dict[str, Any], most: int = 16) -> dict[str, str]:
    """What of an object can be tags: texts and numbers, so many at most."""
    pairs = {}
    for name, value in found.items():
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            pairs[str(name)[:64]] = str(value)[:512]
    return dict(list(pairs.items())[:most])


def without_nothing(event: dict[str, Any]) -> dict[str, Any]:
    """The event without the fields that say nothing."""
    return {name: value for name, value in event.items() if value is not None}
