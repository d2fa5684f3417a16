"""Under which names each instrumentation tells of a model call. Pure."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from app.ingest.foreign.names import told_apart
from app.ingest.otlp.failures import error_of, status_of
from app.ingest.otlp.marks import PROVIDER, model_of, operation_of
from app.ingest.otlp.spans import Attributes, Span
from app.ingest.otlp.telling import Link, People, Telling
from app.ingest.otlp.usage import usage_in
from app.ingest.otlp.values import clean, flag_in, number_in, object_in, text_in

Who = Callable[[Attributes], People]
"""Finds whom attributes name."""

_TOLD_BY_LOGS = ("gemini-cli", "llm_call")
"""The scope and operation of spans without counters; the same agent's log records have them."""
REQUESTED_MODEL = ("gen_ai.request.model", "llm.request.model", "ai.model.id")
FRAMEWORKS = frozenset(
    {
        *("strands-agents", "langchain", "langgraph", "llamaindex", "llama_index", "crewai"),
        *("autogen", "haystack", "semantic_kernel", "semantic-kernel", "pydantic_ai", "spring_ai"),
        *("microsoft.agent_framework", "gcp.vertex.agent", "openai_agents", "agno", "dspy"),
        *("smolagents", "mlflow", "traceloop", "logfire", "unknown"),
    }
)
"""What names itself where the provider should stand: the model says whose it is."""
_ENDPOINTS = frozenset(
    {
        *("chat", "responses", "completion", "completions", "embedding", "embeddings"),
        *("messages", "image", "transcription", "speech"),
    }
)
RESPONSE_ID = ("gen_ai.response.id", "llm.response.id", "ai.response.id")
_LANGSMITHS_ANSWER = "gen_ai.completion"
_LANGCHAINS_ID = ("generations", 0, 0, "message", "kwargs", "response_metadata", "id")
STREAMING = (
    *("gen_ai.request.stream", "gen_ai.is_streaming", "llm.is_streaming"),
    *("litellm.request.streaming", "gen_ai.request.is_stream"),
)
FIRST_CHUNK_S = (
    "gen_ai.response.time_to_first_chunk",
    "gen_ai.client.operation.time_to_first_chunk",
    *("gen_ai.server.time_to_first_token", "gen_ai.server.ttft"),
)
FIRST_CHUNK_MS = ("ai.response.msToFirstChunk", "ai.response.msToFirstOutput")
COST = (
    *("litellm.cost.total", "gen_ai.cost.total_cost", "gen_ai.usage.cost", "llm.cost.total"),
    *("operation.cost", "gen_ai.usage.total_cost"),
)
_COST_DETAILS = (
    ("langfuse.observation.cost_details", "total"),
    ("mlflow.llm.cost", "total_cost"),
)
FREE = ("litellm.cache_hit", "litellm.cache.hit", "cache_hit")
SERVICE_TIER = (
    *("openai.response.service_tier", "gen_ai.openai.response.service_tier"),
    *("anthropic.response.service_tier", "gen_ai.response.service_tier"),
)
_TIERS_ASKED = ("openai.request.service_tier", "gen_ai.openai.request.service_tier")
CALLERS_KEY = ("litellm.api_key.hash", "litellm.metadata.user_api_key_hash")
END_USER = ("litellm.metadata.user_api_key_end_user_id", "litellm.metadata.user_api_key_end_user")
_FIRST_TOKEN = "First Token Stream Event"

_SDKS = ("com.anthropic.", "com.openai.", "com.google.", "google.genai", "anthropic.sdk")
_GENERIC = ("opentelemetry.instrumentation", "openinference.", "@opentelemetry/", "@traceloop/")
_NANOS, _MILLIS = 1_000_000_000, 1_000_000
_LONGEST_NS = 10**9 * _MILLIS
"""What is longer than eleven days is no duration of a call."""


def telling_of(span: Span, who: Who) -> Telling | None:
    """What a span tells of a model call; None where it is none."""
    attributes = span.attributes
    operation = operation_of(attributes, span.scope, failed=span.failed)
    if not operation or (span.scope, operation) == _TOLD_BY_LOGS:
        return None
    used, counted = usage_in(attributes, span.scope)
    failed, status_code = status_of(span)
    start_ns, end_ns, half = span.start_ns, max(span.start_ns, span.end_ns), ""
    if span.scope.startswith("logfire") and end_ns - start_ns < _MILLIS:
        seconds = number_in(attributes, ("duration",))
        if seconds is not None and 0 <= seconds < _LONGEST_NS / _NANOS:
            start_ns, half = max(end_ns - round(seconds * _NANOS), 0), "stream"
    ttft_ns = first_chunk(span, start_ns)
    provider, model = told_apart(provider_of(attributes), model_of(attributes))
    return Telling(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id=span.parent_id,
        scope=clean(span.scope),
        rank=rank_of(span.scope),
        instance=instance_of(span.resource),
        start_ns=start_ns,
        end_ns=end_ns,
        half=half,
        response_id=response_id_of(attributes),
        provider=provider,
        model=model,
        requested_model=text_in(attributes, REQUESTED_MODEL),
        operation=operation,
        usage=used,
        counted=counted,
        failed=failed,
        status_code=status_code,
        error=error_of(span) if failed else "",
        streaming=bool(ttft_ns) or is_streaming(attributes),
        ttft_ns=ttft_ns,
        cost_usd=cost_in(attributes),
        cached_answer=flag_in(attributes, FREE),
        service_tier=service_tier_of(attributes),
        people=who(attributes),
        around=who(span.resource),
        api_key=text_in(attributes, CALLERS_KEY),
        tags=tags_of(attributes, span.resource),
    )


def link_of(span: Span, who: Who) -> Link | None:
    """What a span that is no model call passes on to those below it; None if nothing."""
    people = who(span.attributes)
    if not span.parent_id and people == People():
        return None
    return Link(span.parent_id, people)


def provider_of(attributes: Attributes) -> str:
    """The provider in lower case, without the part that Vercel's older SDK adds (`openai.chat`).

    A framework that names itself is no provider; empty where none is named.
    """
    for name in PROVIDER:
        found = text_in(attributes, (name,), 128).strip('"').lower()
        if found and found not in FRAMEWORKS:
            head, _, rest = found.rpartition(".")
            return head if head and rest in _ENDPOINTS else found
    return ""


def rank_of(scope: str) -> int:
    """0 for a provider's own library, 2 for what instruments from outside, 1 for the rest."""
    if scope.startswith(_SDKS):
        return 0
    return 2 if scope.startswith(_GENERIC) else 1


def instance_of(resource: Attributes) -> str:
    """The process that told, or at least its service."""
    return text_in(resource, ("service.instance.id", "session.id", "service.name"))


def response_id_of(attributes: Attributes) -> str:
    """The id of the provider's answer; OpenInference and LangSmith have it inside the answer."""
    if found := text_in(attributes, RESPONSE_ID, 1024):
        return found
    name = "output.value" if attributes.get("output.mime_type") == "application/json" else ""
    answer = object_in(attributes, name or _LANGSMITHS_ANSWER)
    inner = answer.get("id", _inside(answer, _LANGCHAINS_ID))
    return clean(inner, 1024) if isinstance(inner, str) else ""


def _inside(value: Any, path: tuple[str | int, ...]) -> Any:
    """What stands at a path of names and places in JSON; None where there is nothing."""
    for step in path:
        if isinstance(value, dict):
            value = value.get(str(step))
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def is_streaming(attributes: Attributes) -> bool:
    """Whether the answer came in pieces, as far as that is said."""
    if flag_in(attributes, STREAMING):
        return True
    step = text_in(attributes, ("ai.operationId",), 128).rpartition(".")[2]
    if step == "doStream":
        return True
    return object_in(attributes, "llm.invocation_parameters").get("stream") is True


def service_tier_of(attributes: Attributes) -> str:
    """The tier that answered, else one that was asked for and has a price of its own."""
    if found := text_in(attributes, SERVICE_TIER, 64):
        return found
    asked = text_in(attributes, _TIERS_ASKED, 64)
    return asked if asked in ("flex", "priority") else ""


def first_chunk(span: Span, start_ns: int) -> int:
    """Nanoseconds until the first piece of the answer; 0 where that is not said."""
    seconds = number_in(span.attributes, FIRST_CHUNK_S)
    if seconds is not None and seconds > 0:
        # Strands has whole milliseconds under the name that others have for seconds
        in_ms = seconds.is_integer() and seconds * _NANOS > span.end_ns - start_ns
        return min(round(seconds * (_MILLIS if in_ms else _NANOS)), _LONGEST_NS)
    millis = number_in(span.attributes, FIRST_CHUNK_MS)
    if millis is not None and millis > 0:
        return min(round(millis * _MILLIS), _LONGEST_NS)
    for event in span.events:
        if event.name == _FIRST_TOKEN and event.time_ns > start_ns:
            return min(event.time_ns - start_ns, _LONGEST_NS)
    return 0


def cost_in(attributes: Attributes) -> str:
    """The cost that the sender states, in USD as decimal text; empty where it states none."""
    found = number_in(attributes, COST)
    if found is None:
        for name, key in _COST_DETAILS:
            total = object_in(attributes, name).get(key)
            if isinstance(total, int | float) and not isinstance(total, bool):
                return as_usd(float(total))
    return as_usd(found)


def as_usd(amount: float | None) -> str:
    """An amount as decimal text with nine places; empty where it is none of money."""
    if amount is None or not 0 <= amount < 1e9:
        return ""
    return str(round(Decimal(repr(amount)), 9))


def tags_of(attributes: Attributes, resource: Attributes) -> dict[str, str]:
    """What else is worth finding calls by: the service, and whom the caller served."""
    found = {
        "service": text_in(resource, ("service.name",)),
        "end_user": text_in(attributes, END_USER),
    }
    listed = attributes.get("tag.tags")
    if isinstance(listed, list | tuple):
        found["tags"] = clean(
            json.dumps([one for one in listed if isinstance(one, str)])[:512], 512
        )
    return {name: value for name, value in found.items() if value}
