"""How price files are made and read: floats, spans of size, zones, and mistakes."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from app.pricing.extract import read_rate
from app.pricing.leaves import Rate, Step
from app.pricing.overlay import parse_overlay
from scripts.build_price_extract import MEMBER, build
from scripts.price_fields import block_price, time_price


def test_float_noise_is_taken_off_and_nothing_else() -> None:
    assert str(block_price(5.0000000000000004e-08, 1_000_000)) == "0.05"
    assert str(block_price(2.4e-07, 1_000_000)) == "0.24"
    assert str(block_price(3.9999999999999998e-07, 1_000_000)) == "0.4"
    assert str(block_price(0.0618845, 1)) == "0.0618845"


@pytest.mark.parametrize(
    ("per_second", "per", "price"),
    [
        (7.167e-05, 60, "0.0043"),
        (0.00010278, 3600, "0.37"),
        (6.11e-05, 3600, "0.22"),
        (0.0002833333333333333, 60, "0.017"),
        (0.0001, 1, "0.0001"),
    ],
)
def test_a_divided_price_per_minute_or_hour_is_found_again(
    per_second: float, per: int, price: str
) -> None:
    charge = time_price(per_second)
    assert (charge.per, str(charge.steps[0][1])) == (per, price)


def test_a_rate_is_read_with_its_sizes_and_its_block() -> None:
    assert read_rate("2.5>272000:5", 10**6) == Rate(
        10**6, (Step(-1, 2_500_000_000), Step(272_000, 5_000_000_000))
    )
    assert read_rate("0.36/3600", 1) == Rate(3600, (Step(-1, 360_000_000),))
    with pytest.raises(ValueError, match="whole number of nano-dollars"):
        read_rate("0.0000000001", 1)


TINY: dict[str, Any] = {
    "sample_spec": {"litellm_provider": "one of many"},
    "runwayml/film": {
        "litellm_provider": "runwayml",
        "mode": "video_generation",
        "output_cost_per_second": 0.1,
        "output_cost_per_second_1080p": 0.15,
    },
    "xai/grok-tiny": {
        "litellm_provider": "xai",
        "mode": "chat",
        "input_cost_per_token": 2.0000000000000003e-06,
        "input_cost_per_token_above_200k_tokens": 4e-06,
        "output_cost_per_token": 6e-06,
        "input_cost_per_token_batches": 1e-06,
        "cache_read_input_token_cost": 0.0,
    },
    "azure/tiny": {
        "litellm_provider": "azure",
        "mode": "chat",
        "input_cost_per_token": 1e-06,
        "output_cost_per_token": 2e-06,
        "output_cost_per_token_batches": 1e-06,
        "input_cost_per_token_batches": 5e-07,
    },
    "azure/eu/tiny": {
        "litellm_provider": "azure",
        "mode": "chat",
        "input_cost_per_token": 1.2e-06,
        "output_cost_per_token": 2.4e-06,
    },
    "cohere/free": {"litellm_provider": "cohere", "mode": "chat", "input_cost_per_token": 0.0},
}


def wheel(path: Path, entries: dict[str, Any]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MEMBER, json.dumps(entries))
    return path


def test_the_same_list_makes_the_same_file(tmp_path: Path) -> None:
    first, dropped = build(wheel(tmp_path / "first.whl", TINY))
    backwards = dict(reversed(TINY.items()))
    second, _ = build(wheel(tmp_path / "second.whl", backwards))
    assert build(tmp_path / "first.whl")[0] == first
    assert second.split("\n")[1:] == first.split("\n")[1:]
    assert json.loads(first)["models"] == [
        [
            "azure",
            "tiny",
            "",
            [
                ["processing=batch,region=eu", "in 0.6 out 1.2"],
                ["processing=batch", "in 0.5 out 1"],
                ["region=eu", "in 1.2 out 2.4"],
                ["", "in 1 out 2"],
            ],
        ],
        [
            "runwayml",
            "film",
            "",
            [["resolution=1080p", "vsec 0.15"], ["resolution=720p", "vsec 0.1"], ["", "vsec 0.1"]],
        ],
        [
            "x-ai",
            "grok-tiny",
            "",
            [
                ["processing=batch", "in 1>199999:2 out 3"],
                ["", "in 2>199999:4 out 6"],
            ],
        ],
    ]
    assert dropped["no price, or one of a kind that has no counter"] == 1


GOOD = """
[[listing]]
provider = "acme"
model = "chat"
source = "acme.example/pricing"
[[listing.row]]
rates = { input_tokens = "1" }
"""


@pytest.mark.parametrize(
    ("changed", "into", "complaint"),
    [
        ('source = "acme.example/pricing"\n', "", "acme/chat: source is missing"),
        ("rates = ", "rate = ", "acme/chat: unknown key rate"),
        ("input_tokens", "input_token", "acme/chat: input_token is no counter"),
        ('"1"', '"one"', "acme/chat: input_tokens is no price: 'one'"),
        ('"1"', "1", "acme/chat: input_tokens is no price: 1"),
        ("rates =", "from = 2026-01-01\nrates =", "from is an instant with an offset"),
        ("rates =", 'weekdays = ["monday"]\nrates =', "a weekday is one of mon"),
        ("rates =", 'windows = ["1-4"]\nrates =', "a window is written 01:00-04:00"),
        ("rates =", 'multiplier = "1.1x"\nrates =', "a multiplier has six decimals"),
        ("rates =", 'when = { region = "US" }\nrates =', "a text in lower case"),
        ("source =", "default = true\nsource =", "only a default is for the model"),
        ("source =", 'names = ["Chat"]\nsource =', "names are written in lower case"),
        ('[[listing.row]]\nrates = { input_tokens = "1" }\n', "", "there is no row"),
    ],
)
def test_a_mistake_in_the_overlay_is_named(changed: str, into: str, complaint: str) -> None:
    assert parse_overlay(GOOD)[0].names == ("chat",)
    with pytest.raises(ValueError, match=complaint.replace("(", r"\(")):
        parse_overlay(GOOD.replace(changed, into, 1))
