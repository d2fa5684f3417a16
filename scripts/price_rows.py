"""The rows of one model: what each spelling of it states, put together and made whole."""

import re
from collections.abc import Mapping
from typing import Any

from scripts.price_fields import Charge, Pair, Rates, flat, in_proportion, other_rates, token_rates
from scripts.price_names import IMAGES, Key, pixels

When = tuple[Pair, ...]
Rows = dict[When, Rates]
INCLUSIVE = frozenset({"x-ai"})
"""Providers whose thresholds belong to the larger calls, which the list does not say."""
QUALITIES = ("standard", "medium", "low", "high")
USUAL_SIZE = "1024x1024"
DEAREST = 0.001
"""Beyond a thousand dollars for a million tokens a price was typed in for a thousand."""
PAINTERS = re.compile(r"flux|stable-diffusion|playground-v2|(?:^|/)ssd-1b", re.IGNORECASE)
"""Image models: what stands as their token price is one per step, which has no counter."""
LONG_NO_MORE = re.compile(r"(?:.*[./])?claude-sonnet-4(?:-5)?(?:-20\d{6}.*|@.*)?$")
"""Their price of more than 200,000 tokens went with the long context on 2026-04-30."""
TOKENS = frozenset({"in", "out", "cr", "cw", "cw1h", "ain", "acr", "iin", "aout", "iout", "rs"})


def rows_of(fields: Mapping[str, Any], mode: str, key: Key) -> Rows:
    """One key's rates by condition; nothing where they are zero, broken, or not of what matters."""
    rows: Rows = {}
    for when, rates in (*token_rates(fields), *other_rates(fields, mode)):
        rows.setdefault(tuple(sorted({*key.when, *when})), {}).update(rates)
    area = pixels(key.when)
    if mode in IMAGES and area and not any("img" in rates for rates in rows.values()):
        price = fields.get("input_cost_per_pixel") or fields.get("output_cost_per_pixel")
        if price:
            rows.setdefault(key.when, {}).update(flat("img", round(price * area, 4)))
    if key.provider in INCLUSIVE:
        rows = {when: _from_below(rates) for when, rates in rows.items()}
    dear = max(fields.get(f"{side}_cost_per_token") or 0 for side in ("input", "output"))
    if dear > DEAREST or (mode == "chat" and fields.get("output_cost_per_video_token")):
        return {}
    if LONG_NO_MORE.match(key.model):
        rows = {
            when: {unit: Charge(per, steps[:1]) for unit, (per, steps) in rates.items()}
            for when, rates in rows.items()
        }
    if PAINTERS.search(key.model) and not any(
        {"img", "iout"} & rates.keys() for rates in rows.values()
    ):
        return {}
    if mode == "ocr":
        rows = {when: {"page": rates["page"]} for when, rates in rows.items() if "page" in rates}
    for rates in rows.values():
        spent = any(price for charge in rates.values() for _, price in charge.steps)
        for unit in ("in", "out"):
            idle = unit in rates and not any(price for _, price in rates[unit].steps)
            if idle and (mode != "chat" or not spent):
                del rates[unit]
    return {when: rates for when, rates in rows.items() if rates}


def _from_below(rates: Rates) -> Rates:
    """The same for calls that are exactly as large as a threshold too."""
    return {
        unit: Charge(per, tuple((max(above - 1, -1), price) for above, price in steps))
        for unit, (per, steps) in rates.items()
    }


def complete(rows: Rows) -> Rows:
    """Let every row under conditions be whole: what a zone does not state keeps its proportion.

    An image model without an unconditioned price takes that of its usual size and quality.
    """
    rows = _usual_image(dict(rows))
    standard = rows.get(())
    zones = [when for when in rows if [name for name, _ in when] == ["region"]]
    for zone in zones:
        if standard is None or "in" not in standard or "in" not in rows[zone]:
            continue
        for when, rates in list(rows.items()):
            if any(name == "region" for name, _ in when):
                continue
            both = tuple(sorted({*zone, *when}))
            mine = rows.setdefault(both, {})
            for unit, charge in rates.items():
                if unit in TOKENS and unit not in mine:
                    mine[unit] = in_proportion(charge, rows[zone]["in"], standard["in"])
    return rows


def _usual_image(rows: Rows) -> Rows:
    sized = {when: rates for when, rates in rows.items() if {"size", "quality"} & dict(when).keys()}
    if not sized or any(name == "region" for when in rows for name, _ in when):
        return rows
    by_pair = {(dict(w).get("quality", ""), dict(w).get("size", "")): r for w, r in sized.items()}
    qualities = sorted({quality for quality, _ in by_pair}, key=_quality_rank)
    usual = qualities[0]
    sizes = sorted({size for quality, size in by_pair if quality == usual}, key=_size_rank)
    for quality, size in list(by_pair):
        if quality and size and (quality, sizes[0]) in by_pair:
            rows.setdefault((("quality", quality),), by_pair[quality, sizes[0]])
        if quality and size and (usual, size) in by_pair:
            rows.setdefault((("size", size),), by_pair[usual, size])
    if "img" not in rows.get((), {}):
        rows[()] = {**rows.get((), {}), **by_pair[usual, sizes[0]]}
    return rows


def _quality_rank(quality: str) -> int:
    if not quality:
        return -1
    return QUALITIES.index(quality) if quality in QUALITIES else len(QUALITIES)


def _size_rank(size: str) -> tuple[bool, int]:
    return size != USUAL_SIZE, pixels((("size", size),))
