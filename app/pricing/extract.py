"""Prices of models and conditions that the first source lacks, from a list that we ship.

`data/extract.json` is made by `scripts/build_price_extract.py`; one line of it is one model.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from importlib.resources import files
from typing import Any

from app.pricing.leaves import Rate, Step
from app.pricing.rows import Condition, Listing, PriceRow

LAYER, FIRST_LAYER = "extract", "overlay"
FILE = "extract.json"
_NEUTRAL_ZONES = ("global", "global-standard")
_Units = Mapping[str, tuple[str, int]]


def read_extract() -> tuple[Listing, ...]:
    """Every model of the shipped list, and once more under each spelling that fixes a condition.

    A zone, or a size and quality of images, may be part of the name: `us/gpt-4o` is `gpt-4o` in the
    region `us`, `hd/1024-x-1024/dall-e-3` is `dall-e-3` of that quality and size.

    Raises:
        ValueError: the file is not what the script writes.
    """
    data = json.loads(files("app.pricing").joinpath("data", FILE).read_text())
    units = {code: (unit[0], unit[1]) for code, unit in data["units"].items()}
    source = f"{data['source']} {data['version']}"
    reader = _Reader(units, source)
    return tuple(listing for entry in data["models"] for listing in reader.listings(*entry))


class _Reader:
    """Turns lines into listings; equal rates are one object."""

    def __init__(self, units: _Units, source: str) -> None:
        self._units, self._source = units, source
        self._rates = lru_cache(maxsize=None)(self._read_rates)

    def listings(
        self,
        provider: str,
        model: str,
        span: str,
        shown: list[tuple[str, str]],
        first: bool = False,
    ) -> Iterator[Listing]:
        """The model by its own name, then by each spelling that fixes conditions.

        What names a region, or is marked to go `first`, nobody else lists: it goes before them.
        """
        since, _, until = span.partition("/")
        bounds = (_midnight(since), _midnight(until))
        rows = [(_pairs(when), self._rates(rates)) for when, rates in shown]
        names = [model]
        if provider == "azure":
            names += [f"{zone}/{model}" for zone in _NEUTRAL_ZONES]
        if any(not when for when, _ in rows):
            layer = FIRST_LAYER if first else LAYER
            yield self._listing(layer, provider, model, names, rows, bounds)
        for fixed in dict.fromkeys(fixed for when, _ in rows if (fixed := _fixed(when))):
            spelled = "/".join((*(_in_name(pair) for pair in fixed), model))
            within = [
                (tuple(pair for pair in when if pair not in fixed), rates)
                for when, rates in rows
                if set(fixed) <= set(when)
            ]
            layer = FIRST_LAYER if fixed[0][0] == "region" else LAYER
            yield self._listing(layer, provider, spelled, [spelled], within, bounds)

    def _listing(
        self,
        layer: str,
        provider: str,
        model: str,
        names: list[str],
        rows: list[tuple[tuple[Condition, ...], tuple[tuple[str, Rate], ...]]],
        bounds: tuple[datetime | None, datetime | None],
    ) -> Listing:
        ref = f"{LAYER}/{provider}/{model}".replace(" ", "-").replace("+", "-")
        return Listing(
            layer,
            provider,
            model,
            model,
            tuple(name.lower() for name in names),
            ((f"^{re.escape(model.lower())}(?::|$)",),) if model.startswith("ft:") else (),
            tuple(
                PriceRow(
                    ref + "".join(f",{name}={value}" for name, value in when),
                    rates,
                    when,
                    *bounds,
                    source=self._source,
                )
                for when, rates in rows
            ),
        )

    def _read_rates(self, text: str) -> tuple[tuple[str, Rate], ...]:
        words = text.split(" ")
        return tuple(
            self._rate(code, told) for code, told in zip(words[::2], words[1::2], strict=True)
        )

    def _rate(self, code: str, told: str) -> tuple[str, Rate]:
        counter, per = self._units[code]
        return counter, read_rate(told, per)


def read_rate(told: str, per: int) -> Rate:
    """A price in USD: `2.5`, `2.5>272000:5` by size of the call, `0.36/3600` for its own block.

    Raises:
        ValueError, ArithmeticError: it is none of these, or finer than a nano-dollar.
    """
    prices, _, block = told.partition("/")
    base, *tiers = prices.split(">")
    steps = [Step(-1, _nanos(base))]
    for tier in tiers:
        above, _, price = tier.partition(":")
        steps.append(Step(int(above), _nanos(price)))
    return Rate(int(block) if block else per, tuple(steps))


def _midnight(day: str) -> datetime | None:
    return datetime.fromisoformat(day).replace(tzinfo=UTC) if day else None


def _pairs(text: str) -> tuple[Condition, ...]:
    """`region=us,service_tier=flex` as pairs."""
    found = []
    for word in text.split(",") if text else ():
        name, _, value = word.partition("=")
        found.append((name, value))
    return tuple(found)


def _fixed(when: tuple[Condition, ...]) -> tuple[Condition, ...]:
    """What of the conditions may be part of a name: a region, or a quality before a size."""
    return tuple(pair for pair in when if pair[0] in ("region", "quality", "size"))


def _in_name(pair: Condition) -> str:
    name, value = pair
    width, mark, height = value.partition("x")
    sized = name == "size" and mark and width.isdigit() and height.isdigit()
    return f"{width}-x-{height}" if sized else value


def _nanos(usd: str) -> int:
    nanos = Decimal(usd).scaleb(9)
    if nanos != int(nanos):
        raise ValueError(f"{usd} USD is no whole number of nano-dollars")
    return int(nanos)


def header() -> Mapping[str, Any]:
    """Where the list is from: source, version, SHA-256 of its input, number of models."""
    data = json.loads(files("app.pricing").joinpath("data", FILE).read_text())
    return {name: data[name] for name in ("source", "version", "sha256", "entries")}
