"""What a Langfuse generation used and cost, in every way that its clients say so."""

from typing import Any

import pytest

from app.core.errors import InvalidInput
from app.ingest.foreign.counts import Counts
from app.ingest.foreign.langfuse_usage import cost_of, details_of, usage_of

CASES: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "a total that is the sum of all": (
        {"input": 60, "input_cached_tokens": 40, "output": 50, "total": 150},
        {"input_tokens": 100, "cache_read_tokens": 40, "output_tokens": 50},
    ),
    "a total that says what was read stands within the input": (
        {"input": 100, "cache_read_input_tokens": 40, "output": 50, "total": 150},
        {"input_tokens": 100, "cache_read_tokens": 40, "output_tokens": 50},
    ),
    "a total that says only what was written does": (
        {
            **{"input": 1000, "output": 200, "total": 3200},
            **{"cache_read_input_tokens": 2000, "cache_creation_input_tokens": 500},
        },
        {
            **{"input_tokens": 3000, "output_tokens": 200},
            **{"cache_read_tokens": 2000, "cache_write_tokens": 500},
        },
    ),
    "a total that says what was read and reasoned do": (
        {
            **{"input": 100, "output": 50, "total": 150},
            **{"input_cache_read": 40, "output_reasoning": 20},
        },
        {
            **{"input_tokens": 100, "output_tokens": 50},
            **{"cache_read_tokens": 40, "output_reasoning_tokens": 20},
        },
    ),
    "a total that nothing explains": (
        {"input": 100, "cache_read_input_tokens": 40, "output": 50, "total": 77},
        {"input_tokens": 140, "cache_read_tokens": 40, "output_tokens": 50},
    ),
    "a part larger than what stands for its whole is none of it": (
        {"input": 10, "cache_read_input_tokens": 40, "output": 50, "total": 60},
        {"input_tokens": 50, "cache_read_tokens": 40, "output_tokens": 50},
    ),
    "sound and pictures": (
        {"input": 5, "input_audio": 3, "output": 2, "output_audio_tokens": 1, "input_image": 4},
        {
            **{"input_tokens": 12, "input_audio_tokens": 3, "input_image_tokens": 4},
            **{"output_tokens": 3, "output_audio_tokens": 1},
        },
    ),
    "what each kind of cache was given": (
        {"input": 5, "input_cache_creation_5m": 3, "input_ephemeral_1h_input_tokens": 2},
        {
            **{"input_tokens": 10, "cache_write_tokens": 5},
            **{"cache_write_5m_tokens": 3, "cache_write_1h_tokens": 2},
        },
    ),
    "what Vertex says of modalities, cached ones among them": (
        {
            **{"input": 0, "input_modality_TEXT": 100, "cached_modality_TEXT": 40},
            **{"output": 50, "total": 150},
        },
        {"input_tokens": 100, "cache_read_tokens": 40, "output_tokens": 50},
    ),
    "thoughts beside the answer": (
        {"input": 10, "output": 20, "thoughts_token_count": 5, "total": 35},
        {"input_tokens": 10, "output_tokens": 25, "output_reasoning_tokens": 5},
    ),
    "a total alone": ({"total": 9}, {"input_tokens": 9}),
}


@pytest.mark.parametrize("name", CASES)
def test_details_are_wholes_with_their_parts(name: str) -> None:
    details, usage = CASES[name]
    assert details_of(details, "").usage == usage


UNITS: dict[str, tuple[dict[str, Any], dict[str, float]]] = {
    "MILLISECONDS": ({"total": 2500}, {"audio_seconds": 2.5}),
    "SECONDS": ({"input": "2.5"}, {"audio_seconds": 2.5}),
    "CHARACTERS": ({"input": 1000, "output": 500}, {"input_characters": 1500}),
    "IMAGES": ({"input": None, "output": 2, "total": None}, {"output_images": 2}),
    "REQUESTS": ({"total": 3}, {"requests": 3}),
    "tokens": ({"total": 3}, {"input_tokens": 3}),
}


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_counts_what_it_is_a_unit_of(unit: str) -> None:
    usage, counted = UNITS[unit]
    assert usage_of({"usage": {**usage, "unit": unit}}, "").usage == counted


def test_a_unit_that_nobody_knows_is_refused_and_named() -> None:
    with pytest.raises(InvalidInput) as refused:
        usage_of({"usage": {"input": 3, "unit": "POTATOES"}}, "/body")
    assert refused.value.extra["errors"][0]["pointer"] == "/body/usage/unit"


COSTS: tuple[tuple[dict[str, Any], str | None], ...] = (
    ({"costDetails": {"input": 0.1, "output": "0.2"}}, "0.3"),
    ({"costDetails": {"input": 0.1, "output": 0.2, "total": 0.25}}, "0.25"),
    ({"usage": {"inputCost": 0.1, "outputCost": 0.2}}, "0.3"),
    ({"usage": {"inputCost": 0.1, "outputCost": None, "totalCost": 0.4}}, "0.4"),
    ({"costDetails": {"input": "0.0000000004", "cached": "0.0000000004"}}, "0.000000001"),
    ({"costDetails": {"input": 0, "output": 0}}, None),
    ({"costDetails": {"total": None}}, None),
    ({"costDetails": {"input": "1e-99999999999"}}, None),
    ({}, None),
)


@pytest.mark.parametrize(("call", "cost"), COSTS)
def test_a_cost_is_its_total_or_the_sum_of_its_parts(
    call: dict[str, Any], cost: str | None
) -> None:
    assert cost_of(call, Counts({}, False, False), "always", "").cost_usd == cost


def test_a_part_of_a_cost_that_is_no_money_is_named() -> None:
    with pytest.raises(InvalidInput) as refused:
        cost_of({"costDetails": {"input": -1}}, Counts({}, False, False), "needed", "/body")
    assert refused.value.extra["errors"][0]["pointer"] == "/body/costDetails/input"
