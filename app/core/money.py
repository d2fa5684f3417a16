"""Money is a whole number of nano-dollars (1 USD = 10**9), and is rounded in one place only.

A BIGINT holds ±$9.2 billion. Passing that is an error that names the value, never a wrapped number.
"""

from decimal import Decimal
from typing import NewType

Nanos = NewType("Nanos", int)

NANOS_PER_USD = 10**9
CEILING = 2**63 - 1


def divide_half_even(numerator: int, denominator: int) -> int:
    """Divide exactly and round once, half to even, so that errors do not drift one way."""
    whole, rest = divmod(numerator, denominator)
    twice = 2 * rest
    if twice > denominator or (twice == denominator and whole & 1):
        whole += 1
    return whole


def from_usd(text: str) -> Nanos:
    """Read a decimal string of USD with nine places at most.

    Raises:
        ValueError: not a plain decimal, finer than a nano-dollar, or beyond the ceiling.
    """
    body = text[1:] if text[:1] == "-" else text
    whole, _, fraction = body.partition(".")
    if not (whole.isascii() and whole.isdigit()) or len(body) > 40:
        raise ValueError('money is a decimal string of USD, such as "0.000195"')
    if fraction or "." in body:
        if not (fraction.isascii() and fraction.isdigit()):
            raise ValueError('money is a decimal string of USD, such as "0.000195"')
        fraction = fraction.rstrip("0")
        if len(fraction) > 9:
            raise ValueError("money has nine decimal places at most")
    nanos = int(whole) * NANOS_PER_USD + int(fraction.ljust(9, "0") or "0")
    if nanos > CEILING:
        raise ValueError("money beyond $9.2 billion cannot be recorded")
    return Nanos(-nanos if text[:1] == "-" else nanos)


def to_usd(nanos: int) -> str:
    """Write money for people and JSON: a plain decimal string with no trailing zeros."""
    sign, magnitude = ("-", -nanos) if nanos < 0 else ("", nanos)
    whole, fraction = divmod(magnitude, NANOS_PER_USD)
    if not fraction:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{fraction:09d}".rstrip("0")


def exact_nanos(usd: Decimal) -> Nanos:
    """Whole nano-dollars of an exact decimal, refusing to lose digits."""
    sign, digits, exponent = usd.as_tuple()
    if not isinstance(exponent, int):
        raise ValueError("money must be finite")
    value = int("".join(map(str, digits)))
    shift = exponent + 9
    if shift >= 0:
        nanos = value * 10**shift
    else:
        nanos, rest = divmod(value, 10**-shift)
        if rest:
            raise ValueError(f"finer than one nano-dollar: {usd}")
    return Nanos(-nanos if sign else nanos)
