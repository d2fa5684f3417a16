"""Whose model a key of LiteLLM's list means, and which zone, size or quality its spelling fixes."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from app.pricing.names import provider_id
from scripts.price_fields import Pair

PROVIDERS: Mapping[str, str] = {"exa-ai": "exa"}
"""Their labels that are neither our id of a provider nor another spelling of one."""
IMAGES = frozenset({"image_generation", "image_edit"})

_FAMILY = re.compile(r"^(vertex_ai|fireworks_ai)-[a-z0-9]+[-_]models$")
_ZONES = re.compile(r"(us|eu|apac|us-gov|global|global-standard)/(?=[^/]+$)")
_REGION = re.compile(r"((?:us|eu|ap|ca|sa|me|af|il|mx)(?:-gov)?-[a-z]+-\d)/(?=[^/]+$)")
_SIZED = re.compile(
    r"(?:(?P<quality>standard|hd|low|medium|high|xhigh|max)/)?"
    r"(?:(?P<width>\d+)-x-(?P<height>\d+)/)?(?P<steps>(?:\d+|max)-steps/)?(?P<model>.+)"
)
_NEUTRAL = frozenset({"global", "global-standard"})


class Key(NamedTuple):
    """A model, what its spelling fixes, and that spelling without the provider's prefix."""

    provider: str
    model: str
    when: tuple[Pair, ...]
    spelled: str


def read_key(key: str, label: str, mode: str) -> Key | None:
    """Take a key apart; None where it names a commitment or an effort instead of a price."""
    family = _FAMILY.match(label)
    provider = provider_id(family[1] if family else label)
    provider = PROVIDERS.get(provider, provider)
    name = _without_provider(key, provider)
    if "-commitment/" in name or "*" in name:
        return None
    when: list[Pair] = []
    if provider in ("azure", "aws", "bedrock-mantle"):
        zone = _ZONES.match(name) or _REGION.match(name)
        if zone:
            name = name[zone.end() :]
            if zone[1] not in _NEUTRAL:
                when.append(("region", zone[1]))
            return Key(provider, name, tuple(when), f"{zone[1]}/{name}")
    if mode in IMAGES:
        sized = _SIZED.fullmatch(name)
        if sized is None:
            return None
        spelled, name = name, sized["model"].removeprefix("bedrock/")
        if sized["steps"]:
            return Key(provider, name, (), name) if name and "1024" in spelled else None
        if sized["quality"]:
            when.append(("quality", sized["quality"]))
        if sized["width"]:
            when.append(("size", f"{sized['width']}x{sized['height']}"))
        return Key(provider, name, tuple(when), spelled)
    return Key(provider, name, (), name)


def pixels(when: tuple[Pair, ...]) -> int:
    """How many pixels an image of the size stated has; 0 where that is not a width and a height."""
    width, _, height = dict(when).get("size", "").partition("x")
    return int(width) * int(height) if width.isdigit() and height.isdigit() else 0


def _without_provider(key: str, provider: str) -> str:
    prefix, mark, rest = key.partition("/")
    own = PROVIDERS.get(provider_id(prefix), provider_id(prefix))
    return rest if mark and own == provider else key
