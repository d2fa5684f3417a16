"""Our own prices: what the sources lack or have wrong, each with where its figure is from.

`data/overlay.toml` is written by hand; its head explains the form. It is read strictly: a key that
is not known, a price that is no decimal, or a block without a source is an error that names it.
"""

import tomllib
from collections.abc import Iterable, Mapping
from datetime import datetime, time
from importlib.resources import files
from typing import Any

from app.core.counters import COUNTERS, MICROS_PER_SECOND, SECONDS
from app.core.money import from_usd
from app.pricing.extract import read_rate
from app.pricing.leaves import Rate
from app.pricing.rows import PER_MILLION, Condition, Listing, PriceRow

LAYER = "overlay"
DEFAULT_LAYER = "default"
FILE = "overlay.toml"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_PER_THOUSAND = ("requests", "web_searches", "rerank_searches", "input_document_pages")
_LISTING_KEYS = frozenset(
    {"provider", "model", "name", "names", "patterns", "adds", "default", "source", "row", "prices"}
)
_ROW_KEYS = frozenset(
    {"rates", "when", "from", "until", "windows", "weekdays", "multiplier", "minimum", "least"}
)


def read_overlay() -> tuple[Listing, ...]:
    """Every listing of our own file, those of provider defaults included.

    Raises:
        ValueError: the file breaks its form; the message names the block and the key.
    """
    return parse_overlay(files("app.pricing").joinpath("data", FILE).read_text())


def parse_overlay(text: str) -> tuple[Listing, ...]:
    """Read the text of an overlay.

    Raises:
        ValueError: it is not TOML, or a block breaks the form.
    """
    data = tomllib.loads(text)
    _only(data, frozenset({"listing", "table"}), "the overlay")
    listings: list[Listing] = []
    taken: set[str] = set()
    for block in data.get("listing", ()):
        listings.append(_listing(block, taken))
    for block in data.get("table", ()):
        listings.extend(_table(block, taken))
    return tuple(listings)


def block_of(counter: str) -> int:
    """How many units a price without a stated block is for."""
    if counter.endswith("_tokens") or counter == "input_characters":
        return 1_000_000
    return 1_000 if counter in _PER_THOUSAND else 1


def _listing(block: Mapping[str, Any], taken: set[str]) -> Listing:
    where = f"{block.get('provider', '?')}/{block.get('model', '?')}"
    _only(block, _LISTING_KEYS - {"prices"}, where)
    provider, model = _text(block, "provider", where), _text(block, "model", where)
    source = _text(block, "source", where)
    default, adds = bool(block.get("default")), bool(block.get("adds"))
    patterns = tuple((pattern,) for pattern in block.get("patterns", ()))
    names = tuple(block.get("names", () if patterns or default else (model,)))
    if default != (model == "*") or not (names or patterns or default):
        raise ValueError(f"{where}: only a default is for the model *, everything else has names")
    if any(name != name.lower().strip() for name in names):
        raise ValueError(f"{where}: names are written in lower case")
    layer = DEFAULT_LAYER if default else LAYER
    rows = []
    for row in block.get("row", ()):
        ref = _free_id(f"{layer}/{provider}/{model}", taken)
        rows.append(_row(row, ref, source, where))
    if not rows:
        raise ValueError(f"{where}: there is no row")
    name = block.get("name", model)
    return Listing(layer, provider, model, name, names, patterns, tuple(rows), adds)


def _table(block: Mapping[str, Any], taken: set[str]) -> Iterable[Listing]:
    """A list of models that are priced by one counter, as `prices = { model = "0.21" }`."""
    where = f"the table of {block.get('provider', '?')}"
    _only(block, frozenset({"provider", "counter", "source", "prices"}), where)
    provider, counter = _text(block, "provider", where), _text(block, "counter", where)
    source = _text(block, "source", where)
    for model, told in block["prices"].items():
        ref = _free_id(f"{LAYER}/{provider}/{model}", taken)
        row = _row({"rates": {counter: told}}, ref, source, f"{where}, {model}")
        yield Listing(LAYER, provider, model, model, (model.lower(),), (), (row,))


def _row(row: Mapping[str, Any], ref: str, source: str, where: str) -> PriceRow:
    _only(row, _ROW_KEYS, where)
    return PriceRow(
        id=ref,
        rates=tuple(_rates(row.get("rates", {}), where)),
        when=tuple(sorted(_conditions(row.get("when", {}), where))),
        start=_instant(row, "from", where),
        end=_instant(row, "until", where),
        windows=tuple(_window(text, where) for text in row.get("windows", ())),
        weekdays=tuple(_weekday(text, where) for text in row.get("weekdays", ())),
        multiplier_ppm=_multiplier(row.get("multiplier", "1"), where),
        min_charge_nanos=from_usd(row.get("minimum", "0")),
        least=tuple(_least(row.get("least", {}), where)),
        source=source,
    )


def _rates(told: Mapping[str, str], where: str) -> Iterable[tuple[str, Rate]]:
    for counter, price in told.items():
        if counter not in COUNTERS:
            raise ValueError(f"{where}: {counter} is no counter")
        try:
            yield counter, read_rate(price, block_of(counter))
        except (ValueError, ArithmeticError, AttributeError) as error:
            raise ValueError(f"{where}: {counter} is no price: {price!r}") from error


def _least(told: Mapping[str, int], where: str) -> Iterable[tuple[str, int]]:
    for counter, amount in told.items():
        if counter not in COUNTERS or not isinstance(amount, int) or amount <= 0:
            raise ValueError(f"{where}: least {counter} = {amount!r} is no amount of a counter")
        yield counter, amount * MICROS_PER_SECOND if counter in SECONDS else amount


def _conditions(told: Mapping[str, str], where: str) -> Iterable[Condition]:
    for name, value in told.items():
        if not isinstance(value, str) or value != value.lower().strip():
            raise ValueError(f"{where}: the condition {name} is a text in lower case")
        yield name, value


def _instant(row: Mapping[str, Any], key: str, where: str) -> datetime | None:
    value = row.get(key)
    if value is None:
        return None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError(f"{where}: {key} is an instant with an offset, such as 2025-09-05T16:00Z")
    return value


def _window(text: str, where: str) -> tuple[time, time]:
    begin, _, end = text.partition("-")
    try:
        return time.fromisoformat(begin), time.fromisoformat(end)
    except ValueError as error:
        raise ValueError(f"{where}: a window is written 01:00-04:00, not {text!r}") from error


def _weekday(text: str, where: str) -> int:
    if text not in DAYS:
        raise ValueError(f"{where}: a weekday is one of {', '.join(DAYS)}, not {text!r}")
    return DAYS.index(text)


def _multiplier(text: str, where: str) -> int:
    whole, _, part = text.partition(".")
    if not whole.isdigit() or (part and not part.isdigit()) or len(part) > 6:
        raise ValueError(f"{where}: a multiplier has six decimals at most, not {text!r}")
    return int(whole) * PER_MILLION + int(part.ljust(6, "0"))


def _only(block: Mapping[str, Any], keys: frozenset[str], where: str) -> None:
    unknown = sorted(block.keys() - keys)
    if unknown:
        raise ValueError(f"{where}: unknown key {', '.join(unknown)}")


def _text(block: Mapping[str, Any], key: str, where: str) -> str:
    value = block.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: {key} is missing")
    return value


def _free_id(stem: str, taken: set[str]) -> str:
    stem = stem.replace(" ", "-").replace("+", "-")
    number = 1
    while (ref := stem if number == 1 else f"{stem}#{number}") in taken:
        number += 1
    taken.add(ref)
    return ref
