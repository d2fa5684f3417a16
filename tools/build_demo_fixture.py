"""Make `app/demo/usages.json` from a collection of recorded provider responses.

    python tools/build_demo_fixture.py payloads.json > app/demo/usages.json

The collection is `{"cases": [...]}`; a case has `provider`, `api`, `source`, and under `expected`
the `calls` that its response means, each a model and inclusive counters. What was written for a
test rather than recorded is left out, and so is a call that does not name its model.
"""

import json
import sys
from pathlib import Path
from typing import Any

ABOUT = (
    "What recorded responses of AI providers said they used: models and counters, no prompts and "
    "no answers. Recorded by the test suites of pydantic/genai-prices (MIT) and vercel/ai "
    "(Apache-2.0); counters are inclusive, as Tollgate takes them."
)
ENDPOINTS = {
    "chat": "/v1/chat/completions",
    "embeddings": "/v1/embeddings",
    "generate_content": "/v1beta/models/{model}:generateContent",
    "interactions": "/v1beta/interactions",
    "messages": "/v1/messages",
    "responses": "/v1/responses",
}


def usages_of(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each distinct usage once, in order of provider, endpoint and model."""
    found = {}
    for case in cases:
        if "recorded" not in case["source"]:
            continue
        for call in case["expected"].get("calls", []):
            if not call["model"]:
                continue
            endpoint = ENDPOINTS[case["api"]]
            if call["model"].startswith("rerank"):
                endpoint = "/v1/rerank"
            usage = {
                "provider": case["provider"],
                "endpoint": endpoint,
                "model": call["model"],
                "usage": {name: count for name, count in call["usage"].items() if count},
            }
            found[json.dumps(usage)] = usage
    return sorted(found.values(), key=lambda one: (one["provider"], one["endpoint"], one["model"]))


def main() -> None:
    """Write the fixture to standard output, one usage a line."""
    cases = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["cases"]
    lines = ",\n".join(f"    {json.dumps(usage)}" for usage in usages_of(cases))
    sys.stdout.write(f'{{\n  "about": {json.dumps(ABOUT)},\n  "usages": [\n{lines}\n  ]\n}}\n')


if __name__ == "__main__":
    main()
