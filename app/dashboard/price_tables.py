"""Prices as people read them: dollars per million tokens, tiers and conditions in words. Pure."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup

from app.core.money import divide_half_even, to_usd
from app.dashboard import shown
from app.dashboard.price_book import BookRow
from app.dashboard.user_tables import Row, badge, columns
from app.pricing.leaves import TOKENS, Rate
from app.pricing.quote import Line
from app.pricing.rows import PER_MILLION, PriceRow
from app.summaries.unpriced import Unpriced

HOME = "/dashboard/prices"
ORIGIN_TONES = {"override": "good", "default": "warn"}
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_OWN = {
    "input_tokens": "input",
    "output_tokens": "output",
    "cache_read_tokens": "cached",
}
"""The counters that have a column of their own."""

BOOK = columns(
    ("Provider", "provider", "left"),
    ("Model", "model", "left"),
    ("Origin", "origin", "left"),
    ("Input / M", "input", "right"),
    ("Cached / M", "cached", "right"),
    ("Output / M", "output", "right"),
    ("Other rates", "others", "left"),
    ("In force", "force", "left"),
    ("Match", "match", "left"),
)


def book_rows(rows: Sequence[BookRow], *, raw: bool = False) -> list[Row]:
    """A row for each price of the book."""
    return [_book_row(one, raw=raw) for one in rows]


def _book_row(one: BookRow, *, raw: bool) -> Row:
    found: Row = {"input": "", "output": "", "cached": ""}
    others: list[str] = []
    free: list[str] = []
    for counter, rate in one.row.rates:
        if counter in _OWN:
            found[_OWN[counter]] = rate_text(counter, rate, unit=False)
        elif any(step.nanos for step in rate.steps):
            others.append(f"{unit_name(counter)} {rate_text(counter, rate)}")
        else:
            free.append(unit_name(counter))
    if free:
        others.append(f"{', '.join(free)} free" if len(free) < 3 else "everything else free")
    href = f"{HOME}/entry?{urlencode({'id': one.row.id})}"
    origin: object = one.origin
    if not raw:
        origin = badge(one.origin, ORIGIN_TONES.get(one.origin, "neutral"))
    return found | {
        "provider": one.provider,
        "model": one.model if raw else shown.link(one.model, href),
        "origin": origin,
        "others": "; ".join([*others, *changes_of(one.row)]),
        "force": ", ".join(
            part for part in (one.whose, force_of(one.row), *conditions_of(one)) if part
        ),
        "match": one.match,
    }


def rate_text(counter: str, rate: Rate, *, unit: bool = True) -> str:
    """What so much of a counter costs: a million tokens, or one of anything else, by tiers."""
    scale = 1_000_000 if counter in TOKENS else 1
    each = [
        shown.exact_money(divide_half_even(step.nanos * scale, rate.per)) for step in rate.steps
    ]
    per = (" / M" if counter in TOKENS else " each") if unit else ""
    if len(each) == 1:
        return f"{each[0]}{per}"
    ends = [shown.compact(step.above) for step in rate.steps[1:]]
    told = [f"{amount} up to {end}" for amount, end in zip(each, ends, strict=False)]
    how = "part by part" if rate.graduated else "by the whole call"
    return f"{'; '.join(told)}; {each[-1]} above{per} ({how})"


def unit_name(counter: str) -> str:
    """A counter in words."""
    return counter.removesuffix("_tokens").replace("_", " ")


def changes_of(row: PriceRow) -> list[str]:
    """What a row does besides its rates."""
    found = []
    if row.multiplier_ppm != PER_MILLION:
        found.append(f"times {to_usd(row.multiplier_ppm * 1_000)}")
    if row.min_charge_nanos:
        found.append(f"at least {shown.exact_money(row.min_charge_nanos)} a call")
    found += [f"at least {count:,} {unit_name(name)}" for name, count in row.least]
    if not row.rates and not found:
        found.append("changes nothing")
    return found


def conditions_of(one: BookRow) -> list[str]:
    """Under which conditions of a call a price holds."""
    found = [f"{name}: {value}" for name, value in one.row.when]
    if one.is_default:
        found.append("where nothing else does (estimated)")
    if one.adds:
        found.append("added to other prices")
    return found


def force_of(row: PriceRow) -> str:
    """Since when and until when a price holds, and at which hours."""
    said = "always"
    if row.start is not None or row.end is not None:
        start = "" if row.start is None else f"since {row.start:%Y-%m-%d}"
        end = "" if row.end is None else f"until {row.end:%Y-%m-%d}"
        said = " ".join(part for part in (start, end) if part)
    hours = [f"{begin:%H:%M}-{end:%H:%M}" for begin, end in row.windows]
    days = [DAYS[day] for day in row.weekdays]
    return ", ".join([said, *hours, *days])


# ---- lines of a cost ----------------------------------------------------------------------------

LINES = columns(
    ("Unit", "unit", "left"),
    ("Quantity", "quantity", "right"),
    ("Rate", "rate", "right"),
    ("For", "block", "right"),
    ("Amount", "amount", "right"),
    ("Price", "row", "left"),
)


def line_rows(lines: Sequence[Line], *, linked: bool = True) -> list[Row]:
    """A row for each line of a cost; the amounts sum to it, to the last nano-dollar."""
    return [
        {
            "unit": line.unit.replace("_", " "),
            "quantity": f"{line.quantity:,}",
            "rate": f"${line.usd}",
            "block": f"{line.block:,}",
            "amount": shown.exact_money(line.amount_nanos),
            "row": shown.link(line.row, f"{HOME}/entry?{urlencode({'id': line.row})}")
            if line.row and linked
            else line.row,
        }
        for line in lines
    ]


# ---- what has no price --------------------------------------------------------------------------

UNPRICED = columns(
    ("Provider", "provider", "left"),
    ("Model", "model", "left"),
    ("Calls", "calls", "right"),
    ("Users", "users", "right"),
    ("First", "first", "left"),
    ("Last", "last", "left"),
)


def unpriced_rows(rows: Sequence[Unpriced], *, raw: bool = False, act: bool = False) -> list[Row]:
    """A row for each model that was seen without a price; with `act`, a way to state one."""
    return [_unpriced_row(one, raw=raw, act=act) for one in rows]


def _unpriced_row(one: Unpriced, *, raw: bool, act: bool) -> Row:
    found: Row = {
        "provider": one.provider or "unnamed",
        "model": one.model or "unnamed",
        "calls": one.calls if raw else shown.count(one.calls),
        "users": one.users if raw else shown.count(one.users),
        "first": one.first_hour.isoformat() if raw else shown.when(one.first_hour),
        "last": one.last_hour.isoformat() if raw else shown.when(one.last_hour),
    }
    if act:
        query = urlencode({"provider": one.provider, "model": one.model})
        found["act"] = Markup('<a class="button" href="{}">State a price</a>').format(
            f"{HOME}/new?{query}"
        )
    return found


ACT: dict[str, Any] = {"name": "Action", "key": "act", "align": "right"}
