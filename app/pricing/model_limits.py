"""How long a model's answer can be at most, by the names that prices are found by."""

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

from app.pricing.names import LONGEST_NAME, candidates

REMEMBERED = 4_096


@lru_cache(maxsize=1)
def _listed() -> Mapping[str, Mapping[str, int]]:
    """Tokens by provider and model; read when first asked for."""
    text = files("app.pricing").joinpath("data/model_limits.json").read_text()
    found: Mapping[str, Mapping[str, int]] = json.loads(text)
    return found


def max_output_tokens(provider: str | None, model: str | None) -> int | None:
    """The most tokens that this model answers with; None where that is not known."""
    if not model or len(model) > LONGEST_NAME or len(provider or "") > LONGEST_NAME:
        return None
    return _found(provider, model)


@lru_cache(maxsize=REMEMBERED)
def _found(provider: str | None, model: str) -> int | None:
    listed = _listed()
    for one in candidates(provider, model, listed.__contains__, {}):
        tokens = listed.get(one.provider, {}).get(one.model)
        if tokens is not None:
            return tokens
    return None
