"""What a call used, as one tuple of whole numbers in a fixed order.

Counters are inclusive, as OpenAI and OpenTelemetry mean them: `input_tokens` contains the cached,
audio and image tokens beside it, `output_tokens` the reasoning, audio and image tokens. Durations
are whole microseconds inside and seconds on the wire.
"""

from collections.abc import Iterable, Mapping
from operator import itemgetter

COUNTERS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "input_audio_tokens",
    "cache_audio_read_tokens",
    "input_image_tokens",
    "output_tokens",
    "output_reasoning_tokens",
    "output_audio_tokens",
    "output_image_tokens",
    "output_citation_tokens",
    "requests",
    "web_searches",
    "rerank_searches",
    "input_document_pages",
    "input_characters",
    "output_images",
    "audio_seconds",
    "video_seconds",
    "compute_seconds",
)
INDEX: Mapping[str, int] = {name: place for place, name in enumerate(COUNTERS)}
SECONDS = frozenset({"audio_seconds", "video_seconds", "compute_seconds"})
MICROS_PER_SECOND = 1_000_000
MAX_COUNT = 2**53 - 1
"""The largest count of one call: what a JSON number can say exactly everywhere."""

Usage = tuple[int, ...]
"""One whole number per name in `COUNTERS`; 0 where the caller said nothing."""

NOTHING: Usage = (0,) * len(COUNTERS)

FIRST_SECONDS = min(INDEX[name] for name in SECONDS)
"""Durations stand last."""
INPUT, OUTPUT, REQUESTS = INDEX["input_tokens"], INDEX["output_tokens"], INDEX["requests"]

PARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("input_tokens", ("cache_read_tokens", "cache_write_tokens")),
    ("input_tokens", ("input_audio_tokens", "input_image_tokens")),
    ("cache_write_tokens", ("cache_write_5m_tokens", "cache_write_1h_tokens")),
    ("input_audio_tokens", ("cache_audio_read_tokens",)),
    ("cache_read_tokens", ("cache_audio_read_tokens",)),
    ("output_tokens", ("output_reasoning_tokens",)),
    ("output_tokens", ("output_audio_tokens", "output_image_tokens")),
)
"""Each whole and the parts that it contains; their sum may not pass it."""
_CHECKS = tuple((INDEX[whole], tuple(INDEX[part] for part in parts)) for whole, parts in PARTS)
_SUBTOTALS = tuple(sorted({place for _, places in _CHECKS for place in places}))


def column_of(counter: str) -> str:
    """The column that keeps a counter: its own name, durations as `..._micros`."""
    return counter.replace("_seconds", "_micros")


COLUMNS = tuple(column_of(name) for name in COUNTERS)


def part_beyond_whole(usage: Usage) -> tuple[str, str] | None:
    """The first (part, whole) where the parts sum to more than what contains them, or None."""
    for whole, parts in _CHECKS:
        total = 0
        for place in parts:
            total += usage[place]
        if total > usage[whole]:
            worst = max(parts, key=lambda place: usage[place])
            return COUNTERS[worst], COUNTERS[whole]
    return None


_subtotals = itemgetter(*_SUBTOTALS)


def has_parts(usage: Usage) -> bool:
    """Whether any counter is set that must fit inside another one."""
    return any(_subtotals(usage))


def as_mapping(usage: Iterable[int]) -> dict[str, int | float]:
    """For the wire: input and output tokens always, everything else where it is not zero."""
    shown: dict[str, int | float] = {"input_tokens": 0, "output_tokens": 0}
    for name, value in zip(COUNTERS, usage, strict=True):
        if value:
            shown[name] = value / MICROS_PER_SECOND if name in SECONDS else value
    return shown
