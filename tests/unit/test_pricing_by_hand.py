"""Prices computed by hand: what the catalogue has to answer, call by call."""

import json
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import InvalidInput
from app.pricing.catalog import Catalog
from app.pricing.quote import explain
from app.pricing.rows import Alias
from app.pricing.usage import usage_of
from tests.unit.priced import override_stated

FIXTURE = Path(__file__).parents[1] / "fixtures" / "pricing" / "by_hand.json"
CASES: dict[str, dict[str, Any]] = {
    case["id"]: case for case in json.loads(FIXTURE.read_text())["cases"]
}
CATALOG = Catalog.from_packages()
INVALID = sorted(name for name, case in CASES.items() if case["expected"]["status"] == "invalid")
VALID = [
    pytest.param(name, id=f"{case['category']}-{name}")
    for name, case in CASES.items()
    if name not in INVALID
]
UNITS = {
    "all": "input_uncached_text",
    "input": "input_uncached_text",
    "output": "output_text",
    "second": "compute_second",
    "tier1": "input_uncached_text",
    "tier2": "input_uncached_text",
}
"""What the lines of prices that an operator states are called here."""


def catalog_for(case: dict[str, Any]) -> Catalog:
    said = case.get("overrides", {})
    overrides = [
        override_stated(f"stated-{place}", each)
        for place, each in enumerate(said.get("prices", ()))
    ]
    aliases = [
        Alias("alias", each["provider"], each["model"], each["resolves_to"])
        for each in said.get("model_aliases", ())
    ]
    for provider, model in said.get("default_models", {}).items():
        aliases.append(Alias("default", provider, None, model))
    return CATALOG.with_changes(overrides, aliases) if overrides or aliases else CATALOG


def arguments(case: dict[str, Any]) -> tuple[Any, ...]:
    at = datetime.fromisoformat(case["timestamp"])
    return case["provider"], case["model"], at, usage_of(case["usage"]), case.get("context")


@pytest.mark.parametrize("name", VALID)
def test_a_call_costs_what_was_computed_by_hand(name: str) -> None:
    case = CASES[name]
    quote = catalog_for(case).quote(*arguments(case))
    expected = case["expected"]
    assert (quote.cost_nanos, quote.status) == (expected.get("cost_nano_usd"), expected["status"])


@pytest.mark.parametrize("name", VALID)
def test_a_call_is_explained_by_the_lines_computed_by_hand(name: str) -> None:
    case = CASES[name]
    catalog = catalog_for(case)
    explanation = explain(catalog, *arguments(case))
    assert explanation.quote == catalog.quote(*arguments(case))
    paid = sum(line.amount_nanos for line in explanation.lines)
    assert paid == (explanation.quote.cost_nanos or 0)
    lines = [line for line in case["expected"].get("lines", []) if line["unit"] != "free"]
    if any(line["unit"].startswith("total_") for line in lines):
        assert explanation.lines[-1].unit == "minimum_charge"
        return
    expected = {
        (UNITS.get(line["unit"], line["unit"]), line["qty"], Fraction(line["usd_per_block"]))
        for line in lines
    }
    shown = {
        (line.unit, line.quantity, Fraction(line.usd))
        for line in explanation.lines
        if line.exact_nanos
    }
    assert shown == expected


@pytest.mark.parametrize("name", INVALID)
def test_impossible_usage_is_refused_before_pricing(name: str) -> None:
    with pytest.raises(InvalidInput):
        usage_of(CASES[name]["usage"])


def test_without_the_operators_word_an_unlisted_model_is_unpriced() -> None:
    case = CASES["g0382"]
    assert CATALOG.quote(*arguments(case)) == (None, "unpriced", "")
    assert explain(CATALOG, *arguments(case)).why == "not in the catalogue"


def test_every_case_is_tried() -> None:
    assert len(VALID) + len(INVALID) == len(CASES) == 233
