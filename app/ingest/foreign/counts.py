"""What a call used, under the names that other programs have for it."""

from collections.abc import Mapping
from typing import NamedTuple

from app.core.counters import COUNTERS, MAX_COUNT, SECONDS
from app.core.errors import InvalidInput
from app.ingest.foreign.identity import found_at

_SPELLED: Mapping[str, tuple[str, ...]] = {
    "input_tokens": (
        *("input_tokens", "prompt_tokens", "inputTokens", "promptTokens", "input_token_count"),
        *("prompt_token_count", "tokens_in"),
    ),
    "output_tokens": (
        *("output_tokens", "completion_tokens", "outputTokens", "completionTokens"),
        *("output_token_count", "completion_token_count", "tokens_out"),
    ),
    "cache_read_tokens": (
        *("cache_read_tokens", "cached_input_tokens", "cache_read_input_tokens", "cached_tokens"),
        *("prompt_tokens_details.cached_tokens", "input_tokens_details.cached_tokens"),
        *("cachedInputTokens", "cached_token_count", "cache_read.input_tokens"),
    ),
    "cache_write_tokens": (
        *("cache_write_tokens", "cache_creation_input_tokens", "cache_creation_tokens"),
        *("prompt_tokens_details.cache_creation_tokens", "cache_creation.input_tokens"),
        *("prompt_tokens_details.cache_write_tokens", "cacheWriteInputTokens"),
    ),
    "cache_write_5m_tokens": (
        "cache_write_5m_tokens",
        "cache_creation.ephemeral_5m_input_tokens",
        "prompt_tokens_details.cache_creation_token_details.ephemeral_5m_input_tokens",
    ),
    "cache_write_1h_tokens": (
        "cache_write_1h_tokens",
        "cache_creation.ephemeral_1h_input_tokens",
        "prompt_tokens_details.cache_creation_token_details.ephemeral_1h_input_tokens",
    ),
    "output_reasoning_tokens": (
        *("output_reasoning_tokens", "reasoning_tokens", "reasoningTokens"),
        *("completion_tokens_details.reasoning_tokens", "output_tokens_details.reasoning_tokens"),
        "reasoning_token_count",
    ),
    "input_audio_tokens": ("input_audio_tokens", "prompt_tokens_details.audio_tokens"),
    "output_audio_tokens": ("output_audio_tokens", "completion_tokens_details.audio_tokens"),
    "input_image_tokens": ("input_image_tokens", "prompt_tokens_details.image_tokens"),
    "output_image_tokens": ("output_image_tokens", "completion_tokens_details.image_tokens"),
    "web_searches": ("web_searches", "server_tool_use.web_search_requests"),
}
_TOTAL = ("total_tokens", "totalTokens", "tokens")
_CACHED = ("cache_read_tokens", "cache_write_tokens")
_LONGEST = 24

KINDS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("input", "prompt", "in"), ("input_tokens",)),
    **dict.fromkeys(("output", "completion", "out"), ("output_tokens",)),
    **dict.fromkeys(
        ("cached", "cache_read", "cached_input", "input_cached", "cache_hit"),
        ("input_tokens", "cache_read_tokens"),
    ),
    **dict.fromkeys(
        ("cache_write", "cache_creation", "input_cache_creation"),
        ("input_tokens", "cache_write_tokens"),
    ),
    "reasoning": ("output_tokens", "output_reasoning_tokens"),
    "audio_input": ("input_tokens", "input_audio_tokens"),
    "audio_output": ("output_tokens", "output_audio_tokens"),
}
"""Where one event tells of one kind of token: the counters that such tokens are in."""


class Counts(NamedTuple):
    """Counters for an event; `known` is False where nothing was said but zeros, `split` says
    whether cached tokens were told apart, at least as none.
    """

    usage: dict[str, int | float]
    known: bool
    split: bool

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return int(self.usage.get("input_tokens", 0) + self.usage.get("output_tokens", 0))


def counts_of(said: Mapping[str, object], pointer: str) -> Counts:
    """The counters of a usage block, inclusive ones.

    Cached tokens beyond the input were counted beside it and are added, and so are those under
    Anthropic's own names. A total alone is input,
    as embeddings report it. Numbers may be strings.

    Raises:
        InvalidInput: something under a known name is no count.
    """
    usage: dict[str, int | float] = {}
    for counter in COUNTERS:
        value = _most(said, _SPELLED.get(counter, (counter,)), pointer, counter in SECONDS)
        if value is not None:
            usage[counter] = value
    split = "cache_read_tokens" in usage
    if not {"input_tokens", "output_tokens"} & usage.keys():
        total = _most(said, _TOTAL, pointer, False)
        if total is not None:
            usage["input_tokens"] = total
    cached = sum(usage.get(name, 0) for name in _CACHED)
    if cached > usage.get("input_tokens", 0) or _is_beside(said):
        usage["input_tokens"] = usage.get("input_tokens", 0) + cached
    known = any(usage.values())
    return Counts({name: value for name, value in usage.items() if value}, known, split)


def _is_beside(said: Mapping[str, object]) -> bool:
    """Whether these are Anthropic's own names, of which the input leaves out what was cached."""
    own = ("cache_read_input_tokens", "cache_creation_input_tokens")
    return "input_tokens" in said and "prompt_tokens" not in said and any(map(said.get, own))


def _most(
    said: Mapping[str, object], names: tuple[str, ...], pointer: str, fractions: bool
) -> int | float | None:
    """The largest number under any of the names: where several stand, some mean a part."""
    found: list[int | float] = []
    for name in names:
        value = found_at(said, name)
        if value is not None and value != "" and not isinstance(value, dict):
            found.append(number_of(value, f"{pointer}/{name.replace('.', '/')}", fractions))
    return max(found) if found else None


def number_of(value: object, pointer: str, fractions: bool = False) -> int | float:
    """A count from 0 to 2^53-1, also as 12.0 or "12"; `fractions` takes "1.5" too.

    Raises:
        InvalidInput: anything else, at the pointer.
    """
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        if isinstance(value, str):
            if len(value) > _LONGEST or not value.isascii() or "_" in value:
                raise ValueError
            value = float(value) if "." in value else int(value)
        if isinstance(value, float) and (value.is_integer() or not fractions):
            if not value.is_integer():
                raise ValueError
            value = int(value)
        if not 0 <= value <= MAX_COUNT:
            raise ValueError
    except ValueError:
        what = "a number" if fractions else "a whole number"
        raise InvalidInput.at(pointer, f"{what} from 0 to 2^53-1 was looked for") from None
    return value


def kind_of(token_type: object, count: object, pointer: str) -> Counts | None:
    """The counters of so many tokens of one kind; None where that is no kind that we know.

    Raises:
        InvalidInput: the count is none.
    """
    counters = KINDS.get(str(token_type).strip().lower().removesuffix("_tokens"))
    if counters is None:
        return None
    number = number_of(count, pointer)
    return Counts(dict.fromkeys(counters, number) if number else {}, bool(number), True)


UNKNOWN = {"usage": "unknown"}
"""The context of a call that succeeded and did not tell what it used: it has no price."""
