"""Make `app/pricing/data/model_limits.json`: how many tokens a model can answer with at most.

    python -m scripts.build_model_limits [litellm-1.109.1-….whl]

Read from the same list as `build_price_extract`, by the same names. The same wheel gives the same
bytes.
"""

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.build_price_extract import DATE, download, read_wheel
from scripts.price_names import read_key

TARGET = Path(__file__).parents[1] / "app" / "pricing" / "data" / "model_limits.json"
MOST = 10_000_000
"""What a list states beyond this is a slip of the pen."""

Limits = dict[str, dict[str, int]]


def collect(entries: Mapping[str, Any]) -> Limits:
    """The largest answer of each model by provider; the highest where several keys spell one."""
    found: Limits = {}
    for name, fields in entries.items():
        label, mode = fields.get("litellm_provider") or "", fields.get("mode") or ""
        most = fields.get("max_output_tokens")
        if not label or name == "sample_spec" or not isinstance(most, int):
            continue
        key = read_key(name, label, mode)
        if key is None or not 0 < most <= MOST:
            continue
        models = found.setdefault(key.provider, {})
        models[key.model] = max(most, models.get(key.model, 0))
    return found


def without_dates(limits: Limits) -> Limits:
    """Leave out a dated name that says what the name without its date says."""
    return {
        provider: {
            model: most
            for model, most in sorted(models.items())
            if DATE.sub("", model) == model or models.get(DATE.sub("", model)) != most
        }
        for provider, models in sorted(limits.items())
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        wheel = Path(sys.argv[1]) if len(sys.argv) > 1 else download(Path(folder))
        data, _ = read_wheel(wheel)
    limits = without_dates(collect(json.loads(data)))
    lines = [
        f"{json.dumps(provider)}:{json.dumps(models, separators=(',', ':'))}"
        for provider, models in limits.items()
        if models
    ]
    TARGET.write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    main()
