"""What is kept of the state of a thing before and after a change."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.access.changelog import LARGEST, LONGEST_TEXT, recorded


def test_tokens_and_what_opens_an_address_are_left_out() -> None:
    kept = recorded(
        {
            "url": "https://user:pw@example.com:8443/in?token=abc#frag",
            "note": "see redis://:pw@cache/0 and tg_" + "k" * 43,
            "secret": "whsec_abc",
            "nested": [{"password": "pw", "input_tokens": 5}],
            "metric": "tokens",
            "prefix": "tg_k3V9xQ2a",
        }
    )
    assert kept == {
        "url": "https://example.com:8443/in",
        "note": "see redis://cache/0 and …",
        "secret": "…",
        "nested": [{"password": "…", "input_tokens": 5}],
        "metric": "tokens",
        "prefix": "tg_k3V9xQ2a",
    }


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3_000),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=40), inner),
    max_leaves=60,
)


@given(state=st.dictionaries(st.text(max_size=2_000), ANYTHING, max_size=60))
def test_whatever_it_was_it_is_kept_small_and_can_be_stored(state: dict[str, Any]) -> None:
    kept = recorded(state)
    text = json.dumps(kept, ensure_ascii=False)
    assert len(text.encode()) <= LARGEST
    assert "\\u0000" not in text


def test_what_is_long_is_cut_and_the_rest_stays() -> None:
    kept = recorded({"name": "n", "tiers": [{"note": "x" * 5_000}] * 99, "ids": list(range(500))})
    assert kept is not None
    assert kept["name"] == "n"
    assert kept["tiers"] == "…"
    assert len(kept["ids"]) == 101
    assert len((recorded({"a": "x" * 5_000}) or {})["a"]) == LONGEST_TEXT + 1
