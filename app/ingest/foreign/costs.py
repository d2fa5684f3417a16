"""A cost that another program states, weighed against the one that we would find."""

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import NamedTuple

from app.core.errors import InvalidInput
from app.core.money import CEILING, NANOS_PER_USD, exact_nanos, to_usd
from app.summaries.drifts import STATED

_NANO = Decimal(1).scaleb(-9)
_LONGEST = 64


class Weighed(NamedTuple):
    """The cost for the event (None: price it), what its context keeps, and whether both costs
    were made of the same facts, so that a difference means something.
    """

    cost_usd: str | None
    context: dict[str, str]
    comparable: bool


def weigh(
    given: object,
    *,
    tokens: int,
    complete: bool,
    trust: str,
    pointer: str = "",
    free: bool = False,
    scale: int = 1,
) -> Weighed:
    """Decide whose cost counts.

    `given` is what was stated, in USD / `scale` (100: cents); null and empty say nothing, and so
    does 0 unless the call is known to be `free`, as one answered from a cache. `tokens` is how
    many were reported, `complete` whether they were split as prices need it: a program that saw
    more than it tells knows better. `trust` is `needed`, `always` or `never`.

    Raises:
        InvalidInput: not an amount of money, at the pointer.
    """
    nanos = _nanos(given, pointer, scale)
    if nanos is None or (nanos == 0 and not free):
        return Weighed(None, {}, False)
    stated = to_usd(nanos)
    comparable = complete and tokens > 0 and not free
    wins = trust == "always" or (trust == "needed" and not (comparable))
    return Weighed(stated if wins else None, {STATED: stated}, comparable)


def summed(parts: Mapping[str, object], pointer: str) -> str | None:
    """What the stated parts of a cost add up to; None where none is stated.

    Raises:
        InvalidInput: a part is not an amount of money, at its pointer.
    """
    amounts = [_amount(value, f"{pointer}/{name}") for name, value in parts.items()]
    stated = [amount for amount in amounts if amount is not None]
    return str(sum(stated)) if stated else None


def _nanos(given: object, pointer: str, scale: int) -> int | None:
    amount = _amount(given, pointer)
    if amount is None:
        return None
    return exact_nanos((amount / scale).quantize(_NANO, ROUND_HALF_EVEN))


def _amount(given: object, pointer: str) -> Decimal | None:
    if given is None or given == "":
        return None
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise InvalidInput.at(pointer, "an amount of money was looked for")
    text = str(given).strip()
    try:
        if len(text) > _LONGEST:
            raise InvalidOperation
        amount = Decimal(text)
        if not 0 <= amount <= Decimal(CEILING) / NANOS_PER_USD:
            raise InvalidOperation
    except (InvalidOperation, ValueError):
        detail = "an amount of USD from 0 to 9.2 billion was looked for"
        raise InvalidInput.at(pointer, detail) from None
    return amount
