"""How long it takes to price one event, beside the library that the prices come from.

Runs in a process of its own (`python -m benchmarks.price`) and prints JSON, so that compiling the
catalogue is measured cold.
"""

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

import genai_prices

from app.core.counters import COUNTERS
from app.pricing.catalog import Catalog
from app.pricing.packages import read_packages
from benchmarks.bodies import MODELS

CALLS = 64


class Asked(NamedTuple):
    """One call to be priced, as each side wants it."""

    provider: str
    model: str
    ours: tuple[int, ...]
    theirs: genai_prices.Usage


def calls() -> list[Asked]:
    """A few models, no two calls with the same usage."""
    asked = []
    for number in range(CALLS):
        model = MODELS[number % len(MODELS)]
        counts = {
            "input_tokens": 1_834 + 97 * number,
            "cache_read_tokens": 1_024 + 13 * number,
            "output_tokens": 312 + 7 * number,
        }
        ours = tuple(counts.get(name, 0) for name in COUNTERS)
        asked.append(Asked(model.provider, model.name, ours, genai_prices.Usage(**counts)))
    return asked


def _micros_per_call(price_all: Callable[[], None], seconds: float) -> float:
    rounds, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        price_all()
        rounds += 1
    return elapsed / (rounds * CALLS) * 1e6


def measure(seconds: float, pairs: int) -> dict[str, object]:
    """Both in turns: microseconds per priced event, and the seconds to compile every price."""
    price_list = read_packages()
    started = time.perf_counter()
    catalog = Catalog(price_list)
    catalog.compile_all()
    compiled_s = time.perf_counter() - started
    at, asked = datetime.now(UTC), calls()

    def quote_all() -> None:
        for provider, model, ours, _ in asked:
            catalog.quote(provider, model, at, ours, None)

    def calc_all() -> None:
        for provider, model, _, theirs in asked:
            genai_prices.calc_price(theirs, model, provider_id=provider, genai_request_timestamp=at)

    quote_all()
    calc_all()
    subject, baseline = [], []
    for _ in range(pairs):
        baseline.append(_micros_per_call(calc_all, seconds))
        subject.append(_micros_per_call(quote_all, seconds))
    unpriced = [
        each.model
        for each in asked[: len(MODELS)]
        if catalog.quote(each.provider, each.model, at, each.ours, None).status != "priced"
    ]
    return {
        "compiled_s": compiled_s,
        "quote_us": subject,
        "calc_price_us": baseline,
        "unpriced": unpriced,
    }


if __name__ == "__main__":
    print(json.dumps(measure(float(sys.argv[1]), int(sys.argv[2]))))
