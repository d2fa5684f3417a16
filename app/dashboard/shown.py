"""How figures are written for people. Pure; the templates use these as filters."""

from datetime import datetime
from decimal import ROUND_DOWN, Decimal
from urllib.parse import quote

from markupsafe import Markup, escape

from app.core.clock import rfc3339
from app.core.money import NANOS_PER_USD, divide_half_even, to_usd
from app.summaries.sums import percent as share

CENT = NANOS_PER_USD // 100
UNKNOWN = "unknown"
_TENTH, _HUNDREDTH = Decimal("0.1"), Decimal("0.01")


def money(nanos: int | None) -> str:
    """Nano-dollars as dollars: two decimals from a dollar on, below as many as it takes to see it.

    What is not known is `unknown`; only nothing at all is `$0`.
    """
    if nanos is None:
        return UNKNOWN
    if not nanos:
        return "$0"
    sign, left = ("-", -nanos) if nanos < 0 else ("", nanos)
    places = 2
    if left < NANOS_PER_USD:
        places = 4 if left >= CENT else min(9, 12 - len(str(left)))
    step = 10 ** (9 - places)
    whole, fraction = divmod(divide_half_even(left, step) * step, NANOS_PER_USD)
    digits = f"{fraction:09d}"[:places]
    digits = digits[:2] + digits[2:].rstrip("0")
    return f"{sign}${whole:,}.{digits}"


def exact_money(nanos: int | None) -> str:
    """Nano-dollars as dollars with every digit, for titles and tables of prices."""
    if nanos is None:
        return UNKNOWN
    sign, left = ("-", -nanos) if nanos < 0 else ("", nanos)
    whole, fraction = divmod(left, NANOS_PER_USD)
    digits = f"{fraction:09d}".rstrip("0")
    return f"{sign}${whole:,}" + (f".{digits.ljust(2, '0')}" if digits else "")


def count(value: int | None) -> str:
    """A count with its thousands apart: 1,234,567."""
    return UNKNOWN if value is None else f"{value:,}"


def compact(value: int | None) -> str:
    """A count in three or four digits: 1.2M, 45.6k, 999."""
    if value is None:
        return UNKNOWN
    sign, left = ("-", -value) if value < 0 else ("", value)
    if left < 1_000:
        return f"{sign}{left}"
    for unit, letter in ((1_000, "k"), (10**6, "M"), (10**9, "B"), (10**12, "T")):
        tenths = divide_half_even(left * 10, unit)
        if tenths < 10_000 or letter == "T":
            break
    whole, tenth = divmod(tenths, 10)
    return f"{sign}{whole:,}{f'.{tenth}' if tenth and whole < 100 else ''}{letter}"


def tokens(value: int | None) -> str:
    """As `compact`."""
    return compact(value)


def percent(value: float | None) -> str:
    """A percentage: 12.3%, 0.04%, and below that <0.01%. Rounded down: 99.99 is not yet 100%."""
    if value is None:
        return UNKNOWN
    if value == 0:
        return "0%"
    if abs(value) < 0.01:
        return "<0.01%"
    if abs(value) < 1:
        return f"{Decimal(str(value)).quantize(_HUNDREDTH, ROUND_DOWN)}%"
    text = f"{Decimal(str(value)).quantize(_TENTH, ROUND_DOWN):,}"
    return f"{text.removesuffix('.0')}%"


def change(value: float | None) -> str:
    """How much something changed in percent, with its sign."""
    if value is None:
        return "new"
    if abs(value) >= 1_000:
        return f"{'+' if value > 0 else '-'}{compact(round(abs(value)))}%"
    if abs(value) < 0.05:
        return "±0%"
    return f"{'+' if value > 0 else '-'}{percent(round(abs(value), 1))}"


def change_of(now: int, before: int) -> float | None:
    """By how many percent `now` is more than `before`; None where there was nothing before."""
    return None if before == 0 else share(now - before, abs(before))


def duration_ms(value: float | None) -> str:
    """A duration of milliseconds: 812 ms, 2.41 s, 3 min 20 s."""
    if value is None:
        return UNKNOWN
    if value < 10:
        return f"{value:.1f} ms"
    if value < 1_000:
        return f"{value:.0f} ms"
    if value < 60_000:
        return f"{value / 1_000:.2f} s"
    minutes, seconds = divmod(round(value / 1_000), 60)
    return f"{minutes} min {seconds} s"


def when(moment: datetime | None) -> Markup:
    """An instant in UTC; the page's script adds the reader's own time as a title."""
    if moment is None:
        return Markup("never")
    return Markup('<time datetime="{}">{} UTC</time>').format(
        rfc3339(moment), f"{moment:%Y-%m-%d %H:%M}"
    )


def ago(moment: datetime | None, now: datetime) -> Markup:
    """How long ago an instant was, or how far ahead it is; its text in UTC is the title."""
    if moment is None:
        return Markup("never")
    seconds = (now - moment).total_seconds()
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        times = int(abs(seconds) // size)
        if times:
            text = f"{times} {unit}{'' if times == 1 else 's'}"
            break
    else:
        text = "a moment"
    text = f"{text} ago" if seconds >= 0 else f"in {text}"
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        rfc3339(moment), f"{moment:%Y-%m-%d %H:%M}", text
    )


def user_href(user_id: str, query: str = "") -> str:
    """Where the page of a user is."""
    return f"/dashboard/users/{quote(user_id, safe='')}" + (f"?{query}" if query else "")


def link(text: str, href: str) -> Markup:
    """A link, both parts escaped."""
    return Markup('<a href="{}">{}</a>').format(href, escape(text))


def plain_usd(nanos: int | None) -> str:
    """Nano-dollars as a number for machines; empty where it is not known."""
    return "" if nanos is None else to_usd(nanos)
