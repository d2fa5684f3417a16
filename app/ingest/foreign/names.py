"""Provider and model where a program names them together, or the model alone."""

import re
from collections.abc import Mapping

from app.pricing.names import GATEWAYS, PROVIDER_ALIASES, provider_id

_MAKERS: Mapping[str, re.Pattern[str]] = {
    "openai": re.compile(
        r"gpt-|chatgpt-|o[1-9](-|$)|text-embedding-(3|ada)|dall-e|whisper|tts-|omni-moderation|sora-"
    ),
    "anthropic": re.compile(r"claude-"),
    "google": re.compile(r"gemini-|gemini-embedding"),
    "deepseek": re.compile(r"deepseek-(chat|reasoner)$"),
    "x-ai": re.compile(r"grok-"),
    "cohere": re.compile(r"command-(r|a)|embed-(english|multilingual|v4)|rerank-"),
    "aws": re.compile(
        r"((us|eu|apac|au|jp|ca|us-gov|global)\.)?"
        r"(anthropic|amazon|meta|mistral|cohere|ai21|deepseek|openai|qwen)\.[a-z]|arn:aws[\w-]*:bedrock:"
    ),
    "mistral": re.compile(r"(mistral|codestral|magistral|devstral|ministral|pixtral)-"),
}
"""Models that their makers sell under names of their own."""
_KNOWN = frozenset(PROVIDER_ALIASES) | frozenset(PROVIDER_ALIASES.values()) | frozenset(_MAKERS)


def told_apart(provider: str, model: str) -> tuple[str, str]:
    """Provider and model: `openai/gpt-4o` names both, and a maker's own model its maker.

    What names neither stays as it is. A gateway is no provider.
    """
    if provider_id(provider) in GATEWAYS:
        provider = ""
    head, mark, rest = model.partition("/")
    if mark and rest:
        named = provider_id(head)
        if provider and named == provider_id(provider):
            return provider, rest
        if not provider and (head.lower() in _KNOWN or named in _KNOWN):
            return head, rest
    if not provider:
        name = model.lower()
        provider = next((one for one, own in _MAKERS.items() if own.match(name)), "")
    return provider, model
