"""What a call used, under the many names that it is told by, as our inclusive counters. Pure."""

from collections.abc import Mapping
from typing import Any

from app.core.counters import PARTS
from app.ingest.foreign.langfuse_usage import details_of
from app.ingest.otlp.spans import Attributes
from app.ingest.otlp.values import count, count_in, object_in

Used = dict[str, int]
_SEMCONV = "gen_ai.usage."
_INFERENCE = "llm.token_count."

_CACHED = (
    *("prompt_tokens_details.cache_read", "prompt_tokens_details.cached_tokens"),
    *("input_tokens_details.cached_tokens", "input_tokens_details.cache_read"),
    *("input_tokens.cached", "cached_input_tokens", "cached_tokens"),
    *("details.cache_read_input_tokens", "details.cached_content_tokens"),
)
_REASONING = (
    *("completion_tokens_details.reasoning", "completion_tokens_details.reasoning_tokens"),
    *("output_tokens_details.reasoning_tokens", "output_tokens_details.reasoning"),
    *("output_tokens.reasoning", "details.thoughts_tokens"),
)
TOTAL = (
    *(f"{_SEMCONV}total_tokens", "llm.usage.total_tokens", f"{_INFERENCE}total"),
    "ai.usage.totalTokens",
)
INPUT = (
    *(f"{_SEMCONV}input_tokens", f"{_SEMCONV}prompt_tokens", "llm.usage.prompt_tokens"),
    *(f"{_INFERENCE}prompt", "ai.usage.inputTokens", "ai.usage.promptTokens", "ai.usage.tokens"),
    "gen_ai.response.prompt_tokens",
)
OUTPUT = (
    *(f"{_SEMCONV}output_tokens", f"{_SEMCONV}completion_tokens", "llm.usage.completion_tokens"),
    *(f"{_INFERENCE}completion", "ai.usage.outputTokens", "ai.usage.completionTokens"),
    "gen_ai.response.completion_tokens",
)
NAMES: Mapping[str, tuple[str, ...]] = {
    "input_tokens": INPUT,
    "output_tokens": OUTPUT,
    "cache_read_tokens": (
        *(f"{_SEMCONV}cache_read.input_tokens", f"{_SEMCONV}cache_read_input_tokens"),
        *(f"{_SEMCONV}details.cache_read_tokens", f"{_SEMCONV}details.cached_tokens"),
        *(f"{_INFERENCE}prompt_details.cache_read", "ai.usage.cachedInputTokens"),
        *("ai.usage.inputTokenDetails.cacheReadTokens", f"{_INFERENCE}prompt_details.cache_input"),
        *(f"{_SEMCONV}{name}" for name in _CACHED),
    ),
    "cache_write_tokens": (
        *(f"{_SEMCONV}cache_creation.input_tokens", f"{_SEMCONV}cache_write.input_tokens"),
        *(f"{_SEMCONV}cache_creation_input_tokens", f"{_SEMCONV}details.cache_write_tokens"),
        *(f"{_INFERENCE}prompt_details.cache_write", "ai.usage.inputTokenDetails.cacheWriteTokens"),
        *(f"{_SEMCONV}cache_write_input_tokens", f"{_SEMCONV}prompt_tokens_details.cache_write"),
        f"{_SEMCONV}details.cache_creation_input_tokens",
    ),
    "cache_write_5m_tokens": ("anthropic.usage.cache_creation.ephemeral_5m_input_tokens",),
    "cache_write_1h_tokens": ("anthropic.usage.cache_creation.ephemeral_1h_input_tokens",),
    "input_audio_tokens": (
        *(f"{_SEMCONV}audio.input_tokens", f"{_SEMCONV}details.input_audio_tokens"),
        f"{_INFERENCE}prompt_details.audio",
    ),
    "input_image_tokens": (f"{_SEMCONV}image.input_tokens",),
    "output_reasoning_tokens": (
        *(f"{_SEMCONV}reasoning.output_tokens", f"{_SEMCONV}reasoning_tokens"),
        *(f"{_SEMCONV}details.reasoning_tokens", "ai.usage.reasoningTokens"),
        *(f"{_INFERENCE}completion_details.reasoning",),
        "ai.usage.outputTokenDetails.reasoningTokens",
        *(f"{_SEMCONV}{name}" for name in _REASONING),
    ),
    "output_audio_tokens": (
        *(f"{_SEMCONV}audio.output_tokens", f"{_SEMCONV}details.output_audio_tokens"),
        f"{_INFERENCE}completion_details.audio",
    ),
    "output_image_tokens": (f"{_SEMCONV}image.output_tokens",),
}
_OTHERS = tuple((name, names) for name, names in NAMES.items() if names not in (INPUT, OUTPUT))


def usage_in(attributes: Attributes, scope: str = "") -> tuple[Used, tuple[int, int]]:
    """The counters of a call, and its input and output tokens as they were sent (-1: not sent).

    `scope` is the library that tells; some pass on what the provider means by its input.
    """
    used: Used = {}
    sent_input, sent_output = count_in(attributes, INPUT), count_in(attributes, OUTPUT)
    if sent_input is not None:
        used["input_tokens"] = sent_input
    if sent_output is not None:
        used["output_tokens"] = sent_output
    for name, names in _OTHERS:
        found = count_in(attributes, names)
        if found is not None:
            used[name] = found
    if told := object_in(attributes, "mlflow.chat.tokenUsage"):
        used = {**_with_raw({}, told), **used}
    if scope.startswith(_PASSES_ON):
        used = _with_cache(used)
    if "ai.operationId" in attributes:
        used = _of_vercels(used, attributes)
    used = _with_total(used, count_in(attributes, TOTAL))
    for name in _RAW:
        if raw := object_in(attributes, name):
            used = _with_raw(used, raw)
    if told := object_in(attributes, "langsmith.metadata.usage_metadata"):
        used = {**_langchain(told), **used}
    if details := object_in(attributes, "langfuse.observation.usage_details"):
        used = {**_langfuse(details), **used}
    counted = (
        used.get("input_tokens", -1) if sent_input is None else sent_input,
        used.get("output_tokens", -1) if sent_output is None else sent_output,
    )
    return inclusive(used), counted


def inclusive(used: Used) -> Used:
    """The counters with every whole at least as large as its parts.

    Cached tokens that are more than the input were counted beside it, so they are added; reasoning
    that is more than the output likewise. Other parts that do not fit are left out.
    """
    found = {name: value for name, value in used.items() if value}
    written = found.get("cache_write_5m_tokens", 0) + found.get("cache_write_1h_tokens", 0)
    if written > found.get("cache_write_tokens", 0):
        found["cache_write_tokens"] = written
    cached = found.get("cache_read_tokens", 0) + found.get("cache_write_tokens", 0)
    if cached > found.get("input_tokens", 0):
        found["input_tokens"] = found.get("input_tokens", 0) + cached
    if found.get("output_reasoning_tokens", 0) > found.get("output_tokens", 0):
        found["output_tokens"] = found.get("output_tokens", 0) + found["output_reasoning_tokens"]
    for whole, parts in PARTS:
        if sum(found.get(part, 0) for part in parts) > found.get(whole, 0):
            for part in parts:
                found.pop(part, None)
    kept = {name: 0 for name in used if name not in found and not used[name]}
    return {**kept, **found}


def _with_total(used: Used, total: int | None) -> Used:
    """With parts that were counted beside their whole, where the total says so."""
    beside = (total or 0) - used.get("input_tokens", 0) - used.get("output_tokens", 0)
    cached = used.get("cache_read_tokens", 0) + used.get("cache_write_tokens", 0)
    reasoned = used.get("output_reasoning_tokens", 0)
    if beside <= 0 or beside not in (cached, reasoned, cached + reasoned):
        return used
    found = dict(used)
    if beside != reasoned or not reasoned:
        found["input_tokens"] = used.get("input_tokens", 0) + cached
    if beside != cached:
        found["output_tokens"] = used.get("output_tokens", 0) + reasoned
    return found


_RAW = ("gen_ai.usage.raw", "usage")
"""Where Logfire keeps what the provider said, and what the OpenAI Agents SDK did."""
_PASSES_ON = ("openlit.instrumentation.anthropic", "openlit.instrumentation.bedrock")
"""Libraries whose input is without the cached tokens, as these providers' is."""
_LANGCHAINS = (
    ("", "input_tokens", "input_tokens"),
    ("", "output_tokens", "output_tokens"),
    ("input_token_details", "cache_read", "cache_read_tokens"),
    ("input_token_details", "cache_creation", "cache_write_tokens"),
    ("input_token_details", "ephemeral_5m_input_tokens", "cache_write_5m_tokens"),
    ("input_token_details", "ephemeral_1h_input_tokens", "cache_write_1h_tokens"),
    ("input_token_details", "audio", "input_audio_tokens"),
    ("output_token_details", "reasoning", "output_reasoning_tokens"),
    ("output_token_details", "audio", "output_audio_tokens"),
)
_INPUT_WITHOUT_CACHE = ("anthropic", "amazon-bedrock", "bedrock", "vertex.anthropic")
_ANTHROPICS = (
    ("cache_read_input_tokens", "cache_read_tokens"),
    ("cache_creation_input_tokens", "cache_write_tokens"),
)
_DETAILED = "ai.usage.inputTokenDetails."


def _of_vercels(used: Used, attributes: Attributes) -> Used:
    """Before its sixth version, Vercel's SDK passes on what each provider means by its input, and
    keeps other counts beside the answer.
    """
    found = dict(used)
    metadata = object_in(attributes, "ai.response.providerMetadata")
    for maker, name, counter in (
        ("anthropic", "cacheReadInputTokens", "cache_read_tokens"),
        ("anthropic", "cacheCreationInputTokens", "cache_write_tokens"),
        ("openai", "cachedPromptTokens", "cache_read_tokens"),
        ("openai", "reasoningTokens", "output_reasoning_tokens"),
    ):
        value = count(_inside(metadata, maker).get(name))
        if value is not None:
            found.setdefault(counter, value)
    for name, counter in _ANTHROPICS:
        value = count(_inside(_inside(metadata, "anthropic"), "usage").get(name))
        if value is not None:
            found.setdefault(counter, value)
    system = str(attributes.get("gen_ai.system") or attributes.get("ai.model.provider") or "")
    detailed = any(name.startswith(_DETAILED) for name in attributes)
    if system.startswith(_INPUT_WITHOUT_CACHE) and not detailed:
        return _with_cache(found)
    return found


def _inside(told: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    inner = told.get(name)
    return inner if isinstance(inner, dict) else {}


def _with_cache(used: Used) -> Used:
    """With the cached tokens in the input, where they were counted beside it."""
    if "input_tokens" not in used:
        return used
    cached = used.get("cache_read_tokens", 0) + used.get("cache_write_tokens", 0)
    return {**used, "input_tokens": used["input_tokens"] + cached}


def _langchain(told: Mapping[str, Any]) -> Used:
    """LangChain's usage, whose wholes contain their parts, as LangSmith keeps it."""
    found: Used = {}
    for holder, part, name in _LANGCHAINS:
        value = count((_inside(told, holder) if holder else told).get(part))
        if value is not None:
            found[name] = value
    return found


def _with_raw(used: Used, raw: Mapping[str, Any]) -> Used:
    """With what the provider itself said, as Logfire keeps it."""
    if "cache_read_input_tokens" in raw or "cache_creation_input_tokens" in raw:
        read = count(raw.get("cache_read_input_tokens")) or 0
        written = count(raw.get("cache_creation_input_tokens")) or 0
        fresh = count(raw.get("input_tokens")) or 0
        went = count(raw.get("output_tokens"))
        return {
            **({} if went is None else {"output_tokens": went}),
            **used,
            "input_tokens": fresh + read + written,
            "cache_read_tokens": read,
            "cache_write_tokens": written,
        }
    found: Used = {}
    for whole, parts in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")):
        value = count(raw.get(whole, raw.get(parts)))
        if value is not None:
            found[parts] = value
    for holder, part, name in (
        ("prompt_tokens_details", "cached_tokens", "cache_read_tokens"),
        ("input_tokens_details", "cached_tokens", "cache_read_tokens"),
        ("completion_tokens_details", "reasoning_tokens", "output_reasoning_tokens"),
        ("output_tokens_details", "reasoning_tokens", "output_reasoning_tokens"),
    ):
        inner = raw.get(holder)
        value = count(inner.get(part)) if isinstance(inner, dict) else None
        if value is not None:
            found[name] = value
    return {**found, **used}


_PROVIDERS = {"prompt_tokens", "completion_tokens", "input_tokens", "output_tokens"}


def _langfuse(details: Mapping[str, Any]) -> Used:
    """Langfuse's usage: OpenAI's names are inclusive, its own are parts, as at its own door."""
    if not _PROVIDERS.isdisjoint(details):
        return _with_raw({}, details)
    whole = {name: found for name, value in details.items() if (found := count(value)) is not None}
    return {name: int(value) for name, value in details_of(whole, "").usage.items()}
