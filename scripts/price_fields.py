"""What each cost field of LiteLLM's model list means in our counters and blocks.

Prices there are floats per single unit. One is read as its shortest decimal, multiplied up to its
block, and rounded to nine significant digits, which takes float noise (5.0000000000000004e-8) off.
Prices per second are often a rounded part of a price per minute or hour: the roundest such price
that gives back the stated digits is taken (7.167e-05 is $0.0043 a minute).
"""

import re
from collections.abc import Iterator, Mapping
from decimal import Context, Decimal
from typing import Any, NamedTuple

Fields = Mapping[str, Any]
Steps = tuple[tuple[int, Decimal], ...]
Pair = tuple[str, str]


class Charge(NamedTuple):
    """A price in USD per block by size of the call: (more input tokens than, price)."""

    per: int
    steps: Steps


Rates = dict[str, Charge]

UNITS: Mapping[str, tuple[str, int]] = {
    "in": ("input_tokens", 1_000_000),
    "cr": ("cache_read_tokens", 1_000_000),
    "cw": ("cache_write_tokens", 1_000_000),
    "cw1h": ("cache_write_1h_tokens", 1_000_000),
    "ain": ("input_audio_tokens", 1_000_000),
    "acr": ("cache_audio_read_tokens", 1_000_000),
    "iin": ("input_image_tokens", 1_000_000),
    "out": ("output_tokens", 1_000_000),
    "rs": ("output_reasoning_tokens", 1_000_000),
    "aout": ("output_audio_tokens", 1_000_000),
    "iout": ("output_image_tokens", 1_000_000),
    "cit": ("output_citation_tokens", 1_000_000),
    "req": ("requests", 1_000),
    "web": ("web_searches", 1_000),
    "rer": ("rerank_searches", 1_000),
    "page": ("input_document_pages", 1_000),
    "char": ("input_characters", 1_000_000),
    "img": ("output_images", 1),
    "asec": ("audio_seconds", 1),
    "vsec": ("video_seconds", 1),
}
"""Short names of counters in the file, the counters, and the blocks that they are priced in."""

TOKEN_FIELDS: Mapping[str, str] = {
    "input_cost_per_token": "in",
    "cache_read_input_token_cost": "cr",
    "cache_creation_input_token_cost": "cw",
    "cache_creation_input_token_cost_above_1hr": "cw1h",
    "input_cost_per_audio_token": "ain",
    "cache_read_input_audio_token_cost": "acr",
    "input_cost_per_image_token": "iin",
    "output_cost_per_token": "out",
    "output_cost_per_reasoning_token": "rs",
    "output_cost_per_audio_token": "aout",
    "output_cost_per_image_token": "iout",
    "citation_cost_per_token": "cit",
    "input_cost_per_character": "char",
    "ocr_cost_per_page": "page",
    "input_cost_per_request": "req",
}
TIERS: Mapping[str, Pair] = {
    "batches": ("processing", "batch"),
    "flex": ("service_tier", "flex"),
    "priority": ("service_tier", "priority"),
    "ultrafast": ("service_tier", "ultrafast"),
    "balanced": ("service_tier", "balanced"),
}
MINOR = frozenset({"cr", "cw", "cw1h", "acr", "ain", "iin", "aout", "iout", "rs", "char", "page"})
"""Zero for one of these says that nothing was looked up, not that it is free."""
_FOLLOW_INPUT = frozenset({"out", "ain", "iin", "aout", "iout"})

_UNCOUNTED = re.compile(
    r".*_above_12hr.*|google_maps_.*|code_interpreter_.*|guardrail_.*|.*_per_video_token.*"
    r"|computer_use_.*|file_search_.*|vector_store_.*|cache_creation_input_audio_.*"
    r"|cache_read_input_image_.*|.*_per_text_message|.*_decisions|explicit_cache_.*"
    r"|ocr_cost_per_credit|.*_per_pixel"
)
_FIELD = re.compile(
    r"(?P<base>[a-z_]+?(?:_above_1hr)?)(?:_above_(?P<above>\d+)k_tokens)?(?:_(?P<tier>{}))?".format(
        "|".join(TIERS)
    )
)
_NINE_DIGITS = Context(prec=9)
_EXACT = Context(prec=60)
_PER_SECOND = "output_cost_per_second_"
_USUAL_VIDEO = ("720p", "1080p")
"""What the price without a resolution is for, where it is not that of a stated one."""
_BY_TIME = ((60, 2), (60, 3), (60, 4), (3600, 2), (3600, 3))


def uncounted(fields: Fields, mode: str) -> list[str]:
    """The prices of what no counter counts: their calls are charged for everything else."""
    images = mode in ("image_generation", "image_edit")
    names = [name for name, value in fields.items() if value and _UNCOUNTED.fullmatch(name)]
    if fields.get("input_cost_per_image") and not images:
        names.append("input_cost_per_image")
    return names


def block_price(price: float, per: int) -> Decimal:
    """USD per block, rounded to nine significant digits and then to whole nano-dollars."""
    exact = _EXACT.multiply(Decimal(repr(price)), Decimal(per))
    return Decimal(str(round(_NINE_DIGITS.plus(exact), 9))).normalize(_EXACT)


def time_price(price: float) -> Charge:
    """A price per second, or the price per minute or hour that it was divided from."""
    stated = Decimal(repr(price))
    digits = stated.as_tuple()
    if len(digits.digits) >= 3 and stated < Decimal("0.001") and isinstance(digits.exponent, int):
        slack = Decimal(1).scaleb(digits.exponent) / 2
        for per, places in _BY_TIME:
            rounder = round(stated * per, places)
            if rounder and abs(rounder / per - stated) <= slack:
                return Charge(per, ((-1, rounder.normalize()),))
    return Charge(1, ((-1, block_price(price, 1)),))


def token_rates(fields: Fields) -> Iterator[tuple[tuple[Pair, ...], Rates]]:
    """Rates of tokens, characters and pages: the standard ones first, then those of each tier.

    A tier keeps the proportion of its input price for sizes and kinds of tokens that it does not
    state, but cached tokens stay at their standard price: lists discount those only by name.
    """
    found: dict[tuple[Pair, ...], dict[str, dict[int, Decimal]]] = {(): {}}
    for name, value in fields.items():
        match = _FIELD.fullmatch(name)
        unit = TOKEN_FIELDS.get(match["base"]) if match else None
        if match is None or unit is None or not isinstance(value, int | float):
            continue
        if not value and (unit in MINOR or match["tier"]):
            continue
        above = int(match["above"]) * 1000 if match["above"] else -1
        when: tuple[Pair, ...] = (TIERS[match["tier"]],) if match["tier"] else ()
        price = block_price(value, UNITS[unit][1])
        found.setdefault(when, {}).setdefault(unit, {})[above] = price
    _add_ranges(fields, found[()])
    standard = _rates(found.pop(()))
    yield (), {unit: charge for unit, charge in standard.items() if not _idle(unit, standard)}
    for when, units in found.items():
        rates = _rates(units)
        for unit, usual in standard.items():
            if unit in rates:
                rates[unit] = _with_sizes(rates[unit], usual)
            elif "in" in rates and (unit in _FOLLOW_INPUT or (unit == "cw1h" and "cw" in rates)):
                rates[unit] = in_proportion(usual, rates["in"], standard["in"])
        kept = {unit: charge for unit, charge in rates.items() if not _idle(unit, rates)}
        if kept:
            yield when, kept


def _rates(units: dict[str, dict[int, Decimal]]) -> Rates:
    return {
        unit: Charge(UNITS[unit][1], tuple(sorted(steps.items())))
        for unit, steps in units.items()
        if -1 in steps
    }


def _idle(unit: str, rates: Rates) -> bool:
    """Reasoning at the price of output, or characters beside tokens, say nothing of their own."""
    return (unit == "rs" and rates["rs"] == rates.get("out")) or (unit == "char" and "in" in rates)


def in_proportion(usual: Charge, mine: Charge, standard: Charge) -> Charge:
    """A price that differs from the usual one as much as another price of the same list does."""
    above, below = mine.steps[0][1], standard.steps[0][1]
    if not below:
        return usual
    steps = tuple((start, round(price * above / below, 9)) for start, price in usual.steps)
    return Charge(usual.per, steps)


def _with_sizes(charge: Charge, usual: Charge) -> Charge:
    """Add the sizes of call that only the usual price states."""
    stated = dict(in_proportion(usual, charge, usual).steps) | dict(charge.steps)
    return Charge(charge.per, tuple(sorted(stated.items())))


def _add_ranges(fields: Fields, standard: dict[str, dict[int, Decimal]]) -> None:
    for tier in fields.get("tiered_pricing") or ():
        if "range" not in tier:
            continue
        above = int(tier["range"][0]) or -1
        for name, unit in TOKEN_FIELDS.items():
            if tier.get(name):
                price = block_price(tier[name], UNITS[unit][1])
                standard.setdefault(unit, {})[above] = price
    if "input_cost_per_token_cache_hit" in fields and "cr" not in standard:
        price = fields["input_cost_per_token_cache_hit"]
        if price:
            standard["cr"] = {-1: block_price(price, 1_000_000)}


def flat(unit: str, price: float) -> Rates:
    """A price of every call alike."""
    per = UNITS[unit][1]
    return {unit: Charge(per, ((-1, block_price(price, per)),))}


def other_rates(fields: Fields, mode: str) -> Iterator[tuple[tuple[Pair, ...], Rates]]:
    """Rates of searches, images and seconds, with what each depends on."""
    if fields.get("input_cost_per_query"):
        units = {"rerank": "rer", "search": "web", "vector_store": "req", "embedding": "req"}
        yield (), flat(units.get(mode, "req"), fields["input_cost_per_query"])
    for tier in (fields.get("tiered_pricing") or ())[:1]:
        if "max_results_range" in tier:
            yield (), flat("web", tier["input_cost_per_query"])
    yield from _search_fees(fields)
    yield from _images(fields, mode)
    yield from _seconds(fields, mode)
    if fields.get("annotation_cost_per_page"):
        yield (("annotation", "true"),), flat("page", fields["annotation_cost_per_page"])
    if fields.get("annotation_cost_per_page_batches"):
        when = (("annotation", "true"), ("processing", "batch"))
        yield when, flat("page", fields["annotation_cost_per_page_batches"])


def _search_fees(fields: Fields) -> Iterator[tuple[tuple[Pair, ...], Rates]]:
    """One price for all sizes is per search; a price by size is per request (Perplexity)."""
    fees = fields.get("search_context_cost_per_query") or {}
    sizes = {size: fees.get(f"search_context_size_{size}") for size in ("low", "medium", "high")}
    if not all(sizes.values()):
        return
    if len(set(sizes.values())) == 1:
        yield (), flat("web", sizes["low"] or 0)
        return
    yield (), flat("req", sizes["low"] or 0)
    for size, price in sizes.items():
        yield (("search_context_size", size),), flat("req", price or 0)


def _images(fields: Fields, mode: str) -> Iterator[tuple[tuple[Pair, ...], Rates]]:
    if mode not in ("image_generation", "image_edit") or fields.get("output_cost_per_image_token"):
        return
    price = fields.get("output_cost_per_image") or fields.get("input_cost_per_image")
    if price:
        yield (), flat("img", price)
    for name, value in fields.items():
        sized = re.fullmatch(r"output_cost_per_image_([\d.]+K?)", name)
        if sized and value:
            yield (("size", sized[1].lower()),), flat("img", value)


def _seconds(fields: Fields, mode: str) -> Iterator[tuple[tuple[Pair, ...], Rates]]:
    said, heard = fields.get("input_cost_per_second"), fields.get("output_cost_per_second")
    if mode == "audio_transcription" and (said or heard):
        yield (), {"asec": time_price(said or heard or 0)}
    if mode == "audio_speech" and fields.get("output_cost_per_image"):
        yield (), flat("req", fields["output_cost_per_image"])
    if mode == "audio_speech" and heard:
        yield (), {"asec": time_price(heard)}
    if mode == "realtime" and said:
        yield (), {"asec": time_price(said)}
    if mode == "video_generation":
        price = fields.get("output_cost_per_video_per_second") or heard
        if not price:
            return
        yield (), flat("vsec", price)
        sizes = {name[23:]: value for name, value in fields.items() if name.startswith(_PER_SECOND)}
        if sizes and price not in sizes.values():
            sizes = dict.fromkeys(_USUAL_VIDEO, price) | sizes
        for size, value in sizes.items():
            if value:
                yield (("resolution", size),), flat("vsec", value)
    if mode in ("embedding", "chat") and fields.get("input_cost_per_video_per_second"):
        yield (), flat("vsec", fields["input_cost_per_video_per_second"])
    if mode in ("embedding", "chat") and fields.get("input_cost_per_audio_per_second"):
        yield (), {"asec": time_price(fields["input_cost_per_audio_per_second"])}
