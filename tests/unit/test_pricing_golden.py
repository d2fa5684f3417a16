"""Hand-computed prices: what the catalogue has to answer, case by case."""

import json
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from app.core.counters import COUNTERS, INDEX, MICROS_PER_SECOND, SECONDS, Usage, part_beyond_whole
from app.pricing.catalog import Catalog
from app.pricing.quote import explain

FIXTURE = Path(__file__).parents[1] / "fixtures" / "pricing" / "golden.json"
CASES: dict[str, dict[str, Any]] = {
    case["id"]: case for case in json.loads(FIXTURE.read_text())["cases"]
}
CATALOG = Catalog.from_genai()

NEEDS_OVERRIDES = {
    "override": "rates that an operator states",
    "azure_deployment": "an operator's name for a model",
}
NOT_LISTED = {
    "g0297": "exa is not in the source",
    "g0301": "perplexity search is not in the source",
    "g0302": "cohere rerank is not in the source",
    "g0303": "cohere rerank is not in the source",
}
CONDITION_NOT_LISTED = {
    "g0240": "no Gemini priority rates in the source",
    "g0242": "no Gemini flex rates in the source",
    "g0507": "no uplift for inference_geo in the source",
    "g0509": "no uplift for inference_geo in the source",
    "g0513": "no uplift for inference_geo in the source",
    "g0517": "no uplift for Azure data zones in the source",
}
SOURCE_IS_WRONG = {
    "g0396": "the source keeps no history of OpenRouter's prices",
    "g0485": "the source has deepseek-chat's list from before 2025-09-05",
    "g0486": "the source has deepseek-chat's list from before 2025-09-05",
    "g0496": "the source's daily windows know no weekend",
}
REFUSED_BEFORE = {
    "g0573": "negative counts end at the door",
    "g0574": "a part beyond its whole ends at the door",
}
LATER = {
    *NOT_LISTED,
    *CONDITION_NOT_LISTED,
    *SOURCE_IS_WRONG,
    *REFUSED_BEFORE,
    *(name for name, case in CASES.items() if case["category"] in NEEDS_OVERRIDES),
}
PROMISED = [
    pytest.param(name, id=f"{case['category']}-{name}")
    for name, case in CASES.items()
    if name not in LATER
]


def usage_of(case: dict[str, Any]) -> Usage:
    usage = [0] * len(COUNTERS)
    for name, count in case["usage"].items():
        usage[INDEX[name]] = round(count * MICROS_PER_SECOND) if name in SECONDS else count
    return tuple(usage)


def arguments(case: dict[str, Any]) -> tuple[Any, ...]:
    at = datetime.fromisoformat(case["timestamp"])
    return case["provider"], case["model"], at, usage_of(case), case.get("context")


def catalog_for(case: dict[str, Any]) -> Catalog:
    defaults = case.get("overrides", {}).get("default_models")
    return Catalog.from_genai(defaults) if defaults else CATALOG


@pytest.mark.parametrize("name", PROMISED)
def test_a_golden_call_costs_what_was_computed_by_hand(name: str) -> None:
    case = CASES[name]
    quote = catalog_for(case).quote(*arguments(case))
    expected = case["expected"]
    assert (quote.cost_nanos, quote.status) == (expected.get("cost_nano_usd"), expected["status"])


@pytest.mark.parametrize("name", PROMISED)
def test_a_golden_call_is_explained_by_the_lines_computed_by_hand(name: str) -> None:
    case = CASES[name]
    explanation = explain(catalog_for(case), *arguments(case))
    assert sum(line.amount_nanos for line in explanation.lines) == (
        explanation.quote.cost_nanos or 0
    )
    names = {"free": "", "input": "input_uncached_text", "output": "output_text"}
    expected = {
        (names.get(line["unit"], line["unit"]), line["qty"], Fraction(line["usd_per_block"]))
        for line in case["expected"].get("lines", [])
        if line["unit"] != "free"
    }
    shown = {
        (line.unit, line.quantity, Fraction(line.usd))
        for line in explanation.lines
        if line.exact_nanos
    }
    assert shown == expected


@pytest.mark.parametrize("name", sorted(NOT_LISTED))
def test_what_the_source_does_not_list_is_unpriced_and_never_zero(name: str) -> None:
    assert CATALOG.quote(*arguments(CASES[name])) == (None, "unpriced", "")


@pytest.mark.parametrize("name", sorted(CONDITION_NOT_LISTED))
def test_a_condition_that_moves_prices_and_is_not_listed_makes_a_guess(name: str) -> None:
    assert CATALOG.quote(*arguments(CASES[name])).status == "estimated"


@pytest.mark.parametrize("name", sorted(SOURCE_IS_WRONG))
def test_where_the_source_is_wrong_the_answer_still_cites_it(name: str) -> None:
    quote = CATALOG.quote(*arguments(CASES[name]))
    assert quote.cost_nanos != CASES[name]["expected"]["cost_nano_usd"]
    assert quote.price_ref.startswith("genai-prices 0.2.3/")


def test_without_its_override_an_unlisted_model_is_unpriced() -> None:
    for case in CASES.values():
        if case["category"] in NEEDS_OVERRIDES and case["provider"] != "openai":
            assert CATALOG.quote(*arguments(case)).cost_nanos is None, case["id"]


def test_impossible_usage_is_refused_before_pricing() -> None:
    assert part_beyond_whole(usage_of(CASES["g0574"])) == ("cache_read_tokens", "input_tokens")
    assert min(usage_of(CASES["g0573"])) < 0


def test_every_golden_case_is_promised_or_listed_with_a_reason() -> None:
    assert len(PROMISED) + len(LATER) == len(CASES)
    assert len(PROMISED) >= 190
