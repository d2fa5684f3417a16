"""Models whose provider states one price for text, images and sound, made explicit.

Sources list such a price under text alone. Without this, audio would have no price at all and
image tokens would follow text only as a guess.
"""

import re
from collections.abc import Iterable, Iterator

from app.pricing.rows import Listing, PriceRow

_GOOGLE, _OPENAI = "google", "openai"
"""ai.google.dev/gemini-api/docs/pricing: "text / image / video", and where it says so "/ audio"."""
_SEES = re.compile(
    r"gemini-(?:1\.5|2\.0|2\.5|[3-9]|pro|flash|omni)[.-]"
    r"(?!.*(?:embedding|live|native-audio|transcribe|tts))"
)
_HEARS = re.compile(
    r"gemini-(?:1\.5-(?:flash|pro)|2\.5-pro|3-pro|3\.[1-9]-pro|3\.[5-9]-flash|[4-9]-|omni-"
    r"|pro-latest|flash-latest|flash-lite-latest)"
    r"(?!.*(?:computer-use|embedding|image|live|native-audio|transcribe|tts))"
)
_DRAWS = re.compile(r"(?:chat)?gpt-image-")
"""OpenAI's image endpoints write nothing but images: their output is the image's tokens."""
_Pairs = tuple[tuple[str, str], ...]
_SEEN: _Pairs = (("input_image_tokens", "input_tokens"),)
_HEARD: _Pairs = (
    ("input_audio_tokens", "input_tokens"),
    ("cache_audio_read_tokens", "cache_read_tokens"),
)
_DRAWN: _Pairs = (("output_image_tokens", "output_tokens"),)


def with_modalities(listings: Iterable[Listing]) -> Iterator[Listing]:
    """The listings, with a rate for images and audio wherever the rate of text is theirs too.

    A rate that a row states itself stays.
    """
    for each in listings:
        follows = () if each.adds else _following(each)
        if follows:
            each = each._replace(rows=tuple(_filled(row, follows) for row in each.rows))
        yield each


def _following(listing: Listing) -> _Pairs:
    """The parts that the provider charges at the rate of their whole."""
    if listing.provider == _OPENAI:
        return _DRAWN if _DRAWS.match(listing.model) else ()
    if listing.provider != _GOOGLE:
        return ()
    follows: _Pairs = _SEEN if _SEES.match(listing.model) else ()
    if _HEARS.match(listing.model) and not _hears_dearer(listing):
        follows += _HEARD
    return follows


def _hears_dearer(listing: Listing) -> bool:
    """Whether the listing has another price for audio somewhere."""
    return any(
        "input_audio_tokens" in rates and rates["input_audio_tokens"] != rates.get("input_tokens")
        for rates in (dict(row.rates) for row in listing.rows)
    )


def _filled(row: PriceRow, follows: _Pairs) -> PriceRow:
    stated = dict(row.rates)
    more = [
        (part, stated[whole]) for part, whole in follows if whole in stated and part not in stated
    ]
    return row._replace(rates=(*row.rates, *more))
